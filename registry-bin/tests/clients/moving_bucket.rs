//! Moving from the distribution registry in a bucket: Debian's `docker-registry` and ours over one bucket of versitygw, with one
//! configuration.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::distribution::Old;
use crate::moving::{difference, files, push_from_layout, synchronise, walk};
use crate::support::address::free_address;
use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::tools::{Daemon, find};

/// A gateway that serves the folder `data` as buckets, and its address.
fn gateway(folder: &Path) -> (Daemon, String) {
    let program = std::env::var("VERSITYGW").expect("VERSITYGW names the program");
    fs::create_dir_all(folder.join("data/images")).expect("a folder can be made");
    let address = free_address().to_string();
    let arguments = [
        "--access",
        "double",
        "--secret",
        "doubledouble",
        "--port",
        &address,
        "posix",
        "data",
    ];
    let mut daemon = Daemon::start(Path::new(&program), folder, &arguments);
    daemon.wait_until(folder, || TcpStream::connect(&address).is_ok());
    (daemon, address)
}

fn configuration(folder: &Path, address: &str) -> PathBuf {
    let path = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: '127.0.0.1:0', secret: ours}}\nstorage:\n  delete: {{enabled: true}}\n  \
         s3: {{bucket: images, region: us-east-1, regionendpoint: 'http://{address}', accesskey: double, \
         secretkey: doubledouble, rootdirectory: /registry, secure: false}}\n"
    );
    fs::write(&path, text).expect("a file can be written");
    path
}

/// Runs the program, and returns whether it succeeded and what it printed.
fn try_run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn run(arguments: &[&str]) -> String {
    let (is_success, text) = try_run(arguments);
    assert!(is_success, "{arguments:?}: {text}");
    text
}

#[test]
#[ignore = "needs VERSITYGW=/path/to/versitygw"]
fn a_bucket_moves_from_the_distribution_registry_and_is_released() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (Some(program), Some(skopeo)) = (find("docker-registry"), crate::skopeo::tool(folder.path())) else {
        return;
    };
    let (_gateway, address) = gateway(folder.path());
    let configuration = configuration(folder.path(), &address);
    let configured = configuration.to_str().expect("a plain path");
    let old = Old::in_bucket(&program, &configuration);
    push_from_layout(&skopeo, folder.path(), old.address);
    synchronise(&skopeo, folder.path(), old.address);
    let before = walk(old.address);
    drop(old);
    let root = folder.path().join("data/images/registry");
    let tree = files(&root.join("docker"));

    let looked = run(&["adopt", "--dry-run", configured]);
    assert!(
        looked.contains("Would adopt 48 repositories") && looked.contains("nothing was broken"),
        "{looked}"
    );
    let ours = Server::run_with(&["serve", configured], &[]);
    ours.output_with("adopted 48 repositories");
    let adopted = walk(ours.address());
    assert!(adopted == before, "{:?}", difference(&before, &adopted));
    assert!(!root.join("bytes").exists(), "no byte was copied");

    Repository::new(ours.address(), "first/image0").push_image("v1", "pushed to ours");
    let deleted = Repository::new(ours.address(), "fourth/image5");
    let found = deleted.get("manifests/v1");
    let digest = found.header("Docker-Content-Digest").expect("a digest");
    deleted.delete(&format!("manifests/{digest}")).expect_status(202);
    for _ in 0..2 {
        run(&["collect", "--now", configured]);
    }
    assert!(files(&root.join("docker")) == tree, "the tree is as it was");
    let served = walk(ours.address());
    assert!(ours.terminate().success());

    // There is a way back, to what was there.
    let old = Old::in_bucket(&program, &configuration);
    let again = walk(old.address);
    assert!(again == before, "{:?}", difference(&before, &again));
    Repository::new(old.address, "third/of/many/image7").push_image("newer", "pushed after the way back");
    let newer: BTreeSet<String> = walk(old.address)
        .into_keys()
        .filter(|name| name.starts_with("third/of/many/image7"))
        .collect();
    drop(old);

    // And here once more: what came is taken, and then the tree is given up.
    let (is_success, text) = try_run(&["adopt", "--release-old-tree", configured]);
    assert!(!is_success && text.contains("adopt --again"), "{text}");
    run(&["adopt", "--again", configured]);
    let printed = run(&["adopt", "--release-old-tree", configured]);
    assert!(printed.contains("Released: "), "{printed}");
    assert!(!root.join("docker/registry/v2/repositories").exists());
    // What that registry gets after this was never taken, so a release that is repeated does not delete it.
    let old = Old::in_bucket(&program, &configuration);
    Repository::new(old.address, "late").push_image("late", "pushed after the release");
    drop(old);
    let (is_success, text) = try_run(&["adopt", "--release-old-tree", configured]);
    assert!(!is_success && text.contains("released before"), "{text}");
    assert!(root.join("docker/registry/v2/repositories/late").exists());
    let ours = Server::run_with(&["serve", configured], &[]);
    let last = walk(ours.address());
    for name in served.keys().chain(&newer) {
        assert!(last.contains_key(name), "{name}");
    }
    run(&["check", "--verify-content", configured]);
    assert!(ours.terminate().success());
}

