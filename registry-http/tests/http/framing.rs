//! Requests that a proxy and this server might read in two ways.

use registry_http::testing::TestRegistry;

use crate::client::Client;
use crate::client_http2::{Pieces, connect, request};

const START: &str = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\n";
const SMUGGLED: &str = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a request and one that is hidden behind it, and returns all that is answered until the server hangs up.
async fn answers_to(registry: &TestRegistry, request: &str) -> String {
    let mut client = Client::connect(registry.address()).await;
    client.send(format!("{request}{SMUGGLED}")).await;
    let answers = tokio::time::timeout(std::time::Duration::from_secs(10), client.rest());
    let answers = answers.await.expect("the server hangs up").unwrap();
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn what_two_readers_could_understand_in_two_ways_is_refused_and_the_connection_closed() {
    let registry = TestRegistry::start().await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    for fields in [
        // Codings that are not undone here.
        "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
        "Host: a\r\nTransfer-Encoding: identity, chunked\r\n",
        "Host: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nTransfer-Encoding: , chunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked;q=1\r\n",
        "Host: a\r\nTransfer-Encoding: \r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked, identity\r\n",
        "Host: a\r\nTransfer-Encoding: identity\r\n",
        "Host: a\r\nTransfer-Encoding: \"chunked\"\r\n",
        // Lengths.
        "Host: a\r\nContent-Length: 5\r\nContent-Length: 0\r\n",
        "Host: a\r\nContent-Length: 5, 5\r\n",
        "Host: a\r\nContent-Length: +5\r\n",
        "Host: a\r\nContent-Length:\r\n",
        // Fields that some readers see and some do not.
        "Host: a\r\nContent-Length : 5\r\n",
        "Host: a\r\nX: y\r\n Content-Length: 5\r\n",
        "Host: a\r\nX: y\rContent-Length: 5\r\n",
        "Host: a\r\nX: y\0\r\n",
        "Host: a\r\nConnection: keep-alive, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nConnection: content-length\r\nContent-Length: 0\r\n",
        "Host: a\r\nConnection: host\r\n",
        // Hosts.
        "",
        "Host:\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: user@a\r\n",
        "Host: a/path\r\n",
        "Host: a:port\r\n",
        "Host: a:99999\r\n",
        "Host: :5000\r\n",
        "Host : a\r\n",
    ] {
        for body in ["", "0\r\n\r\n"] {
            let answers = answers_to(&registry, &format!("{START}{fields}\r\n{body}")).await;
            assert!(answers.starts_with("HTTP/1.1 400 "), "{fields:?}: {answers:?}");
            assert!(!answers.contains("NAME_UNKNOWN"), "{fields:?}: {answers:?}");
        }
    }
    for request in [
        format!("POST http://user@a/v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\n{chunked}\r\n0\r\n\r\n"),
        format!("POST /v2/a/blobs/uploads/ HTTP/1.0\r\nHost: a\r\n{chunked}\r\n0\r\n\r\n"),
        "GET /v2/ HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
    ] {
        let answers = answers_to(&registry, &request).await;
        let status = answers.split(' ').nth(1);
        assert_eq!(status, Some("400"), "{request:?}: {answers:?}");
        assert!(!answers.contains("NAME_UNKNOWN"), "{request:?}: {answers:?}");
    }
}

/// The chunks count, and what follows is not read (RFC 9112, section 6.1): there is one way to read the request, and no
/// second request.
#[tokio::test]
async fn of_chunks_and_a_length_the_chunks_count_and_the_connection_ends() {
    let registry = TestRegistry::start().await;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let answers = answers_to(&registry, &format!("{START}Host: a\r\n{fields}\r\n0\r\n\r\n")).await;
        assert!(answers.starts_with("HTTP/1.1 202 "), "{answers:?}");
        assert!(!answers.contains("NAME_UNKNOWN"), "{answers:?}");
    }
}

#[tokio::test]
async fn what_clients_send_is_accepted() {
    let registry = TestRegistry::start().await;
    for request in [
        "GET /v2/ HTTP/1.1\r\nHost: registry.example\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: registry_1:5000\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a:\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: TE, close\r\nTE: trailers\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "GET http://other/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v2/ HTTP/1.0\r\n\r\n",
    ] {
        let mut client = Client::connect(registry.address()).await;
        client.send(request).await;
        let answer = client.answer("GET").await;
        assert_eq!(answer.status, 200, "{request:?}");
    }
}

#[tokio::test]
async fn an_http2_request_is_for_one_host() {
    let registry = TestRegistry::start().await;
    let (mut sender, _connection) = connect(registry.address()).await;
    // The client writes `http://registry` as the authority.
    for (hosts, status) in [
        (&["registry"][..], 200),
        (&["REGISTRY:80"], 200),
        (&[], 200),
        (&["other"], 400),
        (&["registry:5000"], 400),
        (&["registry", "registry"], 400),
        (&["user@registry"], 400),
    ] {
        let mut request = request("GET", "/v2/", Pieces::empty());
        for host in hosts {
            request.headers_mut().append("Host", host.parse().unwrap());
        }
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{hosts:?}");
    }
}
