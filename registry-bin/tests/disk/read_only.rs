//! A folder that cannot be written: a read-only mount, for real. That takes root; without it the tests say so and end.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::json;

use crate::support::address::free_address;
use crate::support::client::Request;
use crate::support::content::{Content, sha256};
use crate::support::repository::{CONFIG, DOCKER_IMAGE, IMAGE, LAYER, Repository, descriptor, image};
use crate::support::server::Server;
use crate::support::tree::Tree;

/// A server on a folder that is mounted read-only.
struct Reader {
    server: Server,
    debug: SocketAddr,
}

impl Reader {
    fn start(folder: &Path, root: &Path) -> Self {
        let debug = free_address();
        let configuration = configuration(folder, root, true, debug);
        let server = Server::configured_under(&configuration, &mounted(root));
        Self { server, debug }
    }

    fn repository(&self, name: &str) -> Repository {
        Repository::new(self.server.address(), name)
    }
}

fn configuration(folder: &Path, root: &Path, is_read_only: bool, debug: SocketAddr) -> PathBuf {
    let path = folder.join(format!("{}.yml", debug.port()));
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}, maintenance: \
         {{readonly: {{enabled: {is_read_only}}}}}}}\nhttp: {{debug: {{addr: '{debug}'}}}}\nhealth: {{storagedriver: \
         {{enabled: true, interval: 1s}}}}\n",
        root.display()
    );
    fs::write(&path, text).expect("a file can be written");
    path
}

/// The commands of a shell that mount a root read-only for what comes next, and nobody else.
fn mounted(root: &Path) -> String {
    format!(
        "set -- unshare -m sh -c 'mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"' '{}' \"$@\"",
        root.display()
    )
}

/// Runs the program on a read-only mount of a root to its end, and returns its exit code and what it printed.
fn run(root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("sh")
        .args(["-c", &format!("{}\nexec timeout 60 \"$@\"", mounted(root)), "sh"])
        .arg(env!("CARGO_BIN_EXE_registry-bin"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Tells whether folders can be mounted here.
fn may_mount() -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let script = format!("{}\n\"$@\"", mounted(folder.path()));
    let mounted = Command::new("sh").args(["-c", &script, "sh", "true"]).output();
    mounted.is_ok_and(|output| output.status.success())
}

/// All files and folders below a root, with size and time of the last write.
fn files(root: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().expect("it is there");
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("it can be read");
            waiting.extend(entries.map(|entry| entry.expect("it can be read").path()));
        }
        let written = metadata.modified().expect("this system has it");
        found.insert(path, (metadata.len(), written));
    }
    found
}

fn expect_reads_alone(reader: &Reader, repository: &Repository) {
    repository
        .request("POST", "blobs/uploads/")
        .send()
        .expect_error(&[405], &["UNSUPPORTED"]);
    repository
        .put_manifest("v9", IMAGE, b"{}")
        .expect_error(&[405], &["UNSUPPORTED"]);
    repository
        .delete("manifests/v1")
        .expect_error(&[405], &["UNSUPPORTED"]);
    let ready = Request::new(reader.debug, "GET", "/ready").send();
    ready.expect_status(200);
    assert_eq!(ready.body, b"ok\n");
}

#[test]
fn a_folder_on_a_read_only_mount_serves_pulls_from_any_number_of_processes() {
    if !may_mount() {
        println!("skipped: a file system cannot be mounted here");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data ?#%");
    let server = Server::on(&root);
    let repository = Repository::new(server.address(), "team/app");
    let pushed = repository.push_image("v1", "one");
    let large = Content::new(1, 300_000).bytes();
    let layer = repository.push_blob(&large);
    assert!(server.terminate().success());
    let before = files(&root);

    let readers: Vec<Reader> = (0..3).map(|_| Reader::start(folder.path(), &root)).collect();
    for reader in &readers {
        let repository = reader.repository("team/app");
        let found = repository.get("manifests/v1");
        found.expect_status(200);
        found.expect_header("Docker-Content-Digest", &pushed.digest);
        repository.head("manifests/v1").expect_status(200);
        assert!(repository.get(&format!("blobs/{layer}")).body == large);
        assert_eq!(repository.tags(), ["v1"]);
        expect_reads_alone(reader, &repository);
    }
    let root_name = root.to_str().expect("a plain path");
    let (code, said) = run(&root, &["check", "--verify-content", "--storage", root_name]);
    assert!(code == Some(0) && said.contains("nothing is broken"), "{said}");
    let image = folder.path().join("image");
    let image = image.to_str().expect("a plain path");
    let (code, said) = run(
        &root,
        &["export", "--layout", "oci", image, "--storage", root_name],
    );
    assert!(code == Some(0) && said.contains("1 tag"), "{said}");
    // Nobody may write to it meanwhile: they would go on with what they read.
    let refused = Command::new("timeout")
        .args([
            "60",
            env!("CARGO_BIN_EXE_registry-bin"),
            "serve",
            "--listen",
            "127.0.0.1:0",
        ])
        .args(["--storage", root_name])
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(1) && said.contains("is in use"),
        "{said}"
    );
    for reader in readers {
        assert!(reader.server.terminate().success());
    }
    assert_eq!(files(&root), before);
    let server = Server::on(&root);
    let repository = Repository::new(server.address(), "team/app");
    repository.push_image("v2", "two");
    // Nor may they read what somebody writes to.
    let debug = free_address();
    let configured = configuration(folder.path(), &root, true, debug);
    let (code, said) = run(&root, &["serve", configured.to_str().expect("a plain path")]);
    assert!(code == Some(1) && said.contains("is in use by process"), "{said}");
}

