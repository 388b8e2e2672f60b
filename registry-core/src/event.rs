//! What happened in a registry, for whoever wants to be told.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::name::RepositoryName;
use crate::storage::Manifest;
use crate::tag::Tag;

/// Something that happened. It is said only after the storage did it.
///
/// A [`Registry`](crate::Registry) that was made to by
/// [`with_events`](crate::Registry::with_events) puts it into its [`Response`](crate::Response).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: EventAction,
    /// Where.
    pub repository: RepositoryName,
    /// To what.
    pub target: EventTarget,
}

/// Is told what is about to happen, so that a process that ends right after the storage did it can tell of it later.
#[async_trait]
pub trait EventIntents: Send + Sync {
    /// Notes that this is about to happen. The storage is asked for it when the future is ready. It may fail, and a
    /// request may try several things one after the other, of which the last one counts.
    ///
    /// What happened then stands in [`Response::event`](crate::Response::event).
    async fn intend(&self, event: &Event);
}

/// What was done to the target of an [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventAction {
    /// It was read, in whole or in part, or only its header was.
    Pull,
    /// It was added.
    Push,
    /// It was made readable here without an upload.
    Mount {
        /// The repository that it was readable in.
        from: RepositoryName,
    },
    /// It was taken away.
    Delete,
}

impl EventAction {
    /// Returns the word for it: `pull`, `push`, `mount` or `delete`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Mount { .. } => "mount",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for EventAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What something was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTarget {
    /// A blob.
    Blob {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes; of a deleted one it is not known any more.
        size: Option<u64>,
    },
    /// A manifest, which is there.
    Manifest {
        /// The manifest.
        manifest: Manifest,
        /// The tags that it was pushed or pulled by; none where that was its digest.
        tags: Vec<Tag>,
    },
    /// A manifest that was deleted, with all its tags.
    DeletedManifest(Digest),
    /// A tag that was deleted; the manifest stays.
    DeletedTag(Tag),
}

impl EventTarget {
    /// Returns the digest, which is not known of a deleted tag.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Blob { digest, .. } | Self::DeletedManifest(digest) => Some(digest),
            Self::Manifest { manifest, .. } => Some(&manifest.digest),
            Self::DeletedTag(_) => None,
        }
    }
}
