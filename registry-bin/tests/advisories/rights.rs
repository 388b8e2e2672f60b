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
    root.delete("_registry/repository")
        .expect_error(&[405], &["UNSUPPORTED"]);
    root.get("manifests/latest").expect_status(200);
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

/// Returns each path with a word that names its kind.
fn paths(repository: &str, manifest: &str, blob: &str, upload: &str) -> Vec<String> {
    let mut paths = vec!["/v2/".to_owned(), "/v2/_catalog".to_owned()];
    for rest in [
        "tags/list",
        &format!("referrers/{manifest}"),
        "manifests/latest",
        &format!("manifests/{manifest}"),
        &format!("blobs/{blob}"),
        "blobs/uploads/",
        &format!("blobs/uploads/?mount={blob}&from=public/app"),
        &format!("blobs/uploads/?digest={blob}"),
        &format!("blobs/uploads/{upload}"),
    ] {
        paths.push(format!("/v2/{repository}/{rest}"));
    }
    paths
}

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

#[test]
fn cve_2024_22278_every_method_of_every_endpoint_needs_a_right() {
    let server = GuardedServer::start(RULES);
    let root = server.repository("root", "alice/app");
    let image = root.push_image("latest", "image");
    let location = server.repository("alice", "alice/app").open_upload();
    let upload = location.rsplit('/').next().expect("an identifier");
    let upload = upload.split('?').next().expect("an identifier");
    let there = paths("alice/app", &image.digest, &image.layer, upload);
    let nowhere = paths("alice/none", &image.digest, &image.layer, upload);
    for (path, same) in there.iter().zip(&nowhere) {
        for method in METHODS {
            for user in ["", "bob"] {
                let ask = |path: &str| {
                    let mut request = server.server.request(method, path);
                    if !user.is_empty() {
                        request = request.header("Authorization", basic(user));
                    }
                    request.send()
                };
                let answer = ask(path);
                let reads = matches!(method, "GET" | "HEAD");
                // What is no request at all may be told to anybody.
                let expected: &[u16] = match (&**path, user) {
                    _ if method == "OPTIONS" => &[200],
                    ("/v2/", "bob") | ("/v2/_catalog", _) if reads => &[200],
                    (_, "") => &[400, 401, 405],
                    _ => &[400, 403, 405],
                };
                assert!(
                    expected.contains(&answer.status),
                    "{user:?} {method} {path}: {}",
                    answer.summary()
                );
                // What is there is refused as what is not.
                let other = ask(same);
                let text = |answer: &crate::support::client::Response| {
                    String::from_utf8_lossy(&answer.body).replace("alice/none", "alice/app")
                };
                assert_eq!(answer.status, other.status, "{user:?} {method} {path}");
                assert_eq!(text(&answer), text(&other), "{user:?} {method} {path}");
            }
        }
    }
    root.get("manifests/latest").expect_status(200);
    root.get(&format!("blobs/{}", image.layer)).expect_status(200);
    let alice = server.repository("alice", "alice/app");
    alice.follow("GET", &location).send().expect_status(204);
}

#[test]
fn cve_2022_31667_an_identifier_of_another_repository_leads_to_nothing() {
    let server = GuardedServer::start(RULES);
    let (own, other) = (
        server.repository("root", "alice/app"),
        server.repository("root", "team/app"),
    );
    let image = own.push_image("latest", "image");
    other.push_image("latest", "other");
    let location = own.open_upload();
    for rest in [
        format!("manifests/{}", image.digest),
        format!("blobs/{}", image.layer),
        format!("blobs/{}", image.config),
    ] {
        for method in ["GET", "HEAD", "DELETE"] {
            let status = other.request(method, &rest).send().status;
            assert_eq!(status, 404, "{method} {rest}");
        }
        own.get(&rest).expect_status(200);
    }
    let elsewhere = location.replace("alice/app", "team/app");
    for method in ["GET", "PATCH", "DELETE"] {
        let refused = other.follow(method, &elsewhere).body(b"x").send();
        refused.expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
    }
    own.follow("GET", &location).send().expect_status(204);
}

