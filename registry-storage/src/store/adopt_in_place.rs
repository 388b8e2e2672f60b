//! Adopting content that is in this bucket already: its bytes are named where they are.
//!
//! The name of such bytes is made of their digest, so it may come back after it was gone. Two rules make that safe. While the
//! tree is the distribution registry's, nothing is ever deleted from it. Once it was released, nothing of it is named any more:
//! an adoption names bytes in a Pending record, **then** reads whether the tree was released, **then** makes the record Live,
//! and a sweep reads whether it was released **before** it reads the records that may name the bytes.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::adopt::{Adopted, AdoptedManifest};
use super::edge::{Found, contended, read_latest, write};
use super::looks::{Looked, Looks};
use super::mount::{GrantKeys, grant_stored_blob};
use super::sweep::write_left_of_blob;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Backend, Durability, RecordTransaction, Transaction, Version};
use crate::bytes_name::BytesName;
use crate::chain::State;
use crate::distribution::AdoptError;
use crate::key::Key;
use crate::record::{BlobBytes, BlobRecord, GrantRecord, Stamp};

/// How many transactions run at once: a bucket takes some milliseconds for each of their steps.
const PARALLEL_TRANSACTIONS: usize = 16;

/// A blob to take over where it is.
pub(crate) struct BlobInPlace {
    pub(crate) digest: Digest,
    /// `None` if the store has it.
    pub(crate) content: Option<ContentInPlace>,
    /// The repositories that may read it.
    pub(crate) grants: Vec<RepositoryName>,
}

/// The content of a blob to take over.
#[derive(Clone)]
pub(crate) enum ContentInPlace {
    /// Small enough to be kept in the blob's record.
    Inline(Bytes),
    /// Bytes in the tree, and their size.
    Named(BytesName, u64),
}

impl ContentInPlace {
    fn size(&self) -> u64 {
        match self {
            Self::Inline(content) => content.len() as u64,
            Self::Named(_, size) => *size,
        }
    }
}

impl<B: Backend> Store<B> {
    /// Makes content blobs, without copying it, and lets repositories read them. It may be repeated, and done by several
    /// processes at once.
    ///
    /// # Errors
    /// [`Released`](AdoptError::Released) if the tree was released; those of the medium.
    pub(crate) async fn adopt_in_place(&self, blobs: Vec<BlobInPlace>) -> Result<Adopted, AdoptError> {
        let mut adopted = Adopted::default();
        let mut waiting: Vec<(Digest, ContentInPlace)> = Vec::new();
        let mut grants = Vec::new();
        for blob in blobs {
            grants.extend(blob.grants.into_iter().map(|name| (name, blob.digest.clone())));
            waiting.extend(blob.content.map(|content| (blob.digest, content)));
        }
        for _ in 0..TRANSACTION_ATTEMPTS {
            if waiting.is_empty() {
                break;
            }
            waiting = self.name_in_place(waiting, &mut adopted).await?;
        }
        if !waiting.is_empty() {
            return Err(contended().into());
        }
        let granting = stream::iter(grants).map(|(repository, digest)| {
            let grant = Grant {
                keys: GrantKeys::new(&repository, &digest),
                digest,
                now: self.clock.now(),
            };
            self.backend.transact(Durability::Deferred, grant)
        });
        let granted: Vec<Granted> = granting.buffered(PARALLEL_TRANSACTIONS).try_collect().await?;
        if granted.contains(&Granted::Missing) {
            // Its image would lack it. A repetition looks at its content again.
            return Err(match self.tree_released().await? {
                Some(when) => AdoptError::Released(when),
                None => contended().into(),
            });
        }
        adopted.grants += granted.iter().filter(|granted| **granted == Granted::New).count() as u64;
        Ok(adopted)
    }

    /// Makes content blobs, and returns what others wrote at the same time and has to be looked at again.
    async fn name_in_place(
        &self,
        contents: Vec<(Digest, ContentInPlace)>,
        adopted: &mut Adopted,
    ) -> Result<Vec<(Digest, ContentInPlace)>, AdoptError> {
        let proposing = stream::iter(contents).map(|(digest, content)| async move {
            let propose = Propose {
                digest: digest.clone(),
                content: content.clone(),
                now: self.clock.now(),
            };
            let proposed = self.backend.transact(Durability::Deferred, propose).await?;
            Ok::<_, Error>((digest, content, proposed))
        });
        let proposed: Vec<_> = proposing.buffered(PARALLEL_TRANSACTIONS).try_collect().await?;
        if let Some(when) = self.tree_released().await? {
            return Err(AdoptError::Released(when));
        }
        let publishing = stream::iter(proposed).map(|(digest, content, proposed)| async move {
            let published = match proposed {
                Proposed::Stored => Published::Stored,
                Proposed::Live => Published::Live,
                Proposed::Pending(version) => {
                    let publish = PublishInPlace {
                        digest: digest.clone(),
                        content: content.clone(),
                        version,
                        now: self.clock.now(),
                    };
                    self.backend.transact(Durability::Deferred, publish).await?
                }
            };
            Ok::<_, Error>((digest, content, published))
        });
        let published: Vec<_> = publishing.buffered(PARALLEL_TRANSACTIONS).try_collect().await?;
        let mut again = Vec::new();
        for (digest, content, published) in published {
            match published {
                Published::Stored => {}
                Published::Live => {
                    adopted.blobs += 1;
                    adopted.bytes += content.size();
                }
                Published::Again => again.push((digest, content)),
            }
        }
        Ok(again)
    }

