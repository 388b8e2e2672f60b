//! Collecting what no manifest names any more.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::repository::{CONFIG, IMAGE, INDEX, LAYER, Repository, descriptor, image, index};
use crate::support::server::{Server, pause};
use crate::{push, run, success};

/// Returns how many files of bytes there are.
fn byte_files(root: &Path) -> usize {
    let days = fs::read_dir(root.join("bytes")).expect("the folder is there");
    days.map(|day| {
        let day = day.expect("it can be listed").path();
        fs::read_dir(day).expect("the folder is there").count()
    })
    .sum()
}

#[test]
fn what_is_deleted_is_freed_beside_the_server_and_what_is_named_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    let repository = Repository::new(server.address(), "a");
    let (_, kept) = push(&repository, "kept", 1);
    let (gone, layer) = push(&repository, "gone", 2);
    repository.delete(&format!("manifests/{gone}")).expect_status(202);
    assert_eq!(byte_files(&path.join("root")), 2);
    let dry = success(path, &["collect", "--dry-run", "--storage", "root"]);
    assert!(dry.contains("would remove 0 blobs"), "{dry}");
    assert!(
        dry.contains("1 deleted manifest and 1 past value of tags"),
        "{dry}"
    );
    let said = success(path, &["collect", "--storage", "root"]);
    assert!(said.contains("Removed 0 blobs"), "{said}");
    assert!(
        said.contains("Kept for `tags restore`, the last until 20"),
        "{said}"
    );
    repository.get(&format!("blobs/{layer}")).expect_status(200);
    let said = success(path, &["collect", "--now", "--storage", "root"]);
    assert!(said.contains("Removed 2 blobs (97.67 KiB)"), "{said}");
    assert!(said.contains("they cannot be restored any more"), "{said}");
    assert!(said.contains("Deleted 1 byte string."), "{said}");
    repository.get(&format!("blobs/{layer}")).expect_status(404);
    repository.get(&format!("blobs/{kept}")).expect_status(200);
    repository.get("manifests/kept").expect_status(200);
    assert_eq!(byte_files(&path.join("root")), 1);
    let json = success(path, &["collect", "--now", "--json", "--storage", "root"]);
    let json: Value = serde_json::from_str(&json).expect("it is a document");
    assert_eq!(json["removed"]["blobs"], 0, "{json}");
    assert!(success(path, &["check", "--storage", "root"]).contains("nothing is broken"));
    server.output_with("a command came through the socket");
    assert!(server.terminate().success());
}

#[test]
fn an_empty_repository_leaves_the_catalog_if_the_configuration_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         collector: {{emptyrepositories: remove}}\nhttp: {{addr: 127.0.0.1:0}}\n",
        folder.path().join("root").display()
    );
    fs::write(&configuration, text).expect("the file can be written");
    let server = Server::configured(&configuration);
    let [a, b] = ["a", "b"].map(|name| Repository::new(server.address(), name));
    let (image, _) = push(&a, "v1", 1);
    push(&b, "v1", 2);
    a.delete(&format!("manifests/{image}")).expect_status(202);
    let said = success(folder.path(), &["collect", "--now", "--storage", "root"]);
    assert!(!said.contains("catalog"), "{said}");
    a.get("tags/list").expect_status(200);
    let said = success(folder.path(), &["collect", "--dry-run", "config.yml"]);
    assert!(
        said.contains("From the catalog it would remove 1 empty repository."),
        "{said}"
    );
    let said = success(folder.path(), &["collect", "config.yml"]);
    assert!(
        said.contains("Removed 1 empty repository from the catalog."),
        "{said}"
    );
    a.get("tags/list").expect_error(&[404], &["NAME_UNKNOWN"]);
    assert_eq!(b.tags(), ["v1"]);
    assert!(server.terminate().success());
}

#[test]
fn a_server_collects_by_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let configuration = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}, maintenance: {{uploadpurging: {{interval: 1s}}}}}}\n\
         collector: {{interval: 1s, grace: 0s, keepdeleted: 1s}}\nhttp: {{addr: 127.0.0.1:0}}\n",
        root.display()
    );
    fs::write(&configuration, text).expect("the file can be written");
    let server = Server::configured(&configuration);
    let repository = Repository::new(server.address(), "a");
    // With no grace, a push is refused if the collector comes between its blobs and its manifest: it is repeated then, as
    // clients do. One that was answered stays.
    let (_, kept) = push_until_it_is_there(&repository, "kept", 1);
    let (gone, _) = push_until_it_is_there(&repository, "gone", 2);
    repository.delete(&format!("manifests/{gone}")).expect_status(202);
    let end = Instant::now() + Duration::from_secs(60);
    while byte_files(&root) > 1 {
        assert!(Instant::now() < end, "{}", server.output());
        pause();
    }
    repository.get(&format!("blobs/{kept}")).expect_status(200);
    repository.get("manifests/kept").expect_status(200);
    server.output_with("removed_blobs=2");
    assert!(server.terminate().success());
}

