//! How a tree is adopted or written.

/// How a tree is adopted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AdoptOptions {
    /// Compare the content of every blob with its digest, which reads all of it. Otherwise that is done only for
    /// manifests, for blobs of up to 16 KiB, and for blobs whose size differs from the size in a manifest. The default
    /// is `false`.
    pub verify: bool,
    /// Adopt even into a store that has content already, and again what was adopted before. The default is `false`.
    pub again: bool,
}

impl AdoptOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`verify`](Self::verify).
    #[must_use]
    pub const fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets [`again`](Self::again).
    #[must_use]
    pub const fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }
}

/// How a tree is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Give the bytes of a store in a folder second names, if the tree is on the same file system, and copy them only
    /// otherwise. The default is `true`.
    pub link: bool,
}

impl Default for ExportOptions {
    /// Bytes get second names if they can.
    fn default() -> Self {
        Self { link: true }
    }
}

impl ExportOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`link`](Self::link).
    #[must_use]
    pub const fn link(mut self, link: bool) -> Self {
        self.link = link;
        self
    }
}
