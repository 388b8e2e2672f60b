//! Upload sessions: how many there may be, and what a commit that is tried again costs.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::UploadKey;
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, Storage};
use registry_storage::Maintenance as _;
use registry_storage::testing::ManualClock;
use registry_storage::{Backend, Key, Store, StoreOptions, SweepOptions};

const MINUTE: Duration = Duration::from_mins(1);

/// How many sessions of a principal may be open.
const LIMIT: usize = 3;

struct World<B> {
    store: Arc<Store<B>>,
    backend: Arc<B>,
    clock: Arc<ManualClock>,
    repository: RepositoryName,
}

fn world<B: Backend>(backend: B, _files: Option<PathBuf>) -> World<B> {
    let (backend, clock) = (Arc::new(backend), Arc::<ManualClock>::default());
    World {
        store: Arc::new(open(&backend, &clock)),
        backend,
        clock,
        repository: "a".parse().unwrap(),
    }
}

fn open<B: Backend>(backend: &Arc<B>, clock: &Arc<ManualClock>) -> Store<B> {
    let options = StoreOptions {
        open_uploads_limit: LIMIT,
        ..StoreOptions::default()
    };
    Store::with_options(Arc::clone(backend), Arc::clone(clock) as _, options)
}

impl<B: Backend> World<B> {
    async fn try_start(&self, principal: &str) -> Result<UploadKey, Error> {
        let storage: &dyn Storage = &*self.store;
        let id = storage
            .create_upload(&self.repository, principal, Algorithm::Sha256)
            .await?;
        Ok(UploadKey {
            repository: self.repository.clone(),
            id,
            principal: principal.to_owned(),
        })
    }

    async fn start(&self) -> UploadKey {
        self.try_start("").await.unwrap()
    }

    async fn append(&self, upload: &UploadKey, content: &Bytes) {
        let storage: &dyn Storage = &*self.store;
        let mut body = pin!(stream::iter([Ok(content.clone())]));
        storage.append_upload(upload, None, body.as_mut()).await.unwrap();
    }

    async fn commit(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error> {
        let storage: &dyn Storage = &*self.store;
        storage.commit_upload(upload, digest).await
    }

    async fn is_open(&self, upload: &UploadKey) -> bool {
        let storage: &dyn Storage = &*self.store;
        storage.upload_status(upload).await.is_ok()
    }

    async fn records(&self) -> usize {
        self.backend
            .list(&Key::uploads(), None, 1000)
            .await
            .unwrap()
            .len()
    }
}

fn content(size: usize) -> Bytes {
    vec![7; size].into()
}

on_memory_and_disk! {
    sessions_that_are_opened_without_end_leave_no_more_records_than_the_limit
    the_session_without_a_byte_that_waited_the_longest_makes_room
    where_no_session_makes_room_a_new_one_is_refused
    what_ended_counts_no_more
    a_sweep_counts_what_another_process_opened
    a_cancelled_session_leaves_no_record
    a_session_without_a_byte_is_swept_after_an_hour
    a_digest_of_another_algorithm_reads_an_upload_once
    a_request_whose_upload_is_cancelled_says_so
}

/// The delete of a repository cancels its uploads. No other request goes on with them.
async fn a_request_whose_upload_is_cancelled_says_so<B: Backend>(world: World<B>) {
    let storage: &dyn Storage = &*world.store;
    let upload = world.start().await;
    let bytes = stream::once(std::future::ready(Ok(content(100)))).chain(stream::pending());
    let mut body = pin!(bytes);
    let (appended, cancelled) = tokio::join!(
        storage.append_upload(&upload, Some(0), body.as_mut()),
        storage.cancel_upload(&upload)
    );
    cancelled.unwrap();
    let error = appended.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
    assert!(error.to_string().contains("cancelled"), "{error}");
}

async fn sessions_that_are_opened_without_end_leave_no_more_records_than_the_limit<B: Backend>(
    world: World<B>,
) {
    for _ in 0..50 {
        world.start().await;
    }
    assert_eq!(world.records().await, LIMIT);
    // One principal's do not make room for another's.
    world.try_start("alice").await.unwrap();
    assert_eq!(world.records().await, LIMIT + 1);
}

async fn the_session_without_a_byte_that_waited_the_longest_makes_room<B: Backend>(world: World<B>) {
    let with_bytes = world.start().await;
    world.append(&with_bytes, &content(10)).await;
    let mut empty = Vec::new();
    for _ in 0..5 {
        world.clock.advance(MINUTE);
        empty.push(world.start().await);
    }
    assert!(world.is_open(&with_bytes).await);
    for (at, upload) in empty.iter().enumerate() {
        assert_eq!(world.is_open(upload).await, at >= 3, "{at}");
    }
}

async fn where_no_session_makes_room_a_new_one_is_refused<B: Backend>(world: World<B>) {
    let mut uploads = Vec::new();
    for size in [10, 20_000, 6 << 20] {
        let upload = world.start().await;
        world.append(&upload, &content(size)).await;
        uploads.push(upload);
        world.clock.advance(MINUTE);
    }
    let error = world.try_start("").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooManyRequests, "{error:?}");
    for upload in &uploads {
        assert!(world.is_open(upload).await);
    }
    // One that waited for long gives way nevertheless: whoever opens many must not keep the others out for days.
    world.clock.advance(8 * MINUTE);
    world.start().await;
    assert!(!world.is_open(&uploads[0]).await && world.is_open(&uploads[1]).await);
}

