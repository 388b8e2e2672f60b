//! What is accepted, and what names lead to.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::content::sha256;
use crate::support::repository::{CONFIG, IMAGE, INDEX, Repository, descriptor};
use crate::support::server::Server;

#[test]
fn cve_2026_35172_deleted_content_stays_away_though_a_sibling_has_it() {
    let server = Server::memory();
    let (first, second) = (
        Repository::new(server.address(), "a/first"),
        Repository::new(server.address(), "a/second"),
    );
    let digest = first.push_blob(b"shared");
    let blob = format!("blobs/{digest}");
    second.push_blob(b"shared");
    for _ in 0..2 {
        first.get(&blob).expect_status(200);
        second.get(&blob).expect_status(200);
    }
    first.delete(&blob).expect_status(202);
    for _ in 0..2 {
        second.get(&blob).expect_status(200);
        first.get(&blob).expect_status(404);
        first.head(&blob).expect_status(404);
    }
    second.push_blob(b"shared");
    first.get(&blob).expect_status(404);
}

#[test]
fn cve_2023_2253_a_huge_page_costs_no_memory() {
    let server = Server::memory();
    let repository = Repository::new(server.address(), "a");
    repository.push_image("latest", "image");
    let before = server.peak_memory();
    for n in [
        "2147483647",
        "9223372036854775807",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        for path in ["/v2/_catalog", "/v2/a/tags/list"] {
            let status = server.request("GET", &format!("{path}?n={n}")).send().status;
            assert!(matches!(status, 200 | 400), "{path} {n}: {status}");
        }
    }
    for n in ["-1", "x", ""] {
        let status = server
            .request("GET", &format!("/v2/_catalog?n={n}"))
            .send()
            .status;
        assert!(matches!(status, 200 | 400), "{n}: {status}");
    }
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn cve_2017_11468_a_manifest_is_measured_before_it_is_read() {
    let server = Server::memory();
    let repository = Repository::new(server.address(), "a");
    repository.push_image("latest", "image");
    let before = server.peak_memory();
    for attempt in 0..3 {
        let request = repository
            .request("PUT", "manifests/huge")
            .header("Content-Type", IMAGE);
        let body = std::io::Read::take(std::io::repeat(b' '), 256 << 20);
        // The answer may come while the body is still being sent, and the connection end with it.
        let answer = if attempt == 0 {
            request.stream(body, 256 << 20)
        } else {
            request.chunked(body)
        }
        .try_send();
        if let Ok(answer) = answer {
            answer.expect_error(&[413], &["SIZE_INVALID"]);
        }
    }
    repository.get("manifests/huge").expect_status(404);
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
}

#[test]
fn cve_2021_41190_a_document_that_is_two_things_is_refused() {
    let server = Server::memory();
    let repository = Repository::new(server.address(), "a");
    let image = repository.push_image("latest", "image");
    let text = String::from_utf8(image.content).expect("JSON");
    let both = text.replacen('{', r#"{"manifests":[],"#, 1);
    for (media_type, document) in [
        (IMAGE, both.as_str()),
        (INDEX, both.as_str()),
        (INDEX, text.as_str()),
    ] {
        repository
            .put_manifest("ambiguous", media_type, document.as_bytes())
            .expect_error(&[400], &["MANIFEST_INVALID"]);
    }
    repository.get("manifests/ambiguous").expect_status(404);
}

#[test]
fn path_traversal_leads_nowhere() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (data, outside) = (folder.path().join("data"), folder.path().join("outside"));
    std::fs::write(&outside, "canary").expect("a file can be written");
    let server = Server::on(&data);
    for name in [
        "..",
        "../outside",
        "a/../../outside",
        "%2e%2e/outside",
        "a/%2e%2e/b",
        "a%2f..%2fb",
        "a//b",
        "./a",
        "a\\..\\b",
        "a%00b",
    ] {
        for rest in ["manifests/latest", "tags/list", "blobs/uploads/"] {
            for method in ["GET", "PUT", "POST", "DELETE"] {
                let response = server.request(method, &format!("/v2/{name}/{rest}")).send();
                // An unclean path leads to the clean one on this server, which is asked for like any other.
                let is_refused = (400..500).contains(&response.status);
                let clean = ["/v2/a/b/", "/v2/b/", "/v2/a/", "/v2/outside/", "/outside/"];
                let is_moved = [301, 308].contains(&response.status)
                    && clean
                        .iter()
                        .any(|clean| response.location() == format!("{clean}{rest}").trim_end_matches('/'));
                assert!(
                    is_refused || is_moved,
                    "{method} {name}/{rest}: {}",
                    response.status
                );
                assert!(!String::from_utf8_lossy(&response.body).contains("canary"));
            }
        }
    }
    for reference in [
        "..",
        ".hidden",
        "../../../outside",
        "%2e%2e",
        "a%2fb",
        "sha256:../../outside",
    ] {
        let response = server
            .request("PUT", &format!("/v2/a/manifests/{reference}"))
            .body(b"{}")
            .send();
        let is_moved = response.status == 308 && response.location() == "/v2/a/manifests/outside";
        assert!(is_moved || (400..500).contains(&response.status), "{reference}");
    }
    let mut entries: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder can be read")
        .map(|entry| entry.expect("a folder can be read").file_name())
        .collect();
    entries.sort_unstable();
    assert_eq!(entries, ["data", "outside"]);
}

#[test]
fn cve_2020_15157_urls_of_layers_are_never_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    trap.set_nonblocking(true).expect("a socket can be set");
    let url = format!(
        "http://{}/layer",
        trap.local_addr().expect("a socket has an address")
    );
    let server = Server::memory();
    let repository = Repository::new(server.address(), "a");
    repository.push_blob(b"{}");
    let foreign = serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": sha256(b"foreign"), "size": 7,
        "urls": [url],
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(CONFIG, b"{}"), "layers": [foreign],
    });
    let manifest = manifest.to_string();
    let digest = repository.push_manifest("latest", IMAGE, manifest.as_bytes());
    repository
        .get("manifests/latest")
        .expect_header("Docker-Content-Digest", &digest);
    repository
        .get(&format!("blobs/{}", sha256(b"foreign")))
        .expect_error(&[404], &["BLOB_UNKNOWN"]);
    let asked = trap.accept().expect_err("nobody was sent there");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

/// Sends bytes and returns all that is answered until the server hangs up or falls silent.
fn answers_to(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a socket can be set");
    // The server may have hung up by then.
    std::io::Write::write_all(&mut stream, bytes).ok();
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answers.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answers).into_owned()
}

#[test]
fn request_smuggling_finds_no_two_ways_to_read_a_request() {
    let server = Server::memory();
    let smuggled = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len();
    // With both a length and chunks, the chunks count (RFC 9112, section 6.3); a proxy in front has to see it so, too.
    for fields in [
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 0, {length}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: 0x{length:x}\r\n"),
        format!("Content-Length : {length}\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding:\u{b}chunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        for body in [smuggled.to_owned(), format!("0\r\n\r\n{smuggled}")] {
            let request = format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
            let answers = answers_to(&server, request.as_bytes());
            assert!(answers.contains("400"), "{fields:?} {body:?}: {answers}");
            assert!(
                !answers.contains("NAME_UNKNOWN"),
                "{fields:?} {body:?}: {answers}"
            );
        }
    }
}
