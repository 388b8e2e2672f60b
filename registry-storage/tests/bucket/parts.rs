//! Uploads to a bucket, where several parts are on their way at once.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_immediate;
use futures_util::{Stream, StreamExt as _, stream};
use registry_core::storage::{UploadKey, UploadStorage};
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, Storage};
use registry_storage::backend::{Durability, RecordTransaction, Transaction};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::s3::S3Fault;
use registry_storage::testing::{Faulty, ManualClock, S3Double};
use registry_storage::{
    Backend as _, Key, Maintenance as _, ObjectStoreBackend, PartSize, Store, StoreOptions, SweepOptions,
    SystemClock,
};
use tokio::time::timeout;

use crate::support::images::create_upload;

const MIB: usize = 1024 * 1024;
/// The size of the first parts in a bucket.
const PART: usize = 5 * MIB;
/// How many parts of an upload are on their way at once.
const AT_ONCE: usize = 4;
const DEADLINE: Duration = Duration::from_secs(60);

fn content(seed: u64, size: usize) -> Bytes {
    let mut state = seed + 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

fn chunks(content: &Bytes, size: usize) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
    let chunks: Vec<Bytes> = content.chunks(size).map(Bytes::copy_from_slice).collect();
    stream::iter(chunks.into_iter().map(Ok))
}

async fn start(storage: &dyn Storage) -> UploadKey {
    create_upload(storage, "a").await.unwrap()
}

async fn append(
    storage: &dyn Storage,
    upload: &UploadKey,
    body: impl Stream<Item = Result<Bytes, Error>> + Send,
) -> Result<u64, Error> {
    let mut body = pin!(body);
    storage.append_upload(upload, None, body.as_mut()).await
}

async fn assert_commits(storage: &dyn Storage, upload: &UploadKey, content: &Bytes) {
    let digest = Digest::of(Algorithm::Sha256, content);
    storage.commit_upload(upload, &digest).await.unwrap();
    assert_stored(storage, &upload.repository, &digest, content).await;
}

async fn assert_stored(storage: &dyn Storage, repository: &RepositoryName, digest: &Digest, content: &Bytes) {
    let blob = storage.open_blob(repository, digest).await.unwrap();
    let mut stream = blob.content.read(0..content.len() as u64);
    let mut stored = Vec::new();
    while let Some(chunk) = stream.next().await {
        stored.extend_from_slice(&chunk.unwrap());
    }
    assert!(stored == *content, "other bytes are stored");
}

async fn until(mut is_true: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap();
}

/// The part that is the first is answered last. Until then the others are a gap away from what counts.
#[tokio::test]
async fn several_parts_are_on_their_way_at_once_and_none_counts_before_those_ahead_of_it() {
    let double = S3Double::start().await.unwrap();
    let store = Arc::new(Store::new(double.backend("").unwrap()));
    let upload = start(&*store).await;
    drop(double.faults().take_seen());
    // Read the session, write it, begin the upload, write that down.
    double
        .faults()
        .fault_after(4, S3Fault::Delay(Duration::from_secs(2)));
    let whole = content(1, 7 * PART + 100);
    let appending = tokio::spawn({
        let (store, upload, body) = (Arc::clone(&store), upload.clone(), chunks(&whole, 300_000));
        async move { append(&*store, &upload, body).await }
    });
    let mut seen = Vec::new();
    let number = |request: &String| {
        let (_, number) = request.split_once("partNumber=")?;
        number.split('&').next()?.parse::<usize>().ok()
    };
    until(async || {
        seen.extend(double.faults().take_seen());
        seen.iter().filter_map(number).count() == AT_ONCE
    })
    .await;
    assert_eq!(number(&seen[4]), Some(1), "{seen:?}");
    let other = Store::new(double.backend("").unwrap());
    let other: &dyn Storage = &other;
    for _ in 0..20 {
        assert_eq!(other.upload_status(&upload).await.unwrap(), 0);
    }
    seen.extend(double.faults().take_seen());
    let mut parts: Vec<usize> = seen.iter().filter_map(number).collect();
    parts.sort_unstable();
    assert_eq!(
        parts,
        [1, 2, 3, 4],
        "no more than these before the first is answered"
    );
    assert_eq!(appending.await.unwrap().unwrap(), whole.len() as u64);
    assert_commits(&*store, &upload, &whole).await;
}