async fn what_ended_counts_no_more<B: Backend>(world: World<B>) {
    for number in 0..20_u8 {
        let upload = world.start().await;
        let content = Bytes::from(vec![number; 10]);
        world.append(&upload, &content).await;
        if number % 2 == 0 {
            world
                .commit(&upload, &Digest::of(Algorithm::Sha256, &content))
                .await
                .unwrap();
        } else {
            let storage: &dyn Storage = &*world.store;
            storage.cancel_upload(&upload).await.unwrap();
        }
    }
}

async fn a_sweep_counts_what_another_process_opened<B: Backend>(world: World<B>) {
    let mut uploads = Vec::new();
    for _ in 0..LIMIT {
        uploads.push(world.start().await);
        world.clock.advance(MINUTE);
    }
    let other = World {
        store: Arc::new(open(&world.backend, &world.clock)),
        backend: Arc::clone(&world.backend),
        clock: Arc::clone(&world.clock),
        repository: world.repository.clone(),
    };
    other.store.sweep(&SweepOptions::default()).await.unwrap();
    other.start().await;
    assert_eq!(world.records().await, LIMIT);
    assert!(!world.is_open(&uploads[0]).await && world.is_open(&uploads[1]).await);
}

async fn a_cancelled_session_leaves_no_record<B: Backend>(world: World<B>) {
    for size in [0, 10, 20_000] {
        let upload = world.start().await;
        if size > 0 {
            world.append(&upload, &content(size)).await;
        }
        let storage: &dyn Storage = &*world.store;
        storage.cancel_upload(&upload).await.unwrap();
        assert_eq!(world.records().await, 0);
        let again = storage.cancel_upload(&upload).await.unwrap_err();
        assert_eq!(again.code(), ErrorCode::BlobUploadUnknown);
    }
}

async fn a_session_without_a_byte_is_swept_after_an_hour<B: Backend>(world: World<B>) {
    let empty = world.start().await;
    let with_bytes = world.start().await;
    world.append(&with_bytes, &content(10)).await;
    world.clock.advance(59 * MINUTE);
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    assert!(world.is_open(&empty).await);
    world.clock.advance(2 * MINUTE);
    let report = world.store.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!(report.aborted_uploads, 1);
    assert!(!world.is_open(&empty).await && world.is_open(&with_bytes).await);
    assert_eq!(world.records().await, 1);
}

async fn a_digest_of_another_algorithm_reads_an_upload_once<B: Backend>(world: World<B>) {
    let content = content(6 << 20);
    let upload = world.start().await;
    world.append(&upload, &content).await;
    let wrong = Digest::of(Algorithm::Sha512, b"something else");
    let refused = world.commit(&upload, &wrong).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DigestInvalid);
    // Whoever reads the bytes from now on sees that they are gone.
    for name in world.backend.list_bytes(None, 10).await.unwrap() {
        world.backend.delete_bytes(&name).await.unwrap();
    }
    let refused = world.commit(&upload, &wrong).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DigestInvalid, "{refused:?}");
}
