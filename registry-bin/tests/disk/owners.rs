//! Two servers and one folder: files are taken away and put in their place under the one that has it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::World;
use crate::support::client::Response;
use crate::support::repository::{Image, Repository};
use crate::support::server::{Server, until};

/// Starts a second server on a root that another one has, and returns what it says of that.
fn refused(root: &Path) -> String {
    let output = Command::new("timeout")
        .arg("60")
        .arg(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["serve", "--listen", "127.0.0.1:0", "--storage"])
        .arg(root)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// Checks that each image is there, with its content.
fn assert_whole(repository: &Repository, images: &[(String, Image)]) {
    for (tag, image) in images {
        let manifest = repository.get(&format!("manifests/{tag}"));
        manifest.expect_status(200);
        manifest.expect_header("Docker-Content-Digest", &image.digest);
        repository
            .get(&format!("blobs/{}", image.layer))
            .expect_status(200);
    }
}

/// Checks that a write is refused because of what happened to the folder.
fn assert_refused(answer: &Response, word: &str) {
    answer.expect_status(503);
    let said = answer.summary();
    assert!(
        said.contains("Nothing is written since") && said.contains(word),
        "{said}"
    );
}

#[test]
fn a_server_is_refused_after_the_lock_file_of_another_was_removed_and_no_write_is_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    let world = World::start(folder.path(), &root, "");
    let repository = Repository::new(world.server.address(), "a");
    let mut images = vec![("first".to_owned(), repository.push_image("first", "first"))];
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let pushes = scope.spawn(|| {
            let mut pushed = Vec::new();
            while !is_done.load(Ordering::Relaxed) || pushed.len() < 20 {
                let tag = format!("t{}", pushed.len());
                let image = repository.push_image(&tag, &tag);
                pushed.push((tag, image));
            }
            pushed
        });
        for _ in 0..5 {
            fs::remove_file(root.join("registry.lock")).expect("there is a lock file");
            let said = refused(&root);
            assert!(said.contains("is in use by"), "{said}");
            until(|| root.join("registry.lock").exists());
            let said = refused(&root);
            assert!(
                said.contains(&format!("process {}", world.server.process())),
                "{said}"
            );
        }
        is_done.store(true, Ordering::Relaxed);
        images.extend(pushes.join().expect("pushes are answered"));
    });
    let log = world.server.output();
    assert!(
        log.contains("the lock file was removed, and is made again"),
        "{log}"
    );
    assert_eq!(world.text("/ready"), "ok\n");
    world.server.kill9();
    let server = Server::on(&root);
    assert_whole(&Repository::new(server.address(), "a"), &images);
}

#[test]
fn a_server_whose_lock_file_was_replaced_by_a_copy_writes_no_more_and_lets_nobody_in() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    let world = World::start(folder.path(), &root, "");
    let repository = Repository::new(world.server.address(), "a");
    let images = [("v1".to_owned(), repository.push_image("v1", "x"))];
    let (lock, copy) = (root.join("registry.lock"), root.join("copy"));
    fs::copy(&lock, &copy).expect("a file can be copied");
    fs::rename(&copy, &lock).expect("a file can be moved");
    let said = refused(&root);
    assert!(said.contains("is in use by"), "{said}");
    // Without a write too.
    until(|| world.ask("/ready").status == 503);
    let health = world.text("/debug/health");
    assert!(health.contains("lock file was replaced"), "{health}");
    assert_refused(
        &repository.request("POST", "blobs/uploads/").send(),
        "lock file was replaced",
    );
    assert_refused(&repository.delete("manifests/v1"), "lock file was replaced");
    assert!(
        world
            .text("/metrics")
            .contains("registry_storage_writes_stopped 1")
    );
    assert_whole(&repository, &images);
    assert!(world.server.output().contains("lock file was replaced"));
    world.server.terminate();
    let server = Server::on(&root);
    let repository = Repository::new(server.address(), "a");
    assert_whole(&repository, &images);
    repository.push_image("v2", "y");
}

#[test]
fn a_server_whose_folder_was_moved_away_touches_nothing_of_the_one_that_took_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (root, aside) = (folder.path().join("data"), folder.path().join("aside"));
    let world = World::start(folder.path(), &root, "");
    let repository = Repository::new(world.server.address(), "a");
    let images = [("v1".to_owned(), repository.push_image("v1", "x"))];
    fs::rename(&root, &aside).expect("a folder can be moved");
    let second = Server::on(&root);
    let others = Repository::new(second.address(), "a");
    let of_second = [("v2".to_owned(), others.push_image("v2", "y"))];
    let large = others.push_blob(&vec![7; 100_000]);
    assert_refused(
        &repository.request("POST", "blobs/uploads/").send(),
        "removed or replaced",
    );
    until(|| world.ask("/ready").status == 503);
    repository.get("manifests/v1").expect_status(200);
    repository.get("manifests/v2").expect_status(404);
    world.server.terminate();
    assert!(root.join("registry.sock").exists() && root.join("reserve").exists());
    others.push_image("v3", "z");
    second.kill9();
    let server = Server::on(&root);
    let others = Repository::new(server.address(), "a");
    assert_whole(&others, &of_second);
    others.get(&format!("blobs/{large}")).expect_status(200);
    others.get("manifests/v1").expect_status(404);
    let server = Server::on(&aside);
    assert_whole(&Repository::new(server.address(), "a"), &images);
}
