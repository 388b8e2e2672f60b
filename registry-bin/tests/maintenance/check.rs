//! Checks and repairs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{failure, success};

/// Returns the files of the bytes of a store.
fn byte_files(root: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the folder is there");
        entries
            .map(|entry| entry.expect("it can be listed").path())
            .collect()
    };
    entries(&root.join("bytes"))
        .iter()
        .flat_map(|day| entries(day))
        .collect()
}

#[test]
fn damage_is_told_in_words_repaired_beside_the_server_and_mended_by_a_push() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    let repository = Repository::new(server.address(), "a");
    repository.push_image("v1", "x");
    let content = vec![7; 100_000];
    let digest = repository.push_blob(&content);
    let check = ["check", "--verify-content", "--storage", "root"];
    assert!(success(path, &check).contains("nothing is broken"));
    let [file] = &byte_files(&path.join("root"))[..] else {
        panic!("only large blobs have files");
    };
    let mut damaged = content.clone();
    damaged[0] = 8;
    fs::write(file, damaged).expect("the file can be written");
    // Only who reads it can tell.
    assert!(success(path, &["check", "--storage", "root"]).contains("nothing is broken"));
    let said = failure(path, &check);
    let encoded = digest.split(':').next_back().expect("a digest has a colon");
    assert!(said.contains(encoded) && said.contains("--repair"), "{said}");
    let repair = ["check", "--verify-content", "--repair", "--storage", "root"];
    let said = success(path, &repair);
    assert!(said.contains("repaired now"), "{said}");
    repository.get(&format!("blobs/{digest}")).expect_status(404);
    repository.get("manifests/v1").expect_status(200);
    assert_eq!(repository.push_blob(&content), digest);
    assert_eq!(repository.get(&format!("blobs/{digest}")).body, content);
    assert!(server.terminate().success());
    success(path, &check);
}

/// Docker asks for a layer by HEAD and sends it only where that is 404.
#[test]
fn a_client_that_looks_before_it_pushes_brings_back_what_the_disk_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let server = Server::on(&root);
    let repository = Repository::new(server.address(), "a");
    let other = repository.sibling("b");
    let content = vec![7; 100_000];
    let digest = repository.push_blob(&content);
    let mount = format!("blobs/uploads/?mount={digest}&from=a");
    other.request("POST", &mount).send().expect_status(201);
    let blob = format!("blobs/{digest}");
    for length in [None, Some(0), Some(99_999), Some(100_001)] {
        for file in byte_files(&root) {
            match length {
                None => fs::remove_file(file).expect("the file can be removed"),
                Some(length) => fs::File::options()
                    .write(true)
                    .open(file)
                    .and_then(|file| file.set_len(length))
                    .expect("the file can be cut"),
            }
        }
        for reader in [&repository, &other] {
            reader.head(&blob).expect_status(404);
            reader.get(&blob).expect_error(&[404], &["BLOB_UNKNOWN"]);
        }
        other.request("POST", &mount).send().expect_status(202);
        assert_eq!(repository.push_blob(&content), digest);
        for reader in [&repository, &other] {
            reader.head(&blob).expect_status(200);
            assert_eq!(reader.get(&blob).body, content);
        }
        other.request("POST", &mount).send().expect_status(201);
    }
    let check = ["check", "--verify-content", "--storage", "root"];
    assert!(success(folder.path(), &check).contains("nothing is broken"));
}

#[test]
fn a_bucket_is_checked_from_anywhere_and_exported() {
    let double = crate::support::bucket::BucketServer::start();
    let server = Server::on_bucket(&double);
    Repository::new(server.address(), "a").push_image("v1", "x");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = format!(
        "version: 0.1\nstorage: {{s3: {{bucket: bucket, rootdirectory: /registry, region: us-east-1, \
         regionendpoint: '{}', accesskey: double, secretkey: double, secure: false}}}}\n",
        double.url()
    );
    fs::write(folder.path().join("config.yml"), configuration).expect("a file can be written");
    let said = success(folder.path(), &["check", "--verify-content", "config.yml"]);
    assert!(said.contains("nothing is broken"), "{said}");
    let export = [
        "export",
        "--layout",
        "oci",
        "a.tar",
        "a",
        "--config",
        "config.yml",
    ];
    let said = success(folder.path(), &export);
    assert!(said.contains("1 tag"), "{said}");
    let import = [
        "import",
        "--layout",
        "oci",
        "a.tar",
        "b",
        "--config",
        "config.yml",
    ];
    success(folder.path(), &import);
    Repository::new(server.address(), "b")
        .get("manifests/v1")
        .expect_status(200);
    let said = failure(folder.path(), &["backup", "copy", "config.yml"]);
    assert!(said.contains("versioning or replication"), "{said}");
}

#[test]
fn a_copy_of_the_folder_is_told_at_the_start_and_by_a_check_until_one_finds_it_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    Repository::new(server.address(), "a").push_image("v1", "x");
    assert!(!server.output().contains("is a copy"));
    assert!(server.terminate().success());
    let copied = std::process::Command::new("cp")
        .args(["-r", "root", "copy"])
        .current_dir(path)
        .status();
    assert!(copied.expect("the program runs").success());
    let server = Server::on(&path.join("copy"));
    server.output_with("this folder is a copy of the one that its records were written in");
    let repository = Repository::new(server.address(), "a");
    repository.get("manifests/v1").expect_status(200);
    // Beside the server.
    let check = ["check", "--storage", "copy"];
    let said = success(path, &check);
    assert!(said.contains("nothing is broken. The folder is a copy"), "{said}");
    assert!(said.contains("taken for the original from now on"), "{said}");
    repository.push_image("v2", "y");
    assert!(!success(path, &check).contains("copy"));
    assert!(server.terminate().success());
    let server = Server::on(&path.join("copy"));
    assert!(!server.output().contains("is a copy"));
    assert!(!success(path, &["check", "--storage", "root"]).contains("copy"));
}

#[test]
fn a_push_that_finds_lost_bytes_names_the_blob_to_push() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let server = Server::on(&root);
    let content = vec![7; 100_000];
    let digest = Repository::new(server.address(), "a").push_blob(&content);
    for file in byte_files(&root) {
        fs::remove_file(file).expect("it is there");
    }
    Repository::new(server.address(), "b").push_blob(&content);
    let log = server.output_with("the bytes of a blob were lost");
    let line = log
        .lines()
        .find(|line| line.contains("the bytes of a blob were lost"));
    let line = line.expect("it was found");
    assert!(line.contains(&digest) && line.contains("repository=b"), "{line}");
}
