//! The progress of a long command, for a caller that waits for it.

/// Is notified of the progress of a long command. It is called often, so it should be quick.
pub trait Progress: Send + Sync {
    /// `done` of `total` units of `step` are done. The total is not always known, and may grow.
    fn step(&self, step: Step, done: u64, total: Option<u64>);
}

/// What a command is doing, and so what its progress counts: the part that takes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Reading records.
    Records,
    /// Reading content and comparing its digest; counted in bytes.
    Content,
    /// Looking for bytes that nothing names; counted in names.
    Bytes,
    /// Copying the records; counted in pages of the database.
    Copy,
    /// Giving files second names.
    Files,
    /// Writing content to another place; counted in bytes.
    Copying,
    /// Taking over or writing what repositories name, without copying it.
    Links,
}

impl Step {
    /// Returns what is counted, in the plural; for bytes, what is done with them.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Content => "read",
            Self::Bytes => "byte strings",
            Self::Copy => "pages of records",
            Self::Files => "files",
            Self::Copying => "copied",
            Self::Links => "blobs and manifests",
        }
    }

    /// Returns whether bytes are counted.
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::Content | Self::Copying)
    }
}

/// Ignores the progress.
impl Progress for () {
    fn step(&self, _: Step, _: u64, _: Option<u64>) {}
}
