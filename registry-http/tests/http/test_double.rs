//! The registry for tests: what it tells, and what it does wrong when asked to.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use registry_http::testing::{BlockingTestRegistry, RegistryEndpoint, TestRegistry};

use crate::client::{Client, push_blob};
use crate::client_http2::{Pieces, connect, request};
use crate::noise;

#[tokio::test]
async fn the_journal_has_what_was_asked_in_its_order() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let digest = push_blob(client, "a", b"hello").await;
    client
        .call("GET", "/nonsense", &[("Range", "bytes=0-0")], b"")
        .await;
    let seen: Vec<_> = registry
        .requests()
        .into_iter()
        .map(|entry| {
            (
                entry.endpoint,
                entry.method.to_string(),
                entry.status.map(|status| status.as_u16()),
            )
        })
        .collect();
    let expected = [
        (Some(RegistryEndpoint::StartUpload), "POST", 202),
        (Some(RegistryEndpoint::AppendUpload), "PATCH", 202),
        (Some(RegistryEndpoint::FinishUpload), "PUT", 201),
        (None, "GET", 404),
    ];
    let expected = expected.map(|(endpoint, method, status)| (endpoint, method.to_owned(), Some(status)));
    assert_eq!(seen, expected);
    let requests = registry.requests();
    assert_eq!(requests[2].query, Some(format!("_state=5&digest={digest}")));
    assert_eq!(
        (&*requests[3].path, &requests[3].header["Range"]),
        ("/nonsense", &"bytes=0-0".parse().unwrap())
    );
    registry.clear_requests();
    assert!(registry.requests().is_empty());
}

#[tokio::test]
async fn a_call_is_answered_with_a_status() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let target = format!("/v2/a/blobs/{}", push_blob(client, "a", b"hello").await);
    registry.fail(RegistryEndpoint::GetBlob, 2).status(503);
    registry.fail(RegistryEndpoint::GetBlob, 3).status(429);
    registry.fail(RegistryEndpoint::StartUpload, 1).status(418);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        client.get("/v2/").await;
        statuses.push(client.get(&target).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 503, 429, 200]);
    let answer = client.call("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (418, "UNSUPPORTED")
    );
    assert_eq!(registry.requests().last().unwrap().status.unwrap(), 418);

    // A push that fails has no effect.
    let target = format!("/v2/a/blobs/uploads/?digest={}", crate::digest(b"other"));
    registry.fail(RegistryEndpoint::UploadBlob, 1).status(500);
    assert_eq!(client.call("POST", &target, &[], b"other").await.status, 500);
    let target = format!("/v2/a/blobs/{}", crate::digest(b"other"));
    assert_eq!(client.get(&target).await.status, 404);
}

#[tokio::test]
async fn a_call_is_late() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let delay = Duration::from_millis(200);
    registry.fail(RegistryEndpoint::Version, 1).delay(delay);
    registry.fail(RegistryEndpoint::Version, 1).status(500);
    let begin = Instant::now();
    assert_eq!(client.get("/v2/").await.status, 500);
    assert!(begin.elapsed() >= delay);
    let begin = Instant::now();
    assert_eq!(client.get("/v2/").await.status, 200);
    assert!(begin.elapsed() < delay);
}

#[tokio::test]
async fn a_body_is_cut_short() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let blob = noise(3_000_000);
    let target = format!("/v2/a/blobs/{}", push_blob(client, "a", &blob).await);
    for length in [0, 1, 1_234_567] {
        registry.fail(RegistryEndpoint::GetBlob, 1).truncate(length);
        let mut client = Client::connect(registry.address()).await;
        client.head("GET", &target, &[]).await;
        let all = client.rest().await.unwrap();
        let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(
            String::from_utf8_lossy(&all[..end])
                .to_lowercase()
                .contains("content-length: 3000000")
        );
        assert_eq!(all.len() - end, usize::try_from(length).unwrap());
        assert!(blob.starts_with(&all[end..]));
    }
    registry.fail(RegistryEndpoint::GetBlob, 1).truncate(3_000_000);
    registry.fail(RegistryEndpoint::GetBlob, 2).truncate(5_000_000);
    for _ in 0..2 {
        assert!(client.get(&target).await.body == blob);
    }
    let (mut sender, _connection) = connect(registry.address()).await;
    registry.fail(RegistryEndpoint::GetBlob, 1).truncate(1000);
    let answer = sender
        .send_request(request("GET", &target, Pieces::empty()))
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-length"], "3000000");
    http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_connection_is_reset() {
    let registry = TestRegistry::start().await;
    registry.fail(RegistryEndpoint::Version, 1).reset();
    let mut client = Client::connect(registry.address()).await;
    client.head("GET", "/v2/", &[]).await;
    let error = client.rest().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(registry.requests().first().unwrap().status, None);
    let mut client = Client::connect(registry.address()).await;
    assert_eq!(client.get("/v2/").await.status, 200);
}

#[test]
fn a_test_without_a_runtime_has_a_registry_too() {
    let registry = BlockingTestRegistry::start();
    registry.fail(RegistryEndpoint::Version, 2).status(500);
    let get = || {
        let mut stream = std::net::TcpStream::connect(registry.host()).unwrap();
        stream
            .write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get().starts_with("HTTP/1.1 200 "));
    assert!(get().starts_with("HTTP/1.1 500 "));
    assert_eq!(registry.url(), format!("http://{}", registry.host()));
    assert_eq!(registry.requests().len(), 2);
    let host = registry.host().to_owned();
    drop(registry);
    std::net::TcpStream::connect(host).unwrap_err();
}
