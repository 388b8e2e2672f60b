//! skopeo: copies between registries and layouts, whole lists, synchronisation, inspection, deletes.

use std::path::Path;

use serde_json::Value;

use crate::samples::{Layout, blobs_of, expect_sound};
use crate::support::repository::{Repository, strings};
use crate::support::server::Server;
use crate::tools::{Tool, server_and_folder};

/// Lengths of layers at which something may go wrong.
const LENGTHS: [u64; 4] = [0, 1, 1000, (5 << 20) + 1];

fn copy(skopeo: &Tool, from: &str, to: &str, more: &[&str]) {
    let mut arguments = vec![
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--preserve-digests",
    ];
    arguments.extend(more);
    arguments.extend([from, to]);
    skopeo.run(arguments);
}

fn layout(folder: &Path, name: &str) -> String {
    format!("oci:{}", folder.join(name).display())
}

pub(crate) fn tool(folder: &Path) -> Option<Tool> {
    Some(Tool::find("skopeo", folder)?.with(["--insecure-policy"]))
}

/// Pushes an image with layers of these lengths from the layout `source`, pulls it into the layout `target`, and returns
/// its descriptor.
fn push_and_pull(skopeo: &Tool, server: &Server, folder: &Path, lengths: &[u64]) -> Value {
    let source = folder.join("source");
    let written = Layout::create(&source);
    let image = written.add_image("amd64", lengths);
    written.finish(&[("x", &image)]);
    let reference = format!("docker://{}/layers/test:latest", server.address());
    copy(skopeo, &(layout(folder, "source") + ":x"), &reference, &[]);
    copy(skopeo, &reference, &(layout(folder, "target") + ":x"), &[]);
    image
}

fn round_trip(lengths: &[u64]) {
    let (server, folder) = server_and_folder();
    let Some(skopeo) = tool(folder.path()) else { return };
    let image = push_and_pull(&skopeo, &server, folder.path(), lengths);
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    assert_eq!(blobs_of(&source), blobs_of(&target));
    expect_sound(&target);
    let repository = Repository::new(server.address(), "layers/test");
    assert_eq!(
        repository
            .head("manifests/latest")
            .header("Docker-Content-Digest"),
        image["digest"].as_str()
    );
}

#[test]
fn layers_of_all_lengths_make_the_round_trip() {
    round_trip(&LENGTHS);
}

#[test]
fn a_layer_of_a_gibibyte_makes_the_round_trip() {
    round_trip(&[1 << 30]);
}

#[test]
fn a_list_is_copied_with_all_its_images() {
    let (server, folder) = server_and_folder();
    let Some(skopeo) = tool(folder.path()) else { return };
    let source = folder.path().join("source");
    let written = Layout::create(&source);
    let index = written.add_index();
    written.finish(&[("x", &index)]);
    let registry = server.address();
    let reference = format!("docker://{registry}/multi:latest");
    copy(
        &skopeo,
        &(layout(folder.path(), "source") + ":x"),
        &reference,
        &["--all"],
    );
    // From one repository to another of the same registry: blobs are mounted.
    let second = format!("docker://{registry}/multi/copy:v1");
    copy(&skopeo, &reference, &second, &["--all"]);
    copy(
        &skopeo,
        &second,
        &(layout(folder.path(), "target") + ":x"),
        &["--all"],
    );
    assert_eq!(blobs_of(&source), blobs_of(&folder.path().join("target")));
    let arguments = ["inspect", "--tls-verify=false", "--raw", &second];
    let raw: Value = serde_json::from_str(&skopeo.run(arguments)).expect("an index is JSON");
    assert_eq!(raw["manifests"].as_array().map(Vec::len), Some(2));
    let arguments = ["inspect", "--tls-verify=false", "--override-arch=arm64", &second];
    let seen: Value = serde_json::from_str(&skopeo.run(arguments)).expect("skopeo prints JSON");
    assert_eq!(seen["Architecture"], "arm64");
}

#[test]
fn tags_are_listed_synchronised_and_deleted() {
    let (server, folder) = server_and_folder();
    let Some(skopeo) = tool(folder.path()) else { return };
    let repository = Repository::new(server.address(), "many/tags");
    for tag in ["v1", "v2", "v3"] {
        repository.push_image(tag, tag);
    }
    let name = format!("{}/many/tags", server.address());
    let list = || {
        let printed = skopeo.run(["list-tags", "--tls-verify=false", &format!("docker://{name}")]);
        strings(&serde_json::from_str::<Value>(&printed).expect("skopeo prints JSON")["Tags"])
    };
    assert_eq!(list(), ["v1", "v2", "v3"]);
    let target = folder.path().join("synchronised");
    std::fs::create_dir(&target).expect("a folder can be made");
    let target = target.to_str().expect("a plain path");
    skopeo.run([
        "sync",
        "--src-tls-verify=false",
        "--src",
        "docker",
        "--dest",
        "dir",
        &name,
        target,
    ]);
    for tag in ["v1", "v2", "v3"] {
        let manifest =
            std::fs::read(format!("{target}/tags:{tag}/manifest.json")).expect("it was synchronised");
        assert_eq!(manifest, repository.get(&format!("manifests/{tag}")).body);
    }
    skopeo.run(["delete", "--tls-verify=false", &format!("docker://{name}:v2")]);
    assert_eq!(list(), ["v1", "v3"]);
}

#[test]
fn too_many_requests_are_tried_again() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(skopeo) = tool(folder.path()) else { return };
    let configuration = folder.path().join("config.yml");
    let limit = "{requests: 2, per: 1s, burst: 2}";
    let written = format!("version: 0.1\nstorage: inmemory\nhttp: {{ratelimit: {{address: {limit}}}}}\n");
    std::fs::write(&configuration, written).expect("a file can be written");
    let server = Server::configured(&configuration);
    push_and_pull(&skopeo, &server, folder.path(), &[1, 1000]);
    server.output_with(" 429 ");
    expect_sound(&folder.path().join("target"));
}
