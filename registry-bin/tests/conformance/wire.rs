//! What happens below requests and responses: connections that are kept, bytes that are no HTTP, clients that do not
//! wait and servers that must not.

use crate::backend::behaviours;
use crate::support::client::Connection;
use crate::support::content::{Content, sha256};
use crate::support::repository::{IMAGE, Repository};

behaviours![
    a_connection_serves_many_requests,
    requests_may_be_sent_ahead,
    a_refused_small_body_leaves_the_connection_usable,
    a_refused_large_body_still_gets_its_answer,
    a_client_that_waits_for_100_is_told_to_go_on,
    bytes_that_are_no_http_do_no_harm,
    endless_headers_are_refused,
    a_client_that_leaves_during_a_download_does_no_harm,
];

fn open(repository: &Repository) -> Connection {
    Connection::open(repository.address).expect("the server listens")
}

fn a_connection_serves_many_requests(repository: &Repository) {
    let image = repository.push_image("latest", "kept");
    let mut connection = open(repository);
    for _ in 0..20 {
        for (method, rest, status) in [
            ("GET", "manifests/latest".to_owned(), 200),
            ("HEAD", "manifests/latest".to_owned(), 200),
            ("GET", format!("blobs/{}", image.layer), 200),
            ("GET", "manifests/missing".to_owned(), 404),
            ("HEAD", "manifests/missing".to_owned(), 404),
            ("POST", "blobs/uploads/".to_owned(), 202),
        ] {
            let incoming = connection
                .exchange(repository.request(method, &rest))
                .expect("an answer");
            incoming.collect().expect("an answer").expect_status(status);
        }
    }
}

fn requests_may_be_sent_ahead(repository: &Repository) {
    let image = repository.push_image("latest", "ahead");
    let mut connection = open(repository);
    let line = |rest: &str| {
        format!(
            "GET {} HTTP/1.1\r\nHost: registry\r\nAccept: {IMAGE}\r\n\r\n",
            repository.path(rest)
        )
    };
    let both = line("manifests/latest") + &line("tags/list");
    connection.write_raw(both.as_bytes()).expect("the server reads");
    let first = connection
        .read_response(false)
        .and_then(|incoming| incoming.collect())
        .expect("an answer");
    assert_eq!(first.body, image.content);
    let second = connection
        .read_response(false)
        .and_then(|incoming| incoming.collect())
        .expect("an answer");
    assert_eq!(second.json()["tags"][0], "latest");
}

fn a_refused_small_body_leaves_the_connection_usable(repository: &Repository) {
    let image = repository.push_image("latest", "drained");
    let content = Content::new(1, 32 << 10).bytes();
    let mut connection = open(repository);
    let request = repository.request("PATCH", "blobs/uploads/2f3a5d1e-0000-4000-8000-000000000000");
    let refused = connection
        .exchange(request.body(&content))
        .and_then(|incoming| incoming.collect());
    let refused = refused.expect("an answer");
    refused.expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
    if refused
        .header("Connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    {
        return;
    }
    let request = repository
        .request("GET", "manifests/latest")
        .header("Accept", IMAGE);
    let next = connection
        .exchange(request)
        .and_then(|incoming| incoming.collect())
        .expect("an answer");
    assert_eq!(next.body, image.content);
}

fn a_refused_large_body_still_gets_its_answer(repository: &Repository) {
    let target = "blobs/uploads/2f3a5d1e-0000-4000-8000-000000000000";
    let length = 1 << 20;
    let refused = repository
        .request("PATCH", target)
        .stream(Content::new(2, length), length)
        .send();
    refused.expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
}

fn a_client_that_waits_for_100_is_told_to_go_on(repository: &Repository) {
    let content = b"I waited";
    let target = repository.path(&format!("blobs/uploads/?digest={}", sha256(content)));
    let mut connection = open(repository);
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: registry\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        content.len()
    );
    connection.write_raw(head.as_bytes()).expect("the server reads");
    let (status, _) = connection.read_head().expect("an interim answer");
    assert_eq!(status, 100);
    connection.write_raw(content).expect("the server reads");
    let answer = connection
        .read_response(false)
        .and_then(|incoming| incoming.collect())
        .expect("an answer");
    answer.expect_status(201);
}

fn bytes_that_are_no_http_do_no_harm(repository: &Repository) {
    let image = repository.push_image("latest", "no HTTP");
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET /v2/%FF%FE/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut connection = open(repository);
        connection.write_raw(bytes).expect("the server reads");
    }
    assert_eq!(repository.get("manifests/latest").body, image.content);
}

fn endless_headers_are_refused(repository: &Repository) {
    let value = "x".repeat(1 << 20);
    let request = repository.request("GET", "tags/list").header("X-Filler", &value);
    // Refused with an answer or by an end of the connection, but never served.
    if let Ok(response) = request.try_send() {
        assert!(
            [400, 413, 431].contains(&response.status),
            "{}",
            response.summary()
        );
    }
    repository.push_image("latest", "still there");
}

fn a_client_that_leaves_during_a_download_does_no_harm(repository: &Repository) {
    let content = Content::new(3, 8 << 20).bytes();
    let blob = format!("blobs/{}", repository.push_blob(&content));
    let path = repository.path(&blob);
    for _ in 0..50 {
        let mut connection = open(repository);
        let head = format!("GET {path} HTTP/1.1\r\nHost: registry\r\n\r\n");
        connection.write_raw(head.as_bytes()).expect("the server reads");
        let (status, _) = connection.read_head().expect("a head");
        assert!([200, 307].contains(&status), "{status}");
    }
    assert!(repository.get(&blob).body == content);
}
