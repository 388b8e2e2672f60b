//! What is told of requests.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use registry_core::Event;
use registry_core::storage::BlobStorage as _;
use registry_http::PeerAddress;
use registry_http::testing::TestRegistry;
use registry_http::{EventSink, RequestRecord};
use tokio::sync::Semaphore;
use tracing_subscriber::fmt::MakeWriter;

use crate::Records;
use crate::client::{Client, push_blob, start_upload};
use crate::{eventually, noise};

#[tokio::test]
async fn each_request_is_told_of_once_when_it_is_over() {
    let records = Records::default();
    let registry = TestRegistry::builder()
        .observer(Arc::new(records.clone()))
        .start()
        .await;
    let client = &mut Client::connect(registry.address()).await;
    let digest = push_blob(client, "a/b", &noise(300_000)).await;
    client.get(&format!("/v2/a/b/blobs/{digest}?ns=docker.io")).await;
    client.get("/nonsense").await;
    client
        .call("HEAD", &format!("/v2/a/b/blobs/{digest}"), &[], b"")
        .await;

    let get = records.wait(|record| record.method == "GET").await;
    assert_eq!(get.path, format!("/v2/a/b/blobs/{digest}"));
    assert_eq!((get.status, get.sent, get.received), (Some(200), 300_000, 0));
    assert_eq!(get.repository.unwrap().to_string(), "a/b");
    assert_eq!(
        get.peer,
        Some(PeerAddress::Tcp(client.stream.local_addr().unwrap()))
    );
    assert!(get.is_complete && get.error.is_none());
    let patch = records.wait(|record| record.method == "PATCH").await;
    assert_eq!(
        (patch.status, patch.received, patch.sent),
        (Some(202), 300_000, 0)
    );
    let refused = records.wait(|record| record.status == Some(404)).await;
    assert_eq!((refused.repository, refused.is_complete), (None, true));
    assert_eq!(
        refused.error.unwrap().code(),
        registry_core::ErrorCode::PathUnknown
    );
    let head = records.wait(|record| record.method == "HEAD").await;
    assert_eq!((head.status, head.sent, head.is_complete), (Some(200), 0, true));
    assert_eq!(records.0.lock().unwrap().len(), registry.requests().len());
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_of_at_once() {
    let records = Records::default();
    let registry = TestRegistry::builder()
        .observer(Arc::new(records.clone()))
        .start()
        .await;
    let mut client = Client::connect(registry.address()).await;
    let digest = push_blob(&mut client, "a", &noise(32 * 1024 * 1024)).await;
    client.head("GET", &format!("/v2/a/blobs/{digest}"), &[]).await;
    client.stream.readable().await.unwrap();
    drop(client);
    let get = records.wait(|record| record.method == "GET").await;
    assert_eq!((get.status, get.is_complete), (Some(200), false));
    assert!(get.sent < 32 * 1024 * 1024, "{get:?}");
}

/// Collects lines of a log.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_has_one_line_for_each_request() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .without_time()
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    start_upload(client, "a/b").await;
    client.get("/v2/").await;
    let lines: Vec<String> = eventually(async || {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    let port = client.stream.local_addr().unwrap().port();
    for part in [
        " INFO registry_http::access: request method=POST path=/v2/a/b/blobs/uploads/ status=202",
        &format!("peer=127.0.0.1:{port} repository=a/b received=0 sent=0"),
        "complete=true",
    ] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
}

/// Takes an event when the test lets it.
#[derive(Debug)]
struct Gate {
    open: Semaphore,
    taken: Mutex<Vec<(Event, RequestRecord)>>,
}

impl EventSink for Gate {
    fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.taken.lock().unwrap().push((event.clone(), request.clone()));
            self.open.acquire().await.unwrap().forget();
        })
    }
}

#[tokio::test]
async fn an_event_is_taken_after_the_commit_and_before_the_answer() {
    let gate = Arc::new(Gate {
        open: Semaphore::new(0),
        taken: Mutex::default(),
    });
    let registry = TestRegistry::builder()
        .event_sink(Arc::clone(&gate) as Arc<dyn EventSink>)
        .start()
        .await;
    let address = registry.address();
    let push = tokio::spawn(async move {
        let client = &mut Client::connect(address).await;
        push_blob(client, "a/b", b"hello").await
    });
    let (event, request) = eventually(async || gate.taken.lock().unwrap().first().cloned()).await;
    assert_eq!(
        (event.action.as_str(), event.repository.as_str()),
        ("push", "a/b")
    );
    assert_eq!((request.method.as_str(), request.status), ("PUT", None));
    assert_eq!(request.repository.as_ref(), Some(&event.repository));
    let digest = event.target.digest().unwrap();
    assert_eq!(request.digest.as_ref(), Some(digest));
    // The blob is there, though nobody was told of it yet.
    let size = registry.registry().storage().stat_blob(&event.repository, digest);
    assert_eq!(size.await.unwrap(), 5);
    assert!(!push.is_finished());
    gate.open.add_permits(1);
    assert_eq!(push.await.unwrap(), digest.to_string());
}
