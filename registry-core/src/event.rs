//! What happened in a registry, for notifications.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::name::RepositoryName;
use crate::storage::Manifest;
use crate::tag::Tag;

/// Something that happened. It is reported only after the storage did it.
///
/// A [`Registry`](crate::Registry) with [events enabled](crate::Registry::with_events) puts it into its
/// [`Response`](crate::Response).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: EventAction,
    /// The repository.
    pub repository: RepositoryName,
    /// What it was done to.
    pub target: EventTarget,
}

/// Is notified of what is about to happen, so that a process that ends right after the storage did it can report it
/// later.
#[async_trait]
pub trait EventIntents: Send + Sync {
    /// Notes that this is about to happen. The storage is called once the future is ready. The operation may fail, and
    /// a request may try several in turn, of which the last one counts.
    ///
    /// What happened is then in [`Response::event`](crate::Response::event).
    async fn intend(&self, event: &Event);

    /// Reports what happened besides the event of the response, which follows: a restore of a tag brings back several
    /// manifests. Without intents, only the event of the response is reported.
    async fn happened(&self, event: &Event);
}

/// What was done to the target of an [`Event`].
///
/// These are the actions of the distribution registry's notifications, not those of rights
/// ([`Action`](crate::operation::Action)): a mount is an event of its own, although it needs the right to push; a tag that
/// moves is a push like any other; lists are no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventAction {
    /// It was read, in whole or in part, or only its header was read.
    Pull,
    /// It was added.
    Push,
    /// It was made readable here without an upload.
    Mount {
        /// The repository in which it was readable.
        from: RepositoryName,
    },
    /// It was deleted.
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

/// The target of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTarget {
    /// A blob.
    Blob {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes; `None` if it is not known, as for a deleted blob.
        size: Option<u64>,
    },
    /// An existing manifest.
    Manifest {
        /// The manifest.
        manifest: Manifest,
        /// The tags under which it was pushed or pulled; empty if that was its digest.
        tags: Vec<Tag>,
    },
    /// A manifest that was deleted, with all its tags.
    DeletedManifest(Digest),
    /// A tag that was deleted; the manifest stays.
    DeletedTag(Tag),
    /// The repository itself was deleted, with all its tags and manifests, and left the catalog.
    DeletedRepository,
}

impl EventTarget {
    /// Returns the digest; `None` for a deleted tag or repository.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Blob { digest, .. } | Self::DeletedManifest(digest) => Some(digest),
            Self::Manifest { manifest, .. } => Some(&manifest.digest),
            Self::DeletedTag(_) | Self::DeletedRepository => None,
        }
    }
}
