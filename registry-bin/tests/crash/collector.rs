//! Clients push, move, delete and pull while the collector runs each second with no grace, and the server is killed at
//! random. What was answered is there; what nothing names goes.
//!
//! `CRASH_ROUNDS` says how often the server is killed; some seconds are enough for every run of the tests.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::with_query;
use crate::support::content::{Content, Random, sha256};
use crate::support::repository::{CONFIG, IMAGE, LAYER, Repository, descriptor, image};
use crate::support::server::{Server, pause};

const ROUNDS: u64 = 30;
const SEED: u64 = 20_261_129;
const CLIENTS: u64 = 4;
/// The longest life of a server, in milliseconds: some collect several times, some not once.
const LONGEST_LIFE: u64 = 4000;
const REPOSITORIES: u64 = 2;
const TAGS: u64 = 4;
/// How many images a client leaves there, with and without a tag.
const MOST_IMAGES: usize = 100;
/// Layers that images of all clients share, so that one is pushed, deleted and collected at the same time.
const SHARED_LAYERS: u64 = 4;

/// A layer is content of this seed and length.
type Layer = (u64, u64);

#[derive(Clone, Debug, PartialEq)]
struct Image {
    tag: String,
    config: Vec<u8>,
    layers: Vec<Layer>,
    manifest: Vec<u8>,
}

/// What a client knows of its tags: what each may name by now. `None` is no image; a lost answer leaves both.
type Ledger = BTreeMap<(String, String), Vec<Option<Image>>>;

/// A client with tags that no other writes.
struct Client {
    number: u64,
    random: Random,
    ledger: Ledger,
    /// The images that nobody deleted, with or without a tag.
    images: BTreeMap<(String, String), Image>,
    /// The images that may be there: their push or their delete was not answered.
    uncertain: Vec<(String, String)>,
    pushed: u64,
    deleted: u64,
    read: u64,
    /// Pushes that met the collector between a blob and its manifest.
    repeated: u64,
}

impl Client {
    fn new(number: u64) -> Self {
        Self {
            number,
            random: Random::new(SEED ^ number),
            ledger: Ledger::new(),
            images: BTreeMap::new(),
            uncertain: Vec::new(),
            pushed: 0,
            deleted: 0,
            read: 0,
            repeated: 0,
        }
    }

    /// Works until the server is gone. The error is that of the request that met its end.
    fn work(&mut self, address: SocketAddr, is_killed: &AtomicBool) {
        loop {
            let name = format!("crash/r{}", self.random.below(REPOSITORIES));
            let tag = format!("c{}-t{}", self.number, self.random.below(TAGS));
            let repository = Repository::new(address, &name);
            let key = (name, tag);
            let done = match self.random.below(10) {
                _ if self.images.len() > MOST_IMAGES => self.delete_image(address),
                0..5 => self.push(&repository, key, is_killed),
                5 => self.delete_tag(&repository, key),
                6..8 => self.delete_image(address),
                _ => self.pull(&repository, &key),
            };
            if let Err(error) = done {
                assert!(
                    is_killed.load(Ordering::SeqCst),
                    "a server that lives broke off: {error}"
                );
                return;
            }
        }
    }

    fn push(
        &mut self,
        repository: &Repository,
        key: (String, String),
        is_killed: &AtomicBool,
    ) -> io::Result<()> {
        let image = self.image(&key.1);
        let by_digest = (key.0.clone(), sha256(&image.manifest));
        loop {
            push_blob(repository, &image.config)?;
            for (seed, length) in &image.layers {
                push_blob(repository, &Content::new(*seed, *length).bytes())?;
            }
            if self.random.below(50) == 0 {
                // Long enough for two cycles, which remove what no manifest names yet.
                let slow = Instant::now() + Duration::from_millis(2500);
                while Instant::now() < slow && !is_killed.load(Ordering::SeqCst) {
                    pause();
                }
            }
            let known = self.ledger.entry(key.clone()).or_insert_with(|| vec![None]);
            known.push(Some(image.clone()));
            self.uncertain.push(by_digest.clone());
            let request = repository.request("PUT", &format!("manifests/{}", key.1));
            let response = request
                .header("Content-Type", IMAGE)
                .body(&image.manifest)
                .try_send()?;
            self.uncertain.pop();
            if response.status == 201 {
                self.images.insert(by_digest, image.clone());
                *known = vec![Some(image)];
                self.pushed += 1;
                return Ok(());
            }
            // The collector came between the blobs and the manifest: clients push again.
            response.expect_error(&[404, 400], &["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"]);
            known.pop();
            self.repeated += 1;
        }
    }

