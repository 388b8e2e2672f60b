//! How far a long command came, for whoever waits for it.

/// Is told how a long command goes on. It is called often, so it should be quick.
pub trait Progress: Send + Sync {
    /// `done` of `total` of what `step` names are done. The total is not always known, and may grow.
    fn step(&self, step: Step, done: u64, total: Option<u64>);
}

/// What a command is doing, and so what its progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Looking at records.
    Records,
    /// Reading content and comparing its digest; counted in bytes.
    Content,
    /// Looking for bytes that nothing names; counted in names.
    Bytes,
    /// Copying the records; counted in pages of the database.
    Copy,
    /// Linking or copying the files of the bytes.
    Files,
    /// Writing repositories.
    Repositories,
    /// Writing images; counted in tags.
    Tags,
    /// Reading images.
    Images,
}

impl Step {
    /// Returns what is counted, in the plural.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Content => "bytes read",
            Self::Bytes => "byte strings",
            Self::Copy => "pages of records",
            Self::Files => "files",
            Self::Repositories => "repositories",
            Self::Tags => "tags",
            Self::Images => "images",
        }
    }
}

/// Nobody waits.
impl Progress for () {
    fn step(&self, _: Step, _: u64, _: Option<u64>) {}
}
