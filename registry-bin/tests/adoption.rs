//! Adoption as its user meets it: what is printed and logged, what is refused, and a process that is killed in it.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::address::free_address;
use support::bucket::BucketServer;
use support::client::Request;
use support::content::{Content, sha256};
use support::repository::{CONFIG, DOCKER_IMAGE, LAYER, Repository, descriptor, image};
use support::server::{Server, guard, pause, until};
use support::tree::Tree;

const REPOSITORIES: u64 = 15;
const LAYERS: u64 = 40;
/// Above what is kept in records.
const LENGTH: u64 = 17_000;

/// Pushes an image with the tag `v1`.
fn push_image(tree: &Tree, number: u64) {
    let repository = repository(number);
    let config = json!({"number": number}).to_string().into_bytes();
    tree.push_blob(&repository, &config);
    for layer in layers(number) {
        tree.push_blob(&repository, &layer);
    }
    tree.push_manifest(&repository, "v1", &manifest(number));
}

fn repository(number: u64) -> String {
    format!("many/app{number}")
}

fn layers(number: u64) -> Vec<Vec<u8>> {
    // The first one is that of all.
    let seeds = (1..LAYERS).map(|layer| number * LAYERS + layer).chain([0]);
    seeds.map(|seed| Content::new(seed, LENGTH).bytes()).collect()
}

fn manifest(number: u64) -> Vec<u8> {
    let config = json!({"number": number}).to_string().into_bytes();
    let layers: Vec<_> = layers(number)
        .iter()
        .map(|layer| descriptor(LAYER, layer))
        .collect();
    image(&descriptor(CONFIG, &config), &layers)
        .to_string()
        .into_bytes()
}

fn ours(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program to its end, and returns what it printed on both streams and whether it succeeded.
fn run(arguments: &[&str]) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = ours(arguments).output().expect("the program runs");
    let text = [stdout, stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    (status.success(), text)
}

fn expect_image(server: &Server, number: u64) {
    let repository = Repository::new(server.address(), repository(number));
    let found = repository.get("manifests/v1");
    found.expect_status(200);
    assert!(found.body == manifest(number));
    for layer in layers(number) {
        let found = repository.get(&format!("blobs/{}", sha256(&layer)));
        found.expect_status(200);
        assert!(found.body == layer);
    }
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    paths
        .map(|path| if path.is_dir() { count_files(&path) } else { 1 })
        .sum()
}

#[test]
fn an_adoption_that_is_killed_again_and_again_ends_well() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tree = Tree::new(folder.path());
    for number in 0..REPOSITORIES {
        push_image(&tree, number);
    }
    let before = count_files(&folder.path().join("docker"));
    let root = folder.path().to_str().expect("a plain path");
    let mut kills = 0;
    let mut patience = Duration::from_millis(30);
    loop {
        let mut process = ours(&["adopt", "--storage", root])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        // Later each time, so that every part of it is met and it comes to its end.
        let deadline = Instant::now() + patience;
        patience = patience.mul_f64(1.3);
        let ended = loop {
            if let Some(status) = process.try_wait().expect("an own child can be waited for") {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            pause();
        };
        match ended {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => {
                process.kill().expect("an own child can be killed");
                process.wait().expect("an own child can be waited for");
                kills += 1;
            }
        }
    }
    assert!(kills > 2, "it was killed {kills} times");
    let server = Server::on(folder.path());
    for number in 0..REPOSITORIES {
        expect_image(&server, number);
    }
    assert_eq!(count_files(&folder.path().join("docker")), before);
    assert!(server.terminate().success());
    let (is_success, text) = run(&["adopt", "--storage", root]);
    assert!(is_success && text.contains("nothing was done"), "{text}");
}

#[test]
fn an_adoption_that_leaves_something_out_fails_unless_that_is_allowed() {
    for (more, expected) in [(None, false), (Some("--allow-defects"), true)] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let tree = Tree::new(folder.path());
        push_image(&tree, 0);
        fs::remove_file(tree.data(&sha256(&layers(0)[3]))).expect("a file can be removed");
        let root = folder.path().to_str().expect("a plain path");
        let mut arguments = vec!["adopt", "--storage", root];
        arguments.extend(more);
        let (is_success, text) = run(&arguments);
        assert!(
            is_success == expected && text.contains("Adopted 1 repository"),
            "{text}"
        );
        assert!(text.contains("not adopted: many/app0"), "{text}");
    }
}