#[tokio::test]
async fn the_session_is_not_written_for_each_part() {
    let double = S3Double::start().await.unwrap();
    let store = Store::new(double.backend("").unwrap());
    let upload = start(&store).await;
    drop(double.faults().take_seen());
    let whole = content(1, 12 * PART + 100);
    append(&store, &upload, chunks(&whole, 300_000)).await.unwrap();
    let seen = double.faults().take_seen();
    let writes = seen
        .iter()
        .filter(|request| request.starts_with("PUT /bucket/uploads/"));
    // When the append begins, when the upload in the bucket exists, and at the end.
    assert_eq!(writes.count(), 3, "{seen:?}");
    assert_commits(&store, &upload, &whole).await;
}

/// Another process sees what a dead one had written down.
#[tokio::test]
async fn a_process_that_dies_loses_little() {
    const SENT: usize = 160 * MIB;
    let backend = ObjectStoreBackend::memory();
    let (store, other) = (Store::new(backend.clone()), Store::new(backend));
    let upload = start(&store).await;
    let whole = content(1, SENT);
    {
        let endless = chunks(&whole, 300_000).chain(stream::pending());
        let mut appending = pin!(append(&store, &upload, endless));
        let other: &dyn Storage = &other;
        until(async || {
            assert!(poll_immediate(&mut appending).await.is_none());
            let kept = other.upload_status(&upload).await.unwrap();
            // What arrived since the record was written, and the part that is gathered.
            SENT - usize::try_from(kept).unwrap() <= 64 * MIB + PART
        })
        .await;
    }
    let kept = usize::try_from((&other as &dyn Storage).upload_status(&upload).await.unwrap()).unwrap();
    let rest = whole.slice(kept..);
    append(&other, &upload, chunks(&rest, 300_000)).await.unwrap();
    assert_commits(&other, &upload, &whole).await;
}

/// Whatever call is late while another one fails, or loses its answer: the session has a beginning of what was sent, and goes on
/// from there with other bytes, which have the numbers of parts that were sent before and did not count.
#[tokio::test]
async fn whatever_part_fails_only_what_has_no_gap_counts() {
    const SMALL: usize = 1024;
    let first = content(1, 9 * SMALL + 100);
    let second = content(2, 6 * SMALL + 50);
    let world = || {
        let backend = ObjectStoreBackend::memory();
        let store = |backend| Store::new(Faulty::new(backend).with_part_size(SMALL));
        (store(backend.clone()), store(backend))
    };
    let (store, _) = world();
    let upload = start(&store).await;
    let before = store.backend().calls();
    append(&store, &upload, chunks(&first, 700)).await.unwrap();
    let after = store.backend().calls();
    assert!(after - before > 10);
    let (mut kept_some, mut kept_less) = (0, 0);
    for fault in [Fault::Fail, Fault::LoseAnswer] {
        for failing in before..after {
            for late in before..after {
                let (store, other) = world();
                let faulty = store.backend();
                let upload = start(&store).await;
                assert_eq!(faulty.calls(), before);
                faulty.fault_at(late, Fault::Delay(30));
                faulty.fault_at(failing, fault);
                let appended = append(&store, &upload, chunks(&first, 700)).await;
                faulty.heal();
                let storage: &dyn Storage = &store;
                let kept = usize::try_from(storage.upload_status(&upload).await.unwrap()).unwrap();
                match appended {
                    Ok(length) => assert_eq!(kept as u64, length),
                    Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}"),
                }
                kept_some += usize::from(kept > 0);
                kept_less += usize::from(kept < first.len());
                // Every other time it is another process that goes on.
                let next = if late % 2 == 0 { &store } else { &other };
                append(next, &upload, chunks(&second, 700)).await.unwrap();
                let whole: Bytes = [&first[..kept], &second].concat().into();
                assert_commits(next, &upload, &whole).await;
            }
        }
    }
    assert!(kept_some > 100 && kept_less > 100, "{kept_some} {kept_less}");
}

