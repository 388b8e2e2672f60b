//! What the clients of a small world do, and to what.

use bytes::Bytes;
use registry_core::quota::Quota;
use registry_core::storage::ChildKind;
use registry_core::{Algorithm, Digest, RepositoryName};
use registry_storage::testing::storage_conformance::Random;

use crate::contents::{Blob, Image, new_manifest};

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    PushBlob,
    /// Commits an upload while another process cancels it.
    CancelUpload,
    /// Commits an upload, goes away, and commits it again with another process.
    CommitTwice,
    /// Begins an upload, which any client may commit by the digest with a number, or cancel.
    Append,
    Commit(usize),
    CommitWrongly,
    Cancel,
    Mount,
    DeleteBlob,
    /// Pushes a manifest and its tag.
    PushImage,
    /// Pushes a manifest, and not what is missing.
    PushIncomplete,
    DeleteImage,
    /// Pushes the first manifest, and one of the tags that the others share with it.
    PushOld,
    /// Pushes it and the tag with this number.
    PushOldTo(usize),
    /// Pushes the second manifest and all of these tags, or is refused.
    PushIfMatches,
    /// Is refused if the second tag names another manifest.
    PushImmutable,
    /// Applies a retention policy.
    Retain,
    /// Pushes each manifest and its tag.
    PushAll,
    /// Begins to record pulls.
    RecordPulls,
    /// Records a pull of the manifest with this number.
    Pull(usize),
    DeleteRepository,
    /// Deletes the first manifest.
    DeleteOld,
    /// Brings back a manifest whose delete was acknowledged.
    Restore,
    Collect,
    /// A cycle that stops before each write and each listing.
    SlowCollect,
    Sweep,
    SweepAll,
    /// Counts for quotas.
    Count,
}

/// The requests of a client, and the most that it makes.
type Requests = (&'static [Op], usize);

/// What a world is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The grants of a blob that no manifest names.
    Blobs,
    /// Uploads of large blobs, which are cancelled or committed twice.
    Uploads,
    /// Manifests, and what they name.
    Children,
    /// Manifests without children, each with a tag of its own.
    Tags,
    /// The same, with tags that they share, and pushes that are refused.
    Refusals,
    /// Manifests that are deleted, kept for a while, and restored.
    Kept,
    /// What a quota counts.
    Quota,
    /// The same manifest, which has many children, pushed by all at once.
    Same,
    /// Tags that retention drops, unless they are pushed again.
    Retention,
    /// A repository that is deleted while manifests are pushed to it.
    Repository,
    /// An upload that is committed by both digests of its content, or cancelled.
    Digests,
    /// A manifest that is deleted and kept.
    KeptOne,
    /// A manifest of which a child is missing.
    Incomplete,
    /// Tags that retention drops, unless they are pulled.
    Pulls,
}

/// Those with the rarest orders come most often.
const WORKS: [Work; 15] = [
    Work::Blobs,
    Work::Uploads,
    Work::Children,
    Work::Tags,
    Work::Blobs,
    Work::Refusals,
    Work::Kept,
    Work::Children,
    Work::Blobs,
    Work::Uploads,
    Work::Refusals,
    Work::Quota,
    Work::Same,
    Work::Retention,
    Work::Repository,
];

impl Work {
    pub(super) const fn of(seed: u64) -> Self {
        WORKS[(seed % WORKS.len() as u64) as usize]
    }