/// registry:2 takes and serves such a manifest.
#[test]
fn an_image_without_the_key_layers_is_adopted() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tree = Tree::new(folder.path());
    let config = b"{}";
    tree.push_blob("app", config);
    let manifest =
        json!({"schemaVersion": 2, "mediaType": DOCKER_IMAGE, "config": descriptor(CONFIG, config)});
    let manifest = manifest.to_string().into_bytes();
    tree.push_manifest("app", "v1", &manifest);
    let root = folder.path().to_str().expect("a plain path");
    let (is_success, text) = run(&["adopt", "--storage", root]);
    assert!(is_success && text.contains("1 manifest, 1 tag"), "{text}");
    let server = Server::on(folder.path());
    let found = Repository::new(server.address(), "app").get("manifests/v1");
    found.expect_status(200);
    assert!(found.body == manifest && found.header("content-type") == Some(DOCKER_IMAGE));
}

/// What root made there, the service could not write to any more.
#[test]
fn a_command_of_root_in_the_folder_of_another_user_is_refused_with_the_line_to_type() {
    const SOMEBODY: u32 = 65532;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    push_image(&Tree::new(folder.path()), 0);
    let is_root = std::os::unix::fs::chown(folder.path(), Some(SOMEBODY), None).is_ok();
    if !is_root {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    let root = folder.path().to_str().expect("a plain path");
    let (is_success, text) = run(&["adopt", "--storage", root]);
    assert!(
        !is_success && text.contains("type: setpriv --reuid=65532 "),
        "{text}"
    );
    assert!(text.contains(&format!("adopt --storage {root}")), "{text}");
    assert!(!folder.path().join("records.sqlite").exists());
    let (is_success, text) = run(&["adopt", "--dry-run", "--storage", root]);
    assert!(is_success, "what only reads is for everybody: {text}");
}

/// The usual move of a container: root wrote the volume, and only its folder was given to the user.
#[test]
fn files_that_cannot_be_linked_are_named_before_the_start() {
    const SOMEBODY: u32 = 65532;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    push_image(&Tree::new(folder.path()), 0);
    let is_root = std::os::unix::fs::chown(folder.path(), Some(SOMEBODY), Some(SOMEBODY)).is_ok();
    let setting = fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap_or_default();
    if !is_root || setting.trim() != "1" {
        eprintln!(
            "skipped: only root can give a folder away, and not every kernel protects files from links"
        );
        return;
    }
    let root = folder.path().to_str().expect("a plain path");
    let as_somebody = |arguments: &[&str]| {
        let mut command = ours(arguments);
        command.env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root);
        command.env("REGISTRY_HTTP_ADDR", "127.0.0.1:0");
        command.uid(SOMEBODY).gid(SOMEBODY);
        let output = command.output().expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let check: &[&str] = &["config", "check"];
    let look = &["adopt", "--dry-run", "--storage", root];
    for arguments in [check, look, &["serve"]] {
        let there_before = folder.path().join("records.sqlite").exists();
        assert!(!there_before, "a look writes nothing");
        let (is_success, text) = as_somebody(arguments);
        assert!(!is_success, "{arguments:?}: {text}");
        let words = [
            "cannot get a second name beside the records",
            "run this registry as the owner of the files",
        ];
        assert!(
            words.iter().all(|words| text.contains(words)),
            "{arguments:?}: {text}"
        );
    }
    for arguments in [check, look] {
        let (is_success, text) = as_somebody(arguments);
        assert!(!is_success, "also after a start that failed: {text}");
    }
    // What anybody may write, anybody may link.
    for layer in layers(0) {
        let file = Tree::new(folder.path()).data(&sha256(&layer));
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("modes can be set");
    }
    for arguments in [check, look, &["adopt", "--storage", root], check, look] {
        let (is_success, text) = as_somebody(arguments);
        assert!(is_success, "{arguments:?}: {text}");
    }
}

#[test]
fn a_server_goes_on_with_an_adoption_and_says_what_is_broken() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tree = Tree::new(folder.path());
    for number in 0..2 {
        push_image(&tree, number);
    }
    let missing = sha256(&layers(1)[3]);
    fs::remove_file(tree.data(&missing)).expect("a file can be removed");
    let root = folder.path().to_str().expect("a plain path");

    let (is_success, looked) = run(&["adopt", "--dry-run", "--storage", root]);
    assert!(
        !is_success && looked.contains("Would adopt 2 repositories"),
        "{looked}"
    );
    let (is_success, looked) = run(&["adopt", "--dry-run", "--allow-defects", "--storage", root]);
    assert!(is_success, "{looked}");
    assert!(
        looked.contains(&missing) && looked.contains("1 link whose content is missing"),
        "{looked}"
    );
    assert!(!folder.path().join("records.sqlite").exists());

    let server = Server::on(folder.path());
    let output = server.output_with("adopted 2 repositories, 2 manifests, 2 tags");
    assert!(
        output.contains(&format!(
            "not adopted: many/app1: the content of {missing} is missing"
        )),
        "{output}"
    );
    expect_image(&server, 0);
    let app = Repository::new(server.address(), repository(1));
    assert!(app.get("manifests/v1").body == manifest(1));
    app.get(&format!("blobs/{missing}")).expect_status(404);
    // Whoever pushes again repairs it.
    app.push_blob(&layers(1)[3]);
    expect_image(&server, 1);
    assert!(server.terminate().success());

    let server = Server::on(folder.path());
    assert!(!server.output().contains("adopt"), "{}", server.output());
    expect_image(&server, 1);
}

