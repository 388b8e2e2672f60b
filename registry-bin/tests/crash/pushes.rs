//! A server that is killed at random points of a push, again and again, over one folder: what was answered is there,
//! what was begun goes on, and nothing is left over.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::client::{Request, Response, with_query};
use crate::support::content::{Content, Random, sha256};
use crate::support::repository::{CONFIG, IMAGE, LAYER, Repository, descriptor, image};
use crate::support::server::Server;

/// How often the server is killed.
const ROUNDS: u64 = 100;
/// The seed of lengths, orders and moments.
const SEED: u64 = 20_260_729;

/// An upload as its client knows it.
#[derive(Clone, Debug)]
struct Session {
    location: String,
    content: Content,
    /// Bytes that were answered 202.
    answered: u64,
    /// Bytes that were sent, answered or not.
    sent: u64,
    /// Whether the closing PUT was sent.
    closing: bool,
}

/// What the client was told, over all rounds.
#[derive(Debug, Default)]
struct Ledger {
    blobs: Vec<Content>,
    configs: Vec<Vec<u8>>,
    manifests: Vec<(String, Vec<u8>)>,
    /// What `latest` was told to be last, and what it may be by now.
    latest: Option<Vec<u8>>,
    latest_sent: Option<Vec<u8>>,
    open: Option<Session>,
    /// Sessions whose location never arrived, and pushes of a whole blob that were never answered.
    unanswered: usize,
}

/// A client that pushes images until the server is gone.
struct Pusher<'l> {
    repository: Repository,
    ledger: &'l mut Ledger,
    random: Random,
    steps: SyncSender<()>,
}

impl Pusher<'_> {
    /// Sends a request and tells the killer that it is on its way.
    fn send(&self, request: Request<'_>) -> io::Result<Response> {
        // The killer stops listening once it has decided.
        self.steps.try_send(()).ok();
        request.try_send()
    }

    fn push_until_killed(&mut self) -> io::Error {
        loop {
            if let Err(error) = self.push_image() {
                return error;
            }
        }
    }

    fn push_image(&mut self) -> io::Result<()> {
        let length = match self.random.below(4) {
            0 => 1 + self.random.below(100),
            1 => 1 + self.random.below(20_000),
            _ => 1 + self.random.below(600_000),
        };
        let layer = Content::new(self.random.next(), length);
        self.push_in_chunks(&layer)?;
        let config = json!({"number": self.random.next()}).to_string().into_bytes();
        self.push_whole(&config)?;
        let layer = json!({"mediaType": LAYER, "digest": layer.clone().digest(), "size": length});
        let manifest = image(&descriptor(CONFIG, &config), &[layer])
            .to_string()
            .into_bytes();
        let tag = format!("t{:016x}", self.random.next());
        self.put_manifest(&tag, &manifest)?;
        self.ledger.manifests.push((tag, manifest.clone()));
        self.ledger.latest_sent = Some(manifest.clone());
        self.put_manifest("latest", &manifest)?;
        self.ledger.latest = Some(manifest);
        Ok(())
    }

    fn push_in_chunks(&mut self, content: &Content) -> io::Result<()> {
        self.ledger.unanswered += 1;
        let opened = self.send(self.repository.request("POST", "blobs/uploads/"))?;
        opened.expect_status(202);
        self.ledger.unanswered -= 1;
        self.ledger.open = Some(Session {
            location: opened.location(),
            content: content.clone(),
            answered: 0,
            sent: 0,
            closing: false,
        });
        while let Some(Session {
            location,
            content,
            answered,
            ..
        }) = self.ledger.open.clone()
        {
            if answered == content.remaining() {
                break;
            }
            let length = 1 + self.random.below(content.remaining() - answered);
            let chunk = content.part(answered, length);
            let request = self.repository.follow("PATCH", &location);
            let request = if self.random.below(2) == 0 {
                request.chunked(chunk)
            } else {
                let range = format!("{answered}-{}", answered + length - 1);
                request.header("Content-Range", &range).stream(chunk, length)
            };
            if let Some(session) = &mut self.ledger.open {
                session.sent = answered + length;
            }
            let patched = self.send(request)?;
            patched.expect_status(202);
            if let Some(session) = &mut self.ledger.open {
                session.answered = answered + length;
                session.location = patched.location();
            }
        }
        if let Some(session) = &mut self.ledger.open {
            session.closing = true;
        }
        let session = self.ledger.open.as_ref().expect("an upload is open");
        let target = with_query(&session.location, "digest", &content.clone().digest());
        self.send(self.repository.follow("PUT", &target))?
            .expect_status(201);
        self.ledger.open = None;
        self.ledger.blobs.push(content.clone());
        Ok(())
    }

    /// Pushes a small blob by POST and a single PUT; its session is not resumed.
    fn push_whole(&mut self, content: &[u8]) -> io::Result<()> {
        self.ledger.unanswered += 1;
        let opened = self.send(self.repository.request("POST", "blobs/uploads/"))?;
        opened.expect_status(202);
        let target = with_query(&opened.location(), "digest", &sha256(content));
        self.send(self.repository.follow("PUT", &target).body(content))?
            .expect_status(201);
        self.ledger.unanswered -= 1;
        self.ledger.configs.push(content.to_vec());
        Ok(())
    }

    fn put_manifest(&self, reference: &str, manifest: &[u8]) -> io::Result<()> {
        let request = self.repository.request("PUT", &format!("manifests/{reference}"));
        self.send(request.header("Content-Type", IMAGE).body(manifest))?
            .expect_status(201);
        Ok(())
    }
}

