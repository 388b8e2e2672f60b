//! The cache of blobs, with content that a test holds back.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

/// Blobs of 16 MiB whose chunks arrive when a test sends them.
struct Held {
    cache: BlobCache,
    digest: Digest,
    folder: tempfile::TempDir,
}

fn chunk(number: usize) -> Bytes {
    Bytes::from(vec![number as u8; CHUNK])
}

fn whole() -> Vec<u8> {
    whole_of(0)
}

/// Returns one of several contents of the same size.
fn whole_of(blob: usize) -> Vec<u8> {
    let chunks = (0..CHUNKS).map(|number| chunk(blob * CHUNKS + number));
    chunks.flat_map(|chunk| chunk.to_vec()).collect()
}

fn digest_of(blob: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &whole_of(blob))
}

/// Returns content that is there at once.
fn there(blob: usize) -> ByteStream {
    let chunks = (0..CHUNKS).map(move |number| Ok(chunk(blob * CHUNKS + number)));
    Box::pin(stream::iter(chunks))
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

    async fn place(&self, range: Range<u64>, content: impl FnOnce() -> ByteStream + Send) -> Place {
        self.place_of(&self.digest, range, content).await
    }

    async fn place_of(
        &self,
        digest: &Digest,
        range: Range<u64>,
        content: impl FnOnce() -> ByteStream + Send,
    ) -> Place {
        let content = Mutex::new(Some(content));
        let content = || content.lock().unwrap().take().unwrap()();
        self.cache.place(digest, SIZE, &range, content).await
    }

    /// Pulls a blob, until it has its file.
    async fn keep(&self, blob: usize) {
        let digest = digest_of(blob);
        let Place::Growing(reader) = self.place_of(&digest, 0..SIZE, || there(blob)).await else {
            panic!("it is not there yet");
        };
        reader.wait(SIZE - 1).await.unwrap();
        drop(reader);
        until("the file", || self.cache.has(&digest, SIZE)).await;
    }

    fn has(&self, blob: usize) -> bool {
        self.cache.has(&digest_of(blob), SIZE)
    }

    fn bytes(&self) -> u64 {
        let files = ["blobs", "filling"].map(|folder| self.files(folder));
        files.iter().flatten().sum()
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
    let counted = held.cache.statistics();
    assert_eq!((counted.size, counted.bytes, counted.blobs), (2 * SIZE, SIZE, 1));
    // The second client and a range soon ahead; the first client and a range far ahead.
    let reads = (counted.from_files, counted.from_fetches, counted.from_bucket);
    assert_eq!((reads, counted.fetches, counted.evicted), ((1, 2, 2), 1, 0));
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
    // By then, that may be known already.
    let _waited = fill.wait(SIZE - 1).await;
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

#[tokio::test]
async fn who_opens_a_blob_and_leaves_takes_no_room() {
    let held = Held::new().await;
    held.keep(1).await;
    held.keep(2).await;
    for arrive in 0..3 {
        let (sender, content) = arriving();
        let digest = digest_of(3);
        let Place::Growing(reader) = held.place_of(&digest, 0..SIZE, || content).await else {
            panic!("it is not there yet");
        };
        for number in 0..arrive {
            sender.send(Ok(chunk(3 * CHUNKS + number))).await.unwrap();
            reader.wait((number * CHUNK) as u64).await.unwrap();
            assert!(held.bytes() <= 2 * SIZE);
        }
        drop(reader);
        timeout(Duration::from_secs(20), sender.closed()).await.unwrap();
        until("the end of the file", || held.files("filling").is_empty()).await;
        // What arrived needed the room of the one that was used least recently, and of no other.
        assert_eq!((held.has(1), held.has(2)), (arrive == 0, true));
    }
}

#[tokio::test]
async fn many_fetches_at_once_stay_within_the_size() {
    let held = Held::new().await;
    held.keep(1).await;
    held.keep(2).await;
    let mut fetches = Vec::new();
    for blob in 3..6 {
        let (sender, content) = arriving();
        let digest = digest_of(blob);
        let Place::Growing(reader) = held.place_of(&digest, 0..SIZE, || content).await else {
            panic!("it is not there yet");
        };
        fetches.push((blob, sender, reader));
    }
    let mut ended = 0;
    for number in 0..CHUNKS {
        for (blob, sender, reader) in &fetches {
            // One that found no room has ended.
            if sender.send(Ok(chunk(blob * CHUNKS + number))).await.is_ok() {
                let arrived = reader.wait((number * CHUNK) as u64).await;
                ended += usize::from(arrived.is_none());
            }
            assert!(held.bytes() <= 2 * SIZE, "{}", held.bytes());
        }
    }
    assert_eq!(ended, 1, "two of three have room");
    drop(fetches);
    until("two files", || held.files("blobs") == [SIZE; 2]).await;
}

#[tokio::test]
async fn a_file_that_is_read_stays_although_others_need_room() {
    let held = Held::new().await;
    let mut open = Vec::new();
    for blob in [1, 2] {
        held.keep(blob).await;
        open.push(held.place_of(&digest_of(blob), 0..SIZE, nothing).await);
    }
    let digest = digest_of(3);
    let Place::Growing(reader) = held.place_of(&digest, 0..SIZE, || there(3)).await else {
        panic!("it is not there yet");
    };
    assert!(reader.wait(0).await.is_none(), "the bucket has it");
    assert!(held.has(1) && held.has(2) && held.bytes() <= 2 * SIZE);
    open.pop();
    held.keep(3).await;
    assert!(held.has(1) && !held.has(2));
}

#[tokio::test]
async fn a_fetch_waits_for_clients_that_read_slowly() {
    let held = Held::new().await;
    let size = 100 * CHUNK as u64;
    let cache = BlobCache::open(&held.folder.path().join("large"), size)
        .await
        .unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"of no interest");
    let asked = Arc::new(AtomicUsize::new(0));
    let content = || -> ByteStream {
        let asked = Arc::clone(&asked);
        let chunks = (0..100).map(move |number| {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(chunk(number))
        });
        Box::pin(stream::iter(chunks))
    };
    let Place::Growing(slow) = cache.place(&digest, size, &(0..size), content).await else {
        panic!("the first one fetches");
    };
    let ahead = 16 * CHUNK as u64;
    slow.wait(0).await.unwrap();
    until("what it may be ahead", || slow.written() >= ahead).await;
    // In this time, it would have come further.
    for blob in 1..4 {
        held.keep(blob).await;
    }
    assert!(asked.load(Ordering::SeqCst) <= 32);
    // Another client makes it go on.
    let Place::Growing(fast) = cache.place(&digest, size, &(0..size), nothing).await else {
        panic!("it is being fetched");
    };
    for offset in 0..80 {
        fast.wait(offset * CHUNK as u64).await.unwrap();
    }
}

#[tokio::test]
async fn a_fetch_that_is_nearly_done_goes_on_without_clients() {
    let held = Held::new().await;
    let (sender, content) = arriving();
    let Place::Growing(reader) = held.place(0..SIZE, || content).await else {
        panic!("the first one fetches");
    };
    for number in 0..CHUNKS / 2 {
        sender.send(Ok(chunk(number))).await.unwrap();
        reader.wait((number * CHUNK) as u64).await.unwrap();
    }
    drop(reader);
    for number in CHUNKS / 2..CHUNKS {
        sender.send(Ok(chunk(number))).await.unwrap();
    }
    until("the file", || held.has(0)).await;
}

/// Between the last byte and its name, a blob is neither a file nor on its way from the bucket.
#[tokio::test]
async fn who_comes_when_the_last_byte_has_arrived_does_not_fetch_again() {
    let held = Held::new().await;
    for blob in 0..10 {
        let digest = digest_of(blob);
        let Place::Growing(reader) = held.place_of(&digest, 0..SIZE, || there(blob)).await else {
            panic!("it is not there yet");
        };
        reader.wait(SIZE - 1).await.unwrap();
        drop(reader);
        while !held.has(blob) {
            let place = held.place_of(&digest, 0..SIZE, nothing).await;
            assert!(!matches!(place, Place::Bucket));
            tokio::task::yield_now().await;
        }
    }
}
