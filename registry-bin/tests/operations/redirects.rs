//! Clients that are sent to the bucket for blobs: who, for what, and what is told of it.

use std::path::Path;

use crate::support::address::free_address;
use crate::support::bucket::BucketServer;
use crate::support::client::Response;
use crate::support::content::Content;
use crate::support::repository::{CONFIG, IMAGE, LAYER, Repository, descriptor, image};
use crate::support::server::{Server, until};
use crate::support::sink::Sink;
use crate::write;

/// Of which signed URLs consist, and nothing else does.
const SIGNATURE: &str = "X-Amz-";

/// More than what is kept in a record.
const LARGE: u64 = 50_000;

fn configuration(bucket: &BucketServer, redirect: &str, more: &str) -> String {
    format!(
        "version: 0.1\nlog: {{level: debug, accesslog: {{format: combined}}, audit: {{path: FOLDER/audit}}}}\nstorage:\n  \
         redirect: {redirect}\n  s3: {{region: us-east-1, bucket: bucket, regionendpoint: '{}', accesskey: a, secretkey: b}}\n\
         {more}",
        bucket.url()
    )
}

fn start(folder: &Path, bucket: &BucketServer, redirect: &str) -> Server {
    Server::configured(&write(folder, &configuration(bucket, redirect, "")))
}

fn pull(repository: &Repository, digest: &str) -> Response {
    repository.request("GET", &format!("blobs/{digest}")).send()
}

#[test]
fn a_client_is_sent_to_the_bucket_for_a_blob_and_for_nothing_else() {
    let bucket = BucketServer::start();
    let server = Server::redirecting_to(&bucket);
    let repository = Repository::new(server.address(), "a/b");
    let content = Content::new(1, LARGE).bytes();
    let digest = repository.push_blob(&content);
    let response = pull(&repository, &digest);
    response.expect_status(307);
    response.expect_header("Docker-Content-Digest", &digest);
    response.expect_header("Content-Length", "0");
    response.expect_header("Cache-Control", "private, max-age=300");
    let location = response.header("Location").expect("it leads somewhere");
    assert!(
        location.starts_with(&format!("{}/bucket/registry/bytes/", bucket.url())),
        "{location}"
    );
    assert!(
        location.contains("X-Amz-Expires=1200") && location.contains("X-Amz-Signature="),
        "{location}"
    );
    let pulled = repository.get(&format!("blobs/{digest}"));
    pulled.expect_header("Content-Type", "application/octet-stream");
    assert!(
        pulled.status == 200 && pulled.body == content,
        "{}",
        pulled.summary()
    );
    let head = repository.head(&format!("blobs/{digest}"));
    head.expect_status(200);
    head.expect_header("Content-Length", &LARGE.to_string());
    // Small ones are in their records, and so is the manifest.
    let image = repository.push_image("v1", "a");
    pull(&repository, &image.layer).expect_status(200);
    repository
        .request("GET", "manifests/v1")
        .send()
        .expect_status(200);
    pull(&repository.sibling("other"), &digest).expect_error(&[404], &["BLOB_UNKNOWN"]);
    let started = format!("clients are sent to {} for blobs", bucket.url());
    assert!(server.output().contains(&started), "{}", server.output());
}

/// What was pushed is read by a server that has not seen that it is whole.
#[test]
fn nobody_is_sent_to_content_that_is_lost() {
    let bucket = BucketServer::start();
    let server = Server::redirecting_to(&bucket);
    let digest = Repository::new(server.address(), "a").push_blob(&Content::new(2, LARGE).bytes());
    bucket.lose("registry/bytes/");
    let another = Server::redirecting_to(&bucket);
    let response = pull(&Repository::new(another.address(), "a"), &digest);
    response.expect_error(&[404], &["BLOB_UNKNOWN"]);
}

