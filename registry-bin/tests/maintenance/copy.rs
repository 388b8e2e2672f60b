//! `copy`: a folder moves to a bucket and back, with servers on both ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use registry_storage::testing::S3Double;
use serde_json::{Value, json};

use crate::support::bucket::BucketServer;
use crate::support::repository::{CONFIG, IMAGE, Repository, descriptor};
use crate::support::server::Server;
use crate::{failure, push, run, success};

/// Writes a configuration of the bucket with its access key.
fn write_configuration(path: &Path, bucket: &BucketServer) {
    let text = format!(
        "version: 0.1\nstorage:\n  s3: {{bucket: bucket, rootdirectory: /registry, regionendpoint: '{}', region: us-east-1, \
         accesskey: double, secretkey: double}}\n",
        bucket.url()
    );
    fs::write(path, text).expect("a file can be written");
}

/// Two repositories with the same layers; one has a signature, and an image without a tag.
fn fill(server: &Server) {
    for name in ["team/app", "team/tools"] {
        let repository = Repository::new(server.address(), name);
        push(&repository, "v1", 1);
        push(&repository, "v2", 2);
    }
    let app = Repository::new(server.address(), "team/app");
    let subject = app.get("manifests/v1").body;
    let config = app.push_blob(b"{}");
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/x-signature",
        "config": {"mediaType": CONFIG, "digest": config, "size": 2},
        "layers": [],
        "subject": descriptor(IMAGE, &subject),
    })
    .to_string();
    let digest = crate::support::content::sha256(signature.as_bytes());
    app.push_manifest(&digest, IMAGE, signature.as_bytes());
    push(&app, "moving", 3);
    push(&app, "moving", 4);
}

/// Returns what a server answers: its catalog, and of each repository the tags, the manifests that they name, the referrers and
/// the digests of the blobs that it serves.
fn answers(server: &Server) -> Value {
    let catalog = Repository::new(server.address(), "x")
        .follow("GET", "/v2/_catalog")
        .send();
    let catalog = catalog.json()["repositories"].clone();
    let mut answers = json!({"catalog": catalog});
    for name in catalog.as_array().expect("it is a list") {
        let name = name.as_str().expect("it is a name");
        let repository = Repository::new(server.address(), name);
        for tag in repository.tags() {
            let manifest = repository.get(&format!("manifests/{tag}"));
            manifest.expect_status(200);
            let digest = manifest
                .header("Docker-Content-Digest")
                .expect("it has a digest")
                .to_owned();
            let referrers = repository.get(&format!("referrers/{digest}")).json();
            let content = manifest.json();
            let layer = content["layers"][0]["digest"]
                .as_str()
                .expect("it has a layer")
                .to_owned();
            let blob = repository.get(&format!("blobs/{layer}"));
            assert_eq!(crate::support::content::sha256(&blob.body), layer);
            answers[format!("{name}:{tag}")] =
                json!([digest, manifest.header("Content-Type"), content, referrers]);
        }
    }
    answers
}

