//! A server's quotas: when they are counted, and what is refused before it is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::quota::Quota;
use registry_core::storage::UploadStorage as _;
use registry_core::{Admission as _, Algorithm, Error, ErrorCode, Principal, Request};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Maintenance as _, ObjectStoreBackend, QuotaAdmission, QuotaCounter, QuotaUsage, Store, StoreOptions,
    SweepOptions,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::images::{digest, name, push_blob, start_upload, try_push_blob};

type Bucket = Faulty<ObjectStoreBackend>;

const DEADLINE: Duration = Duration::from_mins(1);

fn open(backend: &Arc<Bucket>) -> Arc<Store<Bucket>> {
    let clock = Arc::new(ManualClock::default());
    let store = Store::with_options(Arc::clone(backend), clock, StoreOptions::default());
    Arc::new(store)
}

fn bucket() -> Arc<Bucket> {
    Arc::new(Faulty::new(ObjectStoreBackend::memory()))
}

fn quota(pattern: &str, bytes: u64) -> Arc<[Quota]> {
    let quota = Quota {
        repositories: vec![pattern.parse().unwrap()],
        bytes: Some(bytes),
        ..Quota::default()
    };
    Arc::new([quota])
}

fn content(seed: u8, size: usize) -> Bytes {
    vec![seed; size].into()
}

/// Waits until the only quota is counted exactly.
async fn counted(counter: &QuotaCounter) -> QuotaUsage {
    let mut usage = counter.usage();
    let is_counted = |used: &Arc<[QuotaUsage]>| used.first().is_some_and(|used| used.is_exact);
    let used = timeout(DEADLINE, usage.wait_for(is_counted))
        .await
        .unwrap()
        .unwrap();
    used[0].clone()
}

/// A server without the quota pushed meanwhile: the count from before is not what is there.
#[tokio::test]
async fn a_quota_that_comes_back_is_counted_anew() {
    let backend = bucket();
    for (round, expected) in [(1, 100), (2, 200)] {
        // A restart.
        let store = open(&backend);
        let (sender, quotas) = watch::channel(quota("a", 1000));
        let counter = QuotaCounter::start(Arc::clone(&store) as _, quotas);
        counted(&counter).await;
        // A reload, and the quota is there again.
        sender.send_replace(Arc::new([]));
        let mut usage = counter.usage();
        timeout(DEADLINE, usage.wait_for(|used| used.is_empty()))
            .await
            .unwrap()
            .unwrap();
        push_blob(&*store, "a", &content(round, 50)).await;
        sender.send_replace(quota("a", 1000));
        let used = counted(&counter).await.used.bytes;
        assert_eq!(used, expected - 50);
        counter.shutdown().await;
        store.set_quotas(Vec::new());
        push_blob(&*store, "a", &content(round + 10, 50)).await;
        let store = open(&backend);
        let counter = QuotaCounter::start(Arc::clone(&store) as _, watch::channel(quota("a", 1000)).1);
        assert_eq!(counted(&counter).await.used.bytes, expected);
        counter.shutdown().await;
    }
}

/// Until a count ends, what was counted long ago is not said to be exact.
#[tokio::test]
async fn a_count_in_progress_is_not_exact() {
    let backend = bucket();
    let store = open(&backend);
    store.set_quotas(quota("a", 1000).to_vec());
    push_blob(&*store, "a", &content(1, 50)).await;
    let count = || store.count_for_quotas(Duration::ZERO, Duration::ZERO, &());
    count().await.unwrap();
    let began = backend.calls();
    count().await.unwrap();
    let calls = backend.calls() - began;
    // It is cut off before it ends.
    backend.fault_at(backend.calls() + calls - 2, Fault::Fail);
    count().await.unwrap_err();
    let is_exact = async || store.quota_usage(&quota("a", 1000)).await.unwrap()[0].is_exact;
    assert!(!is_exact().await);
    let hour = Duration::from_hours(1);
    assert_eq!(store.count_for_quotas(hour, hour, &()).await.unwrap(), 0);
    assert_eq!(
        store.count_for_quotas(hour, Duration::ZERO, &()).await.unwrap(),
        1
    );
    assert!(is_exact().await);
}