/// An upload that goes on after a long tail, at every call that fails or loses its answer, in this process or another: it has a
/// beginning of what was sent, and what was parked goes with the commit.
#[tokio::test]
async fn a_long_tail_is_kept_whatever_fails() {
    const MEDIUM: usize = 256 * 1024;
    let first = content(1, MEDIUM + 200_000);
    let bodies = [content(2, 20_000), content(3, 100_000), content(4, 2 * MEDIUM)];
    let mut kept_less = 0;
    for second in &bodies {
        for fault in [Fault::Fail, Fault::LoseAnswer] {
            for at in 0.. {
                let backend = ObjectStoreBackend::memory();
                let faulty = Faulty::new(backend.clone()).with_part_size(MEDIUM);
                let store = Store::new(faulty);
                let other = Store::new(Faulty::new(backend.clone()).with_part_size(MEDIUM));
                let faulty = store.backend();
                let upload = start(&store).await;
                append(&store, &upload, chunks(&first, 70_000)).await.unwrap();
                assert_eq!(parked(&backend).await, 1);
                let begun = faulty.calls();
                faulty.fault_at(begun + at, fault);
                let appended = append(&store, &upload, chunks(second, 70_000)).await;
                let is_through = faulty.calls() <= begun + at;
                faulty.heal();
                let storage: &dyn Storage = &store;
                let kept = usize::try_from(storage.upload_status(&upload).await.unwrap()).unwrap();
                assert!(kept >= first.len(), "{at} {appended:?}");
                kept_less += usize::from(kept < first.len() + second.len());
                let next = if at % 2 == 0 { &store } else { &other };
                let whole = [&first, second, &bodies[0][..]].concat();
                append(next, &upload, chunks(&whole[kept..].to_vec().into(), 70_000))
                    .await
                    .unwrap();
                assert_commits(next, &upload, &whole.into()).await;
                next.sweep(&SweepOptions::default()).await.unwrap();
                assert_eq!(parked(&backend).await, 0, "{at}");
                if is_through {
                    break;
                }
            }
        }
    }
    assert!(kept_less > 10, "{kept_less}");
}

async fn parked(backend: &ObjectStoreBackend) -> usize {
    let keys = backend.list(&Key::all_parked(), None, 100).await.unwrap();
    keys.len()
}

/// A closing request whose body ends with the wrong digest changes nothing, and another algorithm reads the tail too.
#[tokio::test]
async fn a_long_tail_becomes_a_blob_in_each_way() {
    for (size, algorithm) in [
        (200_000, Algorithm::Sha256),
        (200_000, Algorithm::Sha512),
        (PART + 200_000, Algorithm::Sha256),
        (PART + 200_000, Algorithm::Sha512),
    ] {
        for rest in [0, 10, 300_000] {
            let backend = ObjectStoreBackend::memory();
            let store = Store::new(backend.clone());
            let storage: &dyn Storage = &store;
            let whole = content(1, size);
            let (had, sent) = (whole.slice(..size - rest.min(100_000)), rest.min(100_000));
            let upload = start(&store).await;
            append(&store, &upload, chunks(&had, 70_000)).await.unwrap();
            let expected = usize::from(had.len() % PART > 64 * 1024);
            assert_eq!(parked(&backend).await, expected);
            let finish = async |digest: &Digest, body: Bytes| {
                let mut body = pin!(chunks(&body, 70_000));
                storage.finish_upload(&upload, digest, None, body.as_mut()).await
            };
            let wrong = Digest::of(Algorithm::Sha256, b"other");
            let refused = finish(&wrong, content(2, rest)).await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::DigestInvalid);
            assert_eq!(storage.upload_status(&upload).await.unwrap(), had.len() as u64);
            let digest = Digest::of(algorithm, &whole);
            let length = finish(&digest, whole.slice(size - sent..)).await.unwrap();
            assert_eq!(length, size as u64);
            assert_stored(&store, &upload.repository, &digest, &whole).await;
            // Only what a sealed tail replaced waits for the sweep.
            let is_replaced = size > PART && algorithm == Algorithm::Sha512 && sent > 0;
            assert_eq!(parked(&backend).await, usize::from(is_replaced && expected > 0));
            store.sweep(&SweepOptions::default()).await.unwrap();
            assert_eq!(parked(&backend).await, 0);
            // The answer was lost.
            storage.commit_upload(&upload, &digest).await.unwrap();
        }
    }
}

