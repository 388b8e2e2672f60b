//! A shell that opens the records while others push and pull.

use std::path::Path;
use std::thread;

use rusqlite::Connection;

use crate::World;
use crate::support::repository::Repository;
use crate::support::server::until;

fn shell(root: &Path) -> Connection {
    Connection::open(root.join("records.sqlite")).expect("the records can be opened")
}

#[test]
fn no_shell_can_lock_the_records_of_a_running_server() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    let world = World::start(folder.path(), &root, "");
    let repository = Repository::new(world.server.address(), "a");
    let image = repository.push_image("v1", "x");
    until(|| world.ask("/ready").status == 200);
    for statement in [
        "BEGIN IMMEDIATE",
        "BEGIN EXCLUSIVE",
        "BEGIN; SELECT count(*) FROM records",
        "PRAGMA locking_mode = EXCLUSIVE; DELETE FROM records",
    ] {
        let shell = shell(&root);
        let refused = shell.execute_batch(statement).expect_err("it is the server's");
        let code = refused.sqlite_error_code();
        assert_eq!(code, Some(rusqlite::ErrorCode::DatabaseBusy), "{statement}");
        repository.push_image("v2", statement);
        repository.delete("manifests/v2").expect_status(202);
        repository.get("manifests/v1").expect_status(200);
        repository
            .get(&format!("blobs/{}", image.layer))
            .expect_status(200);
    }
    world.ask("/ready").expect_status(200);
    assert!(!root.join("records.sqlite-shm").exists());
}

#[test]
fn a_start_waits_for_a_shell_and_says_what_holds_it_up() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    let world = World::start(folder.path(), &root, "");
    Repository::new(world.server.address(), "a").push_image("v1", "x");
    assert!(world.server.terminate().success());

    let held = shell(&root);
    held.execute_batch("BEGIN; SELECT count(*) FROM records")
        .expect("the records can be read");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["serve", "--listen", "127.0.0.1:0", "--storage"])
        .arg(&root)
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("another process") && said.contains("records.sqlite"),
        "{said}"
    );

    thread::scope(|scope| {
        let start = scope.spawn(|| World::start(folder.path(), &root, ""));
        until(|| root.join("registry.lock").exists());
        drop(held);
        let world = start.join().expect("it starts");
        let repository = Repository::new(world.server.address(), "a");
        repository.get("manifests/v1").expect_status(200);
        repository.push_image("v2", "y");
    });
}
