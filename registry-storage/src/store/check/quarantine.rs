//! Quarantine: an unusable record is kept under another key and is gone from its own, so that a push heals it.
//!
//! The value goes to `quarantine/<key>` first, with the names of its bytes, which the sweeper then leaves alone. Then
//! the record goes Dead by compare-and-swap on the version that was examined; that of a blob names lost bytes instead.

use crate::chain::State;
use bytes::Bytes;
use registry_core::{Algorithm, Digest, Error, MediaType, RepositoryName, Timestamp};

use super::examine::Read;
use super::finding::Problem;
use crate::backend::{Condition, RecordTransaction, Transaction, Version, VersionedRecord};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, keys};
use crate::record::{
    BlobBytes, BlobRecord, GrantRecord, Header, ManifestRecord, QuarantineRecord, Stamp, TagRecord,
};
use crate::store::collect::mark_changed;
use crate::store::edge::{Stateful as _, write};
use crate::store::mount::{GrantKeys, point_grant};
use crate::unique::unique;

/// Keeps the value of a record, and the bytes that it names.
async fn keep(
    records: &mut dyn RecordTransaction,
    key: &Key,
    value: &Bytes,
    reason: &Problem,
    bytes: Vec<BytesName>,
    now: Timestamp,
) -> Result<(), Error> {
    let quarantined = key.quarantined();
    let before = records.get(&quarantined).await?;
    let mut all = match Read::<QuarantineRecord>::new(before.as_ref()) {
        Read::Visible(record, _) => record.bytes,
        Read::Invisible | Read::Unreadable => Vec::new(),
    };
    all.extend(bytes);
    all.sort_unstable();
    all.dedup();
    let record = QuarantineRecord {
        reason: reason.to_string(),
        bytes: all,
        stamp: Stamp::new(now),
    };
    write(records, &quarantined, &record, value, Condition::Any).await?;
    Ok(())
}

/// Replaces the record of `version` with one that counts as absent, and removes it if possible.
async fn write_tombstone(
    records: &mut dyn RecordTransaction,
    key: &Key,
    dead: &impl Header,
    version: Version,
) -> Result<bool, Error> {
    match write(records, key, dead, &[], Condition::Matches(version)).await? {
        Some(version) => records.purge_if(key, &version).await.map(|_| true),
        None => Ok(false),
    }
}

/// Removes a blob from a repository.
pub(super) async fn grant(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    digest: &Digest,
    reason: &Problem,
    now: Timestamp,
) -> Result<bool, Error> {
    let key = Key::grant(digest, repository);
    let Some(stored) = records.get(&key).await? else {
        return Ok(false);
    };
    let Read::Visible(record, _) = Read::<GrantRecord>::new(Some(&stored)) else {
        return Ok(false);
    };
    let bytes = record.blob.as_ref().and_then(|blob| blob.bytes.clone());
    keep(
        records,
        &key,
        &stored.value,
        reason,
        bytes.into_iter().collect(),
        now,
    )
    .await?;
    let dead = GrantRecord {
        blob: None,
        ..record.in_state(State::Dead, now)
    };
    // The back reference stays: it says what is or was.
    let is_done = write_tombstone(records, &key, &dead, stored.version).await?;
    mark_changed(records, &Key::changed(repository), now).await?;
    Ok(is_done)
}

/// Removes a manifest from its repository.
pub(super) async fn manifest(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    digest: &Digest,
    reason: &Problem,
    now: Timestamp,
) -> Result<bool, Error> {
    let key = Key::manifest(repository, digest);
    let Some(stored) = records.get(&key).await? else {
        return Ok(false);
    };
    let Read::Visible(record, _) = Read::<ManifestRecord>::new(Some(&stored)) else {
        return Ok(false);
    };
    keep(records, &key, &stored.value, reason, Vec::new(), now).await?;
    // Its tags and its entry in a list of referrers count as absent now, and are found when those are checked.
    let is_done = write_tombstone(records, &key, &record.in_state(State::Dead, now), stored.version).await?;
    mark_changed(records, &Key::changed(repository), now).await?;
    Ok(is_done)
}

/// Removes a deleted manifest that cannot be restored, because its content is another.
pub(super) async fn deleted_manifest(
    records: &mut dyn RecordTransaction,
    key: &Key,
    reason: &Problem,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some(stored) = records.get(key).await? else {
        return Ok(false);
    };
    keep(records, key, &stored.value, reason, Vec::new(), now).await?;
    records.remove(key).await.map(|()| true)
}