/// It was adopted early, and the distribution registry went on.
#[test]
fn a_start_adopts_what_came_since_and_says_how_much() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tree = Tree::new(folder.path());
    push_image(&tree, 0);
    let root = folder.path().to_str().expect("a plain path");
    let (is_success, text) = run(&["adopt", "--storage", root]);
    assert!(is_success, "{text}");
    let (is_success, text) = run(&["adopt", "--dry-run", "--storage", root]);
    assert!(is_success && text.contains("nothing came since"), "{text}");
    // The times of files are those of the kernel's last tick.
    until(|| tree.is_older_than(Duration::from_millis(100)));
    push_image(&tree, 1);
    push_image(&tree, 2);
    let missing = sha256(&layers(2)[3]);
    fs::remove_file(tree.data(&missing)).expect("a file can be removed");
    until(|| tree.is_older_than(Duration::from_millis(100)));
    for (again, would) in [
        (false, "The next start would adopt 2 repositories"),
        (true, "Would adopt 3 repositories"),
    ] {
        let again = again.then_some("--again");
        let arguments = ["adopt", "--dry-run", "--storage", root].into_iter().chain(again);
        let (is_success, text) = run(&arguments.collect::<Vec<_>>());
        assert!(
            !is_success && text.contains(&format!("{would}, 2 manifests, 2 tags")),
            "{text}"
        );
    }
    let server = Server::on(folder.path());
    let output = server
        .output_with("used after its folders were adopted; adopted 2 repositories, 2 manifests, 2 tags");
    assert!(
        output.contains(&format!(
            "not adopted: many/app2: the content of {missing} is missing"
        )),
        "{output}"
    );
    expect_image(&server, 0);
    expect_image(&server, 1);
    let deleted = Repository::new(server.address(), repository(1));
    deleted.delete("manifests/v1").expect_status(202);
    // Back there for a while: what is written to the folder by this registry is nothing new.
    let (is_success, text) = run(&["export", "--layout", "distribution", root, "--storage", root]);
    assert!(is_success, "{text}");
    assert!(server.terminate().success());
    let server = Server::on(folder.path());
    assert!(!server.output().contains("adopted 2"), "{}", server.output());
    expect_image(&server, 0);
    Repository::new(server.address(), repository(1))
        .get("manifests/v1")
        .expect_status(404);
}