/// Two replicas close one session at once, with different digests: one of a body that is still arriving. What the other one published
/// stays, however often the bucket is swept.
#[tokio::test]
async fn bytes_that_are_a_blob_are_not_left_by_a_request_that_wanted_another_digest() {
    for had in [20_000, PART + 20_000] {
        let (backend, clock) = (ObjectStoreBackend::memory(), Arc::new(ManualClock::default()));
        let replica = || {
            Store::with_options(
                Arc::new(backend.clone()),
                Arc::clone(&clock) as _,
                StoreOptions::default(),
            )
        };
        let (one, other) = (replica(), replica());
        let storage: &dyn Storage = &one;
        let first = content(1, had);
        let upload = start(&one).await;
        append(&one, &upload, chunks(&first, 70_000)).await.unwrap();
        let (more, whole) = (content(2, 30_000), [&first[..], &content(2, 30_000)].concat());
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let arrives = stream::iter([Ok(more.slice(..10_000))]).chain(stream::once(async {
            receive.await.unwrap();
            Ok(more.slice(10_000..))
        }));
        let mut arrives = pin!(arrives);
        let wanted = Digest::of(Algorithm::Sha256, &whole);
        let digest = Digest::of(Algorithm::Sha256, &first);
        let finishing = storage.finish_upload(&upload, &wanted, None, arrives.as_mut());
        let mut finishing = pin!(finishing);
        for _ in 0..100 {
            assert!(poll_immediate(&mut finishing).await.is_none());
            tokio::task::yield_now().await;
        }
        assert_commits(&other, &upload, &first).await;
        send.send(()).unwrap();
        finishing.await.unwrap_err();
        for _ in 0..10 {
            other.sweep(&SweepOptions::default()).await.unwrap();
            clock.advance(Duration::from_hours(30));
        }
        assert_stored(&replica(), &upload.repository, &digest, &first).await;
    }
}

/// Two replicas go on with one session by turns, each before the other one ends: what is parked of it stays bounded.
#[tokio::test]
async fn tails_of_requests_that_lost_their_session_do_not_pile_up() {
    let backend = ObjectStoreBackend::memory();
    let replicas = [(); 2].map(|()| Store::new(backend.clone()));
    let upload = start(&replicas[0]).await;
    let first = content(1, PART - 100_000);
    append(&replicas[0], &upload, chunks(&first, 300_000))
        .await
        .unwrap();
    for round in 0..10 {
        let mut requests = Vec::new();
        for replica in &replicas {
            let (send, receive) = tokio::sync::oneshot::channel::<()>();
            let body = stream::iter([Ok(Bytes::from("a"))]).chain(stream::once(async {
                receive.await.unwrap();
                Ok(Bytes::from("b"))
            }));
            let upload = &upload;
            let mut request = Box::pin(async move { append(replica, upload, body).await });
            for _ in 0..100 {
                assert!(poll_immediate(&mut request).await.is_none());
                tokio::task::yield_now().await;
            }
            requests.push((request, send));
        }
        for (number, (request, send)) in requests.into_iter().enumerate() {
            send.send(()).unwrap();
            assert_eq!(request.await.is_ok(), number == 1, "{round}");
        }
        assert_eq!(parked(&backend).await, 1, "{round}");
    }
    let whole = [&first[..], &b"ab".repeat(10)].concat().into();
    assert_commits(&replicas[0], &upload, &whole).await;
}