/// What was pushed, moved and deleted here is so there, after one command.
#[test]
#[ignore = "needs VERSITYGW=/path/to/versitygw"]
fn a_bucket_goes_back_to_the_distribution_registry() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (Some(program), Some(skopeo)) = (find("docker-registry"), crate::skopeo::tool(folder.path())) else {
        return;
    };
    let (_gateway, address) = gateway(folder.path());
    let configuration = configuration(folder.path(), &address);
    let configured = configuration.to_str().expect("a plain path");
    let export = || {
        run(&[
            "export",
            "--layout",
            "distribution",
            "--in-place",
            "--config",
            configured,
        ])
    };
    let old = Old::in_bucket(&program, &configuration);
    Repository::new(old.address, "first/image0").push_image("v0", "pushed before");
    Repository::new(old.address, "other").push_image("moves", "to be moved");
    Repository::new(old.address, "gone").push_image("v1", "to be deleted");
    drop(old);

    let ours = Server::run_with(&["serve", configured], &[]);
    ours.output_with("adopted 3 repositories");
    push_from_layout(&skopeo, folder.path(), ours.address());
    synchronise(&skopeo, folder.path(), ours.address());
    Repository::new(ours.address(), "other").push_image("moves", "it moved");
    Repository::new(ours.address(), "first/image0")
        .delete("manifests/v0")
        .expect_status(202);
    let gone = Repository::new(ours.address(), "gone");
    let found = gone.get("manifests/v1");
    let digest = found.header("Docker-Content-Digest").expect("a digest");
    gone.delete(&format!("manifests/{digest}")).expect_status(202);
    for _ in 0..2 {
        run(&["collect", "--now", configured]);
    }
    let mut here = walk(ours.address());
    // A bucket has nothing to list of a repository without manifests.
    here.remove("gone");
    assert!(ours.terminate().success());

    let printed = export();
    assert!(printed.contains("Exported 50 repositories"), "{printed}");
    let printed = export();
    assert!(
        printed.contains("0 blobs copied there (0 B), 0 links written, 0 deleted"),
        "{printed}"
    );
    let old = Old::in_bucket(&program, &configuration);
    let there = walk(old.address);
    assert!(there == here, "{:?}", difference(&here, &there));
    Repository::new(old.address, "other").push_image("newer", "pushed after the way back");
    drop(old);

    run(&["adopt", "--again", configured]);
    let ours = Server::run_with(&["serve", configured], &[]);
    Repository::new(ours.address(), "other")
        .get("manifests/newer")
        .expect_status(200);
    let again = walk(ours.address());
    for name in here.keys() {
        assert!(again.contains_key(name), "{name}");
    }
    assert!(again.keys().all(|name| !name.starts_with("gone:")));
    run(&["check", "--verify-content", configured]);
    assert!(ours.terminate().success());
    export();
    let printed = run(&["adopt", "--release-old-tree", configured]);
    assert!(printed.contains("Released: "), "{printed}");
    let (is_success, text) = try_run(&[
        "export",
        "--layout",
        "distribution",
        "--in-place",
        "--config",
        configured,
    ]);
    assert!(!is_success && text.contains("into a folder"), "{text}");
}
