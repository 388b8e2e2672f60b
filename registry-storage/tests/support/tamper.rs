//! Changing records behind a store's back.

use bytes::Bytes;
use registry_core::Error;
use registry_storage::backend::{Condition, Durability, RecordTransaction, Transaction};
use registry_storage::{Backend, Key, Store};
use serde_json::Value;

struct Tamper(Key, Option<Bytes>);

impl Transaction for Tamper {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        match self.1 {
            Some(value) => records.put(&self.0, value, Condition::Any).await.map(drop),
            None => records.remove(&self.0).await,
        }
    }
}

pub(crate) async fn put_raw<B: Backend>(store: &Store<B>, key: &Key, value: Bytes) {
    store
        .backend()
        .transact(Durability::Synced, Tamper(key.clone(), Some(value)))
        .await
        .unwrap();
}

pub(crate) async fn remove<B: Backend>(store: &Store<B>, key: &Key) {
    store
        .backend()
        .transact(Durability::Synced, Tamper(key.clone(), None))
        .await
        .unwrap();
}

/// Changes the first line of a record, and keeps its size modulo 8.
pub(crate) async fn edit_header<B: Backend>(store: &Store<B>, key: &Key, edit: impl FnOnce(&mut Value)) {
    let before = store.backend().get(key).await.unwrap().unwrap().value;
    let end = before.iter().position(|&byte| byte == b'\n').unwrap();
    let mut header: Value = serde_json::from_slice(&before[..end]).unwrap();
    edit(&mut header);
    let mut value = header.to_string().into_bytes();
    while (value.len() + before.len() - end) % 8 != before.len() % 8 {
        value.push(b' ');
    }
    value.extend_from_slice(&before[end..]);
    put_raw(store, key, value.into()).await;
}
