//! One server on a bucket that keeps no conditional writes.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::process::Command;
use std::time::Instant;

use support::bucket::BucketServer;
use support::repository::Repository;
use support::server::{Server, until};

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

const LOCK: &str = "registry/writer/lock";

fn lying_bucket() -> BucketServer {
    let bucket = BucketServer::start();
    bucket.faults().ignore_conditions();
    bucket
}

/// The variables of one of several servers.
fn usual(bucket: &BucketServer) -> Vec<(&'static str, &str)> {
    let mut environment = bucket.environment().to_vec();
    environment.push(("REGISTRY_STORAGE_S3_BUCKET", "bucket"));
    environment.push(("REGISTRY_STORAGE_S3_ROOTDIRECTORY", "registry"));
    environment.push(("REGISTRY_STORAGE_DELETE_ENABLED", "true"));
    environment
}

fn environment(bucket: &BucketServer) -> Vec<(&'static str, &str)> {
    let mut environment = usual(bucket);
    environment.push(("REGISTRY_STORAGE_S3_SINGLEWRITER", "true"));
    environment
}

fn start(bucket: &BucketServer) -> Server {
    Server::run_with(&SERVE, &environment(bucket))
}

/// Runs the program to its end. Returns whether it succeeded, and the last line that it wrote.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    let output = command.args(arguments).envs(environment.iter().copied()).output();
    let output = output.expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default().to_owned();
    (output.status.success(), last)
}

#[test]
fn only_one_process_writes_to_a_bucket_that_keeps_no_condition() {
    let bucket = lying_bucket();
    let alone = environment(&bucket);
    let first = start(&bucket);
    let output = first.output_with("decides them");
    assert!(output.contains("storage.s3.singlewriter"), "{output}");
    let repository = Repository::new(first.address(), "alone/image");
    let image = repository.push_image("latest", "a");
    let commands: [&[&str]; 3] = [&SERVE, &["collect"], &["check", "--repair"]];
    let holder = format!("process {} on ", first.process());
    let usual = usual(&bucket);
    for arguments in commands {
        for environment in [&alone[..], &usual[..]] {
            let (is_done, last) = run(arguments, environment);
            assert!(!is_done, "{arguments:?}");
            for part in [
                &holder,
                "cannot use s3://bucket/registry",
                "(since 2",
                "storage.s3.singlewriter",
            ] {
                assert!(last.contains(part), "no {part:?} in {last}");
            }
        }
    }
    // What only reads needs no lock.
    let (is_done, last) = run(&["check"], &alone);
    assert!(is_done, "{last}");
    let mut reading = alone.clone();
    reading.push(("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true"));
    let reader = Server::run_with(&SERVE, &reading);
    let pulled = Repository::new(reader.address(), "alone/image").get("manifests/latest");
    pulled.expect_header("Docker-Content-Digest", &image.digest);
    assert!(reader.terminate().success());

    repository.push_image("latest", "b");
    assert!(first.terminate().success());
    assert_eq!(bucket.keys_below("registry/writer/"), Vec::<String>::new());
    // A command has the bucket for as long as it runs.
    let (is_done, last) = run(commands[1], &alone);
    assert!(is_done, "{last}");
    let second = start(&bucket);
    let repository = Repository::new(second.address(), "alone/image");
    let deleted = repository.delete(&format!("manifests/{}", image.digest));
    deleted.expect_status(202);
    assert!(second.terminate().success());
    // Whoever is one of several still refuses it.
    let (is_done, last) = run(&SERVE, &usual);
    assert!(!is_done && last.contains("fails the probe \"create\""), "{last}");
}

#[test]
fn the_bucket_of_a_killed_server_is_taken_over_once_it_is_surely_dead() {
    let bucket = lying_bucket();
    let first = start(&bucket);
    let image = Repository::new(first.address(), "alone/image").push_image("latest", "a");
    let holder = format!("process {} on ", first.process());
    first.kill9();
    let begun = Instant::now();
    let second = start(&bucket);
    assert!(begun.elapsed().as_secs() >= 20, "{:?}", begun.elapsed());
    let output = second.output_with("took the store over");
    assert!(output.contains(&holder), "{output}");
    let repository = Repository::new(second.address(), "alone/image");
    let pulled = repository.get("manifests/latest");
    pulled.expect_header("Docker-Content-Digest", &image.digest);
    repository.push_image("latest", "b");
}

#[test]
fn a_server_that_lost_the_bucket_writes_no_more_and_says_so() {
    let bucket = lying_bucket();
    let server = start(&bucket);
    let repository = Repository::new(server.address(), "alone/image");
    let image = repository.push_image("latest", "a");
    assert_eq!(bucket.keys_below(LOCK), [LOCK]);
    server.request("GET", "/ready").send().expect_status(200);
    bucket.lose(LOCK);
    until(|| server.request("GET", "/ready").send().status == 503);
    server.output_with("this server writes no more: somebody removed the lock");
    server.output_with("a health check fails");
    let refused = repository.request("POST", "blobs/uploads/").send();
    refused.expect_error(&[503], &["UNAVAILABLE"]);
    repository
        .delete(&format!("manifests/{}", image.digest))
        .expect_error(&[503], &["UNAVAILABLE"]);
    repository.get("manifests/latest").expect_status(200);
    assert_eq!(bucket.keys_below(LOCK), Vec::<String>::new());
    server.terminate();
}

/// The setting is not needed there, and keeps others out all the same.
#[test]
fn on_a_bucket_that_keeps_all_the_setting_only_keeps_others_out() {
    let bucket = BucketServer::start();
    let first = start(&bucket);
    first.output_with("`storage.s3.singlewriter` is not needed");
    Repository::new(first.address(), "alone/image").push_image("latest", "a");
    let (is_done, last) = run(&SERVE, &usual(&bucket));
    assert!(!is_done && last.contains("storage.s3.singlewriter"), "{last}");
    assert!(first.terminate().success());
    let several = [Server::on_bucket(&bucket), Server::on_bucket(&bucket)];
    for server in several {
        Repository::new(server.address(), "alone/image").push_image("latest", "b");
        assert!(server.terminate().success());
    }
}