/// What was pushed last is in SQLite's log, which nobody can copy back there.
#[test]
fn pushes_before_a_crash_are_served_from_a_read_only_mount() {
    if !may_mount() {
        println!("skipped: a file system cannot be mounted here");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    let server = Server::on(&root);
    let pushed = Repository::new(server.address(), "a").push_image("v1", "one");
    server.kill9();
    let log = fs::metadata(root.join("records.sqlite-wal")).expect("there is a log");
    assert!(log.len() > 0);
    let before = files(&root);
    let reader = Reader::start(folder.path(), &root);
    let repository = reader.repository("a");
    let found = repository.get("manifests/v1");
    found.expect_status(200);
    found.expect_header("Docker-Content-Digest", &pushed.digest);
    repository
        .get(&format!("blobs/{}", pushed.layer))
        .expect_status(200);
    expect_reads_alone(&reader, &repository);
    assert!(reader.server.terminate().success());
    assert_eq!(files(&root), before);
}

#[test]
fn a_tree_that_was_never_adopted_is_served_from_a_read_only_mount() {
    if !may_mount() {
        println!("skipped: a file system cannot be mounted here");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    let tree = Tree::new(&root);
    let layer = Content::new(1, 300_000).bytes();
    let config = b"{}";
    tree.push_blob("team/app", &layer);
    tree.push_blob("team/app", config);
    let manifest = image(&descriptor(CONFIG, config), &[descriptor(LAYER, &layer)]).to_string();
    tree.push_manifest("team/app", "v1", manifest.as_bytes());
    let other = json!({"schemaVersion": 2, "mediaType": DOCKER_IMAGE, "config": descriptor(CONFIG, config)})
        .to_string();
    tree.push_manifest("team/app", "v2", other.as_bytes());
    let before = files(&root);

    let readers: Vec<Reader> = (0..2).map(|_| Reader::start(folder.path(), &root)).collect();
    for reader in &readers {
        reader
            .server
            .output_with("adopted 1 repository, 2 manifests, 2 tags, 2 blobs");
        let repository = reader.repository("team/app");
        assert!(repository.get("manifests/v1").body == manifest.as_bytes());
        assert!(repository.get("manifests/v2").body == other.as_bytes());
        assert!(repository.get(&format!("blobs/{}", sha256(&layer))).body == layer);
        assert!(repository.get(&format!("blobs/{}", sha256(config))).body == config);
        let part = repository
            .request("GET", &format!("blobs/{}", sha256(&layer)))
            .header("Range", "bytes=100000-100009")
            .send();
        part.expect_status(206);
        assert!(part.body == layer[100_000..100_010]);
        assert_eq!(repository.tags(), ["v1", "v2"]);
        expect_reads_alone(reader, &repository);
    }
    for reader in readers {
        assert!(reader.server.terminate().success());
    }
    assert_eq!(files(&root), before);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_with_the_key_that_serves_it() {
    if !may_mount() {
        println!("skipped: a file system cannot be mounted here");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("data");
    Tree::new(&root).push_blob("app", b"{}");
    let configured = configuration(folder.path(), &root, false, free_address());
    let (code, said) = run(&root, &["serve", configured.to_str().expect("a plain path")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("storage.maintenance.readonly.enabled"), "{said}");
}
