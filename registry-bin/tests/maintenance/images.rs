//! Image layouts.

use std::fs;

use serde_json::Value;

use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{failure, success};

#[test]
fn images_go_from_one_registry_to_another_beside_their_servers() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let source = Server::on(&path.join("source"));
    let pushed = Repository::new(source.address(), "team/app").push_image("v1", "one");
    Repository::new(source.address(), "other").push_image("v2", "two");
    for layout in ["all", "all.tar"] {
        let export = ["export", "--layout", "oci", layout, "--storage", "source"];
        let said = success(path, &export);
        assert!(said.contains("Exported 2 repositories, 2 tags"), "{said}");
        let root = format!("target-{layout}");
        let target = Server::on(&path.join(&root));
        let said = success(path, &["import", "--layout", "oci", layout, "--storage", &root]);
        assert!(said.contains("Imported 2 repositories, 2 tags"), "{said}");
        target.output_with("a command came through the socket");
        let pulled = Repository::new(target.address(), "team/app").get("manifests/v1");
        assert_eq!(pulled.body, pushed.content);
        Repository::new(target.address(), "other")
            .get("manifests/v2")
            .expect_status(200);
    }
    source.output_with("a command came through the socket");
}

#[test]
fn without_a_server_a_registry_is_made_of_a_layout_and_what_is_broken_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let source = Server::on(&path.join("source"));
    let repository = Repository::new(source.address(), "team/app");
    let good = repository.push_image("good", "one");
    let bad = repository.push_image("bad", "two");
    assert!(source.terminate().success());
    let said = success(
        path,
        &[
            "export",
            "--layout",
            "oci",
            "app",
            "team/app",
            "--storage",
            "source",
        ],
    );
    assert!(said.contains("Exported 1 repository, 2 tags"), "{said}");
    let index = fs::read(path.join("app/index.json")).expect("a layout has an index");
    let index: Value = serde_json::from_slice(&index).expect("it is JSON");
    let name = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(name, "bad");

    let (algorithm, encoded) = bad.layer.split_once(':').expect("a digest has a colon");
    fs::write(path.join("app/blobs").join(algorithm).join(encoded), "damaged").expect("it is there");
    let import = [
        "import",
        "--layout",
        "oci",
        "app",
        "moved/app",
        "--storage",
        "target",
    ];
    let said = failure(path, &import);
    assert!(
        said.contains(&format!("moved/app: {} was left out", bad.layer)),
        "{said}"
    );
    assert!(said.contains("moved/app: bad was left out"), "{said}");
    assert!(said.contains("Imported 1 repository, 1 tag"), "{said}");
    let target = Server::on(&path.join("target"));
    let moved = Repository::new(target.address(), "moved/app");
    assert_eq!(moved.tags(), ["good"]);
    assert_eq!(moved.get("manifests/good").body, good.content);
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    for (arguments, expected) in [
        (
            &["export", "--layout", "oci", "x", "--storage", "none"][..],
            "there is no registry in this folder",
        ),
        (
            &["export", "--layout", "oci", "x", "--storage", "memory"],
            "name a folder or a bucket",
        ),
        (
            &["export", "--layout", "oci", "-", "--storage", "none"],
            "is no stream here",
        ),
        (
            &["import", "--layout", "oci", "none", "a", "--storage", "new"],
            "No such file or directory",
        ),
        (
            &[
                "export",
                "--layout",
                "distribution",
                "x",
                "a",
                "--storage",
                "none",
            ],
            "name repositories with --layout oci",
        ),
        (&["check", "--storage", "memory"], "name a folder or a bucket"),
        (
            &["backup", "x", "--storage", "none"],
            "there is no registry in this folder",
        ),
        (&["restore", "none", "--storage", "new"], "is no backup"),
    ] {
        let said = failure(path, arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