#[test]
fn a_tree_beside_content_of_ones_own_is_added_only_on_request() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().to_str().expect("a plain path");
    let server = Server::on(folder.path());
    Repository::new(server.address(), "own").push_image("v1", "own");
    assert!(server.terminate().success());
    push_image(&Tree::new(folder.path()), 0);
    let server = Server::on(folder.path());
    server.output_with("adopt --again");
    let app = Repository::new(server.address(), repository(0));
    app.get("manifests/v1").expect_status(404);
    // Through the server's socket, and without a server.
    let refused = run(&["adopt", "--storage", root]);
    assert!(!refused.0 && refused.1.contains("--again adds"), "{}", refused.1);
    let (is_success, text) = run(&["adopt", "--again", "--storage", root]);
    assert!(is_success && text.contains("Adopted 1 repository"), "{text}");
    expect_image(&server, 0);
    assert!(server.terminate().success());
    push_image(&Tree::new(folder.path()), 1);
    let missing = sha256(&layers(1)[3]);
    fs::remove_file(Tree::new(folder.path()).data(&missing)).expect("a file can be removed");
    let (is_success, text) = run(&["adopt", "--again", "--storage", root]);
    assert!(!is_success && text.contains("1 manifest"), "{text}");
    assert!(
        text.contains(&format!(
            "not adopted: many/app1: the content of {missing} is missing"
        )),
        "{text}"
    );
    let server = Server::on(folder.path());
    Repository::new(server.address(), repository(1))
        .get("manifests/v1")
        .expect_status(200);
    Repository::new(server.address(), "own")
        .get("manifests/v1")
        .expect_status(200);
}

#[test]
fn commands_without_anything_to_do_say_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().to_str().expect("a plain path");
    let (is_success, text) = run(&["adopt", "--storage", root]);
    assert!(
        !is_success && text.contains("docker/registry/v2/repositories"),
        "{text}"
    );
    let (is_success, text) = run(&["adopt", "--storage", "memory"]);
    assert!(!is_success && text.contains("only a folder"), "{text}");
    let target = folder.path().join("target");
    let target = target.to_str().expect("a plain path");
    for (storage, word) in [(root, "no registry in this folder"), ("memory", "gone")] {
        let (is_success, text) = run(&["export", "--layout", "distribution", target, "--storage", storage]);
        assert!(!is_success && text.contains(word), "{text}");
    }
    assert!(
        fs::read_dir(folder.path())
            .expect("it can be read")
            .next()
            .is_none()
    );
}

