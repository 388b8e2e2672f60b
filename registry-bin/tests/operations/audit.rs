//! The audit log: every write and every refused request, with who, what and the outcome.

use serde_json::Value;

use crate::support::server::until;
use crate::support::users::GuardedServer;

const CONFIGURATION: &str = "\
version: 0.1
log: {accesslog: {disabled: true}, audit: {path: FOLDER/audit}}
storage: {inmemory: {}, delete: {enabled: false}}
auth: {htpasswd: {realm: registry, path: USERS}}
access:
  rules:
    - {repositories: ['open/*'], identities: [bob], actions: [pull]}
    - {repositories: ['**'], identities: [alice], actions: ['*']}
tags: {immutable: [{repositories: ['open/*'], tags: ['v*']}]}
http: {ratelimit: {identity: {requests: 1, per: 1h, burst: 40}}}
";

#[test]
fn every_write_and_every_refusal_is_in_the_audit_log() {
    let server = GuardedServer::start(CONFIGURATION);
    let alice = server.repository("alice", "open/app");
    let image = alice.push_image("v1", "one");
    let other = String::from_utf8(image.content).expect("JSON is text") + " ";
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let put = |user: &str, target: &str, body: &str| {
        let repository = server.repository(user, "open/app");
        let request = repository.request("PUT", target).header("Content-Type", kind);
        request.body(body.as_bytes()).send().status
    };
    assert_eq!(put("alice", "manifests/v1", &other), 409, "the tag is immutable");
    assert_eq!(put("alice", "manifests/w1", "{"), 400);
    assert_eq!(put("bob", "manifests/w1", &other), 403);
    assert_eq!(put("", "manifests/w1", &other), 401);
    alice.get("manifests/none").expect_status(404);
    server
        .repository("bob", "closed/app")
        .get("tags/list")
        .expect_status(403);
    alice.request("DELETE", "manifests/w9").send().expect_status(405);
    until(|| server.repository("bob", "open/app").get("tags/list").status == 429);

    let path = server.users().with_file_name("audit");
    until(|| std::fs::read_to_string(&path).is_ok_and(|text| text.contains("429")));
    let text = std::fs::read_to_string(&path).expect("it was read");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let count = |expected: Value| {
        let fields = expected.as_object().expect("it is an object");
        let fits = |line: &&Value| fields.iter().all(|(name, value)| line[name] == *value);
        lines.iter().filter(fits).count()
    };
    for (expected, times) in [
        (
            serde_json::json!({"principal": "alice", "action": "push", "tag": "v1", "status": 201, "outcome": "done"}),
            1,
        ),
        (
            serde_json::json!({"principal": "alice", "tag": "v1", "status": 409, "outcome": "refused"}),
            1,
        ),
        (
            serde_json::json!({"principal": "alice", "tag": "w1", "status": 400, "outcome": "invalid", "error": "MANIFEST_INVALID"}),
            1,
        ),
        (
            serde_json::json!({"principal": "bob", "tag": "w1", "status": 403, "outcome": "refused", "repository": "open/app"}),
            1,
        ),
        (
            serde_json::json!({"principal": null, "tag": "w1", "status": 401, "outcome": "refused", "method": "PUT"}),
            1,
        ),
        (
            serde_json::json!({"principal": "bob", "repository": "closed/app", "status": 403, "method": "GET"}),
            1,
        ),
        (
            serde_json::json!({"principal": "alice", "tag": "w9", "method": "DELETE", "status": 405, "outcome": "refused"}),
            1,
        ),
        (
            serde_json::json!({"principal": "bob", "status": 429, "outcome": "refused"}),
            1,
        ),
        (serde_json::json!({"status": 404}), 0),
        (serde_json::json!({"method": "GET", "status": 200}), 0),
    ] {
        assert_eq!(count(expected.clone()), times, "{expected}: {text}");
    }
}
