//! Mounting: another repository may read a blob.

use crate::chain::{Enter, Publish, Require, State, enter, heal, may_mount, require, withdraw};
use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::collect::{mark_changed, write_candidates};
use super::edge::{contended, read_latest, require_child, rescue, write};
use super::looks::{Looked, Looks};
use super::quota::is_over_quota;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::{BackReferenceRecord, BlobBytes, BlobRecord, GrantRecord, Stamp, state_of_size};

impl<B: Backend> Store<B> {
    pub(super) async fn mount(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let mut looks = Looks::default();
        for _ in 0..TRANSACTION_ATTEMPTS {
            let mount = MountBlob {
                source: Key::grant(digest, from),
                grant: GrantKeys::new(to, digest),
                digest: digest.clone(),
                looks: looks.clone(),
                now: self.clock.now(),
            };
            match self.backend.transact(Durability::Synced, mount).await? {
                Looked::Done(is_mounted) => return Ok(is_mounted),
                Looked::LookAt(unseen) => self.look(&mut looks, unseen, to, digest).await?,
            }
        }
        Err(contended())
    }
}

/// The keys that a grant is published with.
#[derive(Clone, Debug)]
pub(super) struct GrantKeys {
    pub(super) grant: Key,
    pub(super) back_reference: Key,
    pub(super) blob: Key,
    /// That the collector may find something in the repository.
    pub(super) changed: Key,
}

impl GrantKeys {
    pub(super) fn new(repository: &RepositoryName, digest: &Digest) -> Self {
        Self {
            grant: Key::grant(digest, repository),
            back_reference: Key::repository_blob(repository, digest),
            blob: Key::blob(digest),
            changed: Key::changed(repository),
        }
    }
}

struct MountBlob {
    source: Key,
    grant: GrantKeys,
    digest: Digest,
    looks: Looks,
    now: Timestamp,
}

impl Transaction for MountBlob {
    type Output = Looked<bool>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        if !may_mount(read_latest::<GrantRecord>(records, &self.source).await?.state()) {
            return Ok(Looked::Done(false));
        }
        grant_stored_blob(records, &self.grant, &self.digest, &self.looks, self.now).await
    }
}

/// Lets a repository read a stored blob; returns `false` if the blob is not in the store.
pub(super) async fn grant_stored_blob(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    digest: &Digest,
    looks: &Looks,
    now: Timestamp,
) -> Result<Looked<bool>, Error> {
    for _ in 0..TRANSACTION_ATTEMPTS {
        let Some(entered) = enter_grant(records, keys, now).await? else {
            continue;
        };
        let blob = read_latest::<BlobRecord>(records, &keys.blob).await?;
        let state = match looks.counted(digest, &blob) {
            Ok(state) => state,
            Err(unseen) => return Ok(Looked::LookAt(unseen)),
        };
        let bytes = blob.header().and_then(|blob| blob.blob.clone());
        let bytes = match (require(state), bytes) {
            (Require::Ready, Some(bytes)) => bytes,
            (Require::Rescue, Some(bytes)) if rescue(records, &keys.blob, &blob, now).await? => bytes,
            (Require::Rescue, Some(_)) => continue,
            (Require::Missing, _) | (_, None) => {
                withdraw_grant(records, keys, &entered, now).await?;
                return Ok(Looked::Done(false));
            }
        };
        if publish_grant(records, keys, &entered, bytes, now).await? {
            return Ok(Looked::Done(true));
        }
    }
    Err(contended())
}

/// Makes a visible grant name what its blob names now; returns `false` if the grant or the blob is not visible.
pub(super) async fn point_grant(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    now: Timestamp,
) -> Result<bool, Error> {
    for _ in 0..TRANSACTION_ATTEMPTS {
        let grant = read_latest::<GrantRecord>(records, &keys.grant).await?;
        let Some(version) = grant.version().filter(|_| grant.state().is_visible()) else {
            return Ok(false);
        };
        let entered = EnteredGrant {
            state: grant.state(),
            version: version.clone(),
        };
        let blob = require_child::<BlobRecord>(records, &keys.blob, now).await?;
        let Some(bytes) = blob.and_then(|(blob, _)| blob.blob) else {
            return Ok(false);
        };
        if publish_grant(records, keys, &entered, bytes, now).await? {
            return Ok(true);
        }
    }
    Err(contended())
}

/// A grant whose blob is being looked for.
pub(super) struct EnteredGrant {
    /// Either Pending or visible.
    state: State,
    version: Version,
}

