//! Clients that are slow, silent or gone.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use registry_core::registry::Options;
use registry_core::{ErrorCode, Event, Registry};
use registry_http::testing::TestRegistry;
use registry_http::{EventSink, Limits, RegistryService, RequestRecord, Server};
use registry_storage::Store;
use registry_storage::filesystem::FilesystemBackend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use crate::client::{Client, connect_from, push_blob, start_upload};
use crate::client_http2::{Pieces, WINDOW, connect, connect_with, request};
use crate::{Records, eventually, noise};

/// Shorter than a test may take, longer than what is done at once.
const SHORT: Duration = Duration::from_millis(300);

fn impatient() -> Limits {
    let mut limits = Limits::default();
    limits.header_timeout = SHORT;
    limits.idle_timeout = SHORT;
    limits.request_body_timeout = SHORT;
    limits.response_timeout = SHORT;
    limits.permit_timeout = SHORT;
    limits.drain_timeout = SHORT;
    limits
}

async fn impatient_registry() -> (TestRegistry, Records) {
    let records = Records::default();
    let registry = TestRegistry::builder()
        .limits(impatient())
        .observer(Arc::new(records.clone()))
        .start()
        .await;
    (registry, records)
}

/// Waits until a session stands at `length`, as the field `Range` tells it.
async fn wait_for_status(address: SocketAddr, location: &str, length: usize) {
    let range = format!("0-{}", length - 1);
    eventually(async || {
        let answer = Client::connect(address).await.get(location).await;
        assert_eq!(answer.status, 204);
        (answer.field("Range") == range).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_does_not_finish_its_header_is_closed() {
    let (registry, _) = impatient_registry().await;
    for bytes in ["", "PRI * HTTP/2", "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut client = Client::connect(registry.address()).await;
        let begin = Instant::now();
        client.send(bytes).await;
        assert_eq!(client.rest().await.unwrap_or_default(), b"", "{bytes}");
        assert!(begin.elapsed() >= SHORT, "{bytes}");
    }
    // One byte at a time does not help.
    let mut client = Client::connect(registry.address()).await;
    client.send("GET /v2/ HTTP/1.1\r\n").await;
    eventually(async || {
        tokio::time::sleep(SHORT / 10).await;
        let end = client.stream.write_all(b"X").await;
        end.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let (registry, _) = impatient_registry().await;
    let mut client = Client::connect(registry.address()).await;
    assert_eq!(client.get("/v2/").await.status, 200);
    assert_eq!(client.rest().await.unwrap(), b"");
    let (mut sender, connection) = connect(registry.address()).await;
    let answer = sender
        .send_request(request("GET", "/v2/", Pieces::empty()))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    connection.await.unwrap();
}

/// Makes the server's timers run out before it can see what came, on the one thread that both run on.
fn hold_up_the_server(since: Instant, idle: Duration) {
    while since.elapsed() < idle + idle / 2 {
        std::hint::spin_loop();
    }
}

#[tokio::test]
async fn a_request_that_has_come_when_an_idle_connection_would_be_closed_is_answered() {
    let (registry, _) = impatient_registry().await;
    for first in [true, false].repeat(3) {
        let mut client = Client::connect(registry.address()).await;
        let begin = Instant::now();
        if !first {
            assert_eq!(client.get("/v2/").await.status, 200);
        } else {
            client.send("G").await;
            tokio::time::sleep(SHORT / 10).await;
        }
        hold_up_the_server(begin, SHORT);
        let rest = if first { "ET" } else { "GET" };
        client
            .send(format!("{rest} /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let answer = client.answer("GET").await;
        assert_eq!(answer.status, 200);
        // Who is not told that it was the last one can ask again.
        if !answer.header.contains_key("Connection") {
            assert_eq!(client.get("/v2/").await.status, 200);
        }
        assert_eq!(client.rest().await.unwrap(), b"");
    }
}

#[tokio::test]
async fn a_request_that_has_come_when_the_server_stops_is_answered() {
    for _ in 0..8 {
        let (registry, _) = impatient_registry().await;
        let mut client = Client::connect(registry.address()).await;
        assert_eq!(client.get("/v2/").await.status, 200);
        client.send("GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (answer, ()) = tokio::join!(client.answer("GET"), registry.shutdown(SHORT * 10));
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_connection_stays_as_long_as_idle_says_and_a_header_as_long_as_its_own_limit() {
    let mut limits = impatient();
    limits.idle_timeout = Duration::from_secs(60);
    let registry = TestRegistry::builder().limits(limits).start().await;
    let mut client = Client::connect(registry.address()).await;
    for _ in 0..2 {
        assert_eq!(client.get("/v2/").await.status, 200);
        // Longer than a header may take.
        tokio::time::sleep(SHORT * 2).await;
    }
    let begin = Instant::now();
    client.send("GET /v2/ HTTP/1.1\r\n").await;
    assert_eq!(client.rest().await.unwrap_or_default(), b"");
    assert!(begin.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_answered_408_and_what_came_is_kept() {
    let (registry, records) = impatient_registry().await;
    let mut client = Client::connect(registry.address()).await;
    let location = start_upload(&mut client, "a").await;
    client
        .head("PATCH", &location, &[("Content-Length", "1000000")])
        .await;
    client.send(noise(300_000)).await;
    let answer = client.answer("PATCH").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (408, "BLOB_UPLOAD_INVALID")
    );
    assert_eq!(answer.field("Connection"), "close");
    client.rest().await.unwrap();
    wait_for_status(registry.address(), &location, 300_000).await;
    let record = records.wait(|record| record.status == Some(408)).await;
    assert_eq!(record.received, 300_000);

    let (mut sender, _connection) = connect(registry.address()).await;
    let (pieces, body) = Pieces::new();
    pieces.send(noise(10_000).into()).await.unwrap();
    let answer = sender
        .send_request(request("PATCH", &location, body))
        .await
        .unwrap();
    assert_eq!(answer.status(), 408);
    wait_for_status(registry.address(), &location, 310_000).await;
    // The other requests of the connection go on.
    let answer = sender
        .send_request(request("GET", "/v2/", Pieces::empty()))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_slow_body_is_taken_for_as_long_as_it_takes() {
    let (registry, _) = impatient_registry().await;
    let mut client = Client::connect(registry.address()).await;
    let location = start_upload(&mut client, "a").await;
    client.head("PATCH", &location, &[("Content-Length", "10")]).await;
    let begin = Instant::now();
    for byte in 0..10 {
        tokio::time::sleep(SHORT / 4).await;
        client.send([byte]).await;
    }
    assert!(begin.elapsed() > 2 * SHORT);
    assert_eq!(client.answer("PATCH").await.status, 202);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_and_a_slow_one_is_not() {
    let (registry, records) = impatient_registry().await;
    let size = 32 * 1024 * 1024;
    let mut client = Client::connect(registry.address()).await;
    let digest = push_blob(&mut client, "a", &noise(size)).await;
    let target = format!("/v2/a/blobs/{digest}");
    let mut client = Client::connect(registry.address()).await;
    client.head("GET", &target, &[]).await;
    let record = records.wait(|record| record.path == target).await;
    // The body is gone, and with it the handle and the buffers.
    assert!(!record.is_complete && record.duration >= SHORT, "{record:?}");
    assert!(record.sent < size as u64);
    assert!(client.rest().await.map_or(true, |rest| rest.len() < size));

    // As fast as a megabyte each tenth of the limit.
    let mut client = Client::connect(registry.address()).await;
    client.head("GET", &target, &[]).await;
    let begin = Instant::now();
    let mut taken = 0;
    let mut buffer = vec![0; 1024 * 1024];
    while taken < size {
        let read = client.stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "cut after {taken} bytes");
        taken += read;
        tokio::time::sleep(SHORT / 30).await;
    }
    assert!(begin.elapsed() > SHORT);
}

#[tokio::test]
async fn an_http2_client_that_keeps_its_window_shut_loses_what_it_asked_for() {
    let records = Records::default();
    let mut limits = impatient();
    // It is not for want of requests.
    limits.idle_timeout = Duration::from_secs(60);
    let registry = TestRegistry::builder()
        .limits(limits)
        .observer(Arc::new(records.clone()))
        .start()
        .await;
    let mut client = Client::connect(registry.address()).await;
    let digest = push_blob(&mut client, "a", &noise(32 * 1024 * 1024)).await;
    let target = format!("/v2/a/blobs/{digest}");
    let (mut sender, _connection) = connect(registry.address()).await;
    let answer = sender
        .send_request(request("GET", &target, Pieces::empty()))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let record = records.wait(|record| record.path == target).await;
    assert!(!record.is_complete && record.duration >= SHORT, "{record:?}");
    answer.into_body().collect().await.unwrap_err();
}

/// Neither pings nor other streams are progress of a stream.
#[tokio::test]
async fn an_http2_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let records = Records::default();
    let mut limits = impatient();
    limits.idle_timeout = Duration::from_secs(60);
    let registry = TestRegistry::builder()
        .limits(limits)
        .observer(Arc::new(records.clone()))
        .start()
        .await;
    let mut client = Client::connect(registry.address()).await;
    let (large, whole) = (noise(1 << 20), noise(100_000));
    let large = push_blob(&mut client, "a", &large).await;
    let whole = push_blob(&mut client, "a", &whole).await;
    // The client's connection has a window that lets more than one stream through.
    let stream = tokio::net::TcpStream::connect(registry.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(1 << 24)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let target = format!("/v2/a/blobs/{large}");
    let other = format!("/v2/a/blobs/{whole}");
    // Of one the end is ready and the last bytes wait, of the other there is more to come.
    let mut stalled = Vec::new();
    for target in [&target, &other] {
        let pull = sender.send_request(request("GET", target, Pieces::empty()));
        let answer = pull.await.unwrap();
        assert_eq!(answer.status(), 200);
        stalled.push(answer);
    }
    let is_reset = async {
        for answer in stalled {
            let record = records.wait(|record| record.path == target).await;
            assert!(record.duration >= SHORT, "{record:?}");
            answer.into_body().collect().await.unwrap_err();
        }
    };
    let goes_on = async {
        loop {
            let pull = sender
                .clone()
                .send_request(request("GET", &other, Pieces::empty()));
            let answer = pull.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(answer.to_bytes().len(), 100_000);
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::select! {
        () = goes_on => {}
        () = is_reset => {}
    }
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn an_http2_client_that_only_pings_is_sent_away() {
    let (registry, _) = impatient_registry().await;
    let mut stream = Client::connect(registry.address()).await.stream;
    // The preface with empty settings, and frames of the type PING (RFC 9113, sections 3.4 and 6.7).
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    let pings = async {
        let mut answer = [0; 4096];
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                read = stream.read(&mut answer) => if matches!(read, Ok(0) | Err(_)) {
                    return;
                },
                _ = ticks.tick() => {}
            }
            if stream.write_all(b"\0\0\x08\x06\0\0\0\0\0pingping").await.is_err() {
                return;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), pings).await;
    ended.expect("the connection is closed");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_an_upload_that_goes_on_where_it_stopped() {
    let (registry, records) = impatient_registry().await;
    interrupt_an_upload(registry.address()).await;
    let record = records.wait(|record| record.method == "PATCH").await;
    assert_eq!(record.received, 700_000);
    assert_eq!(record.error.unwrap().code(), ErrorCode::BodyInterrupted);
}

/// On a disk the handler waits for the disk when it notes how far it came, and is dropped there.
#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_on_a_disk() {
    let root = tempfile::tempdir().unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    let registry = Registry::new(Arc::new(Store::new(backend)), Options::default());
    let service = RegistryService::new(registry, Limits::default());
    let server = Server::bind("127.0.0.1:0", service, Limits::default())
        .await
        .unwrap();
    interrupt_an_upload(server.addresses()[0].tcp().unwrap()).await;
    server.shutdown(SHORT).await;
}

/// Pushes a blob over connections that end in its middle.
async fn interrupt_an_upload(address: SocketAddr) {
    let blob = noise(2_000_000);
    let mut client = Client::connect(address).await;
    let location = start_upload(&mut client, "a").await;
    client
        .head("PATCH", &location, &[("Content-Length", "2000000")])
        .await;
    client.send(&blob[..700_000]).await;
    drop(client);
    wait_for_status(address, &location, 700_000).await;

    // By HTTP/2: a stream that is reset while the others go on, and a connection that is cut.
    let (sender, connection) = connect(address).await;
    for (from, to) in [(700_000, 710_000), (710_000, 725_000)] {
        let (pieces, body) = Pieces::new();
        pieces.send(blob[from..to].to_vec().into()).await.unwrap();
        let mut answer = Box::pin(sender.clone().send_request(request("PATCH", &location, body)));
        // The server reads a connection in its order, so it has the bytes when it answers what was sent after them.
        let arrive = async {
            eventually(async || (pieces.capacity() == 1).then_some(())).await;
            let mut other = sender.clone();
            let answer = other.send_request(request("GET", "/v2/", Pieces::empty())).await;
            assert_eq!(answer.unwrap().status(), 200);
        };
        tokio::select! {
            _ = &mut answer => panic!("the body has not ended"),
            () = arrive => {}
        }
        if to == 725_000 {
            connection.abort();
        }
        drop(answer);
        drop(pieces);
        wait_for_status(address, &location, to).await;
    }

    let mut client = Client::connect(address).await;
    let answer = client.call("PATCH", &location, &[], &blob[725_000..]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.field("Range")),
        (202, "0-1999999")
    );
    let target = format!("{location}?digest={}", crate::digest(&blob));
    assert_eq!(client.call("PUT", &target, &[], b"").await.status, 201);
}

/// Lets requests in when a test says so.
#[derive(Debug)]
struct Gate(Semaphore);

impl EventSink for Gate {
    fn accept<'a>(&'a self, _: &'a Event, _: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(async { self.0.acquire().await.unwrap().forget() })
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_and_are_then_told_to_come_back() {
    let mut limits = impatient();
    limits.requests = 1;
    let gate = Arc::new(Gate(Semaphore::new(0)));
    let registry = TestRegistry::builder()
        .limits(limits)
        .event_sink(Arc::clone(&gate) as _)
        .start()
        .await;
    // The server works on it until its event was taken.
    let mut first = Client::connect(registry.address()).await;
    let target = format!("/v2/a/blobs/uploads/?digest={}", crate::digest(b"hello"));
    let length = [("Content-Length", "5")];
    first.head("POST", &target, &length).await;
    first.send("hello").await;
    let mut second = Client::connect(registry.address()).await;
    let answer = eventually(async || {
        let answer = second.get("/v2/").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 503);
    answer.expect_refusal_that_passes();
    // One that waits for a permit gets it.
    second.head("GET", "/v2/", &[]).await;
    gate.0.add_permits(1);
    assert_eq!(first.answer("POST").await.status, 201);
    assert_eq!(second.answer("GET").await.status, 200);
}

/// A permit is for the work of the server, not for the time that a client takes.
#[tokio::test]
async fn who_sends_nothing_or_takes_nothing_keeps_nobody_from_having_a_turn() {
    let mut limits = Limits::default();
    limits.requests = 1;
    limits.permit_timeout = SHORT;
    let registry = TestRegistry::builder().limits(limits).start().await;
    let mut client = Client::connect(registry.address()).await;
    let digest = push_blob(&mut client, "a", &noise(32 << 20)).await;
    let location = start_upload(&mut client, "a").await;
    let pull = format!("/v2/a/blobs/{digest}");
    let manifest = "/v2/a/manifests/latest";
    let length = ("Content-Length", "1000");
    let mut stalled = Vec::new();
    for (method, target) in [("PATCH", &*location), ("PUT", manifest), ("GET", &pull)] {
        for sent in [&b""[..], b"{"] {
            let mut client = Client::connect(registry.address()).await;
            client
                .head(method, target, &[length][..usize::from(method != "GET")])
                .await;
            if method != "GET" {
                client.send(sent).await;
            }
            stalled.push(client);
        }
    }
    // By HTTP/2, with windows that stay shut.
    let (mut sender, _connection) = connect(registry.address()).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let answer = sender
            .send_request(request("GET", &pull, Pieces::empty()))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answers.push(answer);
    }
    let mut other = Client::connect(registry.address()).await;
    for _ in 0..20 {
        assert_eq!(other.get("/v2/").await.status, 200);
    }
    drop((stalled, answers));
}

/// Asks for a short answer with so large a window, and goes on with requests that need none until `is_over`.
async fn take_nothing(window: u32, mut is_over: impl FnMut(&mut BoxFuture<'_, bool>, bool) -> bool) {
    let (registry, _) = impatient_registry().await;
    let (mut sender, connection) = connect_with(registry.address(), window).await;
    let get = request("GET", "/v2/", Pieces::empty());
    let answer = sender.send_request(get).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body: BoxFuture<'_, bool> = Box::pin(async { answer.into_body().collect().await.is_err() });
    eventually(async || {
        let head = request("HEAD", "/v2/", Pieces::empty());
        drop(sender.send_request(head).await);
        tokio::time::sleep(SHORT / 10).await;
        is_over(&mut body, connection.is_finished()).then_some(())
    })
    .await;
}

/// The end of a short answer is told with its bytes, so that its stream cannot be reset. Other requests of the connection
/// do not keep it alive.
#[tokio::test]
async fn a_short_answer_that_is_not_taken_costs_an_http2_connection() {
    take_nothing(1, |_, is_finished| is_finished).await;
}

/// Nothing of the answer was made yet.
#[tokio::test]
async fn a_stream_whose_window_stays_shut_is_reset_whatever_else_the_connection_does() {
    take_nothing(0, |body, is_finished| {
        assert!(!is_finished);
        body.now_or_never() == Some(true)
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let mut limits = Limits::default();
    limits.connections = 1;
    let registry = TestRegistry::builder().limits(limits).start().await;
    let mut first = Client::connect(registry.address()).await;
    assert_eq!(first.get("/v2/").await.status, 200);
    let mut second = Client::connect(registry.address()).await;
    second.head("GET", "/v2/", &[]).await;
    let wait = tokio::time::timeout(SHORT, second.stream.readable()).await;
    assert!(wait.is_err(), "it was answered");
    drop(first);
    assert_eq!(second.answer("GET").await.status, 200);
}

#[tokio::test]
async fn many_addresses_whose_pulls_stand_still_keep_nobody_out() {
    let mut limits = Limits::default();
    limits.connections = 100;
    let registry = TestRegistry::builder().limits(limits).start().await;
    let digest = {
        let mut client = Client::connect(registry.address()).await;
        push_blob(&mut client, "a", &vec![7; 16 << 20]).await
    };
    let target = format!("/v2/a/blobs/{digest}");
    let mut stalled = Vec::new();
    for address in 2..8 {
        for _ in 0..60 {
            let mut client = connect_from(address, &registry).await;
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            drop(client.try_send(head).await);
            stalled.push(client);
        }
    }
    for address in 100..104 {
        let mut client = connect_from(address, &registry).await;
        let answered = tokio::time::timeout(Duration::from_secs(20), client.get("/v2/"));
        assert_eq!(answered.await.expect("there is room").status, 200);
        stalled.push(client);
    }
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let mut limits = Limits::default();
    limits.connections = 4;
    let registry = TestRegistry::builder().limits(limits).start().await;
    let digest = {
        let mut client = Client::connect(registry.address()).await;
        push_blob(&mut client, "a", &vec![7; 16 << 20]).await
    };
    // A pull that is slow, a connection that was used, one that says nothing and one that stops within a header.
    let mut slow = Client::connect(registry.address()).await;
    slow.head("GET", &format!("/v2/a/blobs/{digest}"), &[]).await;
    slow.stream.readable().await.unwrap();
    let mut used = Client::connect(registry.address()).await;
    assert_eq!(used.get("/v2/").await.status, 200);
    let _silent = Client::connect(registry.address()).await;
    let mut stuck = Client::connect(registry.address()).await;
    stuck.send(b"GET /v2/ HTTP/1.1\r\n").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(registry.address()).await;
        let answered = tokio::time::timeout(Duration::from_secs(20), client.get("/v2/"));
        assert_eq!(answered.await.expect("there is room").status, 200);
        clients.push(client);
    }
    assert_eq!(slow.answer("GET").await.body.len(), 16 << 20, "what runs goes on");
}
