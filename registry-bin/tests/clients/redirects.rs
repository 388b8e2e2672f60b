//! Clients that are sent to the bucket for the layers that they pull.

use crate::docker_daemon::DockerDaemon;
use crate::samples::push_image;
use crate::support::bucket::BucketServer;
use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{containerd, skopeo};

/// Pulls an image by `pull`, which takes its reference, and looks whether its layer came from the bucket.
fn expect_pull_from_bucket(pull: impl FnOnce(&str)) {
    let bucket = BucketServer::start();
    let server = Server::redirecting_to(&bucket);
    push_image(&Repository::new(server.address(), "sent/away"), "v1");
    let _pushes = bucket.faults().take_seen();
    pull(&format!("{}/sent/away:v1", server.address()));
    let seen = bucket.faults().take_seen();
    let by_client = |request: &String| request.starts_with("GET ") && request.contains("X-Amz-Signature=");
    assert!(seen.iter().any(by_client), "{seen:?}");
}

#[test]
fn skopeo_copies_from_the_bucket() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(skopeo) = skopeo::tool(folder.path()) else {
        return;
    };
    expect_pull_from_bucket(|reference| {
        let from = format!("docker://{reference}");
        skopeo.run(["copy", "--src-tls-verify=false", &from, "dir:pulled"]);
    });
}

#[test]
fn podman_pulls_from_the_bucket() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(podman) = crate::tools::podman(folder.path()) else {
        return;
    };
    expect_pull_from_bucket(|reference| {
        podman.run(["pull", "--tls-verify=false", reference]);
    });
}

#[test]
fn containerd_pulls_from_the_bucket() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(containerd) = containerd::start(folder.path()) else {
        return;
    };
    expect_pull_from_bucket(|reference| {
        let pull = [
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "native",
            reference,
        ];
        containerd.ctr.run(pull);
    });
}

#[test]
fn docker_pulls_from_the_bucket() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(daemon) = DockerDaemon::start(folder.path()) else {
        return;
    };
    expect_pull_from_bucket(|reference| {
        daemon.docker.run(["pull", reference]);
    });
}
