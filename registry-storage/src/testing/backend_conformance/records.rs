//! Records: compare-and-swap.

#![expect(clippy::disallowed_methods, reason = "the tasks of a kit end with its test")]

use std::sync::Arc;

use bytes::Bytes;
use registry_core::{Error, ErrorCode};

use super::steps::{get, key, list, purge_if, put, remove, stat, try_put, value};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Stat, Transaction, Version};
use crate::key::Key;

const WRITERS: usize = 16;

/// A record that was never written reads as `None`, not as an error.
pub async fn absent_records_read_as_nothing<B: Backend>(backend: Arc<B>) {
    assert_eq!(backend.get(&key("uploads/none")).await.unwrap(), None);
    assert_eq!(get(&*backend, key("uploads/none")).await.unwrap(), None);
}

/// Version and size are returned without the value, whatever its size is and was.
pub async fn tells_versions_and_sizes<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/a");
    assert_eq!(stat(&*backend, key.clone()).await.unwrap(), None);
    for size in [0, 100, 900, 100_000, 10] {
        let value = Bytes::from([value("v"), vec![b'x'; size].into()].concat());
        let version = put(&*backend, &key, &value, Condition::Any).await.unwrap();
        let size = value.len() as u64;
        let expected = Some(Stat { version, size });
        assert_eq!(stat(&*backend, key.clone()).await.unwrap(), expected);
    }
    remove(&*backend, key.clone()).await.unwrap();
    assert_eq!(stat(&*backend, key).await.unwrap(), None);
}

/// [`Condition::Absent`] writes once.
pub async fn creates_only_where_absent<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/a");
    let first = value("first");
    let version = put(&*backend, &key, &first, Condition::Absent).await.unwrap();
    let refused = put(&*backend, &key, &value("second"), Condition::Absent).await;
    assert_eq!(refused, None);
    let stored = backend.get(&key).await.unwrap().unwrap();
    assert_eq!((stored.value, stored.version), (first, version));
}

/// [`Condition::Matches`] replaces only the version that it names.
pub async fn updates_only_the_version_compared<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/a");
    let first = put(&*backend, &key, &value("first"), Condition::Absent)
        .await
        .unwrap();
    let second_value = value("second");
    let matches = Condition::Matches(first.clone());
    let second = put(&*backend, &key, &second_value, matches.clone())
        .await
        .unwrap();
    assert_ne!(first, second);
    assert_eq!(put(&*backend, &key, &value("third"), matches).await, None);
    let stored = backend.get(&key).await.unwrap().unwrap();
    assert_eq!((stored.value, stored.version), (second_value, second));
}

/// [`Condition::Matches`] neither restores a removed record nor matches another key's.
pub async fn updates_nothing_where_absent<B: Backend>(backend: Arc<B>) {
    let (here, there) = (key("uploads/here"), key("uploads/there"));
    let version = put(&*backend, &here, &value("here"), Condition::Absent)
        .await
        .unwrap();
    let matches = Condition::Matches(version);
    assert_eq!(
        put(&*backend, &there, &value("there"), matches.clone()).await,
        None
    );
    remove(&*backend, here.clone()).await.unwrap();
    assert_eq!(put(&*backend, &here, &value("again"), matches).await, None);
    assert_eq!(backend.get(&here).await.unwrap(), None);
    assert_eq!(backend.get(&there).await.unwrap(), None);
}

/// [`Condition::Any`] always writes.
pub async fn overwrites_whatever_is_there<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/a");
    for text in ["first", "second"] {
        let value = value(text);
        let version = put(&*backend, &key, &value, Condition::Any).await.unwrap();
        let stored = backend.get(&key).await.unwrap().unwrap();
        assert_eq!((stored.value, stored.version), (value, version));
    }
}

/// A version that a write returned can be compared with at once.
pub async fn returns_the_version_that_is_read<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/a");
    let mut version = put(&*backend, &key, &value("0"), Condition::Any).await.unwrap();
    for text in ["1", "2", "3"] {
        assert_eq!(backend.get(&key).await.unwrap().unwrap().version, version);
        let matches = Condition::Matches(version);
        version = put(&*backend, &key, &value(text), matches).await.unwrap();
    }
}

/// A write that returned is visible to reads and listings, in and outside of transactions.
pub async fn shows_writes_to_every_reader<B: Backend>(backend: Arc<B>) {
    for number in 0..20 {
        let written = key(&format!("uploads/{number}"));
        let value = value("written");
        put(&*backend, &written, &value, Condition::Absent).await.unwrap();
        assert_eq!(backend.get(&written).await.unwrap().unwrap().value, value);
        let stored = get(&*backend, written.clone()).await.unwrap().unwrap();
        assert_eq!(stored.value, value);
        let prefix = key("uploads/");
        let inside = list(&*backend, prefix.clone(), None, 100).await.unwrap();
        let outside = backend.list(&prefix, None, 100).await.unwrap();
        assert!(inside.iter().any(|entry| entry.key == written));
        assert_eq!(inside, outside);
    }
}

/// A record that was changed and changed back does not have its old version: a writer that slept loses.
pub async fn gives_no_version_twice<B: Backend>(backend: Arc<B>) {
    let key = key("blobs/record");
    let stale = put(&*backend, &key, &value("live"), Condition::Absent)
        .await
        .unwrap();
    let condemned = put(
        &*backend,
        &key,
        &value("condemned"),
        Condition::Matches(stale.clone()),
    )
    .await
    .unwrap();
    let live = value("live");
    let rescued = put(&*backend, &key, &live, Condition::Matches(condemned.clone()))
        .await
        .unwrap();
    for old in [stale, condemned] {
        assert_ne!(old, rescued);
        let refused = put(&*backend, &key, &value("dead"), Condition::Matches(old)).await;
        assert_eq!(refused, None);
    }
    assert_eq!(backend.get(&key).await.unwrap().unwrap().value, live);
}