/// Clients are refused until it is done, and operators see what goes on.
#[test]
fn while_a_server_adopts_it_lives_has_not_started_and_takes_no_connections() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tree = Tree::new(folder.path());
    for number in 0..REPOSITORIES {
        push_image(&tree, number);
    }
    let (main, debug) = (free_address(), free_address());
    let log = folder.path().join("log");
    let mut process = ours(&["serve", "--listen", &main.to_string()])
        .env("REGISTRY_HTTP_DEBUG_ADDR", debug.to_string())
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder.path())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).expect("a file can be made"))
        .spawn()
        .expect("the program runs");
    let guard = guard(&process, &folder.path().join("nothing"));
    let ask = |path: &str| Request::new(debug, "GET", path).try_send();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = Vec::new();
    loop {
        let Ok(startup) = ask("/startup") else {
            assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(&log));
            pause();
            continue;
        };
        if startup.status == 200 {
            break;
        }
        startup.expect_status(503);
        let text = String::from_utf8(startup.body).expect("text");
        if text.starts_with("adopting") {
            ask("/live").expect("it answers").expect_status(200);
            match TcpStream::connect(main) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                    seen.push(text);
                }
                // The adoption ended in between, and all is there.
                Ok(_) => {
                    let path = format!("/v2/{}/manifests/v1", repository(REPOSITORIES - 1));
                    Request::new(main, "GET", &path).send().expect_status(200);
                }
            }
        }
        assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(&log));
        pause();
    }
    assert!(!seen.is_empty());
    assert!(
        seen.iter()
            .all(|text| text.contains(&format!("of {REPOSITORIES} repositories"))),
        "{seen:?}"
    );
    Request::new(main, "GET", &format!("/v2/{}/manifests/v1", repository(3)))
        .send()
        .expect_status(200);
    stop(guard);
    process.kill().expect("an own child can be killed");
    process.wait().expect("an own child can be waited for");
}

fn stop(mut guard: Child) {
    guard.kill().ok();
    guard.wait().ok();
}

/// Writes the tree of a folder into a bucket, all of it now.
fn put_tree(bucket: &BucketServer, folder: &Path) {
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("it can be read");
            waiting.extend(entries.map(|entry| entry.expect("it can be read").path()));
            continue;
        }
        let key = path.strip_prefix(folder).expect("it is below");
        let content = fs::read(&path).expect("it can be read");
        let key = format!("root/{}", key.display());
        bucket.block_on(async |double| double.put(&key, content.into()));
    }
    // What was pushed in the second of an adoption may have come after it.
    bucket.block_on(async |double| double.pass(Duration::from_secs(1)));
}

/// One server is killed in the middle of it, and two others then do it at once.
#[test]
fn a_bucket_is_adopted_where_it_is_and_released() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tree = Tree::new(folder.path());
    for number in 0..REPOSITORIES {
        push_image(&tree, number);
    }
    let bucket = BucketServer::start();
    put_tree(&bucket, folder.path());
    let of_tree = || bucket.keys_below("root/docker/");
    let before = of_tree();
    let environment: Vec<_> = bucket
        .environment()
        .into_iter()
        .chain([("AWS_ALLOW_HTTP", "true")])
        .collect();
    let command = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--storage", "s3://bucket/root"]);
        let output = ours(&all).envs(environment.clone()).output();
        let output = output.expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.success(), text)
    };
    let (is_success, text) = command(&["adopt", "--dry-run"]);
    assert!(
        is_success && text.contains("Would adopt 15 repositories, 15 manifests, 15 tags"),
        "{text}"
    );
    assert_eq!(
        bucket.keys_below("root/").len(),
        before.len(),
        "a look writes nothing"
    );

    let arguments = [
        "serve",
        "--storage",
        "s3://bucket/root",
        "--listen",
        "127.0.0.1:0",
    ];
    let killed = ours(&arguments)
        .envs(environment.clone())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    until(|| bucket.keys_below("root/blobs/").len() > 100);
    stop(killed);
    assert!(
        bucket.keys_below("root/catalog/").len() < 15,
        "it was not done yet"
    );
    let start = || Server::run_with(&arguments, &environment);
    let servers = std::thread::scope(|scope| {
        let servers = [scope.spawn(start), scope.spawn(start)];
        servers.map(|server| server.join().expect("a server starts"))
    });
    for server in &servers {
        for number in 0..REPOSITORIES {
            let repository = Repository::new(server.address(), repository(number));
            let found = repository.get("manifests/v1");
            found.expect_status(200);
            assert_eq!(found.body, manifest(number));
            let layer = &layers(number)[1];
            let blob = repository.get(&format!("blobs/{}", sha256(layer)));
            blob.expect_status(200);
            assert_eq!(&blob.body, layer);
        }
    }
    assert_eq!(bucket.keys_below("root/bytes/"), [""; 0], "no byte was copied");
    Repository::new(servers[0].address(), repository(3))
        .delete("manifests/v1")
        .expect_status(202);
    Repository::new(servers[0].address(), repository(3))
        .delete(&format!("manifests/{}", sha256(&manifest(3))))
        .expect_status(202);
    for _ in 0..2 {
        let (is_success, text) = command(&["collect", "--now"]);
        assert!(is_success, "{text}");
    }
    assert_eq!(of_tree(), before, "it is still the distribution registry's");
    let (is_success, text) = command(&["check"]);
    assert!(is_success, "{text}");

    let (is_success, text) = command(&["adopt", "--release-old-tree"]);
    assert!(is_success && text.contains("Released: "), "{text}");
    // One layer is that of all, and the large ones of one image are named no more.
    let needed = 1 + (REPOSITORIES - 1) * (LAYERS - 1);
    assert_eq!(of_tree().len() as u64, needed);
    let (is_success, text) = command(&["check", "--verify-content"]);
    assert!(is_success, "{text}");
    let (is_success, text) = command(&["adopt", "--again"]);
    assert!(!is_success && text.contains("was released"), "{text}");
    for server in servers {
        assert!(server.terminate().success());
    }
}

