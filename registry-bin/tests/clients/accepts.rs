//! Which manifest a client gets that does not take every type, beside the distribution registry.

use std::fs;

use serde_json::{Value, json};

use crate::distribution::{CONFIGURATION, Old};
use crate::support::content::sha256;
use crate::support::repository::{DOCKER_IMAGE, DOCKER_LIST, IMAGE, INDEX, Repository, descriptor, index};
use crate::support::server::Server;
use crate::tools::find;

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Pushes an image for a platform and returns its descriptor.
fn push_image(repository: &Repository, media_type: &str, architecture: &str) -> Value {
    let config =
        json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = config.to_string();
    repository.push_blob(config.as_bytes());
    let image = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(DOCKER_CONFIG, config.as_bytes()),
        "layers": [],
    });
    let image = image.to_string();
    let digest = descriptor(media_type, image.as_bytes());
    repository.push_manifest(
        digest["digest"].as_str().expect("a digest"),
        media_type,
        image.as_bytes(),
    );
    let mut entry = digest;
    entry["platform"] = json!({"architecture": architecture, "os": "linux"});
    entry
}

/// Pushes lists and indexes with and without an image for `linux/amd64`, and returns what names them.
fn push(repository: &Repository) -> Vec<String> {
    let mut references = Vec::new();
    for (tag, list_type, image_type) in [
        ("list", DOCKER_LIST, DOCKER_IMAGE),
        ("list-of-oci", DOCKER_LIST, IMAGE),
        ("index", INDEX, IMAGE),
    ] {
        let arm = push_image(repository, image_type, "arm64");
        let amd = push_image(repository, image_type, "amd64");
        for (tag, entries) in [
            (tag.to_owned(), vec![arm.clone(), amd]),
            (format!("{tag}-arm"), vec![arm]),
        ] {
            let mut content = index(&entries);
            content["mediaType"] = json!(list_type);
            let digest = repository.push_manifest(&tag, list_type, content.to_string().as_bytes());
            references.extend([tag, digest]);
        }
    }
    references
}

#[test]
fn scripts_that_accept_images_alone_get_of_a_list_what_the_distribution_registry_gives() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(program) = find("docker-registry") else {
        return;
    };
    let configuration = folder.path().join("config.yml");
    fs::write(&configuration, CONFIGURATION).expect("a file can be written");
    let old = Old::start(&program, &configuration, &folder.path().join("root"));
    let ours = Server::memory();
    let [old, ours] = [old.address, ours.address()].map(|address| Repository::new(address, "many/platforms"));
    let references = push(&old);
    assert_eq!(push(&ours), references);
    let both = format!("{DOCKER_IMAGE}, {IMAGE}");
    let weighted = format!("{DOCKER_IMAGE};q=0.5");
    for reference in &references {
        for accept in [DOCKER_IMAGE, DOCKER_LIST, INDEX, &both, &weighted] {
            for method in ["GET", "HEAD"] {
                let [old, ours] = [&old, &ours].map(|repository| {
                    let request = repository.request(method, &format!("manifests/{reference}"));
                    let answer = request.header("Accept", accept).send();
                    let field = |name| answer.header(name).map(str::to_owned);
                    let fields =
                        ["Content-Type", "Content-Length", "Docker-Content-Digest", "ETag"].map(field);
                    (answer.status, fields, sha256(&answer.body))
                });
                let what = format!("{method} {reference} {accept}");
                if reference.starts_with("list") && accept == INDEX {
                    // Who takes an index of one type can read that of the other.
                    assert_eq!(ours.0, 200, "{what}");
                } else if old.0 == 200 {
                    assert_eq!(ours, old, "{what}");
                } else if reference.starts_with("list") {
                    // No image for the platform.
                    assert!(reference.ends_with("-arm") && accept != DOCKER_LIST, "{what}");
                    assert_eq!((ours.0, old.0), (404, 404), "{what}");
                } else {
                    // An OCI index, which that registry refuses to whoever does not name its type.
                    assert_eq!((ours.0, old.0), (200, 404), "{what}");
                }
            }
        }
    }
}
