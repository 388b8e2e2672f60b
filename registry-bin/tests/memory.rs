//! The most memory that a server on disk ever holds while large blobs are pushed and pulled at once.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::thread;

use support::client::with_query;
use support::content::{Content, Hashed, Tee};
use support::repository::Repository;
use support::server::Server;

/// KiB that the server may hold at most, beside the pages of its own program: those are the system's to drop, and a
/// program that is not optimised has many.
const LIMIT: u64 = 32 << 10;
/// Pushes, and as many pulls, at once.
const CLIENTS: u64 = 8;

/// Bytes of each blob: a gibibyte where `REGISTRY_TEST_FULL` is set.
fn length() -> u64 {
    if std::env::var_os("REGISTRY_TEST_FULL").is_some() {
        1 << 30
    } else {
        128 << 20
    }
}

fn push(repository: &Repository, seed: u64) -> String {
    let mut hashed = Hashed::new();
    let body = Tee(Content::new(seed, length()), &mut hashed);
    let patched = repository
        .follow("PATCH", &repository.open_upload())
        .chunked(body)
        .send();
    patched.expect_status(202);
    let (digest, sent) = hashed.finish();
    assert_eq!(sent, length());
    let target = with_query(&patched.location(), "digest", &digest);
    repository.follow("PUT", &target).send().expect_status(201);
    digest
}

fn pull(repository: &Repository, digest: &str) {
    let mut hashed = Hashed::new();
    let request = repository.request("GET", &format!("blobs/{digest}"));
    request
        .try_send_to(&mut hashed)
        .expect("the blob can be pulled")
        .expect_status(200);
    assert_eq!(hashed.finish(), (digest.to_owned(), length()));
}

#[test]
fn eight_pushes_and_eight_pulls_at_once_take_little_memory() {
    let server = Server::start(&["--storage", "data"]);
    let idle = server.memory_now() - server.mapped_files();
    let repository = Repository::new(server.address(), "large");
    let first = push(&repository, 0);
    thread::scope(|scope| {
        for seed in 1..=CLIENTS {
            let (repository, first) = (&repository, first.as_str());
            scope.spawn(move || push(repository, seed));
            scope.spawn(move || pull(repository, first));
        }
    });
    let peak = server.peak_memory() - server.mapped_files();
    println!(
        "idle {idle} KiB, peak {peak} KiB with {CLIENTS} pushes and {CLIENTS} pulls of {} bytes",
        length()
    );
    assert!(peak < LIMIT, "{peak} KiB");
}