    /// What happened before the clients begin: one of these.
    pub(super) const fn before(self) -> &'static [&'static [Op]] {
        use Op::{Collect, Count, DeleteBlob, DeleteImage, PushBlob, PushImage, PushOld, Retain};
        match self {
            Self::Blobs => &[
                &[],
                &[PushBlob],
                &[PushBlob, Collect],
                &[PushBlob, Collect, Collect],
                &[PushBlob, DeleteBlob],
                &[PushBlob, DeleteBlob, Collect],
                &[PushBlob, Collect, DeleteBlob],
            ],
            Self::Uploads => &[
                &[],
                &[],
                &[PushBlob, DeleteBlob],
                &[PushBlob, DeleteBlob, Collect],
                &[PushBlob, Collect, Collect, Collect],
            ],
            Self::Children => &[
                &[PushBlob],
                &[PushBlob],
                &[PushBlob, Collect],
                &[PushImage],
                &[PushImage, DeleteImage],
                &[PushImage, DeleteImage, Collect],
            ],
            Self::Tags => &[&[], &[PushImage], &[PushImage, PushImage]],
            Self::Refusals => &[&[PushOld], &[PushOld], &[PushOld, PushOld]],
            Self::Kept => &[
                &[PushImage],
                &[PushImage, DeleteImage],
                &[PushImage, DeleteImage, Collect],
            ],
            // A store counts at its begin.
            Self::Quota => &[
                &[Count],
                &[PushBlob, Count],
                &[PushImage, Count],
                &[PushImage, PushImage, Count],
            ],
            Self::Same => &[&[PushImage, DeleteImage]],
            Self::Retention => &[&[PushImage, PushImage], &[PushImage, PushImage, Retain]],
            Self::Repository => &[&[PushImage], &[PushImage, PushImage]],
            Self::Digests | Self::KeptOne | Self::Incomplete | Self::Pulls => &[],
        }
    }

    pub(super) const fn clients(self) -> &'static [Requests] {
        use Op::{
            CancelUpload, Collect, CommitTwice, Count, DeleteBlob, DeleteImage, DeleteOld, DeleteRepository,
            Mount, PushBlob, PushIfMatches, PushImage, PushOld, Restore, Retain, Sweep,
        };
        match self {
            Self::Blobs => &[
                (&[PushBlob, PushBlob, Mount, DeleteBlob], 2),
                (&[PushBlob, Mount], 2),
                (&[Collect], 4),
                (&[Collect, Collect, Sweep], 4),
            ],
            Self::Uploads => &[
                (&[PushBlob, CancelUpload, CommitTwice], 2),
                (&[CancelUpload, CommitTwice, DeleteBlob], 2),
                (&[Sweep], 3),
                (&[Collect], 3),
            ],
            Self::Children => &[
                (&[PushImage], 2),
                (&[PushImage, PushBlob, DeleteImage], 2),
                (&[Collect], 4),
                (&[Collect], 4),
            ],
            Self::Tags => &[
                (&[PushImage], 2),
                (&[PushImage, DeleteImage], 2),
                (&[DeleteImage], 2),
            ],
            Self::Refusals => &[
                (&[PushIfMatches], 2),
                (&[PushOld, PushOld, PushIfMatches], 2),
                (&[DeleteOld], 2),
            ],
            Self::Kept => &[
                (&[PushImage, DeleteImage], 2),
                (&[DeleteImage, Restore, Restore], 3),
                (&[Collect], 4),
                (&[Collect], 4),
            ],
            Self::Quota => &[
                (&[PushBlob, PushImage, DeleteImage], 3),
                (&[PushBlob, DeleteBlob, PushImage, DeleteImage], 3),
                (&[Count, Collect, Collect], 2),
            ],
            Self::Same => &[(&[PushImage], 1), (&[PushImage], 1), (&[PushImage], 1)],
            Self::Retention => &[
                (&[PushImage], 2),
                (&[PushImage], 2),
                (&[Retain], 3),
                (&[Retain], 3),
            ],
            Self::Repository => &[
                (&[PushImage], 2),
                (&[PushImage], 2),
                (&[DeleteRepository], 2),
                (&[Collect], 2),
            ],
            Self::Digests | Self::KeptOne | Self::Incomplete | Self::Pulls => &[],
        }
    }

    pub(super) fn repositories(self) -> Vec<RepositoryName> {
        let names: &[&str] = match self {
            Self::Blobs | Self::Quota => &["a", "b"],
            _ => &["a"],
        };
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// Blobs go, even if a manifest names them.
    pub(super) const fn deletes_blobs(self) -> bool {
        matches!(self, Self::Blobs | Self::Uploads | Self::Quota | Self::Digests)
    }

    /// A manifest has a tag of its own, with which it is always pushed, and no push is refused.
    pub(super) const fn has_own_tags(self) -> bool {
        matches!(self, Self::Tags | Self::Retention)
    }

    /// A tag that was pushed stays.
    pub(super) const fn keeps_tags(self) -> bool {
        matches!(self, Self::Retention)
    }

    /// A manifest that is there has the tag with which it is always pushed.
    pub(super) const fn keeps_own_tags(self) -> bool {
        matches!(self, Self::Tags)
    }

    /// Clients go away in the middle of requests.
    pub(super) const fn cuts_off_requests(self) -> bool {
        matches!(self, Self::Uploads)
    }

    pub(super) const fn keeps_deleted(self) -> bool {
        matches!(self, Self::Kept | Self::KeptOne)
    }

    pub(super) fn quotas(self) -> Vec<Quota> {
        if self != Self::Quota {
            return Vec::new();
        }
        vec![Quota {
            repositories: vec!["**".parse().unwrap()],
            bytes: Some(1100),
            manifests: Some(3),
            tags: Some(3),
        }]
    }

    /// Small blobs, which are in their records, or large ones.
    pub(super) fn blobs(self, random: &mut Random) -> Vec<Blob> {
        let sizes: &[usize] = match self {
            Self::Tags | Self::Refusals | Self::Retention | Self::Repository | Self::Pulls => &[],
            Self::Uploads => &[20_000],
            Self::Digests => return both_digests(20_000),
            Self::Blobs => &[[10, 20_000][random.below(2)]],
            Self::Children | Self::KeptOne => &[10],
            Self::Kept | Self::Incomplete => &[10, 12],
            Self::Quota => &[100, 300],
            Self::Same => &[1, 2, 3, 4, 5, 6, 7, 8],
        };
        let algorithm = match self {
            // All bytes are read once more at the commit, so they are complete before.
            Self::Uploads if random.below(2) == 0 => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        };
        let blobs = sizes.iter().enumerate().map(|(at, size)| {
            let content: Bytes = std::iter::repeat_n(b'a' + at as u8, *size).collect();
            Blob {
                digest: Digest::of(algorithm, &content),
                content,
                is_deleted: self.deletes_blobs(),
            }
        });
        blobs.collect()
    }

    pub(super) fn images(self, blobs: &[Blob]) -> Vec<Image> {
        let image = |name: &'static str, children: &[usize]| Image {
            new: match children {
                [] => new_manifest(name, &[], ChildKind::Manifest),
                _ => {
                    let children: Vec<&Digest> = children.iter().map(|at| &blobs[*at].digest).collect();
                    new_manifest(name, &children, ChildKind::Blob)
                }
            },
            is_deleted: true,
            is_whole: !self.deletes_blobs(),
        };
        match self {
            Self::Blobs | Self::Uploads | Self::Digests => Vec::new(),
            Self::Tags | Self::Refusals | Self::Retention | Self::Repository | Self::Pulls => {
                vec![image("one", &[]), image("two", &[])]
            }
            Self::KeptOne => vec![image("one", &[0])],
            Self::Incomplete => vec![image("one", &[0, 1])],
            Self::Same => vec![image("one", &[0, 1, 2, 3, 4, 5, 6, 7])],
            Self::Children => vec![image("one", &[0]), image("two", &[0])],
            Self::Kept | Self::Quota => vec![image("one", &[0]), image("two", &[0, 1])],
        }
    }
}

/// The same content by the digest that is hashed while it is sent, and by another one.
fn both_digests(size: usize) -> Vec<Blob> {
    let content = Bytes::from(vec![b'a'; size]);
    let blob = |algorithm| Blob {
        digest: Digest::of(algorithm, &content),
        content: content.clone(),
        is_deleted: true,
    };
    [Algorithm::Sha256, Algorithm::Sha512].map(blob).into()
}
