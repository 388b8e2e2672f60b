//! Adopting content that is on this disk already: the transactions of uploads and pushes, many run as one.
//!
//! It begins like an upload. A session names the bytes, then they get that name, then the session is committed. So the
//! sweeper may run alongside, and removes what a process that died leaves behind.

use std::collections::BTreeSet;

use bytes::Bytes;
use registry_core::storage::{NewManifest, TagCondition};
use registry_core::{
    Algorithm, Digest, Error, ErrorCode, Hasher, RepositoryName, Tag, Timestamp, Upload, UploadId,
};
use tokio::sync::SemaphorePermit;

use super::Store;
use super::collect::mark_changed;
use super::commit::CommitUpload;
use super::edge::{Found, contended, read_cached, read_latest, write};
use super::looks::{Looked, Looks};
use super::mount::{GrantKeys, grant_stored_blob};
use super::push::{PushManifest, add_repository};
use super::session::Session;
use super::sweep::{Unnamed, write_unnamed};
use crate::backend::{Backend, Condition, Durability, LIST_LIMIT, RecordTransaction, Transaction};
use crate::bytes_name::BytesName;
use crate::chain::State;
use crate::distribution::RepositoryLinks;
use crate::key::Key;
use crate::pages::{Pages, keys};
use crate::record::{GrantRecord, ManifestRecord, SessionRecord, TagRecord, state_of_size};
use crate::unique::unique;

/// The principal of an adoption's sessions. The line break keeps it from being the name of any client.
const PRINCIPAL: &str = "adoption\n";

/// A blob to take over.
pub(crate) struct AdoptedBlob {
    pub(crate) digest: Digest,
    pub(crate) source: Source,
    /// The repositories that may read it.
    pub(crate) grants: Vec<RepositoryName>,
}

/// Where the content of a blob is.
pub(crate) enum Source {
    /// In the store.
    Stored,
    /// In memory, here.
    Inline(Bytes),
    /// In bytes that a session names.
    Session(Box<AdoptionSession>),
}

/// A session that names bytes to adopt.
pub(crate) struct AdoptionSession(Session);

impl AdoptionSession {
    pub(crate) const fn bytes(&self) -> &BytesName {
        &self.0.record.bytes.name
    }
}

/// A manifest to take over.
pub(crate) struct AdoptedManifest {
    pub(crate) repository: RepositoryName,
    /// The manifest, without tags.
    pub(crate) new: NewManifest,
    /// The tags, and when the other program wrote each.
    pub(crate) tags: Vec<(Tag, Timestamp)>,
}

/// What a transaction did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adopted {
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    pub(crate) grants: u64,
    pub(crate) manifests: u64,
    pub(crate) tags: u64,
    /// Tags that were moved in this store later than the other program wrote them.
    pub(crate) kept_tags: u64,
}

impl Adopted {
    /// Adds what another transaction did.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            blobs: self.blobs + other.blobs,
            bytes: self.bytes + other.bytes,
            grants: self.grants + other.grants,
            manifests: self.manifests + other.manifests,
            tags: self.tags + other.tags,
            kept_tags: self.kept_tags + other.kept_tags,
        }
    }
}