    fn image(&mut self, tag: &str) -> Image {
        let config = json!({"client": self.number, "number": self.random.next()})
            .to_string()
            .into_bytes();
        let mut layers = vec![(self.random.next(), 1 + self.random.below(60_000))];
        for _ in 0..self.random.below(3) {
            let shared = self.random.below(SHARED_LAYERS);
            // Half of them are large enough for a file.
            layers.push((SEED + shared, 500 + 40_000 * (shared % 2)));
        }
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|(seed, length)| {
                let digest = Content::new(*seed, *length).digest();
                json!({"mediaType": LAYER, "digest": digest, "size": length})
            })
            .collect();
        let manifest = image(&descriptor(CONFIG, &config), &descriptors)
            .to_string()
            .into_bytes();
        Image {
            tag: tag.to_owned(),
            config,
            layers,
            manifest,
        }
    }

    fn delete_tag(&mut self, repository: &Repository, key: (String, String)) -> io::Result<()> {
        let known = self.ledger.entry(key.clone()).or_insert_with(|| vec![None]);
        known.push(None);
        let target = format!("manifests/{}", key.1);
        let response = repository.request("DELETE", &target).try_send()?;
        assert!(matches!(response.status, 202 | 404), "{}", response.summary());
        *known = vec![None];
        self.deleted += 1;
        Ok(())
    }

    /// Deletes an image by its digest, and so its tag, if that still names it.
    fn delete_image(&mut self, address: SocketAddr) -> io::Result<()> {
        let at = self.random.below(self.images.len().max(1) as u64) as usize;
        let Some(((name, digest), image)) = self.images.iter().nth(at) else {
            return Ok(());
        };
        let (by_digest, image) = ((name.clone(), digest.clone()), image.clone());
        self.images.remove(&by_digest);
        self.uncertain.push(by_digest.clone());
        let known = self
            .ledger
            .entry((by_digest.0.clone(), image.tag.clone()))
            .or_default();
        let image = Some(image);
        if known.contains(&image) {
            known.push(None);
        }
        let target = format!("manifests/{}", by_digest.1);
        let repository = Repository::new(address, &by_digest.0);
        let response = repository.request("DELETE", &target).try_send()?;
        assert_eq!(response.status, 202, "{}", response.summary());
        self.uncertain.pop();
        known.retain(|known| *known != image);
        self.deleted += 1;
        Ok(())
    }

    /// Pulls what a tag names, with every blob.
    fn pull(&mut self, repository: &Repository, key: &(String, String)) -> io::Result<()> {
        let Some(known) = self.ledger.get_mut(key) else {
            return Ok(());
        };
        let response = repository
            .request("GET", &format!("manifests/{}", key.1))
            .header("Accept", IMAGE)
            .try_send()?;
        let found = match response.status {
            404 => None,
            200 => Some(response.body),
            _ => panic!("{}", response.summary()),
        };
        known.retain(|image| image.as_ref().map(|image| &image.manifest) == found.as_ref());
        let [image, ..] = known.as_slice() else {
            panic!("{} {} is not what was answered", key.0, key.1);
        };
        let image = image.clone();
        known.truncate(1);
        if let Some(image) = image {
            expect_blobs(repository, &image)?;
            self.read += 1;
        }
        Ok(())
    }

    /// Requires that what was answered is there: the tags, and every image.
    fn expect_all(&mut self, address: SocketAddr) -> io::Result<()> {
        let keys: Vec<_> = self.ledger.keys().cloned().collect();
        for key in keys {
            self.pull(&Repository::new(address, &key.0), &key)?;
        }
        for ((name, digest), image) in &self.images {
            let repository = Repository::new(address, name);
            let response = repository.get(&format!("manifests/{digest}"));
            response.expect_status(200);
            assert!(response.body == image.manifest, "{digest} has other bytes");
            expect_blobs(&repository, image)?;
        }
        Ok(())
    }
}