/// The closing request is sent to two replicas, as by a balancer: both answer with success. What the medium lost is no endless 503.
#[tokio::test]
async fn who_finds_a_long_tail_gone_says_why() {
    let backend = ObjectStoreBackend::memory();
    let [one, other] = [(); 2].map(|()| Store::new(Faulty::new(backend.clone())));
    let whole = content(1, 300_000);
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let upload = start(&one).await;
    append(&one, &upload, chunks(&whole, 70_000)).await.unwrap();
    // It reads the session, and then the tail.
    let faulty = other.backend();
    faulty.fault_at(faulty.calls() + 1, Fault::Delay(100_000));
    let close = async |store: &dyn Storage| store.commit_upload(&upload, &digest).await;
    let (first, second) = tokio::join!(close(&one), close(&other));
    first.unwrap();
    second.unwrap();

    for wanted in [&whole, &content(2, 400_000)] {
        let upload = start(&one).await;
        append(&one, &upload, chunks(&wanted.slice(..200_000), 70_000))
            .await
            .unwrap();
        for entry in backend.list(&Key::all_parked(), None, 10).await.unwrap() {
            let remove = Remove(entry.key);
            backend.transact(Durability::Deferred, remove).await.unwrap();
        }
        let rest = content(3, 6 * MIB);
        let lost = append(&one, &upload, chunks(&rest, 70_000)).await.unwrap_err();
        assert_eq!(lost.code(), ErrorCode::BlobUploadInvalid, "{lost:?}");
        let lost = (&one as &dyn Storage)
            .commit_upload(&upload, &digest)
            .await
            .unwrap_err();
        assert_eq!(lost.code(), ErrorCode::BlobUploadInvalid, "{lost:?}");
    }
}

struct Remove(Key);

impl Transaction for Remove {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.remove(&self.0).await
    }
}

/// A tail that is longer than a part, since parts were made smaller, takes no memory that it waits for itself.
#[tokio::test]
async fn a_tail_that_is_longer_than_a_part_becomes_parts() {
    let backend = ObjectStoreBackend::memory();
    let size = |bytes: usize| PartSize::try_from(bytes as u64).unwrap();
    let large = Store::new(backend.clone().with_part_size(size(30 * MIB)));
    let small = Store::new(backend.with_part_size(size(PART)).with_part_memory(4 * PART));
    let whole = content(1, 28 * MIB);
    let had = whole.slice(..27 * MIB);
    for closes in [false, true] {
        let upload = start(&large).await;
        append(&large, &upload, chunks(&had, 300_000)).await.unwrap();
        let rest = chunks(&whole.slice(27 * MIB..), 300_000);
        let digest = Digest::of(Algorithm::Sha256, &whole);
        let storage: &dyn Storage = &small;
        let go_on = async {
            if closes {
                let mut rest = pin!(rest);
                storage
                    .finish_upload(&upload, &digest, None, rest.as_mut())
                    .await
                    .unwrap();
            } else {
                append(&small, &upload, rest).await.unwrap();
                storage.commit_upload(&upload, &digest).await.unwrap();
            }
        };
        timeout(DEADLINE, go_on).await.unwrap();
        assert_stored(&small, &upload.repository, &digest, &whole).await;
    }
}

/// Nor is anything of it lost, whatever call fails or loses its answer meanwhile.
#[tokio::test]
async fn a_tail_that_is_longer_than_a_part_is_kept_whatever_fails() {
    const LARGE: usize = 512 * 1024;
    const SMALL: usize = 100 * 1024;
    let whole = content(1, 450_000);
    let had = whole.slice(..400_000);
    for fault in [Fault::Fail, Fault::LoseAnswer] {
        let mut at = 0;
        loop {
            let backend = ObjectStoreBackend::memory();
            let store = |size| Store::new(Faulty::new(backend.clone()).with_part_size(size));
            let (large, small) = (store(LARGE), store(SMALL));
            let upload = start(&large).await;
            append(&large, &upload, chunks(&had, 70_000)).await.unwrap();
            let faulty = small.backend();
            let begun = faulty.calls();
            faulty.fault_at(begun + at, fault);
            let appended = append(&small, &upload, chunks(&whole.slice(400_000..), 10_000)).await;
            let is_through = faulty.calls() <= begun + at;
            faulty.heal();
            let storage: &dyn Storage = &small;
            let kept = usize::try_from(storage.upload_status(&upload).await.unwrap()).unwrap();
            assert!(kept >= had.len(), "{at} {kept} {appended:?}");
            append(&small, &upload, chunks(&whole.slice(kept..), 10_000))
                .await
                .unwrap();
            assert_commits(&small, &upload, &whole).await;
            small.sweep(&SweepOptions::default()).await.unwrap();
            assert_eq!(parked(&backend).await, 0, "{at}");
            if is_through {
                break;
            }
            at += 1;
        }
        assert!(at > 10, "{at}");
    }
}