/// A day back on the distribution registry, and then here again.
#[test]
fn a_start_on_a_bucket_takes_what_came_since_and_leaves_what_was_deleted() {
    let bucket = BucketServer::start();
    let put_image = |number| {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        push_image(&Tree::new(folder.path()), number);
        put_tree(&bucket, folder.path());
    };
    put_image(0);
    put_image(1);
    let environment: Vec<_> = bucket
        .environment()
        .into_iter()
        .chain([("AWS_ALLOW_HTTP", "true")])
        .collect();
    let start_with = |more: &[(&'static str, &'static str)]| {
        let arguments = [
            "serve",
            "--storage",
            "s3://bucket/root",
            "--listen",
            "127.0.0.1:0",
        ];
        let environment: Vec<_> = environment.iter().chain(more).copied().collect();
        Server::run_with(&arguments, &environment)
    };
    const READ_ONLY: (&str, &str) = ("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true");
    const SINCE: &str = "was used after its data in this bucket was adopted";

    let server = start_with(&[]);
    let deleted = Repository::new(server.address(), repository(1));
    deleted.delete("manifests/v1").expect_status(202);
    let digest = sha256(&manifest(1));
    deleted.delete(&format!("manifests/{digest}")).expect_status(202);
    assert!(!server.finish().contains(SINCE));
    put_image(2);

    let server = start_with(&[READ_ONLY]);
    let output = server.output_with("a start without `storage.maintenance.readonly` takes it");
    assert!(
        output.contains("WARN") && output.contains("many/app2"),
        "{output}"
    );
    Repository::new(server.address(), repository(2))
        .get("manifests/v1")
        .expect_status(404);
    assert!(server.terminate().success());

    let server = start_with(&[]);
    let output = server.output_with(&format!(
        "{SINCE}; adopted 1 repository, 1 manifest, 1 tag, 40 blobs"
    ));
    assert!(output.contains("nothing was broken"), "{output}");
    let expect_images = |server: &Server| {
        expect_image(server, 0);
        expect_image(server, 2);
        for reference in ["v1", &digest] {
            Repository::new(server.address(), repository(1))
                .get(&format!("manifests/{reference}"))
                .expect_status(404);
        }
    };
    expect_images(&server);
    assert!(server.terminate().success());
    let server = start_with(&[]);
    expect_images(&server);
    let output = server.finish();
    assert!(!output.contains("adopt"), "{output}");
}
