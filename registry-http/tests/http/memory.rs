//! What clients that withhold something make a server hold.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::pin::Pin;
use std::time::Duration;

use http_body::Body as _;
use registry_http::testing::TestRegistry;
use registry_http::{Limits, MemoryBudget, MemoryUse, RequestRecord};

use crate::client::{Client, connect_from, push_blob};
use crate::client_http2::{Pieces, connect, connect_with, request};
use crate::{Records, eventually};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Starts a registry with so many bytes for what its clients hold.
async fn registry(memory: usize) -> (TestRegistry, MemoryBudget) {
    let mut limits = Limits::default();
    limits.memory = MemoryBudget::new(memory);
    let budget = limits.memory.clone();
    (TestRegistry::builder().limits(limits).start().await, budget)
}

/// Counts the clients that were told that they are refused. The others have no answer.
async fn count_refusals(clients: &mut [Client], method: &str) -> usize {
    let mut count = 0;
    for client in clients {
        let answer = tokio::time::timeout(Duration::from_millis(50), client.try_answer(method)).await;
        if let Ok(Ok(answer)) = answer {
            answer.expect_refusal_that_passes();
            count += 1;
        }
    }
    count
}

async fn is_given_back(budget: &MemoryBudget) {
    eventually(async || (budget.used() == 0).then_some(())).await;
}

#[tokio::test]
async fn requests_take_memory_until_their_answers_are_taken() {
    let (registry, budget) = registry(8 << 20).await;
    assert_eq!(budget.used(), 0);
    let mut client = Client::connect(registry.address()).await;
    assert_eq!(client.get("/v2/").await.status, 200);
    let idle = eventually(async || (budget.used() < 20_000).then(|| budget.used())).await;
    assert!(idle > 0, "a connection takes some");
    let digest = push_blob(&mut client, "a", &vec![7; 1 << 20]).await;
    let target = format!("/v2/a/blobs/{digest}");
    let (mut sender, connection) = connect(registry.address()).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(
            sender
                .send_request(request("GET", &target, Pieces::empty()))
                .await
                .unwrap(),
        );
    }
    assert!(budget.used() > 50 * 8000, "{budget:?}");
    drop((answers, sender, client));
    connection.abort();
    is_given_back(&budget).await;
}

#[tokio::test]
async fn connections_that_hold_headers_leave_memory_for_others() {
    let (registry, budget) = registry(2 << 20).await;
    let mut holding = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(registry.address()).await;
        let sent = client.try_send(format!(
            "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {}",
            "x".repeat(60_000)
        ));
        drop(sent.await);
        holding.push(client);
    }
    eventually(async || (budget.refused(MemoryUse::Header) > 0).then_some(())).await;
    assert!(budget.used() < budget.capacity(), "{budget:?}");
    assert!(count_refusals(&mut holding, "GET").await > 0);
    let mut other = connect_from(2, &registry).await;
    assert_eq!(other.get("/v2/").await.status, 200);
    drop((holding, other));
    is_given_back(&budget).await;
}

/// Each address may have three times as much as is free: six of them would leave nothing.
#[tokio::test]
async fn many_greedy_addresses_leave_memory_for_a_new_one_because_the_greediest_is_put_out() {
    let (registry, budget) = registry(4 << 20).await;
    let hold = async |address| {
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = connect_from(address, &registry).await;
            let header = format!("GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(60_000));
            drop(client.try_send(header).await);
            clients.push(client);
        }
        clients
    };
    let mut holding = Vec::new();
    for address in 10..30 {
        holding.push(hold(address).await);
        // Whoever comes between is served at once, and with more than a little.
        let mut other = connect_from(100 + address, &registry).await;
        assert_eq!(other.get("/v2/").await.status, 200, "{address} {budget:?}");
        let field = "x".repeat(50_000);
        let answer = other.call("GET", "/v2/", &[("X", &field)], b"").await;
        assert_eq!(answer.status, 200, "{address} {budget:?}");
    }
    // Soon there is some to spare again.
    eventually(async || (budget.used() <= budget.capacity() / 8 * 7).then_some(())).await;
    drop(holding);
    is_given_back(&budget).await;
}