/// Who resumes an upload and sends nothing has no memory, nor has who asks for its status.
#[tokio::test]
async fn a_long_tail_is_read_only_when_its_part_is_whole() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap().with_part_memory(4 * PART);
    let store = Arc::new(Store::new(backend));
    let tail = content(1, PART - 1000);
    let mut stalled = tokio::task::JoinSet::new();
    let mut uploads = Vec::new();
    for _ in 0..12 {
        let upload = start(&*store).await;
        append(&*store, &upload, chunks(&tail, 300_000)).await.unwrap();
        uploads.push(upload);
    }
    drop(double.faults().take_seen());
    for upload in &uploads {
        let (store, upload) = (Arc::clone(&store), upload.clone());
        let (asked, was_asked) = tokio::sync::oneshot::channel();
        let mut asked = Some(asked);
        let body = stream::poll_fn(move |_| {
            asked.take().map(|asked| asked.send(()));
            std::task::Poll::Pending
        });
        stalled.spawn(async move { append(&*store, &upload, body).await });
        was_asked.await.unwrap();
    }
    let storage: &dyn Storage = &*store;
    for upload in &uploads {
        assert_eq!(storage.upload_status(upload).await.unwrap(), tail.len() as u64);
    }
    let seen = double.faults().take_seen();
    assert!(
        !seen.iter().any(|request| request.contains("/parked/")),
        "{seen:?}"
    );
    let whole = content(2, 3 * PART + 100);
    let push = async {
        let upload = start(&*store).await;
        append(&*store, &upload, chunks(&whole, 300_000)).await.unwrap();
        assert_commits(&*store, &upload, &whole).await;
    };
    timeout(Duration::from_secs(8), push).await.unwrap();
    assert_eq!(stalled.len(), 12);
    stalled.shutdown().await;
    let rest = content(3, 5000);
    append(&*store, &uploads[0], chunks(&rest, 1000)).await.unwrap();
    let whole = [&tail[..], &rest].concat().into();
    assert_commits(&*store, &uploads[0], &whole).await;
}

/// Clients that send next to nothing hold no memory that others need.
#[tokio::test]
async fn clients_that_stop_after_a_byte_do_not_keep_others_out() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap().with_part_memory(4 * PART);
    let store = Arc::new(Store::new(backend));
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (store, upload) = (Arc::clone(&store), start(&*store).await);
        let (asked, was_asked) = tokio::sync::oneshot::channel();
        let mut asked = Some(asked);
        let byte = stream::iter([Ok(Bytes::from("a"))]);
        let body = byte.chain(stream::poll_fn(move |_| {
            asked.take().map(|asked| asked.send(()));
            std::task::Poll::Pending
        }));
        stalled.spawn(async move { append(&*store, &upload, body).await });
        was_asked.await.unwrap();
    }
    let whole = content(1, 3 * PART + 100);
    let push = async {
        let upload = start(&*store).await;
        append(&*store, &upload, chunks(&whole, 300_000)).await.unwrap();
        assert_commits(&*store, &upload, &whole).await;
    };
    // Less than it takes until memory is taken from anybody.
    timeout(Duration::from_secs(8), push).await.unwrap();
    assert_eq!(stalled.len(), 60);
}

#[tokio::test]
async fn a_blob_of_more_parts_than_a_store_takes_is_refused_when_it_arrives() {
    const MOST: usize = 160_000;
    let size = PartSize::try_from(PART as u64).unwrap();
    let backend = ObjectStoreBackend::memory().with_part_size(size);
    assert!(
        [0, 11 << 30, 200 << 30]
            .iter()
            .all(|offset| backend.part_size(*offset) == PART)
    );
    let store = Store::new(Faulty::new(backend).with_part_size(16));
    let whole = content(1, MOST);
    let upload = start(&store).await;
    append(&store, &upload, chunks(&whole, 3000)).await.unwrap();
    assert_commits(&store, &upload, &whole).await;
    let upload = start(&store).await;
    let more = chunks(&content(2, MOST + 17), 3000).chain(stream::pending());
    let refused = timeout(DEADLINE, append(&store, &upload, more))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BlobUploadInvalid);
    let text = refused.to_string();
    assert!(
        text.contains("160000 bytes") && text.contains("chunksize"),
        "{text}"
    );
    let upload = start(&store).await;
    let one_more = append(&store, &upload, chunks(&content(2, MOST + 1), 3000)).await;
    assert_eq!(one_more.unwrap_err().code(), ErrorCode::BlobUploadInvalid);
}