    /// Stores manifests whose children may be missing, and their tags, several at once.
    pub(crate) async fn adopt_manifests_at_once(
        &self,
        repositories: Vec<RepositoryName>,
        manifests: Vec<AdoptedManifest>,
    ) -> Result<Adopted, Error> {
        let repositories = repositories.into_iter().map(|name| (vec![name], Vec::new()));
        let manifests = manifests.into_iter().map(|manifest| (Vec::new(), vec![manifest]));
        let adopting = stream::iter(repositories.chain(manifests))
            .map(|(repositories, manifests)| self.adopt_manifests(repositories, manifests));
        let adopted: Vec<Adopted> = adopting.buffered(PARALLEL_TRANSACTIONS).try_collect().await?;
        Ok(adopted.into_iter().fold(Adopted::default(), Adopted::plus))
    }
}

/// Names bytes in a Pending blob, or makes it Live at once with content that is in its record.
struct Propose {
    digest: Digest,
    content: ContentInPlace,
    now: Timestamp,
}

enum Proposed {
    /// The blob is visible.
    Stored,
    /// It is Live with content that is in its record.
    Live,
    /// It is Pending and names the bytes, in this version.
    Pending(Version),
}

impl Transaction for Propose {
    type Output = Proposed;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Proposed, Error> {
        let key = Key::blob(&self.digest);
        for _ in 0..TRANSACTION_ATTEMPTS {
            let found = read_latest::<BlobRecord>(records, &key).await?;
            if found.state().is_visible() {
                return Ok(Proposed::Stored);
            }
            match &self.content {
                ContentInPlace::Inline(content) => {
                    let blob = BlobBytes {
                        size: content.len() as u64,
                        bytes: None,
                    };
                    let live = record(State::Live, Some(blob), Vec::new(), self.now);
                    if write_blob(records, &self.digest, &found, &live, content, self.now)
                        .await?
                        .is_some()
                    {
                        return Ok(Proposed::Live);
                    }
                }
                ContentInPlace::Named(name, _) => {
                    let mut proposals = match (found.state(), found.header()) {
                        (State::Pending, Some(blob)) => blob.proposals.clone(),
                        _ => Vec::new(),
                    };
                    if let Some(version) = found.version().filter(|_| proposals.contains(name)) {
                        return Ok(Proposed::Pending(version.clone()));
                    }
                    proposals.push(name.clone());
                    let pending = record(State::Pending, None, proposals, self.now);
                    if let Some(version) =
                        write_blob(records, &self.digest, &found, &pending, &[], self.now).await?
                    {
                        return Ok(Proposed::Pending(version));
                    }
                }
            }
        }
        Err(contended())
    }
}

/// Makes a blob Live that was Pending when the tree was found not to be released.
struct PublishInPlace {
    digest: Digest,
    content: ContentInPlace,
    version: Version,
    now: Timestamp,
}

enum Published {
    /// The blob is visible, and another request made it so.
    Stored,
    /// It is Live.
    Live,
    /// It was written since.
    Again,
}

impl Transaction for PublishInPlace {
    type Output = Published;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Published, Error> {
        let found = read_latest::<BlobRecord>(records, &Key::blob(&self.digest)).await?;
        if found.state().is_visible() {
            return Ok(Published::Stored);
        }
        let ContentInPlace::Named(name, size) = &self.content else {
            return Ok(Published::Again);
        };
        // Only while it names the bytes without a break does what was read of the tree hold.
        if !found.is(&self.version) {
            return Ok(Published::Again);
        }
        let blob = BlobBytes {
            size: *size,
            bytes: Some(name.clone()),
        };
        let live = record(State::Live, Some(blob), Vec::new(), self.now);
        let written = write_blob(records, &self.digest, &found, &live, &[], self.now).await?;
        Ok(written.map_or(Published::Again, |_| Published::Live))
    }
}

/// Lets a repository read a stored blob.
struct Grant {
    keys: GrantKeys,
    digest: Digest,
    now: Timestamp,
}

#[derive(PartialEq)]
enum Granted {
    New,
    /// It could read it before.
    Before,
    /// The blob was collected since it was found.
    Missing,
}

impl Transaction for Grant {
    type Output = Granted;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Granted, Error> {
        let before = read_latest::<GrantRecord>(records, &self.keys.grant)
            .await?
            .state();
        // A condemned one is rescued: a cycle of the collector that runs elsewhere may end it before the manifest is there.
        if before == State::Live {
            return Ok(Granted::Before);
        }
        let looks = Looks::trusting();
        match grant_stored_blob(records, &self.keys, &self.digest, &looks, self.now).await? {
            Looked::Done(_) if before.is_visible() => Ok(Granted::Before),
            Looked::Done(true) => Ok(Granted::New),
            Looked::Done(false) => Ok(Granted::Missing),
            Looked::LookAt(_) => Err(contended()),
        }
    }
}

fn record(state: State, blob: Option<BlobBytes>, proposals: Vec<BytesName>, now: Timestamp) -> BlobRecord {
    BlobRecord {
        state,
        blob,
        proposals,
        condemned_in: None,
        stamp: Stamp::new(now),
    }
}

/// Writes a blob's record on the version that was read, and writes down the bytes that it names no more.
async fn write_blob(
    records: &mut dyn RecordTransaction,
    digest: &Digest,
    before: &Found<BlobRecord>,
    after: &BlobRecord,
    content: &[u8],
    now: Timestamp,
) -> Result<Option<Version>, Error> {
    let key = Key::blob(digest);
    let written = write(records, &key, after, content, before.unchanged()).await?;
    if written.is_some() {
        write_left_of_blob(records, digest, before.header(), after, now).await?;
    }
    Ok(written)
}
