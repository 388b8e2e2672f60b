//! Several servers over one bucket.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

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
