//! Mounting blobs from another repository (end-11).

use crate::backend::behaviours;
use crate::support::client::Response;
use crate::support::content::{sha256, sha512};
use crate::support::repository::Repository;

behaviours![
    a_blob_of_another_repository_is_mounted,
    a_blob_is_mounted_without_a_source,
    a_sha512_blob_is_mounted,
    a_mount_of_a_missing_blob_opens_a_session,
    a_mount_from_an_unknown_repository_opens_a_session,
    a_mount_without_a_source_of_what_nobody_has_opens_a_session,
    a_mounted_blob_survives_its_source,
    a_blob_may_be_mounted_from_its_own_repository,
    a_mount_from_what_can_be_no_source_opens_a_session,
];

fn mount(repository: &Repository, digest: &str, from: &str) -> Response {
    let from = if from.is_empty() {
        String::new()
    } else {
        format!("&from={from}")
    };
    repository
        .request("POST", &format!("blobs/uploads/?mount={digest}{from}"))
        .send()
}

#[track_caller]
fn expect_mounted(repository: &Repository, response: &Response, digest: &str, content: &[u8]) {
    response.expect_status(201);
    assert_eq!(response.location(), repository.path(&format!("blobs/{digest}")));
    response.expect_header("Docker-Content-Digest", digest);
    assert_eq!(repository.get(&format!("blobs/{digest}")).body, content);
}

#[track_caller]
fn expect_session(repository: &Repository, response: &Response, content: &[u8]) {
    response.expect_status(202);
    let patched = repository.patch(&response.location(), 0, content);
    patched.expect_status(202);
    repository
        .close_upload(&patched.location(), &sha256(content))
        .expect_status(201);
    assert_eq!(
        repository.get(&format!("blobs/{}", sha256(content))).body,
        content
    );
}

fn a_blob_of_another_repository_is_mounted(repository: &Repository) {
    let source = repository.sibling("source");
    let digest = source.push_blob(b"mounted");
    let response = mount(repository, &digest, &source.name);
    expect_mounted(repository, &response, &digest, b"mounted");
    let encoded = repository.sibling("encoded");
    let response = mount(
        &encoded,
        &digest.replace(':', "%3A"),
        &source.name.replace('/', "%2F"),
    );
    expect_mounted(&encoded, &response, &digest, b"mounted");
}

fn a_blob_is_mounted_without_a_source(repository: &Repository) {
    let content = format!("mounted without a source in {}", repository.name);
    let digest = repository.sibling("source").push_blob(content.as_bytes());
    let response = mount(repository, &digest, "");
    expect_mounted(repository, &response, &digest, content.as_bytes());
}

fn a_sha512_blob_is_mounted(repository: &Repository) {
    let source = repository.sibling("source");
    let digest = sha512(b"sha512 mounted");
    source.push_blob_as(&digest, b"sha512 mounted");
    expect_mounted(
        repository,
        &mount(repository, &digest, &source.name),
        &digest,
        b"sha512 mounted",
    );
}

fn a_mount_of_a_missing_blob_opens_a_session(repository: &Repository) {
    let source = repository.sibling("source");
    source.push_blob(b"another blob");
    let content = format!("missing in {}", repository.name);
    let response = mount(repository, &sha256(content.as_bytes()), &source.name);
    expect_session(repository, &response, content.as_bytes());
}

fn a_mount_from_an_unknown_repository_opens_a_session(repository: &Repository) {
    let content = format!("from nowhere to {}", repository.name);
    let response = mount(repository, &sha256(content.as_bytes()), "no/such/repository");
    expect_session(repository, &response, content.as_bytes());
}

fn a_mount_without_a_source_of_what_nobody_has_opens_a_session(repository: &Repository) {
    let content = format!("nobody has this but {}", repository.name);
    expect_session(
        repository,
        &mount(repository, &sha256(content.as_bytes()), ""),
        content.as_bytes(),
    );
}

fn a_mounted_blob_survives_its_source(repository: &Repository) {
    let source = repository.sibling("source");
    let content = vec![7; 100_000];
    let digest = source.push_blob(&content);
    mount(repository, &digest, &source.name).expect_status(201);
    source.delete(&format!("blobs/{digest}")).expect_status(202);
    source.head(&format!("blobs/{digest}")).expect_status(404);
    assert!(repository.get(&format!("blobs/{digest}")).body == content);
}

fn a_blob_may_be_mounted_from_its_own_repository(repository: &Repository) {
    let digest = repository.push_blob(b"to itself");
    let response = mount(repository, &digest, &repository.name);
    expect_mounted(repository, &response, &digest, b"to itself");
}

fn a_mount_from_what_can_be_no_source_opens_a_session(repository: &Repository) {
    let digest = repository.push_blob(b"x");
    for (digest, from) in [
        ("sha256:abc", "a"),
        ("md5:0", "a"),
        (&*digest, "base:v3"),
        (&*digest, "Not/A/Name"),
    ] {
        mount(repository, digest, from).expect_status(202);
    }
}