#[test]
fn a_folder_moves_to_a_bucket_and_back_beside_the_servers() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let bucket = BucketServer::start();
    write_configuration(&path.join("bucket.yml"), &bucket);
    let source = Server::on(&path.join("root"));
    let target = Server::on_bucket(&bucket);
    fill(&source);
    let untagged = {
        let app = Repository::new(source.address(), "team/app");
        let (untagged, _) = push(&app, "gone", 5);
        app.delete("manifests/gone").expect_status(202);
        untagged
    };
    let there = ["copy", "--from", "root", "--to-config", "bucket.yml"];
    let said = success(path, &there);
    for expected in [
        "Copied 2 repositories: 5 tags, 8 manifests and 11 blobs (",
        "Not sent, because another repository of the target has them: 4 blobs (",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    source.output_with("a command came through the socket");
    assert_eq!(answers(&source), answers(&target));
    let app = Repository::new(target.address(), "team/app");
    app.get(&format!("manifests/{untagged}")).expect_status(200);

    // What was pushed meanwhile comes with the next copy, which sends nothing else.
    let app = Repository::new(source.address(), "team/app");
    push(&app, "v2", 6);
    app.delete("manifests/moving").expect_status(202);
    let said = success(path, &there);
    for expected in [
        "Copied 2 repositories: 1 tag, 1 manifest and 2 blobs (",
        "There already: 3 tags, 8 manifests and ",
        "1 tag moved, because the source has something else.",
        "1 tag of these repositories only in the target; nothing is deleted there.",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    Repository::new(target.address(), "team/app")
        .delete("manifests/moving")
        .expect_status(202);
    assert_eq!(answers(&source), answers(&target));

    // And back, to a folder that another server has.
    let back = Server::on(&path.join("back"));
    let said = success(
        path,
        &["copy", "--from-config", "bucket.yml", "--to", "back", "--json"],
    );
    let report: Value = serde_json::from_str(&said).expect("it is one line of JSON");
    assert_eq!(
        (&report["tags"], &report["faults"]),
        (&json!(4), &json!(0)),
        "{report}"
    );
    assert_eq!(answers(&source), answers(&back));

    // Neither of two servers can reach the other's folder.
    let said = failure(path, &["copy", "--from", "root", "--to", "back"]);
    assert!(said.contains("stop one of the two servers"), "{said}");
    assert!(back.terminate().success());
    let only_app = [
        "copy",
        "--from",
        "root",
        "--to",
        "new",
        "--repository",
        "team/app",
    ];
    assert!(success(path, &only_app).starts_with("Copied 1 repository: "));
    assert!(source.terminate().success());
    assert!(success(path, &["copy", "--from", "root", "--to", "back"]).contains("and 0 blobs (0 B)."));
    success(path, &["check", "--storage", "new"]);
}

fn run_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("120").arg(env!("CARGO_BIN_EXE_registry-bin"));
    command.args(arguments).envs(environment.iter().copied());
    let command = command.current_dir(folder).stdin(Stdio::null());
    command.output().expect("the program runs")
}

#[test]
fn an_access_key_of_the_environment_counts_where_no_server_does_the_work() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let bucket = BucketServer::start();
    let server = Server::on(&folder.path().join("root"));
    push(&Repository::new(server.address(), "app"), "v1", 1);
    let copy = ["copy", "--from", "root", "--to", "s3://bucket/registry"];
    let refused = run_with(folder.path(), &copy, &bucket.environment());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said.contains("does not see AWS_ACCESS_KEY_ID of this command") && said.contains("--to-config"),
        "{said}"
    );
    assert!(server.terminate().success());
    // A variable that is a key would be one of both ends.
    let mut environment = bucket.environment().to_vec();
    environment.push(("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "elsewhere"));
    let copied = run_with(folder.path(), &copy, &environment);
    let said = String::from_utf8_lossy(&copied.stdout);
    assert!(
        copied.status.success() && said.starts_with("Copied 1 repository: 1 tag"),
        "{copied:?}"
    );
    let target = Server::on_bucket(&bucket);
    assert_eq!(Repository::new(target.address(), "app").tags(), ["v1"]);
}

#[test]
fn what_is_rotten_or_immutable_is_named_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let source = Server::on(&path.join("root"));
    let app = Repository::new(source.address(), "app");
    let (_, rotten) = push(&app, "rotten", 1);
    for day in fs::read_dir(path.join("root/bytes")).expect("it is there") {
        for file in fs::read_dir(day.expect("it is there").path()).expect("it is there") {
            fs::write(file.expect("it is there").path(), vec![b'x'; 100_000]).expect("it can be written");
        }
    }
    push(&app, "v1", 2);
    let target = Server::on(&path.join("target"));
    push(&Repository::new(target.address(), "app"), "v1", 3);
    assert!(target.terminate().success());
    let file = "version: 0.1\nstorage: {filesystem: {rootdirectory: target}}\ntags: {immutable: [{repositories: ['**'], tags: ['v*']}]}\n";
    fs::write(path.join("target.yml"), file).expect("a file can be written");
    let copy = ["copy", "--from", "root", "--to-config", "target.yml"];
    let said = failure(path, &copy);
    for expected in [
        format!("app: {rotten} was not copied: its content in the source is not what its digest says\n"),
        "app: v1 was not copied: the tag names another manifest in the target, and is immutable there\n"
            .to_owned(),
        "2 things not copied, each named above.\n".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
    let output = run(path, &[&copy[..], &["--json"]].concat());
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is JSON"))
        .collect();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines[0]["notCopied"], rotten);
    assert_eq!(lines[2]["faults"], 2, "{lines:?}");
}

