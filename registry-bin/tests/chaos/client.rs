//! A client that pushes, pulls and deletes, repeats what clients repeat, and remembers what it was answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Request, Response, with_query};
use crate::support::content::{Content, Random, sha256};
use crate::support::repository::{CONFIG, IMAGE, LAYER, OCTETS, Repository, descriptor, image};

const REPOSITORIES: u64 = 3;
const TAGS: u64 = 4;
/// How many images a client leaves there, with and without a tag.
const MOST_IMAGES: usize = 40;
/// Layers that images of all clients share, so that one is pushed, deleted and collected at the same time.
const SHARED_LAYERS: u64 = 4;
/// For how long a client repeats a request that fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a client begins one blob.
const MOST_UPLOADS: u32 = 40;

/// A layer is content of this seed and length.
type Layer = (u64, u64);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    config: Vec<u8>,
    pub(crate) layers: Vec<Layer>,
    manifest: Vec<u8>,
}

/// A client with tags that no other writes.
pub(crate) struct Client {
    number: u64,
    random: Random,
    address: SocketAddr,
    tags: BTreeMap<(String, String), Image>,
    /// The images that were not deleted, by repository and digest.
    pub(crate) images: BTreeMap<(String, String), Image>,
    /// How long what no manifest names yet is kept.
    grace: Duration,
    pub(crate) counts: Counts,
}

/// What a client did, and what it met.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pushed: u64,
    pub(crate) deleted: u64,
    pub(crate) pulled: u64,
    /// Uploads that went on where they had been cut.
    pub(crate) resumed: u64,
    /// Uploads that began again.
    pub(crate) restarted: u64,
    /// Connections that broke off.
    pub(crate) broken: u64,
    /// Answers that ask for a repetition.
    pub(crate) unavailable: u64,
    pub(crate) longest_push: Duration,
}

/// What may come of a request that is not repeated as it was.
enum Sent {
    Answered(Response),
    Failed,
}

impl Client {
    pub(crate) fn new(number: u64, seed: u64, address: SocketAddr, grace: Duration) -> Self {
        Self {
            number,
            random: Random::new(seed ^ (number << 32)),
            address,
            tags: BTreeMap::new(),
            images: BTreeMap::new(),
            grace,
            counts: Counts::default(),
        }
    }

