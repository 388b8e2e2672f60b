//! Orders of steps that chance does not find.

use std::pin::pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::poll;
use registry_core::{Digest, Error, Timestamp};
use tokio::sync::oneshot;

use super::grants::EndGrants;
use crate::backend::{
    Backend as _, Condition, Durability, Part, RecordEntry, RecordTransaction, StagedBytes, Stat,
    Transaction, Version, VersionedRecord,
};
use crate::chain::State;
use crate::object_store::ObjectStoreBackend;
use crate::record::state_of_size;
use crate::store::mount::{GrantKeys, enter_grant};

/// A transaction that stops before one of its calls, until it is told to go on.
struct Stopped<T> {
    transaction: T,
    at: usize,
    resumed: oneshot::Receiver<()>,
}

/// Makes such a transaction, and what has it go on. Calls are counted from 1.
fn stopped<T>(transaction: T, at: usize) -> (Stopped<T>, oneshot::Sender<()>) {
    let (resume, resumed) = oneshot::channel();
    let stopped = Stopped {
        transaction,
        at,
        resumed,
    };
    (stopped, resume)
}

impl<T: Transaction> Transaction for Stopped<T> {
    type Output = T::Output;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<T::Output, Error> {
        let mut records = StoppedRecords {
            records,
            calls: 0,
            at: self.at,
            resumed: Some(self.resumed),
        };
        self.transaction.run(&mut records).await
    }
}

struct StoppedRecords<'a> {
    records: &'a mut dyn RecordTransaction,
    calls: usize,
    at: usize,
    resumed: Option<oneshot::Receiver<()>>,
}

impl StoppedRecords<'_> {
    async fn call(&mut self) -> &mut dyn RecordTransaction {
        self.calls += 1;
        if self.calls == self.at
            && let Some(resumed) = self.resumed.take()
        {
            resumed.await.unwrap();
        }
        self.records
    }
}

#[async_trait]
impl RecordTransaction for StoppedRecords<'_> {
    async fn get(&mut self, key: &crate::Key) -> Result<Option<VersionedRecord>, Error> {
        self.call().await.get(key).await
    }

    async fn stat(&mut self, key: &crate::Key) -> Result<Option<Stat>, Error> {
        self.call().await.stat(key).await
    }

    async fn put(
        &mut self,
        key: &crate::Key,
        value: Bytes,
        condition: Condition,
    ) -> Result<Option<Version>, Error> {
        self.call().await.put(key, value, condition).await
    }

    fn others_purge(&self) -> bool {
        self.records.others_purge()
    }

    fn purges(&self) -> bool {
        self.records.purges()
    }

    async fn purge_if(&mut self, key: &crate::Key, version: &Version) -> Result<bool, Error> {
        self.call().await.purge_if(key, version).await
    }

    async fn remove(&mut self, key: &crate::Key) -> Result<(), Error> {
        self.call().await.remove(key).await
    }

    async fn list(
        &mut self,
        prefix: &crate::Key,
        after: Option<&crate::Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        self.call().await.list(prefix, after, limit).await
    }

    async fn complete_bytes(&mut self, _: &StagedBytes, _: &[Part], _: Bytes) -> Result<(), Error> {
        unreachable!("no bytes are completed here")
    }
}

/// A push stores its grant.
struct Enter(GrantKeys);

impl Transaction for Enter {
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let entered = enter_grant(records, &self.0, Timestamp(9)).await?;
        Ok(entered.is_some())
    }
}

/// A push that was killed left a back reference. Two collectors and a push are at it, and one collector ends the grant that the other
/// one made.
#[tokio::test]
async fn a_grant_that_is_gone_is_removed_after_what_refers_to_it() {
    let backend = ObjectStoreBackend::memory();
    let keys = GrantKeys::new(
        &"a".parse().unwrap(),
        &Digest::of(registry_core::Algorithm::Sha256, b"blob"),
    );
    let end = || EndGrants(vec![keys.clone()], Timestamp(9));
    // The back reference is written, and the push dies before the grant.
    {
        let (killed, _resume) = stopped(Enter(keys.clone()), 3);
        let mut killed = pin!(backend.transact(Durability::Synced, killed));
        assert!(poll!(&mut killed).is_pending());
    }

    let (other, resume_other) = stopped(end(), 2);
    let mut other = pin!(backend.transact(Durability::Synced, other));
    assert!(poll!(&mut other).is_pending(), "it has read the back reference");
    let (push, resume_push) = stopped(Enter(keys.clone()), 3);
    let mut push = pin!(backend.transact(Durability::Synced, push));
    assert!(poll!(&mut push).is_pending(), "it has written the back reference");
    let (one, resume_one) = stopped(end(), 4);
    let mut one = pin!(backend.transact(Durability::Synced, one));
    assert!(poll!(&mut one).is_pending(), "it has made a Dead grant");
    resume_other.send(()).unwrap();
    other.await.unwrap();
    resume_push.send(()).unwrap();
    let is_entered = push.await.unwrap();
    resume_one.send(()).unwrap();
    one.await.unwrap();

    let state = |found: Option<VersionedRecord>| {
        found.map_or(State::Absent, |found| state_of_size(found.value.len() as u64))
    };
    let grant = state(backend.get(&keys.grant).await.unwrap());
    let back_reference = state(backend.get(&keys.back_reference).await.unwrap());
    assert!(
        back_reference == State::Live || !matches!(grant, State::Pending | State::Live),
        "{grant:?} {back_reference:?} {is_entered}"
    );
}