#[test]
fn content_comes_from_the_server_where_the_address_is_of_no_use_to_clients_or_that_is_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let bucket = BucketServer::start();
    let digest = {
        let server = start(folder.path(), &bucket, "{disable: true}");
        let repository = Repository::new(server.address(), "a");
        let digest = repository.push_blob(&Content::new(3, LARGE).bytes());
        pull(&repository, &digest).expect_status(200);
        assert!(!server.output().contains("redirect"), "{}", server.output());
        digest
    };
    let server = start(folder.path(), &bucket, "{}");
    pull(&Repository::new(server.address(), "a"), &digest).expect_status(200);
    let why = format!(
        "content comes from this server: {} is on this machine",
        bucket.url()
    );
    assert!(server.output().contains(&why), "{}", server.output());
}

#[test]
fn only_clients_of_the_networks_are_sent_and_only_for_large_blobs() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let bucket = BucketServer::start();
    let server = start(
        folder.path(),
        &bucket,
        "{networks: [192.0.2.0/24, '2001:db8::/32'], minimumsize: 40KiB}",
    );
    let repository = Repository::new(server.address(), "a");
    let large = repository.push_blob(&Content::new(4, 40 << 10).bytes());
    let smaller = repository.push_blob(&Content::new(5, (40 << 10) - 1).bytes());
    for (client, digest, status) in [
        ("192.0.2.7", &large, 307),
        ("::ffff:192.0.2.7", &large, 307),
        ("2001:db8::1", &large, 307),
        ("192.0.3.7", &large, 200),
        ("192.0.2.7", &smaller, 200),
    ] {
        // The test is a trusted proxy, because it is on the same machine.
        let request = repository
            .request("GET", &format!("blobs/{digest}"))
            .header("X-Forwarded-For", client);
        assert_eq!(request.send().status, status, "{client}");
    }
    pull(&repository, &large).expect_status(200);
}

#[test]
fn the_address_that_clients_are_sent_to_may_be_another() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let bucket = BucketServer::start();
    let text = configuration(&bucket, "{}", "");
    let text = text.replace(
        "accesskey: a",
        "accesskey: a, redirectendpoint: 'https://cdn.example'",
    );
    let server = Server::configured(&write(folder.path(), &text));
    let repository = Repository::new(server.address(), "a");
    let digest = repository.push_blob(&Content::new(6, LARGE).bytes());
    let response = pull(&repository, &digest);
    response.expect_status(307);
    let location = response.header("Location").unwrap_or_default();
    assert!(
        location.starts_with("https://cdn.example/bucket/bytes/"),
        "{location}"
    );
}

#[test]
fn a_redirect_is_told_as_a_pull_and_its_url_to_the_client_only() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (bucket, sink, debug) = (BucketServer::start(), Sink::start(), free_address());
    let more = format!(
        "http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}\nnotifications:\n  endpoints: [{{name: sink, url: \
         '{}'}}]\n",
        sink.url()
    );
    let text = configuration(&bucket, "{disable: false}", &more);
    let server = Server::configured(&write(folder.path(), &text));
    let repository = Repository::new(server.address(), "a");
    let (config, layer) = (b"{}", Content::new(7, LARGE).bytes());
    repository.push_blob(config);
    let digest = repository.push_blob(&layer);
    let manifest = image(&descriptor(CONFIG, config), &[descriptor(LAYER, &layer)]);
    repository.push_manifest("v1", IMAGE, manifest.to_string().as_bytes());
    pull(&repository, &digest).expect_status(307);

    let is_pull = |told: &crate::support::sink::Told| {
        let event = &told.json()["events"][0];
        event["action"] == "pull" && event["target"]["digest"] == *digest
    };
    until(|| sink.told().iter().any(is_pull));
    let line = format!("\"GET /v2/a/blobs/{digest} HTTP/1.1\" 307 0");
    let log = server.output_with(&line);
    let metrics = crate::support::client::Request::new(debug, "GET", "/metrics").send();
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("307"), "{metrics}");
    let audit = std::fs::read_to_string(folder.path().join("audit")).expect("there is an audit log");
    let events: String = sink.told().iter().map(|told| told.json().to_string()).collect();
    for shown in [log, metrics, audit, events] {
        assert!(!shown.contains(SIGNATURE), "{shown}");
    }
}
