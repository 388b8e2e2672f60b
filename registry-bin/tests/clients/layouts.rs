//! Image layouts between this program and others.

use std::path::Path;
use std::process::Command;

use crate::samples::{Layout, expect_sound, push_image};
use crate::skopeo;
use crate::support::repository::{IMAGE, Repository, descriptor};
use crate::support::server::Server;
use crate::tools::Tool;

/// Runs the program in `folder`.
#[track_caller]
fn registry(folder: &Path, arguments: &[&str]) {
    let output = Command::new("timeout")
        .args(["120", env!("CARGO_BIN_EXE_registry-bin")])
        .args(arguments)
        .args(["--storage", "root"])
        .current_dir(folder)
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// A server with `team/app:v1`, an index of two images, one of which has a signature; with `team/app:real`, which can be
/// unpacked, and with `other:v2`.
fn server_with_images(folder: &Path) -> (Server, Repository) {
    let server = Server::on(&folder.join("root"));
    let repository = Repository::new(server.address(), "team/app");
    let layout = folder.join("made");
    let made = Layout::create(&layout);
    let images = [
        made.add_image("amd64", &[100_000]),
        made.add_image("arm64", &[10]),
    ];
    made.finish(&[("amd64", &images[0]), ("arm64", &images[1])]);
    registry(folder, &["import", "--layout", "oci", "made", "team/app"]);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": images}).to_string();
    repository.push_manifest("v1", crate::support::repository::INDEX, index.as_bytes());
    let subject = repository.get("manifests/amd64").body;
    let config = repository.push_blob(b"{}");
    let signature = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/x-signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [],
        "subject": descriptor(IMAGE, &subject),
    })
    .to_string();
    let digest = crate::support::content::sha256(signature.as_bytes());
    repository.push_manifest(&digest, IMAGE, signature.as_bytes());
    push_image(&repository, "real");
    Repository::new(server.address(), "other").push_image("v2", "x");
    (server, repository)
}

#[test]
fn skopeo_and_podman_read_what_was_exported() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let Some(skopeo) = skopeo::tool(path) else { return };
    let (_server, repository) = server_with_images(path);
    for target in ["one", "one.tar"] {
        registry(path, &["export", "--layout", "oci", target, "team/app"]);
    }
    for target in ["all", "all.tar"] {
        registry(path, &["export", "--layout", "oci", target]);
    }
    expect_sound(&path.join("one"));
    let pushed = repository.get("manifests/v1").body;
    for (number, source) in [
        "oci:one:v1",
        "oci-archive:one.tar:v1",
        "oci:all:team/app:v1",
        "oci-archive:all.tar:team/app:v1",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(
            skopeo.run(["inspect", "--raw", source]).as_bytes(),
            pushed,
            "{source}"
        );
        let copied = format!("dir:copy-{number}");
        skopeo.run(["copy", "--quiet", "--all", "--preserve-digests", source, &copied]);
    }
    if let Some(podman) = Tool::find("podman", path) {
        let (root, run) = (path.join("storage"), path.join("run"));
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let podman = podman.with([
            "--root",
            &text(&root),
            "--runroot",
            &text(&run),
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
        ]);
        for source in ["oci-archive:one.tar:real", "oci:all:team/app:real"] {
            podman.run(["pull", "--quiet", source]);
        }
    }
}

#[test]
fn what_skopeo_and_buildah_write_is_imported() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let Some(skopeo) = skopeo::tool(path) else { return };
    let (server, repository) = server_with_images(path);
    let pushed = repository.get("manifests/v1").body;
    let source = format!("docker://{}/team/app:v1", server.address());
    for (target, name, imported) in [
        ("oci:copied:v1", "copied", "back/folder"),
        ("oci-archive:copied.tar:v1", "copied.tar", "back/archive"),
    ] {
        let copy = [
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
        ];
        skopeo.run(copy.into_iter().chain([source.as_str(), target]));
        registry(path, &["import", "--layout", "oci", name, imported]);
        let back = Repository::new(server.address(), imported);
        assert_eq!(back.get("manifests/v1").body, pushed);
    }
    let Some(buildah) = Tool::find("buildah", path) else {
        return;
    };
    let (root, run) = (path.join("storage"), path.join("run"));
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let buildah = buildah.with([
        "--root",
        &text(&root),
        "--runroot",
        &text(&run),
        "--storage-driver",
        "vfs",
    ]);
    std::fs::create_dir(path.join("context")).expect("a folder can be made");
    std::fs::write(
        path.join("context/Dockerfile"),
        "FROM scratch\nCOPY Dockerfile /\n",
    )
    .expect("a file");
    buildah.run([
        "build",
        "--quiet",
        "--isolation",
        "chroot",
        "--tag",
        "built:1",
        "context",
    ]);
    buildah.run(["push", "--quiet", "built:1", "oci-archive:built.tar:1"]);
    registry(path, &["import", "--layout", "oci", "built.tar", "built"]);
    let reference = format!("docker://{}/built:1", server.address());
    skopeo.run(["inspect", "--tls-verify=false", &reference]);
}

#[test]
fn referrers_go_with_what_they_refer_to() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let (server, repository) = server_with_images(path);
    let digest = crate::support::content::sha256(&repository.get("manifests/amd64").body);
    registry(path, &["export", "--layout", "oci", "one", "team/app"]);
    registry(path, &["import", "--layout", "oci", "one", "moved"]);
    let moved = Repository::new(server.address(), "moved");
    let referrers = moved.get(&format!("referrers/{digest}")).json();
    let referrers = referrers["manifests"].as_array().expect("a list");
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0]["artifactType"], "application/x-signature");
}
