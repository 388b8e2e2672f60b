//! What changes while the server runs, and how often one may come.

use crate::support::client::{Connection, Request};
use crate::support::server::until;
use crate::support::users::{GuardedServer, basic};

const RULES: &str = "\
version: 0.1
storage: {inmemory: {}, delete: {enabled: true}}
auth: {htpasswd: {realm: Registry, path: USERS}}
access:
  rules:
    - {repositories: ['team/**'], identities: [alice], actions: [pull, push]}
    - {repositories: ['**'], identities: [bob], actions: [pull]}
";

#[test]
fn rules_and_users_that_change_are_in_force_without_a_restart() {
    let server = GuardedServer::start(RULES);
    let alice = server.repository("alice", "team/app");
    let image = alice.push_image("latest", "image");
    server.write(&RULES.replace("actions: [pull, push]", "actions: [pull]"));
    server.server.signal_hangup();
    until(|| alice.request("POST", "blobs/uploads/").send().status == 403);
    alice
        .get("manifests/latest")
        .expect_header("Docker-Content-Digest", &image.digest);
    // A bad file leaves the rules as they are.
    server.write(&RULES.replace("'team/**'", "'team ?'"));
    server.server.signal_hangup();
    until(|| server.server.output().contains("team ?"));
    alice.get("manifests/latest").expect_status(200);
    // A removed user is gone when the file was read again.
    server.write(RULES);
    let users = std::fs::read_to_string(server.users()).expect("there are users");
    let left: String = users
        .lines()
        .filter(|line| !line.starts_with("alice"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(server.users(), left).expect("a file can be written");
    until(|| alice.get("manifests/latest").status == 401);
}

#[test]
fn a_connection_outlives_a_change_and_is_judged_by_it() {
    let server = GuardedServer::start(RULES);
    let (address, alice) = (server.server.address(), server.repository("alice", "team/app"));
    let mut connection = Connection::open(address).expect("it listens");
    let mut start = || {
        let request = Request::new(address, "POST", &alice.path("blobs/uploads/"));
        let request = request.header("Authorization", basic("alice"));
        let answer = connection
            .exchange(request)
            .and_then(|incoming| incoming.collect());
        answer.expect("the connection stays open")
    };
    let upload = start();
    upload.expect_status(202);
    server.write(&RULES.replace("actions: [pull, push]", "actions: [pull]"));
    server.server.signal_hangup();
    until(|| alice.request("POST", "blobs/uploads/").send().status == 403);
    start().expect_error(&[403], &["DENIED"]);
    // What was begun under the old rules is not finished under the new.
    alice
        .patch(&upload.location(), 0, b"late")
        .expect_error(&[403], &["DENIED"]);
    server.write(RULES);
    until(|| alice.request("POST", "blobs/uploads/").send().status == 202);
    start().expect_status(202);
    alice.patch(&upload.location(), 0, b"late").expect_status(202);
}

#[test]
fn too_many_requests_are_told_when_to_come_again() {
    let limit = "http: {ratelimit: {identity: {requests: 1, per: 1h, burst: 3}}}\n";
    let server = GuardedServer::start(&format!("{RULES}{limit}"));
    let alice = server.repository("alice", "team/app");
    for _ in 0..3 {
        alice.get("manifests/x").expect_status(404);
    }
    let response = alice.get("manifests/x");
    response.expect_error(&[429], &["TOOMANYREQUESTS"]);
    let seconds: u32 = response
        .header("Retry-After")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!(seconds > 3500 && seconds <= 3600);
    server
        .repository("bob", "team/app")
        .get("manifests/x")
        .expect_status(404);
}

#[test]
fn an_address_is_held_back_whoever_it_says_it_is() {
    let limit = "http: {ratelimit: {address: {requests: 1, per: 1h, burst: 5}}}\n";
    let server = GuardedServer::start(&format!("{RULES}{limit}"));
    // The look whether the server is there was one.
    for user in ["alice", "bob", "alice", ""] {
        let status = server.repository(user, "team/app").get("manifests/x").status;
        assert!(matches!(status, 404 | 401), "{status}");
    }
    for user in ["alice", "bob", ""] {
        let refused = server.repository(user, "team/app").get("manifests/x");
        refused.expect_error(&[429], &["TOOMANYREQUESTS"]);
    }
}

#[test]
fn a_write_is_delayed_where_a_read_is_refused() {
    let limit = "http: {ratelimit: {identity: {requests: 2, per: 1s, burst: 2}}}\n";
    let server = GuardedServer::start(&format!("{RULES}{limit}"));
    let alice = server.repository("alice", "team/app");
    // Builders do not come again after a 429, so all of this succeeds, if not at once.
    let begin = std::time::Instant::now();
    for number in 0..3 {
        alice.push_blob(format!("blob {number}").as_bytes());
    }
    assert!(begin.elapsed().as_secs() >= 1, "{:?}", begin.elapsed());
}
