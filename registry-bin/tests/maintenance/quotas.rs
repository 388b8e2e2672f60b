//! Quotas: a push beyond one is refused with the numbers, `usage` says what is used, and a reload changes limits.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::Response;
use crate::support::content::sha256;
use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{failure, push, success};

/// Writes a configuration of a store in `root` below `folder`.
fn configure(folder: &Path, quotas: &str) -> PathBuf {
    let file = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: 127.0.0.1:0}}\n{quotas}",
        folder.join("root").display()
    );
    fs::write(&file, text).expect("the file can be written");
    file
}

/// Room for one image of [`push`], and a little more.
const ONE_IMAGE: &str = "quotas:\n  - repositories: ['team/**']\n    bytes: 150kB\n    tags: 2\n";
const TWO_IMAGES: &str = "quotas:\n  - repositories: ['team/**']\n    bytes: 250kB\n    tags: 2\n";

/// Sends a blob as docker does, which says its digest last.
fn send(repository: &Repository, content: &[u8]) -> Response {
    let upload = repository.open_upload();
    let location = repository.patch(&upload, 0, content).location();
    repository.close_upload(&location, &sha256(content))
}

#[test]
fn a_push_beyond_a_quota_is_refused_and_usage_says_what_is_used() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let configuration = configure(path, ONE_IMAGE);
    let server = Server::configured(&configuration);
    let app = Repository::new(server.address(), "team/app");
    push(&app, "1", 1);
    let other = Repository::new(server.address(), "team/other");
    let large = vec![2; 100_000];
    let refused = send(&other, &large);
    refused.expect_error(&[403], &["DENIED"]);
    let message = refused.json()["errors"][0]["message"].to_string();
    for part in [
        "the quota for team/** is 150000 bytes (146.4 KiB)",
        "needs 100000 (97.6 KiB) more",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // What says its digest and how large it is, is refused before it is sent.
    let digest = sha256(&large);
    let early = other.request("POST", &format!("blobs/uploads/?digest={digest}"));
    early.body(&large).send().expect_error(&[403], &["DENIED"]);
    let mounted = push(&Repository::new(server.address(), "public"), "1", 2);
    let mount = format!("blobs/uploads/?mount={}&from=public", mounted.1);
    other
        .request("POST", &mount)
        .send()
        .expect_error(&[403], &["DENIED"]);
    push(&app, "2", 1);
    let usage = ["usage", "--config", "config.yml", "--shared"];
    let beside = success(path, &usage);
    for line in [
        "team/app: 98.05 KiB in 2 blobs and 1 manifest, 2 tags; 0 B in 0 blobs also in other repositories",
        "2 repositories: ",
        "quotas[0] for team/**: 98.05 KiB of 146.48 KiB, 2 of 2 tags",
    ] {
        assert!(beside.contains(line), "{line} is not in {beside}");
    }
    // A reload takes over what is raised, not that it is gone.
    configure(path, TWO_IMAGES);
    server.read_again();
    send(&other, &large).expect_status(201);
    configure(
        path,
        "quotas:\n  - repositories: ['team/app']\n    bytes: 1GiB\n    tags: 2\n",
    );
    server.signal_hangup();
    server.output_with("the bytes of repositories like team/** would not be limited");
    send(&other, &vec![3; 100_000]).expect_error(&[403], &["DENIED"]);
    // What is there already may be pushed, and a delete makes room at once.
    send(&other, &large).expect_status(201);
    other.delete(&format!("blobs/{digest}")).expect_status(202);
    send(&other, &vec![3; 100_000]).expect_status(201);
    configure(path, TWO_IMAGES);
    assert!(server.terminate().success());
    let alone = success(
        path,
        &[
            "usage",
            "team/app",
            "public",
            "team/app",
            "--json",
            "--config",
            "config.yml",
        ],
    );
    let lines: Vec<Value> = alone
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is a document"))
        .collect();
    let [app, public, quota] = &lines[..] else {
        panic!("{alone}");
    };
    assert_eq!(
        (&app["repository"], &app["tags"]),
        (&"team/app".into(), &2.into())
    );
    assert_eq!(
        (&public["blobs"], &public["sharedBytes"]),
        (&2.into(), &Value::Null)
    );
    assert_eq!(
        (&quota["limit"]["bytes"], &quota["isExact"]),
        (&250_000.into(), &true.into())
    );
    assert!(quota["used"]["bytes"].as_u64().expect("it is a number") > 200_000);
    let unknown = failure(path, &["usage", "team/none", "--storage", "root"]);
    assert!(unknown.contains("there is no repository team/none"), "{unknown}");
    assert!(success(path, &["check", "config.yml"]).contains("nothing is broken"));
}

#[test]
fn what_a_command_alone_removed_is_counted_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let configuration = configure(path, ONE_IMAGE);
    let server = Server::configured(&configuration);
    push(&Repository::new(server.address(), "team/app"), "1", 1);
    assert!(server.terminate().success());
    success(
        path,
        &[
            "repositories",
            "delete",
            "team/app",
            "--purge",
            "--storage",
            "root",
        ],
    );
    let server = Server::configured(&configuration);
    server.output_with("counted what the repositories of quotas have");
    push(&Repository::new(server.address(), "team/app"), "1", 2);
}

#[test]
fn a_quota_that_limits_nothing_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (quotas, said) in [
        ("quotas: [{repositories: ['a']}]\n", "limits nothing"),
        (
            "quotas: [{repositories: [], tags: 1}]\n",
            "quotas[0].repositories",
        ),
        (
            "quotas: [{repositories: ['a'], bytes: 50G}]\n",
            "\"50G\" is not a whole number of bytes",
        ),
        (
            "quotas: [{repositories: ['a'], bytes: 0.5}]\n",
            "\"0.5\" is not a whole number of bytes",
        ),
        ("scrub: {rate: 0.5}\n", "\"0.5\" is not a whole number of bytes"),
        ("scrub: {rate: 1e6}\n", "\"1e6\" is not a whole number of bytes"),
        (
            "quotas: [{repositories: ['a', 'b'], tags: 1}, {repositories: ['b', 'a'], bytes: 1}]\n",
            "are those of quotas[0]",
        ),
        ("quotas: [{repositories: ['a!'], bytes: 5}]\n", "is not a pattern"),
    ] {
        configure(folder.path(), quotas);
        let refused = failure(folder.path(), &["config", "check", "config.yml"]);
        assert!(refused.contains(said), "{refused}");
    }
}