fn push_until_it_is_there(repository: &Repository, tag: &str, fill: u8) -> (String, String) {
    let (config, layer) = (format!("{{\"fill\":{fill}}}"), vec![fill; 100_000]);
    let manifest = image(
        &descriptor(CONFIG, config.as_bytes()),
        &[descriptor(LAYER, &layer)],
    )
    .to_string();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        repository.push_blob(config.as_bytes());
        let layer = repository.push_blob(&layer);
        let response = repository.put_manifest(tag, IMAGE, manifest.as_bytes());
        if response.status == 201 {
            let digest = response
                .header("Docker-Content-Digest")
                .expect("it is told")
                .to_owned();
            return (digest, layer);
        }
        response.expect_error(&[404, 400], &["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"]);
        assert!(Instant::now() < end, "it is refused again and again");
    }
}

/// As the jobs of registry:2 call it: beside the server, and alone.
/// registry:2's flag deletes the images of an index, too; here they stay.
#[test]
fn garbage_collect_deletes_manifests_without_a_tag_and_nothing_that_is_needed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         collector: {{enabled: false, grace: 0s, keepdeleted: 0s}}\nhttp: {{addr: 127.0.0.1:0}}\n",
        folder.path().join("root").display()
    );
    fs::write(&configuration, text).expect("the file can be written");
    let collect = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["garbage-collect"].iter().chain(arguments).copied().collect();
        success(folder.path(), &arguments)
    };
    let server = Server::configured(&configuration);
    let repository = Repository::new(server.address(), "a");
    let (untagged, layer) = push(&repository, "moved", 1);
    let (tagged, _) = push(&repository, "moved", 2);
    let (child, _) = push(&repository, "multi", 3);
    let content = repository.get(&format!("manifests/{child}")).body;
    let index = index(&[descriptor(IMAGE, &content)]).to_string();
    repository.push_manifest("multi", INDEX, index.as_bytes());
    for _ in 0..2 {
        let said = collect(&["config.yml"]);
        assert!(!said.contains("Retention"), "{said}");
    }
    let said = collect(&["--dry-run", "--delete-untagged", "config.yml"]);
    assert!(said.contains("and condemn 1 manifest, for"), "{said}");
    let said = collect(&["--delete-untagged=true", "config.yml"]);
    assert!(said.contains("Condemned 1 manifest without a tag"), "{said}");
    repository
        .get(&format!("manifests/{untagged}"))
        .expect_status(200);
    let said = collect(&["-m", "config.yml"]);
    assert!(
        said.contains("Retention dropped 0 tags and removed 1 manifest without a tag."),
        "{said}"
    );
    repository
        .get(&format!("manifests/{untagged}"))
        .expect_status(404);
    for kept in [tagged, child] {
        repository.get(&format!("manifests/{kept}")).expect_status(200);
    }
    assert_eq!(repository.tags(), ["moved", "multi"]);
    collect(&["config.yml"]);
    repository.get(&format!("blobs/{layer}")).expect_status(404);
    assert!(success(folder.path(), &["check", "config.yml"]).contains("nothing is broken"));
    assert!(server.terminate().success());
}

#[test]
fn garbage_collect_frees_in_a_later_run_what_an_earlier_one_found() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let configuration = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\ncollector: {{enabled: false, grace: 1ms, keepdeleted: 0s}}\n\
         http: {{addr: 127.0.0.1:0}}\n",
        root.display()
    );
    fs::write(&configuration, text).expect("the file can be written");
    let collect = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["garbage-collect"].iter().chain(arguments).copied().collect();
        success(folder.path(), &arguments)
    };
    assert!(collect(&["config.yml"]).contains("Nothing was collected"));
    let server = Server::configured(&configuration);
    let repository = Repository::new(server.address(), "a");
    let (gone, layer) = push(&repository, "gone", 1);
    repository.delete(&format!("manifests/{gone}")).expect_status(202);
    let said = collect(&["config.yml"]);
    assert!(
        said.contains("Condemned 2 blobs (97.67 KiB): a cycle from 20"),
        "{said}"
    );
    repository.get(&format!("blobs/{layer}")).expect_status(200);
    assert!(server.terminate().success());
    let said = collect(&["--dry-run", "config.yml"]);
    assert!(said.contains("would remove 2 blobs (97.67 KiB)"), "{said}");
    let quiet = run(folder.path(), &["garbage-collect", "-q", "config.yml"]);
    assert!(quiet.status.success() && quiet.stdout.is_empty(), "{quiet:?}");
    assert_eq!(byte_files(&root), 0);
}
