//! The cache of blobs, with content that a test holds back.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use registry_core::storage::ByteStream;
use registry_core::{Algorithm, Digest, Error, ErrorCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::blobs::{BlobCache, Place};

const CHUNK: usize = 1024 * 1024;
const CHUNKS: usize = 16;
const SIZE: u64 = (CHUNK * CHUNKS) as u64;

type Chunk = Result<Bytes, Error>;

/// A blob of 16 MiB whose chunks arrive when a test sends them.
struct Held {
    cache: BlobCache,
    digest: Digest,
    folder: tempfile::TempDir,
}

fn chunk(number: usize) -> Bytes {
    Bytes::from(vec![number as u8; CHUNK])
}

fn whole() -> Vec<u8> {
    (0..CHUNKS).flat_map(|number| chunk(number).to_vec()).collect()
}

fn arriving() -> (mpsc::Sender<Chunk>, ByteStream) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let received = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    (sender, Box::pin(received))
}

fn nothing() -> ByteStream {
    panic!("the bucket was asked once more")
}

impl Held {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            cache: BlobCache::open(folder.path(), 2 * SIZE).await.unwrap(),
            digest: Digest::of(Algorithm::Sha256, &whole()),
            folder,
        }
    }

    async fn place(&self, range: Range<u64>, content: impl FnOnce() -> ByteStream) -> Place {
        self.cache.place(&self.digest, SIZE, &range, content).await
    }

    fn files(&self, folder: &str) -> Vec<u64> {
        sizes(&self.folder.path().join(folder))
    }
}

fn sizes(folder: &Path) -> Vec<u64> {
    let files = fs::read_dir(folder).unwrap();
    // One that is removed meanwhile has no size.
    files
        .filter_map(|file| Some(file.unwrap().metadata().ok()?.len()))
        .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn clients_read_what_has_arrived_and_only_the_first_one_fetches() {
    let held = Held::new().await;
    let (sender, content) = arriving();
    let Place::Growing(first) = held.place(0..SIZE, || content).await else {
        panic!("the first one fetches");
    };
    let Place::Growing(second) = held.place(0..SIZE, nothing).await else {
        panic!("the second one reads what the first one fetches");
    };
    sender.send(Ok(chunk(0))).await.unwrap();
    for fill in [&first, &second] {
        let (written, _) = fill.wait(0).await.unwrap();
        assert_eq!(written, CHUNK as u64);
    }
    // A range that comes soon is waited for; one that is far ahead is not.
    assert!(matches!(
        held.place(CHUNK as u64 * 2..SIZE, nothing).await,
        Place::Growing(_)
    ));
    assert!(matches!(
        held.place(SIZE - 10..SIZE, nothing).await,
        Place::Bucket
    ));
    // Whoever fetched goes away; the other one goes on.
    drop(first);
    for number in 1..CHUNKS {
        sender.send(Ok(chunk(number))).await.unwrap();
    }
    second.wait(SIZE - 1).await.unwrap();
    drop(second);
    until("the file", || held.files("blobs") == [SIZE]).await;
    until("its entry", || held.cache.has(&held.digest, SIZE)).await;
    assert!(matches!(held.place(5..10, nothing).await, Place::File(_)));
    assert!(held.files("filling").is_empty());
}

#[tokio::test]
async fn a_range_of_a_blob_that_is_not_there_is_no_reason_to_fetch_it() {
    let held = Held::new().await;
    assert!(matches!(held.place(0..SIZE - 1, nothing).await, Place::Bucket));
    assert!(matches!(held.place(1..SIZE, nothing).await, Place::Bucket));
}

#[tokio::test]
async fn a_fetch_ends_with_the_last_one_who_reads_and_leaves_nothing() {
    let held = Held::new().await;
    for _ in 0..5 {
        let (sender, content) = arriving();
        let Place::Growing(fill) = held.place(0..SIZE, || content).await else {
            panic!("there is room again");
        };
        sender.send(Ok(chunk(0))).await.unwrap();
        fill.wait(0).await.unwrap();
        drop(fill);
        timeout(Duration::from_secs(20), sender.closed()).await.unwrap();
        until("the end of the file", || held.files("filling").is_empty()).await;
    }
    assert!(held.files("blobs").is_empty());
}

#[tokio::test]
async fn a_bucket_that_fails_ends_the_fetch_and_the_next_one_begins_anew() {
    let held = Held::new().await;
    let (sender, content) = arriving();
    let Place::Growing(fill) = held.place(0..SIZE, || content).await else {
        panic!("the first one fetches");
    };
    sender.send(Ok(chunk(0))).await.unwrap();
    fill.wait(0).await.unwrap();
    sender.send(Err(ErrorCode::Unavailable.into())).await.unwrap();
    assert!(fill.wait(CHUNK as u64).await.is_none());
    drop(fill);
    let (_sender, content) = arriving();
    assert!(matches!(held.place(0..SIZE, || content).await, Place::Growing(_)));
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_not_kept() {
    let held = Held::new().await;
    let (sender, content) = arriving();
    let Place::Growing(fill) = held.place(0..SIZE, || content).await else {
        panic!("the first one fetches");
    };
    for _ in 0..CHUNKS {
        sender.send(Ok(chunk(0))).await.unwrap();
    }
    fill.wait(SIZE - 1).await.unwrap();
    timeout(Duration::from_secs(20), sender.closed()).await.unwrap();
    until("the end of the file", || held.files("filling").is_empty()).await;
    assert!(held.files("blobs").is_empty() && !held.cache.has(&held.digest, SIZE));
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_wait_for_ever_for_what_another_one_fetches() {
    let held = Held::new().await;
    let (_sender, content) = arriving();
    let Place::Growing(fill) = held.place(0..SIZE, || content).await else {
        panic!("the first one fetches");
    };
    assert!(fill.wait(0).await.is_none());
}
