//! Records on a disk: conditions, merged commits, the cache, listings.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use registry_core::{Error, ErrorCode};
use registry_storage::Key;
use registry_storage::backend::{
    Backend as _, Condition, Durability, RecordTransaction, Transaction, Version,
};
use registry_storage::filesystem::FilesystemBackend;

struct Put(Key, Bytes, Condition);

impl Transaction for Put {
    type Output = Option<Version>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        records.put(&self.0, self.1, self.2).await
    }
}

/// Writes two records and then says no.
struct WriteAndRefuse;

impl Transaction for WriteAndRefuse {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.put(&key("a"), value("refused"), Condition::Any).await?;
        records.put(&key("new"), value("refused"), Condition::Any).await?;
        assert_eq!(records.get(&key("a")).await?.unwrap().value, "refused");
        Err(ErrorCode::TagConflict.into())
    }
}

struct Panic;

impl Transaction for Panic {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.put(&key("a"), value("lost"), Condition::Any).await?;
        panic!("on purpose");
    }
}

struct WaitForEver;

impl Transaction for WaitForEver {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.put(&key("a"), value("lost"), Condition::Any).await?;
        std::future::pending().await
    }
}

struct Remove(Key, Option<Version>);

impl Transaction for Remove {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        match self.1 {
            Some(version) => records.purge_if(&self.0, &version).await.map(|_| ()),
            None => records.remove(&self.0).await,
        }
    }
}

fn key(text: &str) -> Key {
    Key::from_stored(text)
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn open() -> (tempfile::TempDir, FilesystemBackend) {
    let root = tempfile::tempdir().unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    (root, backend)
}

async fn put(
    backend: &FilesystemBackend,
    name: &str,
    content: &str,
    condition: Condition,
) -> Option<Version> {
    backend
        .transact(Durability::Synced, Put(key(name), value(content), condition))
        .await
        .unwrap()
}

async fn read(backend: &FilesystemBackend, name: &str) -> Option<String> {
    let stored = backend.get(&key(name)).await.unwrap()?;
    Some(String::from_utf8(stored.value.to_vec()).unwrap())
}

#[tokio::test]
async fn conditions_hold() {
    let (_root, backend) = open().await;
    assert_eq!(read(&backend, "a").await, None);
    let first = put(&backend, "a", "1", Condition::Absent).await.unwrap();
    assert_eq!(put(&backend, "a", "2", Condition::Absent).await, None);
    assert_eq!(read(&backend, "a").await.unwrap(), "1");
    let second = put(&backend, "a", "1", Condition::Matches(first.clone()))
        .await
        .unwrap();
    assert_ne!(first, second, "an equal value has a version of its own");
    assert_eq!(
        put(&backend, "a", "3", Condition::Matches(first.clone())).await,
        None
    );
    assert_eq!(
        put(&backend, "b", "3", Condition::Matches(first.clone())).await,
        None
    );
    assert_eq!(
        put(
            &backend,
            "a",
            "3",
            Condition::Matches(Version("no version".into()))
        )
        .await,
        None
    );
    let third = put(&backend, "a", "4", Condition::Any).await.unwrap();
    assert_eq!(backend.get(&key("a")).await.unwrap().unwrap().version, third);
    backend
        .transact(Durability::Synced, Remove(key("a"), Some(second)))
        .await
        .unwrap();
    assert_eq!(read(&backend, "a").await.unwrap(), "4");
    backend
        .transact(Durability::Synced, Remove(key("a"), Some(third)))
        .await
        .unwrap();
    assert_eq!(read(&backend, "a").await, None);
    put(&backend, "a", "5", Condition::Absent).await.unwrap();
    backend
        .transact(Durability::Deferred, Remove(key("a"), None))
        .await
        .unwrap();
    assert_eq!(read(&backend, "a").await, None);
}

#[tokio::test]
async fn records_survive_reopening() {
    let (root, backend) = open().await;
    let version = put(&backend, "a", "1", Condition::Any).await.unwrap();
    backend
        .transact(Durability::Deferred, Put(key("b"), value("2"), Condition::Any))
        .await
        .unwrap();
    backend.close().await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(
        backend.get(&key("a")).await.unwrap_err().code(),
        ErrorCode::Unavailable
    );
    let refused = backend
        .transact(Durability::Synced, Remove(key("a"), None))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable);
    let log = std::fs::metadata(root.path().join("records.sqlite-wal")).unwrap();
    assert_eq!(log.len(), 0, "the log was copied back");

    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    assert_eq!(read(&backend, "b").await.unwrap(), "2");
    put(&backend, "a", "3", Condition::Matches(version))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_sixteen_writers_wins() {
    let (_root, backend) = open().await;
    let backend = Arc::new(backend);
    let mut condition = Condition::Absent;
    for round in 0..20 {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let backend = Arc::clone(&backend);
                let step = Put(key("a"), value(&format!("{round} {writer}")), condition.clone());
                tokio::spawn(async move { backend.transact(Durability::Synced, step).await.unwrap() })
            })
            .collect();
        let mut winners = Vec::new();
        for (at, writer) in writers.into_iter().enumerate() {
            winners.extend(writer.await.unwrap().map(|version| (at, version)));
        }
        let [(winner, version)] = winners.as_slice() else {
            panic!("{} winners", winners.len())
        };
        assert_eq!(read(&backend, "a").await.unwrap(), format!("{round} {winner}"));
        condition = Condition::Matches(version.clone());
    }
}