/// Stores a grant Pending, or joins a Pending one (step 1 of the rule), and returns it; `None` if the next step is to begin
/// again. A visible grant is joined too: its blob may have lost its bytes.
pub(super) async fn enter_grant(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    now: Timestamp,
) -> Result<Option<EnteredGrant>, Error> {
    let grant = read_latest::<GrantRecord>(records, &keys.grant).await?;
    let entered = |state, version| {
        Some(EnteredGrant {
            state,
            version: version?,
        })
    };
    match enter(grant.state()) {
        Enter::Published => Ok(entered(grant.state(), grant.version().cloned())),
        Enter::Join => {
            // Whoever stored it may have died before it looked.
            refer_to(records, keys, now).await?;
            Ok(entered(grant.state(), grant.version().cloned()))
        }
        Enter::Rescue => rescue(records, &keys.grant, &grant, now).await.map(|_| None),
        Enter::Create => {
            // The back reference comes first: the collector finds a repository's grants through it.
            write_back_reference(records, keys, now).await?;
            let pending = GrantRecord {
                state: State::Pending,
                blob: None,
                condemned_in: None,
                stamp: Stamp::new(now),
            };
            let written = write(records, &keys.grant, &pending, &[], grant.unchanged()).await?;
            if written.is_some() {
                // Another grant may have come and gone since there was none, and the back reference with it.
                refer_to(records, keys, now).await?;
                mark_changed(records, &keys.changed, now).await?;
            }
            Ok(entered(State::Pending, written))
        }
    }
}

/// Writes the back reference of a Pending grant if it is not there, where others may have removed it.
async fn refer_to(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    now: Timestamp,
) -> Result<(), Error> {
    if records.others_purge() && !is_referred_to(records, keys).await? {
        write_back_reference(records, keys, now).await?;
        mark_changed(records, &keys.changed, now).await?;
    }
    Ok(())
}

/// Returns whether the back reference of a grant is there.
pub(super) async fn is_referred_to(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
) -> Result<bool, Error> {
    let back_reference = records.stat(&keys.back_reference).await?;
    Ok(back_reference.is_some_and(|stat| state_of_size(stat.size) != State::Dead))
}

/// Writes the back references of grants that are Pending and have none: a push died before it looked.
#[derive(Clone)]
pub(super) struct ReferToPending(pub(super) Vec<GrantKeys>, pub(super) Timestamp);

impl Transaction for ReferToPending {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        if !records.others_purge() {
            return Ok(());
        }
        for keys in self.0 {
            let grant = records.stat(&keys.grant).await?;
            if grant.is_some_and(|grant| state_of_size(grant.size) == State::Pending) {
                refer_to(records, &keys, self.1).await?;
            }
        }
        Ok(())
    }
}

async fn write_back_reference(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    now: Timestamp,
) -> Result<(), Error> {
    let back_reference = BackReferenceRecord {
        state: State::Live,
        tag: None,
        stamp: Stamp::new(now),
    };
    let key = &keys.back_reference;
    write(records, key, &back_reference, &[], Condition::Any).await?;
    Ok(())
}

/// Makes a grant Live that names `blob` (step 3 of the rule); returns `false` if the record is no longer the one that
/// was entered. A grant that is visible and names `blob` is left alone.
pub(super) async fn publish_grant(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    entered: &EnteredGrant,
    blob: BlobBytes,
    now: Timestamp,
) -> Result<bool, Error> {
    if entered.state.is_visible() {
        let grant = read_latest::<GrantRecord>(records, &keys.grant).await?;
        let names = grant.header().and_then(|grant| grant.blob.as_ref());
        if grant.state().is_visible() && names == Some(&blob) {
            return Ok(true);
        }
        if heal(grant.state(), grant.is(&entered.version)) == Publish::Again {
            return Ok(false);
        }
    }
    // Whether a Pending grant is still the same, its write finds out.
    let unchanged = Condition::Matches(entered.version.clone());
    let live = GrantRecord {
        state: State::Live,
        blob: Some(blob),
        condemned_in: None,
        stamp: Stamp::new(now),
    };
    match write(records, &keys.grant, &live, &[], unchanged).await {
        Ok(written) => Ok(written.is_some()),
        Err(refusal) if is_over_quota(&refusal) => {
            if !withdraw_grant(records, keys, entered, now).await? {
                // Another request made it Live, and is counted.
                return Ok(false);
            }
            // The blob may be there for this grant alone.
            if let Some(KeyKind::Blob(digest)) = KeyKind::of(&keys.blob) {
                write_candidates(records, &[digest], now).await?;
            }
            Err(refusal)
        }
        Err(error) => Err(error),
    }
}

/// Takes back a Pending grant whose blob does not exist. Returns `false` if another request wrote it since it was entered.
pub(super) async fn withdraw_grant(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    entered: &EnteredGrant,
    now: Timestamp,
) -> Result<bool, Error> {
    let grant = read_latest::<GrantRecord>(records, &keys.grant).await?;
    let is_same = grant.is(&entered.version);
    if withdraw(grant.state(), is_same) {
        let dead = GrantRecord {
            state: State::Dead,
            blob: None,
            condemned_in: None,
            stamp: Stamp::new(now),
        };
        match write(records, &keys.grant, &dead, &[], grant.unchanged()).await? {
            Some(dead) => records.purge_if(&keys.grant, &dead).await?,
            None => return Ok(false),
        };
    }
    Ok(is_same)
}
