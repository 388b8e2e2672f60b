//! Who may do what.

use crate::support::client::with_query;
use crate::support::content::sha256;
use crate::support::repository::{IMAGE, Repository};
use crate::support::users::{GuardedServer, basic};

const RULES: &str = "\
version: 0.1
storage: {inmemory: {}, delete: {enabled: true}}
auth: {htpasswd: {realm: Registry, path: USERS}}
access:
  groups: {developers: [alice, bob]}
  rules:
    - {repositories: ['public/**'], identities: [anonymous], actions: [pull, list]}
    - {repositories: ['team/**'], identities: ['group:developers'], actions: [pull, push]}
    - {repositories: ['alice/**'], identities: [alice], actions: [pull, push]}
    - {repositories: ['**'], identities: [root], actions: ['*']}
tags:
  immutable: [{repositories: ['**'], tags: ['v*']}]
";

const DENIED: &[&str] = &["DENIED"];

#[test]
fn cve_2026_32589_an_upload_belongs_to_who_started_it_in_its_repository() {
    let server = GuardedServer::start(RULES);
    let alice = server.repository("alice", "team/app");
    let location = alice.open_upload();
    alice.patch(&location, 0, b"secret").expect_status(202);
    let digest = sha256(b"secret");
    for thief in [
        server.repository("bob", "team/app"),
        server.repository("root", "team/app"),
    ] {
        thief
            .follow("GET", &location)
            .send()
            .expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
        thief
            .patch(&location, 6, b"!")
            .expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
        thief
            .close_upload(&location, &digest)
            .expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
        thief
            .follow("DELETE", &location)
            .send()
            .expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
    }
    let elsewhere = location.replace("team/app", "team/other");
    alice
        .follow("GET", &elsewhere)
        .send()
        .expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
    alice.close_upload(&location, &digest).expect_status(201);
}

#[test]
fn cve_2026_31801_who_may_only_create_does_not_overwrite_a_tag() {
    let server = GuardedServer::start(RULES);
    let (alice, root) = (
        server.repository("alice", "team/app"),
        server.repository("root", "team/app"),
    );
    let first = alice.push_image("latest", "first");
    // The same content again moves nothing.
    alice
        .put_manifest("latest", IMAGE, &first.content)
        .expect_status(201);
    let second = alice.push_image("other", "second");
    alice
        .put_manifest("latest", IMAGE, &second.content)
        .expect_error(&[409], DENIED);
    let by_parameter = with_query(
        &format!("/v2/team/app/manifests/{}", second.digest),
        "tag",
        "latest",
    );
    alice
        .follow("PUT", &by_parameter)
        .header("Content-Type", IMAGE)
        .body(&second.content)
        .send()
        .expect_error(&[409], DENIED);
    alice
        .get("manifests/latest")
        .expect_header("Docker-Content-Digest", &first.digest);
    root.put_manifest("latest", IMAGE, &second.content)
        .expect_status(201);
}

#[test]
fn ghsa_qg67_7m6v_qg25_each_method_needs_its_right() {
    let server = GuardedServer::start(RULES);
    let root = server.repository("root", "team/app");
    let image = root.push_image("latest", "image");
    let blob = root.push_blob(b"blob");
    let (manifest, blob) = (format!("manifests/{}", image.digest), format!("blobs/{blob}"));
    // What alice may do in `team` (pull, push), bob in `alice` (nothing), and who is not logged in (nothing).
    for (method, rest, may_push) in [
        ("GET", "manifests/latest", true),
        ("HEAD", &*manifest, true),
        ("GET", &*blob, true),
        (
            "GET",
            "referrers/sha256:0000000000000000000000000000000000000000000000000000000000000000",
            true,
        ),
        ("POST", "blobs/uploads/", true),
        ("GET", "tags/list", false),
        ("DELETE", "manifests/latest", false),
        ("DELETE", &*manifest, false),
        ("DELETE", &*blob, false),
    ] {
        let status = |user, repository| {
            server
                .repository(user, repository)
                .request(method, rest)
                .send()
                .status
        };
        let of_alice = status("alice", "team/app");
        assert_eq!(of_alice < 300, may_push, "{method} {rest}: {of_alice}");
        assert_eq!(status("bob", "alice/app"), 403, "{method} {rest}");
        assert_eq!(status("", "team/app"), 401, "{method} {rest}");
    }
    root.get("manifests/latest").expect_status(200);
    root.get(&blob).expect_status(200);
}