/// Pushes a blob unless it is there, as clients do.
fn push_blob(repository: &Repository, content: &[u8]) -> io::Result<()> {
    let digest = sha256(content);
    let head = repository
        .request("HEAD", &format!("blobs/{digest}"))
        .try_send()?;
    if head.status == 200 {
        return Ok(());
    }
    let opened = repository.request("POST", "blobs/uploads/").try_send()?;
    opened.expect_status(202);
    let target = with_query(&opened.location(), "digest", &digest);
    let put = repository.follow("PUT", &target).body(content).try_send()?;
    put.expect_status(201);
    Ok(())
}

fn expect_blobs(repository: &Repository, image: &Image) -> io::Result<()> {
    expect_blob(repository, &image.config)?;
    for (seed, length) in &image.layers {
        expect_blob(repository, &Content::new(*seed, *length).bytes())?;
    }
    Ok(())
}

fn expect_blob(repository: &Repository, content: &[u8]) -> io::Result<()> {
    let target = format!("blobs/{}", sha256(content));
    let response = repository.request("GET", &target).try_send()?;
    response.expect_status(200);
    assert!(response.body == content, "{target} has other bytes");
    Ok(())
}

fn files_of_bytes(root: &Path) -> usize {
    let days = fs::read_dir(root.join("bytes")).expect("the folder is there");
    let names = days.flat_map(|day| {
        fs::read_dir(day.expect("it can be listed").path())
            .into_iter()
            .flatten()
    });
    names.count()
}

#[test]
fn a_killed_server_that_collects_keeps_what_is_named_and_nothing_else() {
    let rounds = match std::env::var("CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("a number of rounds"),
        Err(_) => ROUNDS,
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let configuration = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}, \
         maintenance: {{uploadpurging: {{age: 10s, interval: 1s}}}}}}\n\
         collector: {{interval: 1s, grace: 0s, keepdeleted: 1s}}\nhttp: {{addr: 127.0.0.1:0}}\n",
        root.display()
    );
    fs::write(&configuration, text).expect("the file can be written");
    let mut random = Random::new(SEED);
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    for _ in 0..rounds {
        let server = Server::configured(&configuration);
        let (address, is_killed) = (server.address(), AtomicBool::new(false));
        thread::scope(|scope| {
            for client in &mut clients {
                let is_killed = &is_killed;
                scope.spawn(move || client.work(address, is_killed));
            }
            thread::sleep(Duration::from_millis(random.below(LONGEST_LIFE)));
            is_killed.store(true, Ordering::SeqCst);
            server.kill9();
        });
    }

    let server = Server::configured(&configuration);
    for client in &mut clients {
        client.expect_all(server.address()).expect("the server answers");
    }
    let total = |count: fn(&Client) -> u64| clients.iter().map(count).sum::<u64>();
    let (pushed, deleted) = (total(|client| client.pushed), total(|client| client.deleted));
    let (read, repeated) = (total(|client| client.read), total(|client| client.repeated));
    println!(
        "{rounds} kills: {pushed} pushes, {repeated} repeated, {deleted} deletes, {read} pulls, each whole"
    );
    assert!(pushed > rounds && deleted > rounds / 2 && read > rounds / 2 && repeated > 0);

    // Every image goes, with or without a tag, and all bytes with them.
    for client in &clients {
        for (name, digest) in client.images.keys().chain(&client.uncertain) {
            let repository = Repository::new(server.address(), name);
            let response = repository.delete(&format!("manifests/{digest}"));
            assert!(matches!(response.status, 202 | 404), "{}", response.summary());
        }
    }
    // The more was pushed, the longer one life of a server is not enough to sweep.
    let end = Instant::now() + Duration::from_secs(60 + pushed / 200);
    while files_of_bytes(&root) > 0 {
        assert!(
            Instant::now() < end,
            "{} files are left over",
            files_of_bytes(&root)
        );
        pause();
    }
    assert!(server.terminate().success());
}
