//! The most memory that a server ever holds while large blobs, or large referrers, are pushed and read at once.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use registry_storage::testing::s3::S3Fault;
use serde_json::Value;
use support::bucket::BucketServer;
use support::client::with_query;
use support::content::{Content, Hashed, Tee, sha256};
use support::repository::{EMPTY, IMAGE, Repository, descriptor, image};
use support::server::Server;

/// KiB that the server may hold at most, beside the pages of its own program: the system drops those as it likes, and a
/// program that is not optimised has many.
const LIMIT: u64 = 32 << 10;
/// Pushes, and as many pulls, at once.
const CLIENTS: u64 = 8;

/// The measurements take turns: how much is in memory at once depends on who else has the processors.
static TURN: Mutex<()> = Mutex::new(());

/// Bytes of each blob: a gibibyte where `REGISTRY_TEST_FULL` is set.
fn length() -> u64 {
    if std::env::var_os("REGISTRY_TEST_FULL").is_some() {
        1 << 30
    } else {
        128 << 20
    }
}

/// Pushes a referrer of `subject` that is as large as a manifest may be, with many annotations.
fn push_referrer(repository: &Repository, subject: &Value, seed: usize) {
    let empty = descriptor(EMPTY, b"{}");
    let mut manifest = image(&empty, std::slice::from_ref(&empty));
    manifest["subject"] = subject.clone();
    let mut text = manifest.to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"annotations\":{");
    for number in 0.. {
        let separator = if number > 0 { "," } else { "" };
        write!(text, "{separator}\"{seed:02}-{number}\":\"\"").expect("a string takes all");
        if text.len() > (4 << 20) - 100 {
            break;
        }
    }
    text.push_str("}}");
    repository
        .put_manifest(&sha256(text.as_bytes()), IMAGE, text.as_bytes())
        .expect_status(201);
}

/// Follows the links of a list of referrers, and returns how many are in it.
fn count_referrers(repository: &Repository, target: &str) -> usize {
    let (mut target, mut count) = (target.to_owned(), 0);
    loop {
        let response = repository.follow("GET", &target).send();
        let page = response.received().referrers(None).expect("a page of referrers");
        count += page.items.len();
        match page.next {
            Some(next) => target = next.to_string(),
            None => return count,
        }
    }
}

/// Returns the most memory that a server holds at any time while something is done, in KiB, beside the pages of files.
fn peak_while(server: &Server, work: impl FnOnce()) -> u64 {
    /// Ends the loop also if the work panics.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(server.anonymous_memory());
                // The system keeps a peak only together with the pages of files, some of which it may drop meanwhile.
                thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let done = Done(&is_done);
        work();
        drop(done);
        peak.join().expect("the memory can be read")
    })
}

#[test]
fn lists_of_large_referrers_and_their_pushes_take_little_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["--storage", "data"]);
    let repository = Repository::new(server.address(), "large");
    repository.push_blob(b"{}");
    let subject = descriptor(IMAGE, b"subject");
    let digest = sha256(b"subject");
    let pushed = peak_while(&server, || {
        thread::scope(|scope| {
            for first in 0..4 {
                let (repository, subject) = (&repository, &subject);
                scope.spawn(move || {
                    for seed in 0..4 {
                        push_referrer(repository, subject, first * 4 + seed);
                    }
                });
            }
        });
    });
    let listed = || {
        thread::scope(|scope| {
            for client in 0..8 {
                let (repository, digest) = (&repository, &digest);
                let (query, expected) = if client % 4 == 3 {
                    ("?artifactType=no/such", 0)
                } else {
                    ("", 16)
                };
                let target = format!("/v2/large/referrers/{digest}{query}");
                scope.spawn(move || assert_eq!(count_referrers(repository, &target), expected));
            }
        });
    };
    let peak = pushed.max(peak_while(&server, listed));
    println!("peak {pushed} KiB with 4 pushes at once, {peak} KiB with 8 lists of 16 referrers of 4 MiB");
    assert!(peak < 128 << 10, "{peak} KiB");
}

fn push(repository: &Repository, seed: u64, length: u64) -> String {
    let mut hashed = Hashed::new();
    let body = Tee(Content::new(seed, length), &mut hashed);
    let patched = repository
        .follow("PATCH", &repository.open_upload())
        .chunked(body)
        .send();
    patched.expect_status(202);
    let (digest, sent) = hashed.finish();
    assert_eq!(sent, length);
    let target = with_query(&patched.location(), "digest", &digest);
    repository.follow("PUT", &target).send().expect_status(201);
    digest
}

fn pull(repository: &Repository, digest: &str) {
    let mut hashed = Hashed::new();
    let request = repository.request("GET", &format!("blobs/{digest}"));
    request
        .try_pull_to(&mut hashed)
        .expect("the blob can be pulled")
        .expect_status(200);
    assert_eq!(hashed.finish(), (digest.to_owned(), length()));
}

#[test]
fn eight_pushes_and_eight_pulls_at_once_take_little_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["--storage", "data"]);
    let idle = server.anonymous_memory();
    let repository = Repository::new(server.address(), "large");
    let first = push(&repository, 0, length());
    let peak = peak_while(&server, || {
        thread::scope(|scope| {
            for seed in 1..=CLIENTS {
                let (repository, first) = (&repository, first.as_str());
                scope.spawn(move || push(repository, seed, length()));
                scope.spawn(move || pull(repository, first));
            }
        });
    });
    println!(
        "idle {idle} KiB, peak {peak} KiB with {CLIENTS} pushes and {CLIENTS} pulls of {} bytes",
        length()
    );
    assert!(peak < LIMIT, "{peak} KiB");
}

/// Parts of a bucket are large, and several of an upload are on their way at once: more, if memory did not bound them, than
/// sixteen pushes may take.
#[test]
fn sixteen_pushes_at_once_to_a_slow_bucket_take_bounded_memory() {
    const PUSHES: u64 = 16;
    const BUCKET_LIMIT: u64 = 200 << 10;
    let length = length() / 2;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bucket = BucketServer::start();
    let server = Server::on_bucket(&bucket);
    let delay = S3Fault::Delay(Duration::from_millis(50));
    bucket.faults().fault_from_now_on(Some(delay));
    let repository = Repository::new(server.address(), "large");
    let peak = peak_while(&server, || {
        thread::scope(|scope| {
            for seed in 0..PUSHES {
                let repository = &repository;
                scope.spawn(move || push(repository, seed, length));
            }
        });
    });
    println!("peak {peak} KiB with {PUSHES} pushes of {length} bytes");
    assert!(peak < BUCKET_LIMIT, "{peak} KiB");
}
