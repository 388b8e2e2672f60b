//! Several servers over one bucket.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::process::{Command, Output};

use registry_storage::testing::S3Double;
use support::bucket::BucketServer;
use support::content::sha256;
use support::repository::Repository;
use support::server::Server;

/// More than a part of a multipart upload, which is 5 MiB.
const FIRST: usize = 6 << 20;
const SECOND: usize = 5 << 20;

#[test]
fn another_server_goes_on_with_the_upload_of_a_killed_one() {
    let bucket = BucketServer::start();
    let first = Server::on_bucket(&bucket);
    let content: Vec<u8> = (0..FIRST + SECOND).map(|at| (at * 31 % 251) as u8).collect();
    let before = Repository::new(first.address(), "replicas/upload");
    let location = before.open_upload();
    let patched = before.patch(&location, 0, &content[..FIRST]);
    patched.expect_status(202);
    let location = patched.location();
    first.kill9();

    let second = Server::on_bucket(&bucket);
    let after = Repository::new(second.address(), "replicas/upload");
    let status = after.follow("GET", &location).send();
    status.expect_status(204);
    status.expect_header("Range", &format!("0-{}", FIRST - 1));
    let patched = after.patch(&location, FIRST as u64, &content[FIRST..]);
    patched.expect_status(202);
    let digest = sha256(&content);
    after
        .close_upload(&patched.location(), &digest)
        .expect_status(201);
    let pulled = after.get(&format!("blobs/{digest}"));
    pulled.expect_status(200);
    assert!(pulled.body == content, "the blob is not what was sent");
}

#[test]
fn what_one_server_answered_another_one_serves_at_once() {
    let bucket = BucketServer::start();
    let servers = [Server::on_bucket(&bucket), Server::on_bucket(&bucket)];
    let repositories = servers
        .each_ref()
        .map(|server| Repository::new(server.address(), "replicas/image"));
    for round in 0..10 {
        let [here, there] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let image = repositories[here].push_image("latest", &format!("round {round}"));
        let pulled = repositories[there].get("manifests/latest");
        pulled.expect_status(200);
        pulled.expect_header("Docker-Content-Digest", &image.digest);
        repositories[there]
            .delete(&format!("manifests/{}", image.digest))
            .expect_status(202);
        repositories[here].get("manifests/latest").expect_status(404);
    }
}

/// Runs the program to its end with a bucket.
fn run(bucket: &BucketServer, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    command.args(arguments).envs(bucket.environment());
    command.output().expect("the program runs")
}

/// On a bucket whose conditional writes mean nothing, replicas would move immutable tags without a word.
#[test]
fn a_bucket_that_ignores_conditions_is_refused_by_whatever_writes() {
    let bucket = BucketServer::start();
    // A registry is there, and what was tried then is not what is tried now.
    assert!(Server::on_bucket(&bucket).terminate().success());
    bucket.block_on(async |double: &S3Double| {
        let key = "registry/probed/store";
        let record = String::from_utf8(double.objects()[key].to_vec()).expect("text");
        // As long as it was, because the size says the state.
        let older = record.replace(r#""probes":2"#, r#""probes":0"#);
        assert_ne!(older, record);
        double.put(key, older.into());
    });
    bucket.faults().ignore_conditions();
    for arguments in [
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--storage",
            "s3://bucket/registry",
        ][..],
        &["collect", "--storage", "s3://bucket/registry"],
        &["check", "--repair", "--storage", "s3://bucket/registry"],
    ] {
        let refused = run(&bucket, arguments);
        let text = String::from_utf8_lossy(&refused.stderr);
        let last = text.lines().last().unwrap_or_default();
        let begin =
            "error: cannot use s3://bucket/registry: the store fails the probe \"create\": it overwrote";
        assert!(
            !refused.status.success() && last.starts_with(begin),
            "{arguments:?}: {text}"
        );
    }
    // What only reads does no harm there.
    for arguments in [
        &["check", "--storage", "s3://bucket/registry"][..],
        &["collect", "--dry-run", "--storage", "s3://bucket/registry"],
    ] {
        let read = run(&bucket, arguments);
        assert!(
            read.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&read.stderr)
        );
    }
    let mut environment = bucket.environment().to_vec();
    environment.push(("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true"));
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--storage",
        "s3://bucket/registry",
    ];
    assert!(Server::run_with(&arguments, &environment).terminate().success());
}

/// The second server finds what the first one wrote down.
#[test]
fn a_bucket_is_tried_once() {
    let bucket = BucketServer::start();
    let probes = || {
        let seen = bucket.faults().take_seen();
        seen.iter().filter(|request| request.contains("/probe/")).count()
    };
    let first = Server::on_bucket(&bucket);
    assert!(probes() > 100);
    let second = Server::on_bucket(&bucket);
    assert_eq!(probes(), 0);
    drop((first, second));
}

/// Google Cloud Storage answers 429 if one object is written more than about once a second.
#[test]
fn a_store_that_takes_one_write_of_an_object_in_a_second_takes_pushes() {
    let bucket = BucketServer::start();
    let server = Server::on_bucket(&bucket);
    bucket.faults().one_write_a_second();
    let repository = Repository::new(server.address(), "replicas/slow");
    let content: Vec<u8> = (0..FIRST).map(|at| (at * 37 % 251) as u8).collect();
    let digest = repository.push_blob(&content);
    let images = ["a", "b"].map(|seed| repository.push_image("latest", seed));
    assert!(repository.get(&format!("blobs/{digest}")).body == content);
    let pulled = repository.get("manifests/latest");
    pulled.expect_header("Docker-Content-Digest", &images[1].digest);
    let deleted = repository.delete(&format!("manifests/{}", images[1].digest));
    deleted.expect_status(202);
}