/// Waits until a number of requests were begun, and a moment more, and kills the server.
fn kill_at(server: Server, steps: &Receiver<()>, random: &mut Random) {
    for _ in 0..=random.below(48) {
        steps
            .recv_timeout(Duration::from_secs(60))
            .expect("the client makes progress");
    }
    thread::sleep(Duration::from_micros(random.below(2500)));
    server.kill9();
}

fn expect_blob(repository: &Repository, content: &Content) {
    let digest = content.clone().digest();
    let response = repository.get(&format!("blobs/{digest}"));
    response.expect_status(200);
    assert!(response.body == content.clone().bytes(), "{digest}");
}

fn expect_manifest(repository: &Repository, reference: &str, manifest: &[u8]) {
    let response = repository.get(&format!("manifests/{reference}"));
    response.expect_status(200);
    assert!(response.body == manifest, "{reference}: {}", response.summary());
}

/// Goes on with the upload that the crash interrupted, and requires that it ends well.
fn resume(repository: &Repository, ledger: &mut Ledger) {
    let Some(session) = ledger.open.take() else { return };
    let digest = session.content.clone().digest();
    let status = repository.follow("GET", &session.location).send();
    if status.status == 404 {
        assert!(session.closing, "a session was lost: {session:?}");
        // Its commit went through, and only the answer was lost.
        expect_blob(repository, &session.content);
    } else {
        status.expect_status(204);
        let range = status.header("Range").expect("a status has a range");
        let end: u64 = range
            .strip_prefix("0-")
            .and_then(|end| end.parse().ok())
            .expect("a range from 0");
        // `0-0` is no byte or one.
        let mut start = if end == 0 {
            session.answered.min(1)
        } else {
            end + 1
        };
        assert!(
            (session.answered..=session.sent).contains(&start),
            "{range} {session:?}"
        );
        let mut location = status.location();
        while start < session.content.remaining() {
            let rest = session
                .content
                .part(start, session.content.remaining() - start)
                .bytes();
            let patched = repository.patch(&location, start, &rest);
            if patched.status == 416 && start == 0 {
                start = 1;
                continue;
            }
            patched.expect_status(202);
            location = patched.location();
            break;
        }
        repository.close_upload(&location, &digest).expect_status(201);
        expect_blob(repository, &session.content);
    }
    ledger.blobs.push(session.content);
}

fn expect_latest(repository: &Repository, ledger: &mut Ledger) {
    let response = repository.get("manifests/latest");
    if response.status == 404 {
        assert!(ledger.latest.is_none(), "{}", response.summary());
        return;
    }
    response.expect_status(200);
    let body = Some(response.body);
    assert!(
        body == ledger.latest || body == ledger.latest_sent,
        "latest is neither the old nor the new"
    );
    ledger.latest = body;
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| if path.is_dir() { count_files(&path) } else { 1 })
        .sum()
}

#[test]
fn a_killed_server_keeps_what_it_answered_and_resumes_what_was_begun() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut ledger = Ledger::default();
    let mut random = Random::new(SEED);
    for round in 0..ROUNDS {
        let server = Server::on(folder.path());
        let repository = Repository::new(server.address(), "crash/test");
        resume(&repository, &mut ledger);
        expect_latest(&repository, &mut ledger);
        if let Some(content) = ledger.blobs.last() {
            expect_blob(&repository, content);
            let older = random.below(ledger.blobs.len() as u64) as usize;
            expect_blob(&repository, &ledger.blobs[older]);
        }
        if let Some((tag, manifest)) = ledger.manifests.last() {
            expect_manifest(&repository, tag, manifest);
        }
        let (steps, begun) = sync_channel(1);
        let pushing = Random::new(SEED ^ round);
        thread::scope(|scope| {
            let mut pusher = Pusher {
                repository,
                ledger: &mut ledger,
                random: pushing,
                steps,
            };
            scope.spawn(move || pusher.push_until_killed());
            kill_at(server, &begun, &mut random);
        });
    }
    let server = Server::on(folder.path());
    let repository = Repository::new(server.address(), "crash/test");
    resume(&repository, &mut ledger);
    for content in &ledger.blobs {
        expect_blob(&repository, content);
    }
    for config in &ledger.configs {
        assert_eq!(repository.get(&format!("blobs/{}", sha256(config))).body, *config);
    }
    for (tag, manifest) in &ledger.manifests {
        expect_manifest(&repository, tag, manifest);
        expect_manifest(&repository, &sha256(manifest), manifest);
    }
    let files = count_files(&folder.path().join("bytes"));
    let named = ledger.blobs.len() + ledger.configs.len() + ledger.unanswered;
    println!(
        "{} blobs, {} images, {files} files",
        ledger.blobs.len(),
        ledger.manifests.len()
    );
    assert!(
        files <= named,
        "{files} files of bytes for {named} blobs and lost sessions"
    );
    assert!(
        ledger.manifests.len() as u64 > ROUNDS / 2,
        "the kills leave too little done to be a test"
    );
    assert!(server.terminate().success());
}
