//! Servers that stop.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::time::{Duration, Instant};

use registry_core::storage::{UploadKey, UploadStorage as _};
use registry_http::testing::TestRegistry;
use tokio::net::TcpStream;

use crate::client::{Client, start_upload};
use crate::client_http2::{Pieces, connect, request};
use crate::{eventually, noise};

const LONG: Duration = Duration::from_secs(60);

async fn wait_until_refused(address: std::net::SocketAddr) {
    eventually(async || TcpStream::connect(address).await.is_err().then_some(())).await;
}

#[tokio::test]
async fn what_runs_is_finished() {
    let registry = TestRegistry::start().await;
    let address = registry.address();
    let mut idle = Client::connect(address).await;
    assert_eq!(idle.get("/v2/").await.status, 200);
    let mut client = Client::connect(address).await;
    let location = start_upload(&mut client, "a").await;
    client
        .head("PATCH", &location, &[("Content-Length", "1000000")])
        .await;
    client.send(noise(400_000)).await;
    let (mut sender, connection) = connect(address).await;
    let other = start_upload(&mut Client::connect(address).await, "b").await;
    let (pieces, body) = Pieces::new();
    let answer = tokio::spawn(sender.send_request(request("PATCH", &other, body)));
    pieces.send(noise(10).into()).await.unwrap();
    eventually(async || (registry.requests().len() >= 5).then_some(())).await;

    let shutdown = tokio::spawn(registry.shutdown(LONG));
    wait_until_refused(address).await;
    assert_eq!(idle.rest().await.unwrap(), b"");
    client.send(noise(600_000)).await;
    let answered = client.answer("PATCH").await;
    assert_eq!(
        (answered.status.as_u16(), answered.field("Range")),
        (202, "0-999999")
    );
    assert_eq!(
        answered.field("Connection"),
        "close",
        "it is the last on the connection"
    );
    assert_eq!(client.rest().await.unwrap(), b"");
    pieces.send(noise(10).into()).await.unwrap();
    drop(pieces);
    let answered = answer.await.unwrap().unwrap();
    assert_eq!(answered.headers()["Range"], "0-19");
    assert!(
        !answered.headers().contains_key("Connection"),
        "HTTP/2 has no such field"
    );
    drop(answered);
    connection.await.unwrap();
    shutdown.await.unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_cut_and_notes_how_far_it_came() {
    let registry = TestRegistry::start().await;
    let address = registry.address();
    let storage = std::sync::Arc::clone(registry.registry().storage());
    let mut client = Client::connect(address).await;
    let location = start_upload(&mut client, "a").await;
    client
        .head("PATCH", &location, &[("Content-Length", "1000000")])
        .await;
    client.send(noise(400_000)).await;
    let (mut sender, _connection) = connect(address).await;
    let other = start_upload(&mut Client::connect(address).await, "a").await;
    let (pieces, body) = Pieces::new();
    let _answer = tokio::spawn(sender.send_request(request("PATCH", &other, body)));
    pieces.send(noise(10).into()).await.unwrap();
    eventually(async || (registry.requests().len() >= 4).then_some(())).await;

    let begin = Instant::now();
    let limit = Duration::from_millis(300);
    registry.shutdown(limit).await;
    assert!(begin.elapsed() >= limit && begin.elapsed() < LONG / 10);
    for (location, length) in [(location, 400_000), (other, 10)] {
        let upload = UploadKey {
            repository: "a".parse().unwrap(),
            id: location.rsplit('/').next().unwrap().parse().unwrap(),
            principal: String::new(),
        };
        assert_eq!(storage.upload_status(&upload).await.unwrap(), length);
    }
}

#[tokio::test]
async fn dropping_it_cuts_everything() {
    let registry = TestRegistry::start().await;
    let address = registry.address();
    let storage = std::sync::Arc::downgrade(registry.registry().storage());
    let mut client = Client::connect(address).await;
    let location = start_upload(&mut client, "a").await;
    client
        .head("PATCH", &location, &[("Content-Length", "1000000")])
        .await;
    client.send(noise(1000)).await;
    eventually(async || (registry.requests().len() >= 2).then_some(())).await;
    drop(registry);
    wait_until_refused(address).await;
    assert!(client.try_answer("PATCH").await.is_err());
    // No task holds anything any more.
    eventually(async || storage.upgrade().is_none().then_some(())).await;
}