#[test]
fn cve_2022_46463_the_catalog_shows_what_one_may_list() {
    let server = GuardedServer::start(RULES);
    for name in ["public/a", "team/app", "alice/app"] {
        server.repository("root", name).push_image("latest", name);
    }
    let catalog = |user: &str| {
        let mut request = server.server.request("GET", "/v2/_catalog");
        if !user.is_empty() {
            request = request.header("Authorization", basic(user));
        }
        let response = request.send();
        response.expect_status(200);
        response.json()["repositories"].to_string()
    };
    assert_eq!(catalog(""), r#"["public/a"]"#);
    assert_eq!(catalog("alice"), r#"["public/a"]"#);
    assert_eq!(catalog("root"), r#"["alice/app","public/a","team/app"]"#);
    server
        .repository("", "public/a")
        .get("manifests/latest")
        .expect_status(200);
    server
        .repository("", "public/a")
        .get("tags/list")
        .expect_status(200);
}

#[test]
fn cve_2024_39897_a_blob_is_read_where_it_was_pushed_and_nowhere_else() {
    let server = GuardedServer::start(RULES);
    let digest = server
        .repository("alice", "alice/app")
        .push_blob(b"of alice alone");
    let bob = server.repository("bob", "team/app");
    bob.push_blob(b"of bob");
    let blob = format!("blobs/{digest}");
    bob.get(&blob).expect_error(&[404], &["BLOB_UNKNOWN"]);
    bob.head(&blob).expect_status(404);
    bob.request("GET", &blob)
        .header("Range", "bytes=0-3")
        .send()
        .expect_status(404);
    // A mount from where bob may not read, by name and by guess, starts an upload instead.
    for source in ["&from=alice/app", ""] {
        bob.request("POST", &format!("blobs/uploads/?mount={digest}{source}"))
            .send()
            .expect_status(202);
    }
    bob.get(&blob).expect_status(404);
    // Nor is it content of a manifest that bob pushes.
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"x/y","digest":"{digest}","size":14}},"layers":[]}}"#
    );
    bob.put_manifest("steal", IMAGE, manifest.as_bytes())
        .expect_error(&[404, 400], &["MANIFEST_BLOB_UNKNOWN"]);
}

#[test]
fn cve_2026_41888_nothing_is_deleted_by_any_name_where_that_is_off() {
    let configuration = RULES.replace("delete: {enabled: true}", "delete: {enabled: false}");
    let server = GuardedServer::start(&configuration);
    let root = server.repository("root", "team/app");
    let image = root.push_image("latest", "image");
    let blob = root.push_blob(b"blob");
    for rest in [
        "manifests/latest".to_owned(),
        format!("manifests/{}", image.digest),
        format!("blobs/{blob}"),
    ] {
        root.delete(&rest).expect_error(&[405], &["UNSUPPORTED"]);
        root.get(&rest).expect_status(200);
    }
}

#[test]
fn cve_2026_4404_there_is_no_password_that_everybody_knows() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = GuardedServer::start_in(folder, RULES);
    let output = server.server.output();
    let after = output
        .split_once("the password ")
        .expect("the password is told")
        .1;
    let password: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
    assert!(password.len() >= 32, "{password}");
    let users = std::fs::read_to_string(server.users()).expect("the file was made");
    assert!(
        users.starts_with("docker:$2y$") && !users.contains(&password),
        "{users}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(server.users())
            .expect("the file was made")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    for guess in ["Basic ZG9ja2VyOmRvY2tlcg==", "Basic YWRtaW46SGFyYm9yMTIzNDU="] {
        Repository::new(server.server.address(), "team/app")
            .with_authorization(guess)
            .get("manifests/x")
            .expect_status(401);
    }
}