#[tokio::test]
async fn the_system_holds_little_of_an_answer_that_nobody_takes() {
    let records = Records::default();
    let registry = TestRegistry::builder()
        .observer(std::sync::Arc::new(records.clone()))
        .start()
        .await;
    let mut client = Client::connect(registry.address()).await;
    let digest = push_blob(&mut client, "a", &vec![7; 16 << 20]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = Client::of(socket.connect(registry.address()).await.unwrap());
    stalled.head("GET", &format!("/v2/a/blobs/{digest}"), &[]).await;
    stalled.stream.readable().await.unwrap();
    // What is asked for next waits as well.
    for _ in 0..20 {
        assert_eq!(client.get("/v2/").await.status, 200);
    }
    drop(stalled);
    let of_blob = |record: &RequestRecord| record.digest.is_some() && record.method == "GET";
    let sent = records.wait(of_blob).await.sent;
    assert!((1..3 << 20).contains(&sent), "{sent}");
}

#[tokio::test]
async fn a_header_that_is_too_long_is_answered_431() {
    let (registry, _) = registry(8 << 20).await;
    let mut client = Client::connect(registry.address()).await;
    let long = "x".repeat(70_000);
    drop(
        client
            .try_send(format!("GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"))
            .await,
    );
    assert_eq!(client.answer("GET").await.status, 431);
    let mut client = Client::connect(registry.address()).await;
    client.head("GET", "/v2/", &[("X", &long[..50_000])]).await;
    assert_eq!(client.answer("GET").await.status, 200);
}

#[tokio::test]
async fn too_many_streams_of_one_client_are_refused_and_others_are_served() {
    let (registry, budget) = registry(2 << 20).await;
    let mut client = Client::connect(registry.address()).await;
    let digest = push_blob(&mut client, "a", &vec![7; 1 << 20]).await;
    let target = format!("/v2/a/blobs/{digest}");
    let (mut sender, connection) = connect(registry.address()).await;
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..120 {
        let answer = sender
            .send_request(request("GET", &target, Pieces::empty()))
            .await
            .unwrap();
        if answer.status() == 200 {
            held.push(answer);
        } else {
            refused.push(answer);
        }
    }
    assert!(
        held.len() > 50 && refused.len() > 10,
        "{} {}",
        held.len(),
        refused.len()
    );
    for answer in refused {
        assert!(matches!(answer.status().as_u16(), 429 | 503), "{answer:?}");
        assert_eq!(answer.headers()["Retry-After"], "1");
    }
    let mut other = connect_from(2, &registry).await;
    for _ in 0..20 {
        assert_eq!(other.get("/v2/").await.status, 200);
    }
    client.get("/v2/").await.expect_refusal_that_passes();
    drop((held, sender, client, other));
    connection.abort();
    is_given_back(&budget).await;
}

/// Returns what comes of an answer's body, and whether that was all of it.
async fn body_of(answer: http::Response<hyper::body::Incoming>) -> (Vec<u8>, bool) {
    let (mut body, mut bytes) = (answer.into_body(), Vec::new());
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => return (bytes, false),
        }
    }
    (bytes, true)
}

