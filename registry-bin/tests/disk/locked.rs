//! A shell that holds a lock on the records while others push and pull.

use std::path::Path;
use std::thread;

use rusqlite::Connection;

use crate::World;
use crate::support::repository::Repository;
use crate::support::server::until;

/// What a shell does that was left within a transaction.
fn lock(root: &Path, statement: &str) -> Connection {
    let shell = Connection::open(root.join("records.sqlite")).expect("the records can be opened");
    shell
        .busy_timeout(std::time::Duration::from_secs(20))
        .expect("a time is set");
    shell.execute_batch(statement).expect("the records can be locked");
    shell
}

#[test]
fn a_shell_that_locks_the_records_holds_pushes_up_and_nothing_else_and_they_go_on_after_it() {
    for statement in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = folder.path().join("data");
        let world = World::start(folder.path(), &root, "");
        let repository = Repository::new(world.server.address(), "a");
        let image = repository.push_image("v1", "x");
        let layer = repository.push_blob(&vec![7; 100_000]);
        until(|| world.ask("/ready").status == 200);
        let pull = || {
            repository.get("manifests/v1").expect_status(200);
            repository
                .get(&format!("blobs/{}", image.layer))
                .expect_status(200);
            repository.get(&format!("blobs/{layer}")).expect_status(200);
            assert_eq!(repository.tags(), ["v1"]);
        };

        // Until somebody notices, and no longer: who waits gets what was asked for.
        let shell = lock(&root, statement);
        thread::scope(|scope| {
            let push = scope.spawn(|| repository.push_image("v2", "y"));
            until(|| {
                pull_manifest(&repository);
                world.ask("/ready").status == 503
            });
            pull_manifest(&repository);
            drop(shell);
            push.join().expect("it is pushed");
        });
        until(|| world.ask("/ready").status == 200);
        assert_eq!(repository.tags(), ["v1", "v2"]);
        repository.delete("manifests/v2").expect_status(202);

        // For longer than a write waits.
        let shell = lock(&root, statement);
        thread::scope(|scope| {
            let pushes: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| repository.request("POST", "blobs/uploads/").send()))
                .collect();
            while pushes.iter().any(|push| !push.is_finished()) {
                pull();
            }
            for push in pushes {
                let answer = push.join().expect("it is answered");
                answer.expect_status(503);
                answer.expect_header("Retry-After", "5");
                let said = answer.summary();
                assert!(said.contains("cannot be written at the moment"), "{said}");
            }
        });
        assert_eq!(world.ask("/ready").status, 503);
        let why = world.text("/debug/health");
        assert!(why.contains("storagedriver"), "{why}");
        drop(shell);
        repository.push_image("v3", "z");
        until(|| world.ask("/ready").status == 200);
        assert!(
            world
                .text("/metrics")
                .contains("registry_storage_writes_stopped 0")
        );
        pull_manifest(&repository);
    }
}

fn pull_manifest(repository: &Repository) {
    repository.get("manifests/v1").expect_status(200);
}