#[test]
fn cve_2026_41888_nothing_is_written_where_the_registry_is_read_only() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for user in ["alice", "root"] {
        crate::support::users::set_password(
            &folder.path().join("users"),
            user,
            crate::support::users::PASSWORD,
        );
    }
    let data = format!("filesystem: {{rootdirectory: {}/data}}", folder.path().display());
    let storage = RULES.replace("inmemory: {}", &data);
    let server = GuardedServer::start_in(folder, &storage);
    let root = server.repository("root", "team/app");
    let image = root.push_image("latest", "image");
    let location = root.open_upload();
    let read_only = storage.replace(
        "delete: {enabled: true}",
        "delete: {enabled: true}, maintenance: {readonly: {enabled: true}}",
    );
    let server = server.restart(&read_only);
    let root = server.repository("root", "team/app");
    let manifest = format!("manifests/{}", image.digest);
    let blob = format!("blobs/{}", image.layer);
    for (method, rest) in [
        ("PUT", "manifests/other"),
        ("PUT", &*manifest),
        ("DELETE", &*manifest),
        ("DELETE", "manifests/latest"),
        ("DELETE", &*blob),
        ("POST", "blobs/uploads/"),
        ("POST", &*format!("blobs/uploads/?digest={}", image.layer)),
        (
            "POST",
            &*format!("blobs/uploads/?mount={}&from=team/app", image.layer),
        ),
    ] {
        let request = root.request(method, rest).header("Content-Type", IMAGE);
        let refused = request.body(&image.content).send();
        refused.expect_error(&[405], &["UNSUPPORTED"]);
    }
    for method in ["PATCH", "DELETE"] {
        let refused = root.follow(method, &location).body(b"x").send();
        refused.expect_error(&[405], &["UNSUPPORTED"]);
    }
    root.close_upload(&location, &image.layer)
        .expect_error(&[405], &["UNSUPPORTED"]);
    for rest in [&*manifest, "manifests/latest", &*blob, "tags/list"] {
        root.get(rest).expect_status(200);
    }
}

#[test]
fn cve_2019_19025_no_cookie_and_no_field_makes_anybody_more_than_they_are() {
    let configuration = RULES.replace(
        "htpasswd: {realm: Registry, path: USERS}",
        "token: {service: registry, builtin: {users: USERS}}",
    );
    let server = GuardedServer::start(&configuration);
    let ask = |target: &str| {
        let request = server.server.request("GET", target);
        request.header("Authorization", basic("root")).send()
    };
    let answer = ask("/auth/token?scope=repository:team/app:pull,push");
    answer.expect_status(200);
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    // What a browser would send by itself is not looked at, so no other site can make it do anything.
    for cookie in [
        format!("token={token}"),
        format!("Authorization=Bearer {token}; sid=root"),
    ] {
        let request = server.server.request("POST", "/v2/team/app/blobs/uploads/");
        let refused = request.header("Cookie", &cookie).send();
        refused.expect_error(&[401], &["UNAUTHORIZED"]);
        assert_eq!(refused.header("Set-Cookie"), None);
    }
    let request = server.server.request(
        "POST",
        &format!("/v2/team/app/blobs/uploads/?access_token={token}"),
    );
    request.send().expect_error(&[401], &["UNAUTHORIZED"]);
    // A form says who logs in and what for, and nothing else.
    let form = "grant_type=password&username=bob&password=secret&scope=repository:alice/app:pull,push\
                &has_admin_role=true&sub=root&account=root&access=*&groups=admins&role_id=1";
    let request = server.server.request("POST", "/auth/token");
    let answer = request.body(form.as_bytes()).send();
    answer.expect_status(200);
    assert_eq!(answer.json()["scope"], "");
}

#[test]
fn cors_1_no_site_is_let_in_unless_the_operator_says_so() {
    let server = GuardedServer::start(RULES);
    for method in ["OPTIONS", "GET", "POST"] {
        for path in ["/v2/", "/v2/team/app/blobs/uploads/", "/v2/public/app/tags/list"] {
            let request = server.server.request(method, path);
            let request = request.header("Origin", "https://evil.example");
            let request = request.header("Access-Control-Request-Method", "DELETE");
            let answer = request.send();
            for (name, value) in &answer.headers {
                let name = name.to_ascii_lowercase();
                assert!(
                    !name.starts_with("access-control-"),
                    "{method} {path}: {name}: {value}"
                );
            }
        }
    }
}