/// Of many that create a record at the same time, exactly one wins, and its value stays.
pub async fn lets_one_of_many_creators_win<B: Backend>(backend: Arc<B>) {
    for round in 0..4 {
        let key = key(&format!("uploads/{round}"));
        one_wins(&backend, &key, Condition::Absent).await;
    }
}

/// Of many that update the same version at the same time, exactly one wins, and its value stays.
pub async fn lets_one_of_many_updaters_win<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/a");
    let mut version = put(&*backend, &key, &value("first"), Condition::Absent)
        .await
        .unwrap();
    for _ in 0..4 {
        version = one_wins(&backend, &key, Condition::Matches(version)).await;
    }
}

async fn one_wins<B: Backend>(backend: &Arc<B>, key: &Key, condition: Condition) -> Version {
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (backend, key, condition) = (Arc::clone(backend), key.clone(), condition.clone());
            tokio::spawn(async move {
                let value = value(&format!("writer {writer}"));
                let written = put(&*backend, &key, &value, condition).await;
                written.map(|version| (value, version))
            })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await.unwrap());
    }
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    let stored = backend.get(key).await.unwrap().unwrap();
    assert_eq!(vec![(stored.value, stored.version.clone())], winners);
    stored.version
}

/// Reads followed by conditional writes lose no update.
pub async fn loses_no_increment<B: Backend>(backend: Arc<B>) {
    let counter = key("collector/cycle");
    put(&*backend, &counter, &value("0"), Condition::Absent)
        .await
        .unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (backend, counter) = (Arc::clone(&backend), counter.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    increment(&*backend, &counter).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stored = backend.get(&counter).await.unwrap().unwrap();
    assert_eq!(number(&stored.value), 20);
}

async fn increment<B: Backend>(backend: &B, counter: &Key) {
    loop {
        let stored = backend.get(counter).await.unwrap().unwrap();
        let next = value(&(number(&stored.value) + 1).to_string());
        let matches = Condition::Matches(stored.version);
        match try_put(backend, counter.clone(), next, matches).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            // Many writers of one record may be refused for a moment, but never get a wrong result.
            Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}"),
        }
    }
}

fn number(value: &Bytes) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    text.split_once(' ').unwrap().0.parse().unwrap()
}

/// A purged record is gone, or unchanged; one that changed meanwhile stays.
pub async fn forgets_only_the_version_compared<B: Backend>(backend: Arc<B>) {
    let key = key("repositories/a/!/tags/latest");
    let stale = put(&*backend, &key, &value("tombstone"), Condition::Absent)
        .await
        .unwrap();
    let current = put(&*backend, &key, &value("tag"), Condition::Any).await.unwrap();
    let is_gone = purge_if(&*backend, key.clone(), stale).await.unwrap();
    assert!(!is_gone);
    assert_eq!(backend.get(&key).await.unwrap().unwrap().version, current);

    let is_gone = purge_if(&*backend, key.clone(), current.clone()).await.unwrap();
    let left = backend.get(&key).await.unwrap();
    assert_eq!(left.is_none(), is_gone);
    let condition = match left {
        None => Condition::Absent,
        Some(stored) => {
            assert_eq!(stored.version, current);
            Condition::Matches(current.clone())
        }
    };
    assert!(put(&*backend, &key, &value("again"), condition).await.is_some());
    assert!(!purge_if(&*backend, key.clone(), current).await.unwrap());
    assert!(backend.get(&key).await.unwrap().is_some());
}

/// A removed record is gone, and removing it again is no error.
pub async fn removes_whatever_is_there<B: Backend>(backend: Arc<B>) {
    let removed = key("uploads/a");
    put(&*backend, &removed, &value("a"), Condition::Absent)
        .await
        .unwrap();
    put(&*backend, &key("uploads/b"), &value("b"), Condition::Absent)
        .await
        .unwrap();
    for _ in 0..2 {
        remove(&*backend, removed.clone()).await.unwrap();
        assert_eq!(backend.get(&removed).await.unwrap(), None);
    }
    let left = backend.list(&key("uploads/"), None, 10).await.unwrap();
    assert_eq!(left.len(), 1);
}

/// A session's record holds a tail below the size of a part.
pub async fn keeps_large_values<B: Backend>(backend: Arc<B>) {
    let key = key("uploads/large");
    let mut content = value("large").to_vec();
    content.resize(backend.tail_limit(0).max(4 << 20) + 4096, 7);
    let content = Bytes::from(content);
    put(&*backend, &key, &content, Condition::Absent).await.unwrap();
    let stored = backend.get(&key).await.unwrap().unwrap();
    assert!(stored.value == content, "{} bytes came back", stored.value.len());
}

/// An error that a transaction returns reaches the caller.
pub async fn returns_the_error_of_a_sequence<B: Backend>(backend: Arc<B>) {
    struct Refuse;

    impl Transaction for Refuse {
        type Output = ();

        async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
            records.get(&key("uploads/a")).await?;
            Err(Error::new(ErrorCode::TagConflict, "refused"))
        }
    }

    let error = backend.transact(Durability::Synced, Refuse).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (ErrorCode::TagConflict, "refused")
    );
}
