//! Descriptors: what a manifest says about the content that it names.

use alloc::string::String;

use bytes::Bytes;

use crate::digest::Digest;
use crate::media_type::MediaType;

/// A content descriptor (image-spec, "OCI Content Descriptors"), with the fields that a registry reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: MediaType,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// The type of an artifact, if the descriptor is of a manifest that has one.
    pub artifact_type: Option<String>,
    /// Annotations; those of a referrer are the manifest's own.
    pub annotations: Annotations,
}

/// Annotations as the text of a JSON object, exactly as in a manifest; or none.
///
/// They may be as large as a manifest, and a registry only passes them on: they are checked once, when the manifest is
/// parsed, and never taken apart. Clones share the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(Bytes);

impl Annotations {
    /// Takes the text of a JSON object whose values are strings, as [`Annotations::as_json`] returned it; an empty text
    /// means none. It is not checked, and appears in lists of referrers as it is.
    #[must_use]
    pub const fn from_json(text: Bytes) -> Self {
        Self(text)
    }

    /// Returns the text of the object; it is empty if there are none.
    #[must_use]
    pub const fn as_json(&self) -> &Bytes {
        &self.0
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