#[tokio::test]
async fn new_limits_do_not_wait_for_a_count() {
    let backend = bucket();
    let store = open(&backend);
    push_blob(&*store, "a", &content(1, 50)).await;
    // The count hardly advances.
    let called = backend.calls();
    for call in 0..100 {
        backend.fault_at(called + call, Fault::Delay(100_000));
    }
    let (sender, quotas) = watch::channel(quota("a", 1000));
    let counter = QuotaCounter::start(Arc::clone(&store) as _, quotas);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    sender.send_replace(quota("a", 10));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(counter.usage().borrow().is_empty(), "the count is in progress");
    assert!(backend.calls() > called);
    backend.heal();
    let refused = try_push_blob(&*store, "a", &content(2, 60)).await.unwrap_err();
    assert!(refused.message().contains("is 10 bytes"), "{refused}");
    let used = counted(&counter).await;
    assert_eq!((used.used.bytes, used.quota.bytes), (50, Some(10)));
}

/// A count of next year, by a clock that was ahead, would be good until then.
#[tokio::test]
async fn what_was_counted_in_the_future_is_counted_again() {
    let backend = bucket();
    let clock = Arc::new(ManualClock::default());
    let ahead = Store::with_options(
        Arc::clone(&backend),
        Arc::clone(&clock) as _,
        StoreOptions::default(),
    );
    clock.advance(Duration::from_hours(24 * 400));
    let store = open(&backend);
    let day = Duration::from_hours(24);
    ahead.set_quotas(quota("a", 1000).to_vec());
    store.set_quotas(quota("a", 1000).to_vec());
    assert_eq!(ahead.count_for_quotas(day, day, &()).await.unwrap(), 1);
    assert_eq!(store.count_for_quotas(day, day, &()).await.unwrap(), 1);
    assert_eq!(store.count_for_quotas(day, day, &()).await.unwrap(), 0);
}

struct Server {
    store: Arc<Store<Bucket>>,
    admission: QuotaAdmission,
}

impl Server {
    fn new(bytes: u64) -> Self {
        let store = open(&bucket());
        store.set_quotas(quota("a", bytes).to_vec());
        Self {
            admission: QuotaAdmission::new(Arc::clone(&store) as _),
            store,
        }
    }

    async fn admit(&self, request: &Request) -> Result<(), Error> {
        self.admission.admit(&Principal::anonymous(), request).await
    }
}

fn assert_denied(admitted: &Result<(), Error>) {
    assert_eq!(admitted.as_ref().unwrap_err().code(), ErrorCode::Denied);
}

/// As podman and skopeo push: the chunk first, then a request that closes the upload with the digest.
#[tokio::test]
async fn an_upload_that_is_refused_at_its_end_is_dropped() {
    let server = Server::new(100);
    let large = content(1, 40_000);
    let upload = start_upload(&*server.store, "a", &large).await;
    let finish = Request::FinishUpload {
        repository: name("a"),
        id: upload.id,
        digest: digest(&large),
        offset: Some(40_000),
        range: None,
        length: Some(0),
    };
    assert_denied(&server.admit(&finish).await);
    let status = server.store.upload_status(&upload).await.unwrap_err();
    assert_eq!(status.code(), ErrorCode::BlobUploadUnknown);
    server.store.sweep(&SweepOptions::default()).await.unwrap();
    server.store.sweep(&SweepOptions::default()).await.unwrap();
    let bytes = registry_storage::Backend::list_bytes(server.store.backend(), None, 10).await;
    assert!(bytes.unwrap().is_empty());
    // What is there may be sent again, although there is no room for it.
    let there = content(2, 90);
    push_blob(&*server.store, "a", &there).await;
    let again = start_upload(&*server.store, "a", &there).await;
    let finish = Request::FinishUpload {
        repository: name("a"),
        id: again.id,
        digest: digest(&there),
        offset: Some(90),
        range: None,
        length: Some(0),
    };
    server.admit(&finish).await.unwrap();
    assert_eq!(server.store.upload_status(&again).await.unwrap(), 90);
}

/// The empty blob, too, needs room for the session that most clients begin for it.
#[tokio::test]
async fn every_way_to_begin_an_upload_gets_one_answer() {
    let server = Server::new(10);
    let (there, empty) = (content(1, 10), Bytes::new());
    push_blob(&*server.store, "a", &there).await;
    let start = Request::StartUpload {
        repository: name("a"),
        algorithm: Some(Algorithm::Sha256),
    };
    let upload = |content: &Bytes, length| Request::UploadBlob {
        repository: name("a"),
        digest: digest(content),
        length,
    };
    assert_denied(&server.admit(&start).await);
    assert_denied(&server.admit(&upload(&empty, Some(0))).await);
    assert_denied(&server.admit(&upload(&empty, None)).await);
    server.admit(&upload(&there, Some(10))).await.unwrap();
    server.admit(&upload(&there, Some(0))).await.unwrap();
}