/// Puts an unreadable record into quarantine.
pub(super) async fn unreadable(
    records: &mut dyn RecordTransaction,
    key: &Key,
    kind: &KeyKind,
    stored: VersionedRecord,
    now: Timestamp,
) -> Result<bool, Error> {
    let reason = Problem::Unreadable;
    let stamp = Stamp::new(now);
    match kind {
        KeyKind::Blob(digest) => {
            let blob = SuspectBlob {
                digest: digest.clone(),
                version: stored.version,
                reason,
                now,
            };
            blob.run(records).await
        }
        KeyKind::Grant(repository, _) => {
            keep(records, key, &stored.value, &reason, Vec::new(), now).await?;
            let dead = GrantRecord {
                state: State::Dead,
                blob: None,
                condemned_in: None,
                stamp,
            };
            let is_done = write_tombstone(records, key, &dead, stored.version).await?;
            mark_changed(records, &Key::changed(repository), now).await?;
            Ok(is_done)
        }
        KeyKind::Manifest(repository, _) => {
            keep(records, key, &stored.value, &reason, Vec::new(), now).await?;
            let dead = ManifestRecord {
                state: State::Dead,
                incarnation: unique().simple().to_string(),
                media_type: unknown_type()?,
                subject: None,
                condemned_in: None,
                stamp,
            };
            let is_done = write_tombstone(records, key, &dead, stored.version).await?;
            mark_changed(records, &Key::changed(repository), now).await?;
            Ok(is_done)
        }
        KeyKind::Tag(repository, _) => {
            keep(records, key, &stored.value, &reason, Vec::new(), now).await?;
            let dead = TagRecord {
                state: State::Dead,
                digest: Digest::of(Algorithm::Sha256, b""),
                incarnation: String::new(),
                principal: String::new(),
                stamp,
            };
            let is_done = write_tombstone(records, key, &dead, stored.version).await?;
            mark_changed(records, &Key::changed(repository), now).await?;
            Ok(is_done)
        }
        // An upload is never resumed under another's name, and the caller rewrites derived records.
        _ => {
            keep(records, key, &stored.value, &reason, Vec::new(), now).await?;
            records.remove(key).await.map(|()| true)
        }
    }
}

fn unknown_type() -> Result<MediaType, Error> {
    "application/octet-stream".parse()
}

/// Puts the content of a blob into quarantine. From then on it is as if the medium had lost it: the blob and its grants
/// name bytes that never exist, so it is 404 everywhere, and one push heals it everywhere.
///
/// The blob goes first, so that an upload of it brings its own bytes; then the grants follow. A mount that read the blob
/// before may publish its grant later; the next check finds that grant with other bytes than the blob's.
pub(super) struct SuspectBlob {
    pub(super) digest: Digest,
    /// The version of the blob's record that was examined.
    pub(super) version: Version,
    pub(super) reason: Problem,
    pub(super) now: Timestamp,
}

impl Transaction for SuspectBlob {
    /// Whether it was done: the blob may have been written since it was examined.
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let key = Key::blob(&self.digest);
        let Some(stored) = records
            .get(&key)
            .await?
            .filter(|stored| stored.version == self.version)
        else {
            return Ok(false);
        };
        let mut named = self.granted(records).await?;
        if let Read::Visible(blob, _) = Read::<BlobRecord>::new(Some(&stored)) {
            // Its size counts, not that of a grant.
            named.splice(0..0, blob.blob);
        }
        let size = named.first().map(|blob| blob.size);
        let bytes = named.into_iter().filter_map(|blob| blob.bytes).collect();
        keep(records, &key, &stored.value, &self.reason, bytes, self.now).await?;
        let lost = BlobRecord {
            // Without a size there is no grant either.
            state: size.map_or(State::Dead, |_| State::Live),
            blob: size.map(|size| BlobBytes {
                size,
                bytes: Some(BytesName::random(self.now)),
            }),
            proposals: Vec::new(),
            condemned_in: None,
            stamp: Stamp::new(self.now),
        };
        let unchanged = Condition::Matches(stored.version);
        if write(records, &key, &lost, &[], unchanged).await?.is_none() {
            return Ok(false);
        }
        self.point_grants(records).await?;
        Ok(true)
    }
}

impl SuspectBlob {
    /// Returns what the visible grants name, each once.
    async fn granted(&self, records: &mut dyn RecordTransaction) -> Result<Vec<BlobBytes>, Error> {
        let mut named = Vec::new();
        let mut pages = Pages::of(Key::grants(&self.digest));
        while let Some(page) = pages.next_in(records).await? {
            for key in keys(page) {
                if let Read::Visible(grant, _) = Read::<GrantRecord>::new(records.get(&key).await?.as_ref())
                    && let Some(blob) = grant.blob.filter(|blob| !named.contains(blob))
                {
                    named.push(blob);
                }
            }
        }
        Ok(named)
    }

    async fn point_grants(&self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let mut pages = Pages::of(Key::grants(&self.digest));
        while let Some(page) = pages.next_in(records).await? {
            for key in keys(page) {
                // A grant that cannot be read is found when the grants are checked.
                if let Read::Visible(..) = Read::<GrantRecord>::new(records.get(&key).await?.as_ref())
                    && let Some(KeyKind::Grant(repository, digest)) = KeyKind::of(&key)
                {
                    point_grant(records, &GrantKeys::new(&repository, &digest), self.now).await?;
                }
            }
        }
        Ok(())
    }
}