/// As Swift, which takes 1000 parts: what is larger is refused, whether its last part is sent beside others or at its commit.
#[tokio::test]
async fn a_store_that_takes_fewer_parts_refuses_larger_blobs_and_says_what_helps() {
    const MOST: usize = 1000;
    let double = S3Double::start().await.unwrap();
    double.faults().take_parts_up_to(1000);
    let store = Store::new(Faulty::new(double.backend("").unwrap()).with_part_size(16));
    let upload = start(&store).await;
    let beside = append(&store, &upload, chunks(&content(1, (MOST + 1) * 16), 3000)).await;
    let upload = start(&store).await;
    let tail = content(2, MOST * 16 + 1);
    append(&store, &upload, chunks(&tail, 3000)).await.unwrap();
    let digest = Digest::of(Algorithm::Sha256, &tail);
    let at_commit = UploadStorage::commit_upload(&store, &upload, &digest).await;
    for refused in [beside.map(drop), at_commit] {
        let refused = refused.unwrap_err();
        let text = refused.message();
        assert_eq!(refused.code(), ErrorCode::BlobUploadInvalid, "{text}");
        assert!(text.contains("part 1001") && text.contains("chunksize"), "{text}");
    }
}

/// The parts of an upload cost money until it is completed or aborted, and no listing of objects shows them.
#[tokio::test]
async fn no_upload_stays_in_the_bucket() {
    let double = S3Double::start().await.unwrap();
    let store = Store::new(double.backend("").unwrap());
    let storage: &dyn Storage = &store;
    let whole = content(1, PART + 100);
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let uploads = [start(&store).await, start(&store).await, start(&store).await];
    drop(double.faults().take_seen());
    for upload in &uploads {
        append(&store, upload, chunks(&whole, 300_000)).await.unwrap();
    }
    let seen = double.faults().take_seen();
    let is_written_down = [
        "GET /bucket/uploads/",
        "PUT /bucket/uploads/",
        "POST ",
        "PUT /bucket/uploads/",
        "PUT ",
    ];
    for (request, begin) in seen.iter().zip(is_written_down) {
        assert!(
            request.starts_with(begin),
            "what dies before the first part leaves no parts: {seen:?}"
        );
    }
    for upload in &uploads[..2] {
        storage.commit_upload(upload, &digest).await.unwrap();
    }
    // That of the second, which was not needed.
    assert_eq!(double.open_uploads(), 2);
    // The session is ended before its upload is aborted.
    double.faults().fault_after(2, S3Fault::Answer(400, "Oops"));
    storage.cancel_upload(&uploads[2]).await.unwrap_err();
    storage.upload_status(&uploads[2]).await.unwrap_err();
    assert_eq!(double.open_uploads(), 2);
    let report = store.sweep(&SweepOptions::default()).await.unwrap();
    // The sessions tell of them.
    assert_eq!((double.open_uploads(), report.abandoned_uploads), (0, 0));
    assert_eq!(
        double
            .objects()
            .keys()
            .filter(|key| key.starts_with("bytes/"))
            .count(),
        1
    );
}