    /// Works until it is told to stop.
    pub(crate) fn work(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let name = format!("chaos/r{}", self.random.below(REPOSITORIES));
            let tag = format!("c{}-t{}", self.number, self.random.below(TAGS));
            match self.random.below(10) {
                _ if self.images.len() > MOST_IMAGES => self.delete_image(),
                0..5 => self.push(&name, &tag),
                5 => self.delete_tag(&name, &tag),
                6 => self.delete_image(),
                _ => self.pull(&name, &tag),
            }
        }
    }

    /// Sends a request once.
    fn once(&mut self, request: Request<'_>) -> Sent {
        match request.try_send() {
            Ok(response) if matches!(response.status, 429 | 503) => {
                self.counts.unavailable += 1;
                Sent::Failed
            }
            Ok(response) => Sent::Answered(response),
            Err(_) => {
                self.counts.broken += 1;
                Sent::Failed
            }
        }
    }

    /// Sends a request until it is answered.
    fn send<'a>(&mut self, request: impl Fn() -> Request<'a>) -> Response {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Sent::Answered(response) = self.once(request()) {
                return response;
            }
            assert!(Instant::now() < end, "no answer for {PATIENCE:?}");
            thread::sleep(Duration::from_millis(self.random.below(200)));
        }
    }

    fn push(&mut self, name: &str, tag: &str) {
        let repository = Repository::new(self.address, name);
        let image = self.image();
        loop {
            let begun = Instant::now();
            self.push_blob(&repository, &image.config);
            for (seed, length) in &image.layers {
                self.push_blob(&repository, &Content::new(*seed, *length).bytes());
            }
            let target = format!("manifests/{tag}");
            let response = self.send(|| {
                let request = repository.request("PUT", &target).header("Content-Type", IMAGE);
                request.body(&image.manifest)
            });
            let took = begun.elapsed();
            if response.status == 201 {
                self.counts.longest_push = self.counts.longest_push.max(took);
                break;
            }
            // Only a push that took too long may meet the collector.
            response.expect_error(&[404, 400], &["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"]);
            assert!(took > self.grace, "after {took:?}: {}", response.summary());
        }
        self.tags.insert((name.to_owned(), tag.to_owned()), image.clone());
        self.images
            .insert((name.to_owned(), sha256(&image.manifest)), image);
        self.counts.pushed += 1;
    }

    fn image(&mut self) -> Image {
        let config = json!({"client": self.number, "number": self.random.next()})
            .to_string()
            .into_bytes();
        // Some are sent in several parts.
        let longest = if self.random.below(8) == 0 {
            12 << 20
        } else {
            60_000
        };
        let mut layers = vec![(self.random.next(), 1 + self.random.below(longest))];
        for _ in 0..self.random.below(3) {
            let shared = self.random.below(SHARED_LAYERS);
            layers.push((shared, 500 + 40_000 * (shared % 2)));
        }
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|(seed, length)| {
                let digest = Content::new(*seed, *length).digest();
                json!({"mediaType": LAYER, "digest": digest, "size": length})
            })
            .collect();
        let manifest = image(&descriptor(CONFIG, &config), &descriptors);
        Image {
            config,
            layers,
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// Pushes a blob unless it is there, as clients do.
    fn push_blob(&mut self, repository: &Repository, content: &[u8]) {
        let digest = sha256(content);
        let target = format!("blobs/{digest}");
        for _ in 0..MOST_UPLOADS {
            let head = self.send(|| repository.request("HEAD", &target));
            if head.status == 200 {
                return;
            }
            head.expect_status(404);
            if self.try_upload(repository, content, &digest) {
                return;
            }
            self.counts.restarted += 1;
        }
        panic!("{MOST_UPLOADS} uploads of {} bytes failed", content.len());
    }

    /// Uploads a blob in chunks, each to another replica. `false` asks for a new upload.
    fn try_upload(&mut self, repository: &Repository, content: &[u8], digest: &str) -> bool {
        let opened = self.send(|| repository.request("POST", "blobs/uploads/"));
        opened.expect_status(202);
        let mut location = opened.location();
        let chunk = (1 + content.len() / (1 + self.random.below(3) as usize)).max(100_000);
        let mut sent = 0;
        while sent < content.len() {
            let end = content.len().min(sent + chunk);
            let range = format!("{sent}-{}", end - 1);
            let request = repository.follow("PATCH", &location);
            let request = request
                .header("Content-Type", OCTETS)
                .header("Content-Range", &range);
            match self.once(request.body(&content[sent..end])) {
                Sent::Answered(response) if response.status == 202 => {
                    location = response.location();
                    sent = end;
                    continue;
                }
                // The parts of an upload are lost, or another request has the session still.
                Sent::Answered(response) if response.status != 416 => {
                    response.expect_error(&[404, 400], &["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"]);
                    return false;
                }
                _ => {}
            }
            let status = self.send(|| repository.follow("GET", &location));
            if status.status == 404 {
                return false;
            }
            status.expect_status(204);
            location = status.location();
            let range = status.header("Range").unwrap_or("0-0");
            let last: usize = range.trim_start_matches("0-").parse().expect("a range");
            sent = if last == 0 { 0 } else { last + 1 };
            self.counts.resumed += 1;
        }
        match self.once(repository.follow("PUT", &with_query(&location, "digest", digest))) {
            Sent::Answered(response) if response.status == 201 => true,
            Sent::Answered(response) => {
                response.expect_error(&[404, 400], &["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"]);
                false
            }
            Sent::Failed => false,
        }
    }

    fn delete_tag(&mut self, name: &str, tag: &str) {
        let repository = Repository::new(self.address, name);
        let target = format!("manifests/{tag}");
        let response = self.send(|| repository.request("DELETE", &target));
        assert!(matches!(response.status, 202 | 404), "{}", response.summary());
        self.tags.remove(&(name.to_owned(), tag.to_owned()));
        self.counts.deleted += 1;
    }

    /// Deletes an image by its digest, and so its tags.
    fn delete_image(&mut self) {
        let at = self.random.below(self.images.len().max(1) as u64) as usize;
        let Some((key, _)) = self.images.iter().nth(at) else {
            return;
        };
        let key = key.clone();
        self.delete_by_digest(&key);
    }

    fn delete_by_digest(&mut self, key: &(String, String)) {
        let repository = Repository::new(self.address, &key.0);
        let target = format!("manifests/{}", key.1);
        let response = self.send(|| repository.request("DELETE", &target));
        // 404: the answer to an earlier attempt was lost.
        assert!(matches!(response.status, 202 | 404), "{}", response.summary());
        if let Some(image) = self.images.remove(key) {
            self.tags
                .retain(|(name, _), tagged| *name != key.0 || *tagged != image);
        }
        self.counts.deleted += 1;
    }

    pub(crate) fn delete_all(&mut self) {
        let keys: Vec<_> = self.images.keys().cloned().collect();
        for key in &keys {
            self.delete_by_digest(key);
        }
    }

    fn pull(&mut self, name: &str, tag: &str) {
        let repository = Repository::new(self.address, name);
        let expected = self.tags.get(&(name.to_owned(), tag.to_owned())).cloned();
        self.expect_manifest(&repository, tag, expected.as_ref());
        if let Some(image) = expected {
            self.expect_blobs(&repository, &image);
            self.counts.pulled += 1;
        }
    }

    fn expect_manifest(&mut self, repository: &Repository, reference: &str, expected: Option<&Image>) {
        let target = format!("manifests/{reference}");
        let response = self.send(|| repository.request("GET", &target).header("Accept", IMAGE));
        let found = match response.status {
            404 => None,
            _ => {
                response.expect_status(200);
                Some(&response.body)
            }
        };
        assert_eq!(
            found.map(|body| sha256(body)),
            expected.map(|image| sha256(&image.manifest)),
            "{} {reference} is not what was answered",
            repository.name
        );
    }

    fn expect_blobs(&mut self, repository: &Repository, image: &Image) {
        let layers = image.layers.iter();
        let layers = layers.map(|(seed, length)| Content::new(*seed, *length).bytes());
        for content in std::iter::once(image.config.clone()).chain(layers) {
            let target = format!("blobs/{}", sha256(&content));
            let response = self.send(|| repository.request("GET", &target));
            response.expect_status(200);
            assert!(response.body == content, "{target} has other bytes");
        }
    }

    /// Requires what was answered of one replica: the tags, and every image.
    pub(crate) fn expect_all(&mut self, address: SocketAddr) {
        for ((name, tag), image) in self.tags.clone() {
            self.expect_manifest(&Repository::new(address, &name), &tag, Some(&image));
        }
        for ((name, digest), image) in self.images.clone() {
            let repository = Repository::new(address, &name);
            self.expect_manifest(&repository, &digest, Some(&image));
            self.expect_blobs(&repository, &image);
        }
    }
}
