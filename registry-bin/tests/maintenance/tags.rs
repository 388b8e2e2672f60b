//! What tags named before, and bringing it back, beside a server and without one.

use std::fs;

use serde_json::Value;

use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{failure, push, success};

#[test]
fn what_was_moved_or_deleted_comes_back_beside_its_server_and_without_one() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    let repository = Repository::new(server.address(), "team/app");
    let tags = |command: &str, named: &str, more: &[&str]| {
        let arguments = ["tags", command, named, "--storage", "root"];
        success(path, &[&arguments[..], more].concat())
    };
    let (first, layer) = push(&repository, "latest", 1);
    let (second, _) = push(&repository, "latest", 2);
    let said = tags("history", "team/app:latest", &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with(&format!("team/app:latest {first} 20")),
        "{said}"
    );
    assert!(
        lines[0].contains("the tag was moved, can be restored until 20"),
        "{said}"
    );
    assert!(
        lines[1].starts_with(&format!("team/app:latest {second} since 20")) && lines[1].ends_with("now"),
        "{said}"
    );
    assert_eq!(
        lines[2],
        "1 past value of team/app:latest, of which 1 can be restored."
    );
    let said = tags("restore", "team/app:latest", &[]);
    assert_eq!(
        said,
        format!("team/app:latest names {first} again, and no longer {second}.\n")
    );
    for digest in [&first, &second] {
        repository
            .delete(&format!("manifests/{digest}"))
            .expect_status(202);
    }
    success(path, &["repositories", "delete", "team/app", "--storage", "root"]);
    repository.get("manifests/latest").expect_status(404);
    success(path, &["collect", "--storage", "root"]);
    // A value of the list.
    let json = tags("restore", &format!("team/app:latest@{second}"), &["--json"]);
    let json: Value = serde_json::from_str(&json).expect("it is a document");
    assert_eq!(
        (&json["digest"], &json["manifests"], &json["replaced"]),
        (&second.as_str().into(), &1.into(), &Value::Null),
        "{json}"
    );
    assert_eq!(
        repository.get("manifests/latest").header("Docker-Content-Digest"),
        Some(second.as_str())
    );
    assert!(server.terminate().success());
    // Alone, and with another tag.
    let said = tags("restore", &format!("team/app:old@{first}"), &[]);
    assert_eq!(
        said,
        format!("team/app:old names {first} again; 1 manifest that had been deleted came back.\n")
    );
    let said = tags("history", "team/app", &["--json"]);
    let values: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is a document"))
        .collect();
    let reasons: Vec<&str> = values
        .iter()
        .filter_map(|value| value["reason"].as_str())
        .collect();
    assert_eq!(reasons, ["moved", "moved", "manifest-deleted"], "{said}");
    assert!(success(path, &["check", "--storage", "root"]).contains("nothing is broken"));
    let server = Server::on(&path.join("root"));
    let repository = Repository::new(server.address(), "team/app");
    assert_eq!(
        repository.get("manifests/old").header("Docker-Content-Digest"),
        Some(first.as_str())
    );
    repository.get(&format!("blobs/{layer}")).expect_status(200);
    // What is given up cannot be restored.
    repository
        .delete(&format!("manifests/{first}"))
        .expect_status(202);
    success(path, &["collect", "--now", "--storage", "root"]);
    let said = failure(path, &["tags", "restore", "team/app:old", "--storage", "root"]);
    assert!(
        said.contains("nothing is kept of what the tag old named before"),
        "{said}"
    );
    let said = failure(
        path,
        &[
            "tags",
            "restore",
            &format!("team/app:old@{first}"),
            "--storage",
            "root",
        ],
    );
    assert!(said.contains("it was deleted too long ago"), "{said}");
    assert!(server.terminate().success());
}

#[test]
fn an_immutable_tag_is_not_moved_and_without_a_time_nothing_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let configure = |rest: &str| {
        let root = path.join("root");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: 127.0.0.1:0}}\n{rest}",
            root.display()
        );
        fs::write(path.join("config.yml"), text).expect("the file can be written");
        path.join("config.yml")
    };
    let immutable = "tags: {immutable: [{repositories: [a], tags: ['v*']}]}\n";
    let server = Server::configured(&configure(immutable));
    let repository = Repository::new(server.address(), "a");
    let (first, _) = push(&repository, "v1", 1);
    let (second, _) = push(&repository, "latest", 2);
    let named = format!("a:v1@{second}");
    // The server has the rule, if the command has not.
    for of in [&["config.yml"][..], &["--storage", "root"]] {
        let said = failure(path, &[&["tags", "restore", &named][..], of].concat());
        assert!(said.contains("may not be moved"), "{said}");
    }
    assert_eq!(
        repository.get("manifests/v1").header("Docker-Content-Digest"),
        Some(first.as_str())
    );
    for named in ["a:v1@sha256:0", "localhost:5000/a:v1", "a"] {
        failure_of_arguments(path, &["tags", "restore", named, "config.yml"]);
    }
    assert!(server.terminate().success());
    let server = Server::configured(&configure("collector: {keepdeleted: 0s}\n"));
    let repository = Repository::new(server.address(), "a");
    push(&repository, "latest", 3);
    repository.delete("manifests/v1").expect_status(202);
    let said = success(path, &["tags", "history", "a", "config.yml"]);
    assert_eq!(said, "Nothing is kept of what the tags of a named before.\n");
    assert!(server.terminate().success());
}

fn failure_of_arguments(path: &std::path::Path, arguments: &[&str]) {
    let output = crate::run(path, arguments);
    assert!(!output.status.success(), "{output:?}");
}