#[tokio::test]
async fn a_refusal_over_http2_has_its_body_and_holds_nothing_of_who_does_not_take_it() {
    let (registry, budget) = registry(1 << 20).await;
    let (mut open, open_connection) = connect(registry.address()).await;
    let (mut closed, closed_connection) = connect_with(registry.address(), 0).await;
    for sender in [&mut open, &mut closed] {
        sender.ready().await.unwrap();
    }
    let ask = |target: &str| request("GET", target, Pieces::empty());
    let target = format!("/v2/a/blobs/uploads/?digest=sha256:{}", "0".repeat(64));
    let mut held = Vec::new();
    let (mut read, mut unread) = (0, 0);
    while read < 3 || unread < 3 {
        let answer = open.send_request(ask("/v2/")).await.unwrap();
        // The address may have more as long as the smallest request is answered.
        if answer.status() == 200 {
            let (mut holding, connection) = connect(registry.address()).await;
            let pushes = (0..10).map(|_| {
                let (pieces, body) = Pieces::new();
                let mut push = request("POST", &target, body);
                // Of a long body, a push would take more than is left, and be refused itself.
                push.headers_mut()
                    .insert("Content-Length", http::HeaderValue::from_static("9"));
                (pieces, holding.send_request(push))
            });
            held.push((pushes.collect::<Vec<_>>(), connection));
            continue;
        }
        let code = match answer.status().as_u16() {
            429 => "TOOMANYREQUESTS",
            503 => "UNAVAILABLE",
            _ => panic!("{answer:?}"),
        };
        assert_eq!(answer.headers()["Content-Type"], "application/json");
        let (body, is_whole) = body_of(answer).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((body["errors"][0]["code"].as_str(), is_whole), (Some(code), true));
        read += 1;
        // No body waits for who lets nothing through. The reset may overtake the status.
        match closed.send_request(ask("/v2/")).await {
            Ok(answer) if answer.status() == 200 => {}
            Ok(answer) => {
                assert!(matches!(answer.status().as_u16(), 429 | 503), "{answer:?}");
                assert_eq!(body_of(answer).await, (Vec::new(), false));
                unread += 1;
            }
            Err(_) => unread += 1,
        }
    }
    for (_, connection) in &held {
        connection.abort();
    }
    open_connection.abort();
    closed_connection.abort();
    drop((held, open, closed));
    is_given_back(&budget).await;
}

#[tokio::test]
async fn stalled_pushes_of_manifests_are_bounded_and_others_push() {
    let (registry, budget) = registry(8 << 20).await;
    let large = vec![b' '; 1 << 20];
    let length = (large.len() + 1).to_string();
    let mut stalled = Vec::new();
    for number in 0..20 {
        let mut client = Client::connect(registry.address()).await;
        let fields = [("Content-Type", IMAGE), ("Content-Length", &*length)];
        client
            .head("PUT", &format!("/v2/a/manifests/{number}"), &fields)
            .await;
        drop(client.try_send(&large).await);
        stalled.push(client);
    }
    eventually(async || (budget.refused(MemoryUse::Manifest) > 5).then_some(())).await;
    assert!(budget.used() < budget.capacity(), "{budget:?}");
    let mut other = connect_from(2, &registry).await;
    let config = push_blob(&mut other, "b", b"{}").await;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2}},"layers":[]}}"#
    );
    let fields = [("Content-Type", IMAGE)];
    let pushed = other.call("PUT", "/v2/b/manifests/1", &fields, manifest.as_bytes());
    assert_eq!(pushed.await.status, 201);
    // Who was refused is told.
    let answers = count_refusals(&mut stalled, "PUT").await;
    assert!(answers > 5, "{answers}");
    drop((stalled, other));
    is_given_back(&budget).await;
}

#[tokio::test]
async fn bodies_that_wait_in_an_http2_connection_are_counted() {
    let (registry, budget) = registry(8 << 20).await;
    let mut client = Client::connect(registry.address()).await;
    let location = crate::client::start_upload(&mut client, "a").await;
    let (sender, connection) = connect(registry.address()).await;
    let before = budget.used();
    // The first holds the session; the others are not read.
    let (pieces, body) = Pieces::new();
    let mut sending = sender.clone();
    let push = tokio::spawn(async move { sending.send_request(request("PATCH", &location, body)).await });
    for _ in 0..100 {
        pieces.send(vec![7; 100_000].into()).await.unwrap();
    }
    // What was used is not held.
    eventually(async || (budget.used() < before + 300_000).then_some(())).await;
    drop(pieces);
    assert_eq!(push.await.unwrap().unwrap().status(), 202);
    drop((client, sender));
    connection.abort();
    is_given_back(&budget).await;
}