/// A body of parts is refused because of its digest, and a small one ends the same upload. If the sweep cannot abort one upload,
/// it goes on with the next.
#[tokio::test]
async fn an_upload_that_a_refused_body_began_is_aborted_although_another_cannot_be() {
    let mut passed_over = 0;
    for others in 0..12 {
        let double = S3Double::start().await.unwrap();
        let store = Store::new(double.backend("").unwrap());
        let storage: &dyn Storage = &store;
        // The first one sweeps everything, which finds what is left as well.
        store.sweep(&SweepOptions::default()).await.unwrap();
        let small = content(1, 100);
        let digest = Digest::of(Algorithm::Sha256, &small);
        for _ in 0..2 {
            let upload = start(&store).await;
            let body = pin!(chunks(&content(2, PART + 100), 300_000));
            let refused = storage.finish_upload(&upload, &digest, None, body).await;
            assert_eq!(refused.unwrap_err().code(), ErrorCode::DigestInvalid);
            let body = pin!(chunks(&small, 100));
            storage.finish_upload(&upload, &digest, None, body).await.unwrap();
        }
        assert_eq!(double.open_uploads(), 2);
        double.faults().fault_after(others, S3Fault::Answer(400, "Oops"));
        let report = store.sweep(&SweepOptions::default()).await;
        if double.open_uploads() == 1 {
            assert_eq!(report.unwrap().undeleted_bytes, 1);
            passed_over += 1;
        }
        double.faults().fault_from_now_on(None);
        store.sweep(&SweepOptions::default()).await.unwrap();
        assert_eq!(double.open_uploads(), 0, "after {others} requests");
        let repository: RepositoryName = "a".parse().unwrap();
        assert_eq!(storage.stat_blob(&repository, &digest).await.unwrap(), 100);
    }
    assert_eq!(passed_over, 2);
}

/// A backend is asked how many at once.
#[test]
fn one_upload_takes_a_share_of_the_memory() {
    for (memory, part, expected) in [
        (64 * MIB, PART, 4),
        (64 * MIB, 10 * MIB, 2),
        (64 * MIB, 16 * MIB, 1),
        (64 * MIB, 1024 * MIB, 1),
        (256 * MIB, PART, 4),
        (256 * MIB, 64 * MIB, 1),
        (8 * MIB, PART, 1),
    ] {
        let backend = ObjectStoreBackend::memory().with_part_memory(memory);
        assert_eq!(backend.parts_at_once(part), expected, "{part} of {memory}");
    }
}

/// A digest of another algorithm has the parts completed before it is known to be wrong. A server that dies on the way must not
/// leave bytes that the next server takes for those that its own client sent.
#[tokio::test]
async fn what_one_server_completed_before_it_died_is_not_taken_for_what_another_one_was_sent() {
    let wrong = Digest::of(Algorithm::Sha512, b"something else");
    let parts = content(1, PART);
    let tails = [content(2, MIB), content(3, MIB)];
    let whole = Bytes::from([&parts[..], &tails[1]].concat());
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let (mut stored, mut refused) = (0, 0);
    for survived in 0.. {
        let double = S3Double::start().await.unwrap();
        let faulty = Arc::new(Faulty::new(double.backend("").unwrap()));
        let (first, second) = (
            Store::with_options(
                Arc::clone(&faulty),
                Arc::new(SystemClock),
                StoreOptions::default(),
            ),
            Store::new(double.backend("").unwrap()),
        );
        let upload = start(&first).await;
        append(&first, &upload, chunks(&parts, MIB)).await.unwrap();
        let begun = faulty.calls() + survived;
        for call in begun..begun + 100 {
            faulty.fault_at(call, Fault::Fail);
        }
        let finish = async |storage: &dyn Storage, digest: &Digest, tail: &Bytes| {
            let mut body = pin!(chunks(tail, MIB));
            storage.finish_upload(&upload, digest, None, body.as_mut()).await
        };
        finish(&first, &wrong, &tails[0]).await.unwrap_err();
        let was_reached = faulty.calls() > begun;
        match finish(&second, &digest, &tails[1]).await {
            Ok(_) => {
                assert_stored(&second, &upload.repository, &digest, &whole).await;
                stored += 1;
            }
            Err(error) => {
                let code = error.code();
                assert!(
                    matches!(code, ErrorCode::BlobUploadInvalid | ErrorCode::BlobUploadUnknown),
                    "{error:?}"
                );
                refused += 1;
            }
        }
        if !was_reached {
            break;
        }
    }
    assert!(stored > 0 && refused > 0, "{stored} {refused}");
}