#[tokio::test]
async fn concurrent_sequences_share_a_commit() {
    let (_root, backend) = open().await;
    let commits = backend.commits();
    let transactions = (0..200).map(|number| {
        let durability = if number % 2 == 0 {
            Durability::Synced
        } else {
            Durability::Deferred
        };
        backend.transact(
            durability,
            Put(key(&format!("{number:03}")), value("1"), Condition::Absent),
        )
    });
    let results = futures_util::future::join_all(transactions).await;
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().is_ok_and(Option::is_some))
    );
    let commits = backend.commits() - commits;
    assert!(
        commits < 20,
        "{commits} commits for 200 transactions that were asked for at once"
    );
}

#[tokio::test]
async fn a_refused_sequence_leaves_nothing_and_spares_the_others() {
    let (_root, backend) = open().await;
    put(&backend, "a", "1", Condition::Any).await;
    let other = backend.transact(Durability::Synced, Put(key("b"), value("2"), Condition::Any));
    let refused = backend.transact(Durability::Synced, WriteAndRefuse);
    let panicking = backend.transact(Durability::Synced, Panic);
    let waiting = backend.transact(Durability::Synced, WaitForEver);
    let last = backend.transact(Durability::Synced, Put(key("c"), value("3"), Condition::Any));
    let (other, refused, panicking, waiting, last) = tokio::join!(other, refused, panicking, waiting, last);
    other.unwrap().unwrap();
    assert_eq!(refused.unwrap_err().code(), ErrorCode::TagConflict);
    assert_eq!(panicking.unwrap_err().code(), ErrorCode::Internal);
    assert_eq!(waiting.unwrap_err().code(), ErrorCode::Internal);
    last.unwrap().unwrap();
    assert_eq!(read(&backend, "a").await.unwrap(), "1");
    assert_eq!(read(&backend, "new").await, None);
    assert_eq!(backend.list(&key(""), None, 1000).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_sequence_runs_though_nobody_waits_for_it() {
    let (_root, backend) = open().await;
    {
        let dropped = backend.transact(Durability::Synced, Put(key("a"), value("1"), Condition::Any));
        // One poll puts it into the queue.
        drop(futures_util::FutureExt::now_or_never(dropped));
    }
    put(&backend, "b", "1", Condition::Any).await;
    assert_eq!(read(&backend, "a").await.unwrap(), "1");
}

/// Four tasks count in a few records, others read them: a read that begins after a write was answered is never older,
/// and what one reader sees never goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_are_never_older_than_an_answered_write() {
    let (_root, backend) = open().await;
    let backend = Arc::new(backend);
    let answered: Arc<Vec<AtomicU64>> = Arc::new((0..4).map(|_| AtomicU64::new(0)).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (backend, answered, is_over) =
                (Arc::clone(&backend), Arc::clone(&answered), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut seen = [0; 4];
                let mut reads = 0_u64;
                while !is_over.load(Ordering::SeqCst) {
                    let at = (usize::try_from(reads).unwrap() + reader) % 4;
                    let oldest = answered[at].load(Ordering::SeqCst).max(seen[at]);
                    let found = read(&backend, &format!("record {at}")).await;
                    let found = found.map_or(0, |found| found.parse().unwrap());
                    assert!(found >= oldest, "read {found} after {oldest}");
                    seen[at] = found;
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    let writers: Vec<_> = (0..4)
        .map(|at| {
            let (backend, answered) = (Arc::clone(&backend), Arc::clone(&answered));
            tokio::spawn(async move {
                for number in 1..=500_u64 {
                    let name = format!("record {at}");
                    let step = Put(key(&name), value(&number.to_string()), Condition::Any);
                    backend.transact(Durability::Deferred, step).await.unwrap();
                    answered[at].store(number, Ordering::SeqCst);
                    if number % 7 == 0 {
                        // Another key takes part in the same commits, and values too large for the cache.
                        let large = Put(key("large"), Bytes::from(vec![b'x'; 70_000]), Condition::Any);
                        backend.transact(Durability::Deferred, large).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, u16),
    Remove(String),
    Page { prefix: String, limit: usize },
}

fn names() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ab!/zé\u{10FFFF}]{0,4}").unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (names(), 0..5000_u16).prop_map(|(name, size)| Step::Put(name, size)),
        1 => names().prop_map(Step::Remove),
        2 => (names(), 1..5_usize).prop_map(|(prefix, limit)| Step::Page { prefix, limit }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn listings_agree_with_an_ordered_map(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_root, backend) = open().await;
            let mut model: BTreeMap<String, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Put(name, size) => {
                        let step = Put(key(&name), Bytes::from(vec![0; size.into()]), Condition::Any);
                        backend.transact(Durability::Deferred, step).await.unwrap();
                        model.insert(name, size.into());
                    }
                    Step::Remove(name) => {
                        backend.transact(Durability::Deferred, Remove(key(&name), None)).await.unwrap();
                        model.remove(&name);
                    }
                    Step::Page { prefix, limit } => {
                        let mut listed = Vec::new();
                        let mut after = None;
                        loop {
                            let page = backend.list(&key(&prefix), after.as_ref(), limit).await.unwrap();
                            assert!(page.len() <= limit);
                            let Some(last) = page.last() else { break };
                            after = Some(last.key.clone());
                            listed.extend(page.into_iter().map(|entry| (entry.key.to_string(), entry.size)));
                        }
                        let expected: Vec<_> = model
                            .iter()
                            .filter(|(name, _)| name.starts_with(&prefix))
                            .map(|(name, size)| (name.clone(), *size))
                            .collect();
                        assert_eq!(listed, expected);
                    }
                }
            }
            for (name, size) in model {
                assert_eq!(backend.get(&key(&name)).await.unwrap().unwrap().value.len() as u64, size);
            }
        });
    }
}
