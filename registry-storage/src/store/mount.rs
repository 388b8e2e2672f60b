//! Mounting: another repository may read a blob.

use registry_core::chain::{Enter, Publish, State, enter, may_mount, publish, withdraw};
use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::edge::{contended, read, require_child, rescue, write};
use super::{ATTEMPTS, Store};
use crate::backend::{Backend, Condition, Durability, Records, Sequence, Version};
use crate::key::Key;
use crate::record::{BlobBytes, BlobRecord, GrantRecord, HintRecord, Stamp};

impl<B: Backend> Store<B> {
    pub(super) async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let mount = MountBlob {
            source: Key::grant(digest, from),
            grant: GrantKeys::new(to, digest),
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Synced, mount).await
    }
}

/// The keys that a grant is published with.
#[derive(Clone, Debug)]
pub(super) struct GrantKeys {
    pub(super) grant: Key,
    pub(super) hint: Key,
    pub(super) blob: Key,
}

impl GrantKeys {
    pub(super) fn new(repository: &RepositoryName, digest: &Digest) -> Self {
        Self {
            grant: Key::grant(digest, repository),
            hint: Key::repository_blob(repository, digest),
            blob: Key::blob(digest),
        }
    }
}

struct MountBlob {
    source: Key,
    grant: GrantKeys,
    now: Timestamp,
}

impl Sequence for MountBlob {
    type Output = bool;

    async fn run(self, records: &mut dyn Records) -> Result<bool, Error> {
        if !may_mount(read::<GrantRecord>(records, &self.source).await?.state()) {
            return Ok(false);
        }
        grant_stored_blob(records, &self.grant, self.now).await
    }
}

/// Lets a repository read a blob that is in the store; `false` where it is not.
pub(super) async fn grant_stored_blob(
    records: &mut dyn Records,
    keys: &GrantKeys,
    now: Timestamp,
) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        let pending = match enter_grant(records, keys, now).await? {
            Entered::Published => return Ok(true),
            Entered::Again => continue,
            Entered::Pending(version) => version,
        };
        let blob = require_child::<BlobRecord>(records, &keys.blob, now).await?;
        let Some(bytes) = blob.and_then(|(blob, _)| blob.blob) else {
            withdraw_grant(records, keys, pending, now).await?;
            return Ok(false);
        };
        if publish_grant(records, keys, &pending, bytes, now).await? {
            return Ok(true);
        }
    }
    Err(contended())
}

/// What became of step 1 for a grant.
pub(super) enum Entered {
    /// It is Live: nothing is left to do.
    Published,
    /// It is Pending, in this version.
    Pending(Version),
    /// Somebody else wrote it: begin again.
    Again,
}

/// Stores a grant Pending, or joins the one that is (step 1 of the rule).
pub(super) async fn enter_grant(
    records: &mut dyn Records,
    keys: &GrantKeys,
    now: Timestamp,
) -> Result<Entered, Error> {
    let grant = read::<GrantRecord>(records, &keys.grant).await?;
    Ok(match enter(grant.state()) {
        Enter::Published => Entered::Published,
        Enter::Rescue if rescue(records, &keys.grant, &grant, now).await? => Entered::Published,
        Enter::Rescue => Entered::Again,
        Enter::Join => grant.version().cloned().map_or(Entered::Again, Entered::Pending),
        Enter::Create => {
            // The hint comes first: the collector finds a repository's grants by it.
            let hint = HintRecord {
                tag: None,
                stamp: Stamp::new(now),
            };
            write(records, &keys.hint, &hint, &[], Condition::Any).await?;
            let pending = GrantRecord {
                state: State::Pending,
                blob: None,
                condemned_in: None,
                stamp: Stamp::new(now),
            };
            let written = write(records, &keys.grant, &pending, &[], grant.unchanged()).await?;
            written.map_or(Entered::Again, Entered::Pending)
        }
    })
}

/// Makes a Pending grant Live (step 3 of the rule); `false` where it is not that record any more.
pub(super) async fn publish_grant(
    records: &mut dyn Records,
    keys: &GrantKeys,
    pending: &Version,
    blob: BlobBytes,
    now: Timestamp,
) -> Result<bool, Error> {
    let grant = read::<GrantRecord>(records, &keys.grant).await?;
    if publish(grant.state(), grant.is(pending)) == Publish::Again {
        return Ok(false);
    }
    let live = GrantRecord {
        state: State::Live,
        blob: Some(blob),
        condemned_in: None,
        stamp: Stamp::new(now),
    };
    Ok(write(records, &keys.grant, &live, &[], grant.unchanged())
        .await?
        .is_some())
}

/// Takes a Pending grant back whose blob is not there.
pub(super) async fn withdraw_grant(
    records: &mut dyn Records,
    keys: &GrantKeys,
    pending: Version,
    now: Timestamp,
) -> Result<(), Error> {
    let grant = read::<GrantRecord>(records, &keys.grant).await?;
    if withdraw(grant.state(), grant.is(&pending)) {
        let dead = GrantRecord {
            state: State::Dead,
            blob: None,
            condemned_in: None,
            stamp: Stamp::new(now),
        };
        if let Some(dead) = write(records, &keys.grant, &dead, &[], grant.unchanged()).await? {
            records.forget(&keys.grant, &dead).await?;
        }
    }
    Ok(())
}