#[test]
fn ends_that_cannot_be_copied_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    push(&Repository::new(server.address(), "app"), "v1", 1);
    assert!(server.terminate().success());
    let frozen = "version: 0.1\nstorage: {filesystem: {rootdirectory: frozen}, maintenance: {readonly: {enabled: true}}}\n";
    fs::write(path.join("frozen.yml"), frozen).expect("a file can be written");
    for (arguments, expected) in [
        (&["--from", "root", "--to", "./root"][..], "both ends are "),
        (
            &["--from", "root", "--to-config", "frozen.yml"],
            "are the two ends swapped?",
        ),
        (
            &["--from", "nothing", "--to", "new"],
            "there is no registry in this folder",
        ),
        (&["--from", "memory", "--to", "new"], "name folders and buckets"),
        (
            &["--from", "root", "--to", "new", "--repository", "no/such"],
            "the source has no repository no/such; nothing was copied",
        ),
        (&["--from", "root", "--to", "http://a"], "is not known"),
    ] {
        let said = failure(path, &[&["copy"][..], arguments].concat());
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!path.join("nothing").exists());
    }
}

/// A prefix that was mistyped would look like a registry without a repository.
#[test]
fn a_folder_of_a_bucket_without_a_registry_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let bucket = BucketServer::start();
    write_configuration(&path.join("bucket.yml"), &bucket);
    for arguments in [
        &["copy", "--from-config", "bucket.yml", "--to", "new"][..],
        &["check", "--config", "bucket.yml"],
        &["usage", "--config", "bucket.yml"],
        &["collect", "--config", "bucket.yml"],
    ] {
        let said = failure(path, arguments);
        assert!(
            said.contains("there is no registry in this folder of the bucket"),
            "{said}"
        );
    }
    bucket.block_on(async |double: &S3Double| {
        assert!(double.objects().is_empty(), "nothing was written there");
        double.put(
            "registry/docker/registry/v2/repositories/app/_layers/x/link",
            "".into(),
        );
    });
    let said = failure(path, &["check", "--config", "bucket.yml"]);
    assert!(said.contains("which was not adopted yet"), "{said}");
    // What fills it would hide the tree.
    assert!(Server::on(&path.join("root")).terminate().success());
    let said = failure(path, &["copy", "--from", "root", "--to-config", "bucket.yml"]);
    assert!(said.contains("which was not adopted yet"), "{said}");
    bucket.block_on(async |double: &S3Double| double.lose("registry/"));
    assert!(Server::on_bucket(&bucket).terminate().success());
    assert!(success(path, &["check", "--config", "bucket.yml"]).contains("nothing is broken"));
}

#[test]
fn a_server_that_serves_pulls_only_is_changed_by_no_command() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    for name in ["root", "frozen"] {
        let server = Server::on(&path.join(name));
        push(&Repository::new(server.address(), "app"), name, 1);
        assert!(server.terminate().success());
    }
    let read_only = ("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true");
    let frozen = path.join("frozen");
    let frozen = frozen.to_str().expect("temporary folders have plain names");
    let server = Server::run_with(
        &["serve", "--storage", frozen, "--listen", "127.0.0.1:0"],
        &[read_only],
    );
    success(
        path,
        &["export", "--layout", "oci", "--storage", "root", "layout", "app"],
    );
    for changes in [
        &["copy", "--from", "root", "--to", "frozen"][..],
        &[
            "import",
            "--layout",
            "oci",
            "--storage",
            "frozen",
            "layout",
            "app",
        ],
        &["repositories", "delete", "app", "--storage", "frozen"],
        &["tags", "restore", "app:v1", "--storage", "frozen"],
    ] {
        let said = failure(path, changes);
        assert!(
            said.contains("`storage.maintenance.readonly.enabled`, so it changes nothing"),
            "{said}"
        );
    }
    assert_eq!(Repository::new(server.address(), "app").tags(), ["frozen"]);
    assert!(success(path, &["copy", "--from", "frozen", "--to", "root"]).starts_with("Copied 1 repository"));
    // Without the server, the configuration says it.
    assert!(server.terminate().success());
    let frozen = "version: 0.1\nstorage: {filesystem: {rootdirectory: frozen}, maintenance: {readonly: {enabled: true}}}\n";
    fs::write(path.join("frozen.yml"), frozen).expect("a file can be written");
    let delete = &["repositories", "delete", "app", "--config", "frozen.yml"];
    let said = failure(path, delete);
    assert!(said.contains("so nothing is changed there"), "{said}");
}
