//! What operators' scripts, probes and pages ask, and how registry:2 answers them.

use std::process::Command;

use super::write;
use crate::support::client::{Connection, Request};
use crate::support::content::sha256;
use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::support::users::GuardedServer;

const RULES: &str = "\
version: 0.1
storage: {inmemory: {}, delete: {enabled: true}}
auth: {htpasswd: {realm: Registry, path: USERS}}
http: {headers: {Access-Control-Allow-Origin: ['https://ui.example']}}
access: {rules: [{repositories: ['**'], identities: [root], actions: ['*']}]}
";

#[test]
fn the_root_answers_probes_without_a_login() {
    let server = GuardedServer::start(RULES);
    for method in ["GET", "HEAD"] {
        let answer = server.server.request(method, "/").send();
        answer.expect_status(200);
        answer.expect_header("Content-Length", "0");
    }
    let refused = server.server.request("POST", "/").send();
    refused.expect_error(&[405], &["UNSUPPORTED"]);
    refused.expect_header("Allow", "GET, HEAD, OPTIONS");
}

#[test]
fn a_page_of_another_origin_may_ask_before_it_deletes() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let text = format!(
        "version: 0.1\nstorage: {{inmemory: {{}}}}\nlog: {{audit: {{path: FOLDER/audit}}}}\n{}",
        "http: {headers: {Access-Control-Allow-Origin: ['https://ui.example']}}\n"
    );
    let open = Server::configured(&write(folder.path(), &text));
    let guarded = GuardedServer::start(RULES);
    for server in [&open, &guarded.server] {
        for (path, methods) in [
            ("/", "GET, HEAD, OPTIONS"),
            ("/v2/", "GET, HEAD, OPTIONS"),
            ("/v2/_catalog?n=10", "GET, HEAD, OPTIONS"),
            ("/v2/a/b/manifests/v1", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ] {
            let request = server
                .request("OPTIONS", path)
                .header("Origin", "https://ui.example");
            let request = request.header("Access-Control-Request-Method", "DELETE");
            let answer = request.send();
            answer.expect_status(200);
            answer.expect_header("Allow", methods);
            answer.expect_header("Access-Control-Allow-Origin", "https://ui.example");
            assert!(answer.body.is_empty());
        }
        server.request("OPTIONS", "/v1/search").send().expect_status(404);
    }
    assert!(open.terminate().success());
    let audit = std::fs::read_to_string(folder.path().join("audit")).unwrap_or_default();
    assert!(!audit.contains("OPTIONS"), "{audit}");
}

#[test]
fn unclean_paths_lead_to_the_clean_one() {
    let server = Server::memory();
    for (method, path, status, clean) in [
        ("GET", "//v2/", 301, "/v2/"),
        ("GET", "//?a=b", 301, "/?a=b"),
        ("GET", "/v2/_catalog/?n=1", 301, "/v2/_catalog?n=1"),
        ("GET", "/v2/./_catalog?n=1", 301, "/v2/_catalog?n=1"),
        ("GET", "/v2/../v2/", 301, "/v2/"),
        ("HEAD", "/v2/a/tags/list/", 301, "/v2/a/tags/list"),
        ("OPTIONS", "//", 301, "/"),
        ("OPTIONS", "/v2/a/../_catalog", 301, "/v2/_catalog"),
        ("PUT", "/v2/a//manifests/v1", 308, "/v2/a/manifests/v1"),
        ("GET", "//evil.example/..", 301, "/"),
    ] {
        let answer = server.request(method, path).send();
        answer.expect_status(status);
        answer.expect_header("Location", clean);
    }
    for path in ["/v1//", "//evil.example", "/v2/..//evil.example/"] {
        for method in ["GET", "OPTIONS"] {
            server.request(method, path).send().expect_status(404);
        }
    }
}

#[test]
fn the_server_as_a_whole_has_methods() {
    let server = Server::memory();
    let answer = server.request("OPTIONS", "*").send();
    answer.expect_status(200);
    answer.expect_header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    server.request("GET", "*").send().expect_status(404);
}

#[test]
fn header_names_are_spelled_as_scripts_look_for_them() {
    let server = Server::memory();
    let repository = Repository::new(server.address(), "a");
    let image = repository.push_image("v1", "v1");
    let answer = repository.get("manifests/v1");
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["Docker-Content-Digest", "Content-Type", "Content-Length", "Etag"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    // The script that every blog has.
    let script = "curl -sI -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
        http://$REGISTRY/v2/a/manifests/v1 | awk '$1 == \"Docker-Content-Digest:\" {print $2}' | tr -d '\\r'";
    assert_eq!(shell(&server, script), image.digest);
    shell(
        &server,
        &format!(
            "curl -sf -X DELETE http://$REGISTRY/v2/a/manifests/{}",
            image.digest
        ),
    );
    repository.get("manifests/v1").expect_status(404);
}

#[test]
fn a_digest_is_appended_to_an_uploads_location_by_either_sign() {
    let server = Server::memory();
    for (sign, content) in [("&", "one"), ("?", "two")] {
        let digest = sha256(content.as_bytes());
        let script = format!(
            "LOCATION=$(curl -si -X POST http://$REGISTRY/v2/a/blobs/uploads/ | grep Location | cut -d' ' -f2 | tr -d '\\r'); \
             curl -sf -o /dev/null -w '%{{http_code}}' -X PUT --data-binary {content} \"$LOCATION{sign}digest={digest}\""
        );
        assert_eq!(shell(&server, &script), "201");
    }
}

#[test]
fn a_connection_is_used_on_after_a_probe() {
    let server = Server::memory();
    let mut connection = Connection::open(server.address()).expect("it listens");
    for path in ["/", "/v2/", "//v2/", "/"] {
        let request = Request::new(server.address(), "GET", path);
        let answer = connection
            .exchange(request)
            .and_then(|incoming| incoming.collect());
        assert!(matches!(answer.expect("an answer").status, 200 | 301));
    }
}

fn shell(server: &Server, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", script])
        .env("REGISTRY", server.address().to_string())
        .output()
        .expect("there is a shell");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
