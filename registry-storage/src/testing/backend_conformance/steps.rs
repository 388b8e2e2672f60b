//! Transactions of one step, and values.

use bytes::Bytes;
use registry_core::Error;
use uuid::Uuid;

use crate::backend::{
    Backend, Condition, Durability, Part, RecordTransaction, StagedBytes, Stat, Transaction, Version,
    VersionedRecord,
};
use crate::key::Key;

/// Returns a key below `folder`.
pub(super) fn key(text: &str) -> Key {
    Key::from_stored(text)
}

/// Returns a value with a fresh nonce.
pub(super) fn value(text: &str) -> Bytes {
    Bytes::from(format!("{text} {}", Uuid::new_v4()))
}

/// Defines a transaction of one step, and a function that runs it.
macro_rules! step {
    ($name:ident, $function:ident($($field:ident: $type:ty),*) -> $output:ty, $records:ident => $step:expr) => {
        struct $name { $($field: $type),* }

        impl Transaction for $name {
            type Output = $output;

            async fn run(self, $records: &mut dyn RecordTransaction) -> Result<$output, Error> {
                let Self { $($field),* } = self;
                $step.await
            }
        }

        pub(super) async fn $function<B: Backend>(backend: &B, $($field: $type),*) -> Result<$output, Error> {
            backend.transact(Durability::Synced, $name { $($field),* }).await
        }
    };
}

step!(ReadStat, stat(key: Key) -> Option<Stat>, records => records.stat(&key));
step!(Get, get(key: Key) -> Option<VersionedRecord>, records => records.get(&key));
step!(
    Put,
    try_put(key: Key, value: Bytes, condition: Condition) -> Option<Version>,
    records => records.put(&key, value, condition)
);
step!(PurgeIf, purge_if(key: Key, version: Version) -> bool, records => records.purge_if(&key, &version));
step!(Remove, remove(key: Key) -> (), records => records.remove(&key));
step!(
    List,
    list(prefix: Key, after: Option<Key>, limit: usize) -> Vec<crate::backend::RecordEntry>,
    records => records.list(&prefix, after.as_ref(), limit)
);
step!(
    Complete,
    complete(bytes: StagedBytes, parts: Vec<Part>, tail: Bytes) -> (),
    records => records.complete_bytes(&bytes, &parts, tail)
);

/// Writes a record and expects no error of the medium.
pub(super) async fn put<B: Backend>(
    backend: &B,
    key: &Key,
    value: &Bytes,
    condition: Condition,
) -> Option<Version> {
    try_put(backend, key.clone(), value.clone(), condition)
        .await
        .unwrap()
}