impl<B: Backend> Store<B> {
    /// Returns whether nothing was ever stored here.
    pub(crate) async fn is_empty(&self) -> Result<bool, Error> {
        for prefix in [Key::blobs(), Key::repositories(), Key::uploads()] {
            if !self.backend.list(&prefix, None, 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Allows one adoption of this store at a time; returns `None` if one is in progress.
    pub(crate) fn adopting(&self) -> Option<SemaphorePermit<'_>> {
        self.adopting.try_acquire().ok()
    }

    /// Returns the current time of this store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Removes the sessions that an adoption left when its process died.
    pub(crate) async fn drop_adoption_sessions(&self) -> Result<(), Error> {
        let mut pages = Pages::of(Key::uploads());
        while let Some(page) = pages.next(&*self.backend).await? {
            let mut left = Vec::new();
            for key in keys(page) {
                let stored = self.backend.get(&key).await?;
                // An unreadable session is left to the check.
                let found = Found::<SessionRecord>::new(stored.as_ref()).ok();
                let session = found.and_then(|found| found.record);
                if session.is_some_and(|(session, _)| session.principal == PRINCIPAL) {
                    left.push(key);
                }
            }
            if !left.is_empty() {
                let forget = ForgetSessions {
                    keys: left,
                    now: self.clock.now(),
                };
                self.backend.transact(Durability::Deferred, forget).await?;
            }
        }
        Ok(())
    }

    /// Returns which of `digests` are in the store.
    pub(crate) async fn stored_blobs(&self, digests: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, Error> {
        let visible = self.visible(digests.iter().map(Key::blob).collect()).await?;
        let stored = digests.iter().zip(visible).filter(|(_, is_stored)| *is_stored);
        Ok(stored.map(|(digest, _)| digest.clone()).collect())
    }

    /// Counts which of these repositories may not read a blob.
    pub(crate) async fn lacks_grants(
        &self,
        digest: &Digest,
        repositories: &[RepositoryName],
    ) -> Result<u64, Error> {
        let grants = repositories
            .iter()
            .map(|repository| Key::grant(digest, repository));
        let visible = self.visible(grants.collect()).await?;
        Ok(visible.iter().filter(|is_granted| !**is_granted).count() as u64)
    }

    /// Counts which of these manifests and their tags [`adopt_manifests`](Self::adopt_manifests) would take.
    pub(crate) async fn lacks_manifests(&self, manifests: &[AdoptedManifest]) -> Result<Adopted, Error> {
        let mut lacking = Adopted::default();
        for AdoptedManifest {
            repository,
            new,
            tags,
        } in manifests
        {
            let digest = &new.manifest.digest;
            let key = Key::manifest(repository, digest);
            let manifest = read_cached::<ManifestRecord>(&*self.backend, &key)
                .await?
                .visible();
            let incarnation = manifest.map(|(manifest, _)| manifest.incarnation);
            lacking.manifests += u64::from(incarnation.is_none());
            for (tag, written) in tags {
                let tag = read_cached::<TagRecord>(&*self.backend, &Key::tag(repository, tag)).await?;
                match tag.visible() {
                    Some((tag, _)) if Some(&tag.incarnation) == incarnation.as_ref() => {}
                    Some((tag, _)) if tag.stamp.written >= *written => lacking.kept_tags += 1,
                    _ => lacking.tags += 1,
                }
            }
        }
        Ok(lacking)
    }

    /// Leaves out the links of what the store does not have, and tags that name something else here.
    pub(crate) async fn leave_missing(&self, links: &mut RepositoryLinks) -> Result<(), Error> {
        let name = links.name.clone();
        let grants = links.layers.iter().map(|link| Key::grant(&link.digest, &name));
        let layers = self.visible(grants.collect()).await?;
        let revisions = links
            .revisions
            .iter()
            .map(|link| Key::manifest(&name, &link.digest));
        let revisions = self.visible(revisions.collect()).await?;
        let mut layers = layers.into_iter();
        links.layers.retain(|_| layers.next().unwrap_or(false));
        let mut revisions = revisions.into_iter();
        links.revisions.retain(|_| revisions.next().unwrap_or(false));
        let mut tags = Vec::new();
        for link in &links.tags {
            let tag = read_cached::<TagRecord>(&*self.backend, &Key::tag(&name, &link.tag)).await?;
            tags.push(tag.visible().is_some_and(|(tag, _)| tag.digest == link.target));
        }
        let mut tags = tags.into_iter();
        links.tags.retain(|_| tags.next().unwrap_or(false));
        Ok(())
    }

    /// Returns which records readers see.
    async fn visible(&self, keys: Vec<Key>) -> Result<Vec<bool>, Error> {
        let mut visible = Vec::new();
        for keys in keys.chunks(LIST_LIMIT) {
            let sizes = self.backend.sizes(keys).await?;
            let is_visible = |size: Option<u64>| size.is_some_and(|size| state_of_size(size).is_visible());
            visible.extend(sizes.into_iter().map(is_visible));
        }
        Ok(visible)
    }

    /// Names bytes of these sizes, for which the caller then creates files.
    pub(crate) async fn name_bytes(
        &self,
        repository: &RepositoryName,
        sizes: &[u64],
    ) -> Result<Vec<AdoptionSession>, Error> {
        let now = self.clock.now();
        let mut sessions = Vec::new();
        for &size in sizes {
            sessions.push(self.session(repository, size, now)?);
        }
        let sessions = self
            .backend
            .transact(Durability::Deferred, PutSessions(sessions))
            .await?;
        Ok(sessions.into_iter().map(AdoptionSession).collect())
    }

    fn session(&self, repository: &RepositoryName, size: u64, now: Timestamp) -> Result<Session, Error> {
        let upload = Upload::new(Algorithm::Sha256).with_progress(size, Hasher::new(Algorithm::Sha256))?;
        let mut record = self.new_session(repository, PRINCIPAL, &upload, now);
        record.parts_size = size;
        Ok(Session {
            key: Key::upload(UploadId::from_random(unique().as_u128())),
            record,
            upload,
            tail: Bytes::new(),
            version: crate::backend::Version("".into()),
            held: None,
            standing: None,
            is_freeing: false,
        })
    }

    /// Makes durable bytes blobs, and lets repositories read them. It becomes durable with the next transaction that is
    /// synced.
    pub(crate) async fn adopt_blobs(&self, blobs: Vec<AdoptedBlob>) -> Result<Adopted, Error> {
        let now = self.clock.now();
        let mut prepared = Vec::new();
        for blob in blobs {
            let session = match (blob.source, blob.grants.first()) {
                (Source::Stored, _) | (_, None) => None,
                (Source::Session(session), _) => Some((session.0, None)),
                (Source::Inline(content), Some(repository)) => {
                    Some((self.session(repository, 0, now)?, Some(content)))
                }
            };
            prepared.push(PreparedBlob {
                digest: blob.digest,
                session,
                grants: blob.grants,
            });
        }
        let adopt = AdoptBlobs { blobs: prepared, now };
        self.backend.transact(Durability::Deferred, adopt).await
    }

    /// Stores manifests whose children may be missing, and their tags. It becomes durable with the next transaction
    /// that is synced.
    pub(crate) async fn adopt_manifests(
        &self,
        repositories: Vec<RepositoryName>,
        manifests: Vec<AdoptedManifest>,
    ) -> Result<Adopted, Error> {
        let adopt = AdoptManifests {
            repositories,
            manifests,
            is_one_step: self.backend.is_atomic(),
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Deferred, adopt).await
    }
}

struct ForgetSessions {
    keys: Vec<Key>,
    now: Timestamp,
}

impl Transaction for ForgetSessions {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for key in &self.keys {
            forget_session(records, key, self.now).await?;
        }
        Ok(())
    }
}

/// Removes a session that no client knows, and writes its bytes down unless a blob took them.
async fn forget_session(records: &mut dyn RecordTransaction, key: &Key, now: Timestamp) -> Result<(), Error> {
    let found = read_latest::<SessionRecord>(records, key).await?;
    let Some(session) = found.header() else {
        return Ok(());
    };
    let unnamed = Unnamed {
        name: session.bytes.name.clone(),
        blob: session.proposed_to.clone(),
    };
    let has_left_bytes = session.state == State::Live || session.has_left_bytes;
    records.remove(key).await?;
    write_unnamed(records, has_left_bytes.then_some(unnamed).as_slice(), now).await
}

struct PutSessions(Vec<Session>);

impl Transaction for PutSessions {
    type Output = Vec<Session>;

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        for session in &mut self.0 {
            put_session(records, session).await?;
        }
        Ok(self.0)
    }
}

async fn put_session(records: &mut dyn RecordTransaction, session: &mut Session) -> Result<(), Error> {
    let version = write(records, &session.key, &session.record, &[], Condition::Absent).await?;
    session.version = version.ok_or_else(contended)?;
    Ok(())
}

struct PreparedBlob {
    digest: Digest,
    /// Its own session, with the content if the blob's record is to hold it.
    session: Option<(Session, Option<Bytes>)>,
    grants: Vec<RepositoryName>,
}

struct AdoptBlobs {
    blobs: Vec<PreparedBlob>,
    now: Timestamp,
}

impl Transaction for AdoptBlobs {
    type Output = Adopted;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Adopted, Error> {
        let mut adopted = Adopted::default();
        for blob in self.blobs {
            adopt_blob(records, blob, self.now, &mut adopted).await?;
        }
        Ok(adopted)
    }
}

async fn adopt_blob(
    records: &mut dyn RecordTransaction,
    blob: PreparedBlob,
    now: Timestamp,
    adopted: &mut Adopted,
) -> Result<(), Error> {
    let PreparedBlob {
        digest,
        session,
        grants,
    } = blob;
    let session_key = session.as_ref().map(|(session, _)| session.key.clone());
    let mut session = session;
    for repository in grants {
        let keys = GrantKeys::new(&repository, &digest);
        let grant = read_latest::<GrantRecord>(records, &keys.grant).await?;
        if grant.state().is_visible() {
            continue;
        }
        match session.take() {
            None => {
                grant_stored_blob(records, &keys, &digest, &Looks::trusting(), now).await?;
            }
            Some((mut session, content)) => {
                if let Some(content) = content {
                    put_session(records, &mut session).await?;
                    session.tail = content;
                }
                let size = session.record.parts_size.max(session.tail.len() as u64);
                let commit = CommitUpload {
                    keys,
                    digest: digest.clone(),
                    size,
                    session,
                    looks: Looks::trusting(),
                    now,
                };
                match commit.run(records).await? {
                    Looked::Done(committed) => committed?,
                    Looked::LookAt(_) => return Err(contended()),
                };
                adopted.blobs += 1;
                adopted.bytes += size;
            }
        }
        adopted.grants += 1;
    }
    // No client knows the session, so none asks for it again.
    match session_key {
        Some(key) => forget_session(records, &key, now).await,
        None => Ok(()),
    }
}

struct AdoptManifests {
    /// Repositories to enter in the catalog, even if they have no manifest any more.
    repositories: Vec<RepositoryName>,
    manifests: Vec<AdoptedManifest>,
    /// The transaction is one step.
    is_one_step: bool,
    now: Timestamp,
}

impl Transaction for AdoptManifests {
    type Output = Adopted;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Adopted, Error> {
        let mut adopted = Adopted::default();
        for repository in &self.repositories {
            add_repository(records, repository, self.now).await?;
        }
        for manifest in self.manifests {
            adopt_manifest(records, manifest, (self.is_one_step, self.now), &mut adopted).await?;
        }
        Ok(adopted)
    }
}

async fn adopt_manifest(
    records: &mut dyn RecordTransaction,
    manifest: AdoptedManifest,
    (is_one_step, now): (bool, Timestamp),
    adopted: &mut Adopted,
) -> Result<(), Error> {
    let AdoptedManifest {
        repository,
        new,
        tags,
    } = manifest;
    let key = Key::manifest(&repository, &new.manifest.digest);
    let found = read_latest::<ManifestRecord>(records, &key).await?;
    let mut incarnation = found.header().map(|manifest| manifest.incarnation.clone());
    if !found.state().is_visible() {
        PushManifest::new(&repository, new.clone(), is_one_step, now)
            .run_whole(records)
            .await?;
        adopted.manifests += 1;
        incarnation = None;
    }
    for (tag, written) in tags {
        let current = read_latest::<TagRecord>(records, &Key::tag(&repository, &tag)).await?;
        match current.visible() {
            Some((current, _)) if Some(&current.incarnation) == incarnation.as_ref() => {}
            Some((current, _)) if current.stamp.written >= written => adopted.kept_tags += 1,
            current => {
                let current = current.map(|(tag, _)| tag.digest);
                let tagged = NewManifest {
                    tags: vec![tag],
                    ..new.clone()
                };
                if adopt_tag(records, &repository, tagged, current, (is_one_step, written)).await? {
                    adopted.tags += 1;
                } else {
                    adopted.kept_tags += 1;
                }
            }
        }
    }
    mark_changed(records, &Key::changed(&repository), now).await
}

/// Points a tag at a manifest, unless a client moved it since it was found to name `current`: on a bucket, another replica may
/// serve already. Returns whether it was pointed there.
async fn adopt_tag(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    tagged: NewManifest,
    current: Option<Digest>,
    (is_one_step, written): (bool, Timestamp),
) -> Result<bool, Error> {
    // A tag whose manifest is gone counts as absent.
    let as_found = current.map(|digest| TagCondition::Matches(vec![digest]));
    for condition in as_found.into_iter().chain([TagCondition::Absent]) {
        let tagged = NewManifest {
            condition,
            ..tagged.clone()
        };
        // Dated as the other program wrote it, so that it is known which of two changes is later.
        let push = PushManifest::new(repository, tagged, is_one_step, written);
        match push.run_whole(records).await {
            Ok(()) => return Ok(true),
            Err(refusal) if refusal.code() == ErrorCode::PreconditionFailed => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
