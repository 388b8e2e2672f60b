//! Notifications against a receiver over real HTTP.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use registry_core::event::EventTarget;
use registry_core::storage::Manifest;
use registry_core::{Algorithm, Digest, MediaType, Registry, forward_storage};
use registry_storage::outbox::OutboxLimits;
use registry_storage::{ObjectStoreBackend, Store};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::RegistryService;
use crate::limits::Limits;
use crate::server::{Listener, Server};

/// The requests of a receiver: header and body.
type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A receiver that answers the nth request with `answer(n)`; 0 means that it never answers.
struct Receiver {
    address: SocketAddr,
    got: Got,
    _server: Server,
}

impl Receiver {
    async fn start(answer: fn(usize) -> u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    fn on(listener: TcpListener, answer: fn(usize) -> u16) -> Self {
        let address = listener.local_addr().unwrap();
        let got = Got::default();
        let seen = Arc::clone(&got);
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let status = {
                    let mut seen = seen.lock().unwrap();
                    seen.push((head.headers, body));
                    answer(seen.len())
                };
                if status == 0 {
                    std::future::pending::<()>().await;
                }
                let response = Response::builder().status(status).body(Full::new(Bytes::new()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        let server = Server::serve([Listener::tcp(listener).unwrap()], service, Limits::default());
        Self {
            address,
            got,
            _server: server.unwrap(),
        }
    }

    fn endpoint(&self) -> NotificationEndpoint {
        let mut endpoint = NotificationEndpoint::new("sink", format!("http://{}/x", self.address));
        endpoint.backoff = Duration::from_millis(20);
        endpoint
    }

    fn bodies(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        got.iter()
            .map(|(_, body)| serde_json::from_slice(body).unwrap())
            .collect()
    }

    /// Waits for `count` requests.
    async fn wait(&self, count: usize) -> Vec<Value> {
        eventually(|| self.got.lock().unwrap().len() >= count).await;
        self.bodies()
    }
}

async fn eventually(mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < end, "it did not happen within ten seconds");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

fn start(endpoints: Vec<NotificationEndpoint>, outbox: Outbox) -> Notifier {
    let options = NotificationOptions {
        include_references: true,
        source: "here:5000".into(),
        ..NotificationOptions::default()
    };
    Notifier::start(options, endpoints, outbox, client()).unwrap()
}

fn memory(limit: u64) -> Outbox {
    let limits = OutboxLimits {
        entries: limit,
        ..OutboxLimits::default()
    };
    Outbox::in_memory(limits, &["sink"]).unwrap()
}

fn request() -> RequestRecord {
    let request = Request::builder().method("PUT").uri("/v2/a/b/manifests/t1");
    let request = request
        .header("host", "127.0.0.1:7400")
        .header("user-agent", "agent/1");
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let peer: SocketAddr = "127.0.0.1:50964".parse().unwrap();
    let peer = crate::PeerAddress::Tcp(peer);
    parts.extensions.insert(crate::Connection::new(peer));
    RequestRecord::new(&parts)
}

/// The push that the registry of Debian (2.8.2) received, and the manifest that it reported.
const CONFIG: &str = "sha256:c5b1d63604f273462ef36fadac3182d43ae6a6138731cf594b314835cf1c034f";
const LAYER: &str = "sha256:541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53";

fn manifest() -> Manifest {
    let image = "application/vnd.oci.image";
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{image}.manifest.v1+json","config":{{"mediaType":"{image}.config.v1+json","digest":"{CONFIG}","size":78}},"layers":[{{"mediaType":"{image}.layer.v1.tar","digest":"{LAYER}","size":1000}}]}}"#
    );
    Manifest {
        digest: Digest::of(Algorithm::Sha256, text.as_bytes()),
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        bytes: text.into(),
    }
}

fn event(action: EventAction, target: EventTarget) -> Event {
    Event {
        action,
        repository: "a/b".parse().unwrap(),
        target,
    }
}

fn push(tags: &[&str]) -> Event {
    let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let manifest = manifest();
    event(EventAction::Push, EventTarget::Manifest { manifest, tags })
}

fn blob(action: EventAction, size: Option<u64>) -> Event {
    let digest = LAYER.parse().unwrap();
    event(action, EventTarget::Blob { digest, size })
}

/// What the registry of Debian (2.8.2) sent for this push, except for identifiers and the time.
const REAL: &str = include_str!("push_of_registry_2.json");

#[tokio::test]
async fn an_envelope_is_that_of_the_distribution_registry_byte_for_byte() {
    let receiver = Receiver::start(|_| 200).await;
    let mut endpoint = receiver.endpoint();
    endpoint.format = NotificationFormat::DistributionVersion1;
    endpoint.headers.push(("X-Secret".into(), "abc".into()));
    let notifier = start(vec![endpoint], memory(10));
    let request = request();
    notifier.accept(&push(&["t1"]), &request).await;
    let bodies = receiver.wait(1).await;
    let (header, body) = receiver.got.lock().unwrap()[0].clone();
    let sent = &bodies[0]["events"][0];
    let mut expected = REAL.trim_end().to_owned();
    for (place, value) in [
        ("EVENT", &sent["id"]),
        ("TIME", &sent["timestamp"]),
        ("INSTANCE", &sent["source"]["instanceID"]),
    ] {
        expected = expected.replace(place, value.as_str().unwrap());
    }
    expected = expected.replace("REQUEST", &request.id.to_string());
    assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
    let kind = "application/vnd.docker.distribution.events.v1+json";
    assert_eq!(
        (&header["content-type"], &header["x-secret"]),
        (&kind.parse().unwrap(), &"abc".parse().unwrap())
    );
}

#[tokio::test]
async fn targets_are_told_as_the_distribution_registry_does() {
    let receiver = Receiver::start(|_| 204).await;
    let notifier = start(vec![receiver.endpoint()], memory(100));
    let from = "c/d".parse().unwrap();
    let blob_url = format!("http://127.0.0.1:7400/v2/a/b/blobs/{LAYER}");
    let of_blob = json!({"mediaType": "application/octet-stream", "size": 1000, "digest": LAYER, "length": 1000,
        "repository": "a/b", "url": blob_url});
    let mut mounted = of_blob.clone();
    mounted["fromRepository"] = "c/d".into();
    let tag = || "t1".parse().unwrap();
    let cases = [
        (blob(EventAction::Pull, Some(1000)), "pull", of_blob.clone()),
        (blob(EventAction::Push, Some(1000)), "push", of_blob),
        (blob(EventAction::Mount { from }, Some(1000)), "mount", mounted),
        (
            blob(EventAction::Delete, None),
            "delete",
            json!({"digest": LAYER, "repository": "a/b"}),
        ),
        (
            event(
                EventAction::Delete,
                EventTarget::DeletedManifest(LAYER.parse().unwrap()),
            ),
            "delete",
            json!({"digest": LAYER, "repository": "a/b"}),
        ),
        (
            event(EventAction::Delete, EventTarget::DeletedTag(tag())),
            "delete",
            json!({"repository": "a/b", "tag": "t1"}),
        ),
        (
            event(EventAction::Delete, EventTarget::DeletedRepository),
            "delete",
            json!({"repository": "a/b"}),
        ),
    ];
    for (event, _, _) in &cases {
        notifier.accept(event, &request()).await;
    }
    let bodies = receiver.wait(cases.len()).await;
    for (body, (_, action, target)) in bodies.iter().zip(&cases) {
        let sent = &body["events"][0];
        assert_eq!(
            (&sent["action"], &sent["target"]),
            (&Value::from(*action), target)
        );
    }
    let kind = "application/vnd.docker.distribution.events.v2+json";
    assert_eq!(receiver.got.lock().unwrap()[0].0["content-type"], kind);
}

#[tokio::test]
async fn each_tag_is_an_event_and_cloud_events_are_structured() {
    let receiver = Receiver::start(|_| 200).await;
    let mut endpoint = receiver.endpoint();
    endpoint.format = NotificationFormat::CloudEvents;
    let notifier = start(vec![endpoint], memory(100));
    notifier.accept(&push(&["x", "y"]), &request()).await;
    notifier
        .accept(&blob(EventAction::Delete, None), &request())
        .await;
    let bodies = receiver.wait(3).await;
    let kinds = [
        "registry.manifest.push",
        "registry.manifest.push",
        "registry.content.delete",
    ];
    let subjects = ["a/b:x", "a/b:y", &format!("a/b@{LAYER}")];
    for (body, (kind, subject)) in bodies.iter().zip(kinds.iter().zip(subjects)) {
        assert_eq!(
            (&body["type"], &body["subject"]),
            (&Value::from(*kind), &Value::from(subject))
        );
        assert_eq!(
            (&body["specversion"], &body["datacontenttype"]),
            (&"1.0".into(), &"application/json".into())
        );
        assert!(body["source"].as_str().unwrap().starts_with("//here:5000/"));
        assert_eq!(body["data"]["target"]["repository"], "a/b");
    }
    assert_ne!(bodies[0]["id"], bodies[1]["id"]);
    assert_eq!(
        receiver.got.lock().unwrap()[0].0["content-type"],
        "application/cloudevents+json"
    );
}

#[tokio::test]
async fn what_fails_is_sent_again_in_order_and_nothing_is_left_out() {
    // Refused, not answered in time, refused again, then accepted.
    let receiver = Receiver::start(|nth| [500, 0, 404].get(nth - 1).copied().unwrap_or(302)).await;
    let mut endpoint = receiver.endpoint();
    endpoint.timeout = Duration::from_millis(50);
    endpoint.threshold = 2;
    let notifier = start(vec![endpoint], memory(100));
    for tag in ["x", "y", "z"] {
        notifier.accept(&push(&[tag]), &request()).await;
    }
    let bodies = receiver.wait(6).await;
    let tags: Vec<_> = bodies
        .iter()
        .map(|body| body["events"][0]["target"]["tag"].as_str().unwrap())
        .collect();
    assert_eq!(tags, ["x", "x", "x", "x", "y", "z"]);
    assert_eq!(bodies[0]["events"][0]["id"], bodies[3]["events"][0]["id"]);
    eventually(|| notifier.statistics()[0].pending == 0).await;
    let statistics = &notifier.statistics()[0];
    assert_eq!(
        (
            statistics.events,
            statistics.successes,
            statistics.failures,
            statistics.errors
        ),
        (3, 3, 2, 1)
    );
    assert_eq!(statistics.statuses, [(302, 3), (404, 1), (500, 1)].into());
    assert_eq!(notifier.lost(), 0);

    #[cfg(feature = "metrics")]
    {
        let metrics = crate::telemetry::Metrics::new();
        metrics.add_notifier(Arc::new(notifier));
        let text = metrics.encode();
        for line in [
            "registry_notifications_events_total{type=\"Events\",endpoint=\"sink\"} 3",
            "registry_notifications_events_total{type=\"Failures\",endpoint=\"sink\"} 2",
            "registry_notifications_pending_total{endpoint=\"sink\"} 0",
            "registry_notifications_status_total{code=\"302 Found\",endpoint=\"sink\"} 3",
            "registry_notifications_lost_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

#[tokio::test]
async fn what_is_ignored_is_not_told() {
    let receiver = Receiver::start(|_| 200).await;
    let mut endpoint = receiver.endpoint();
    endpoint.ignored_actions.push("pull".into());
    endpoint
        .ignored_media_types
        .push("application/octet-stream".into());
    let outbox = memory(100);
    let notifier = start(vec![endpoint], outbox.clone());
    notifier
        .accept(&blob(EventAction::Push, Some(1)), &request())
        .await;
    notifier
        .accept(&blob(EventAction::Pull, Some(1)), &request())
        .await;
    assert_eq!(*outbox.end().borrow(), 0, "what nobody wants is not even kept");
    notifier.accept(&push(&["x"]), &request()).await;
    notifier.shutdown(Duration::from_secs(10)).await;
    assert_eq!(receiver.bodies().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_down_hinders_neither_pushes_nor_others_and_gets_all_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let open = || Outbox::open(&path, OutboxLimits::default(), &["sink", "other"]).unwrap();
    let other = Receiver::start(|_| 200).await;
    // No process listens there yet, and no other process takes the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut down = NotificationEndpoint::new("sink", format!("http://{address}/"));
    down.backoff = Duration::from_millis(20);
    let mut up = other.endpoint();
    up.name = "other".into();
    let endpoints = || vec![down.clone(), up.clone()];

    let outbox = open();
    let notifier = start(endpoints(), outbox.clone());
    let begin = Instant::now();
    for number in 0..20 {
        notifier.accept(&push(&[&format!("t{number}")]), &request()).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    other.wait(20).await;
    notifier.shutdown(Duration::from_millis(100)).await;
    assert_eq!(notifier.statistics()[0].pending, 20);
    drop(notifier);
    outbox.close();

    let receiver = Receiver::on(socket.listen(16).unwrap(), |_| 200);
    let notifier = start(endpoints(), open());
    notifier.accept(&push(&["last"]), &request()).await;
    let bodies = receiver.wait(21).await;
    for (number, body) in bodies.iter().enumerate() {
        let tag = if number == 20 {
            "last".to_owned()
        } else {
            format!("t{number}")
        };
        assert_eq!(body["events"][0]["target"]["tag"], tag);
    }
    eventually(|| notifier.statistics().iter().all(|endpoint| endpoint.pending == 0)).await;
    notifier.shutdown(Duration::from_secs(10)).await;
    assert_eq!(
        other.bodies().len(),
        21,
        "nothing comes twice after an orderly end"
    );
}

#[tokio::test]
async fn of_too_many_events_the_oldest_are_lost_and_counted() {
    let mut endpoint = NotificationEndpoint::new("sink", "http://127.0.0.1:1/");
    endpoint.backoff = Duration::from_secs(3600);
    let notifier = start(vec![endpoint], memory(5));
    for _ in 0..8 {
        notifier.accept(&push(&["x"]), &request()).await;
    }
    assert_eq!((notifier.lost(), notifier.statistics()[0].pending), (3, 5));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_used_is_refused_without_its_secrets() {
    for (url, header, said) in [
        ("ftp://user:canary@a/", ("a", "b"), "http://"),
        ("canary", ("a", "b"), "malformed"),
        ("http://a/", ("a b", "canary"), "a b"),
        ("http://a/", ("a", "canary\n"), "value of a"),
    ] {
        let mut endpoint = NotificationEndpoint::new("sink", url);
        endpoint.headers.push((header.0.into(), header.1.into()));
        let shown = format!("{endpoint:?}");
        let options = NotificationOptions::default();
        let error = Notifier::start(options, vec![endpoint], memory(1), client()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(said), "{message}");
        assert!(
            !message.contains("canary") && !shown.contains("canary"),
            "{message} {shown}"
        );
    }
}

/// The point at which a server is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    /// After the intent was recorded, before the storage is called.
    Before,
    /// After the storage made the change, before the outbox is notified.
    After,
}

/// Forwards to a notifier until the kill; from then on, nothing completes.
#[derive(Debug)]
struct UntilKilled {
    notifier: Notifier,
    when: Killed,
    method: http::Method,
    is_killed: tokio::sync::Notify,
}

impl UntilKilled {
    async fn kill(&self) {
        self.is_killed.notify_one();
        std::future::pending::<()>().await;
    }
}

impl EventSink for UntilKilled {
    fn intend<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.notifier.intend(event, request).await;
            if request.method == self.method && self.when == Killed::Before {
                self.kill().await;
            }
        })
    }

    fn abandon<'a>(&'a self, request: &'a RequestRecord, is_unclear: bool) -> BoxFuture<'a, ()> {
        self.notifier.abandon(request, is_unclear)
    }

    fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if request.method == self.method && event.action != EventAction::Pull {
                self.kill().await;
            }
            self.notifier.accept(event, request).await;
        })
    }
}

#[tokio::test]
async fn a_kill_between_the_commit_and_the_outbox_loses_no_event() {
    let hello = Digest::of(Algorithm::Sha256, b"hello");
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    let of_index = Digest::of(Algorithm::Sha256, index.as_bytes());
    let push = ("PUT", "/v2/a/b/manifests/t1".to_owned(), index);
    let upload = ("POST", format!("/v2/a/b/blobs/uploads/?digest={hello}"), "hello");
    let cases = [
        (vec![], push.clone(), "push"),
        (vec![], upload.clone(), "push"),
        (
            vec![upload.clone()],
            ("POST", format!("/v2/c/blobs/uploads/?mount={hello}&from=a/b"), ""),
            "mount",
        ),
        (
            vec![push.clone()],
            ("DELETE", "/v2/a/b/manifests/t1".to_owned(), ""),
            "delete",
        ),
        (
            vec![push.clone()],
            ("DELETE", format!("/v2/a/b/manifests/{of_index}"), ""),
            "delete",
        ),
        (
            vec![push.clone()],
            ("DELETE", "/v2/a/b/_registry/repository".to_owned(), ""),
            "delete",
        ),
        (
            vec![upload],
            ("DELETE", format!("/v2/a/b/blobs/{hello}"), ""),
            "delete",
        ),
    ];
    for (before, (method, target, body), action) in cases {
        for when in [Killed::Before, Killed::After] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("outbox");
            let open = || Outbox::open(&path, OutboxLimits::default(), &["sink"]).unwrap();
            let storage = Arc::new(Store::new(ObjectStoreBackend::memory()));
            let options = registry_core::registry::Options::default();
            let send = |service: &RegistryService<_>,
                        (method, target, body): (&str, String, &'static str)| {
                let request = Request::builder().method(method).uri(target);
                let request = request.header("content-type", MediaType::OCI_INDEX);
                service.answer(request.body(Full::new(Bytes::from(body))).unwrap())
            };
            let service =
                RegistryService::new(Registry::new(Arc::clone(&storage), options), Limits::default());
            for request in before.clone() {
                assert_eq!(send(&service, request).await.status(), 201);
            }

            let mut nowhere = NotificationEndpoint::new("sink", "http://127.0.0.1:1/");
            nowhere.backoff = Duration::from_secs(3600);
            let sink = Arc::new(UntilKilled {
                notifier: start(vec![nowhere], open()),
                when,
                method: method.parse().unwrap(),
                is_killed: tokio::sync::Notify::new(),
            });
            let service = service.with_event_sink(Arc::clone(&sink) as Arc<dyn EventSink>);
            let request = tokio::spawn(send(&service, (method, target.clone(), body)));
            sink.is_killed.notified().await;
            request.abort();
            drop(service);

            let receiver = Receiver::start(|_| 200).await;
            let notifier = start(vec![receiver.endpoint()], open());
            let storage: Arc<dyn Storage> = Arc::new(NobodyPulls(storage));
            notifier.recover(Arc::clone(&storage)).await;
            notifier.shutdown(Duration::from_secs(10)).await;
            let told = receiver.bodies();
            let expected = usize::from(when == Killed::After);
            assert_eq!(told.len(), expected, "{when:?} {method} {target}: {told:?}");
            for event in &told {
                assert_eq!(event["events"][0]["action"], action);
                assert!(event["events"][0]["target"]["repository"].is_string());
            }
            // Recovery reports each event only once.
            notifier.recover(storage).await;
            assert_eq!(notifier.outbox.intents(None).await.unwrap(), []);
            assert_eq!(*notifier.outbox.end().borrow(), expected as u64);
        }
    }
}

/// A storage that nobody may read as a client that pulls does: such an answer may be older than what an event is about.
#[derive(Debug)]
struct NobodyPulls<S>(Arc<S>);

macro_rules! not_pulled {
    ($self:ident.pull_manifest($($argument:expr),*)) => { panic!("{:?} may be old", ($($argument),*)) };
    ($self:ident.pull_blob($($argument:expr),*)) => { panic!("{:?} may be old", ($($argument),*)) };
    ($self:ident.$method:ident($($argument:expr),*)) => { $self.0.$method($($argument),*).await };
}

forward_storage!(
    BlobStorage, UploadStorage, ManifestStorage, ListStorage for [S: Storage] NobodyPulls<S> => not_pulled
);

#[tokio::test]
async fn what_is_refused_leaves_no_intent_and_what_is_done_one_event() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&folder.path().join("outbox"), OutboxLimits::default(), &["sink"]).unwrap();
    let receiver = Receiver::start(|_| 200).await;
    let notifier = Arc::new(start(vec![receiver.endpoint()], outbox.clone()));
    let registry = Registry::new(
        Arc::new(Store::new(ObjectStoreBackend::memory())),
        registry_core::registry::Options::default(),
    );
    let service = RegistryService::new(registry, Limits::default());
    let service = service.with_event_sink(Arc::clone(&notifier) as Arc<dyn EventSink>);
    let missing = "0".repeat(64);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"sha256:{missing}","size":1}}]}}"#,
        MediaType::OCI_MANIFEST
    );
    for (body, status) in [
        (index, 404),
        (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), 201),
    ] {
        let request = Request::builder().method("PUT").uri("/v2/a/manifests/t1");
        let request = request.header("content-type", MediaType::OCI_INDEX);
        let answer = service
            .answer(request.body(Full::new(Bytes::from(body))).unwrap())
            .await;
        assert_eq!(answer.status(), status);
        assert_eq!(outbox.intents(None).await.unwrap(), []);
    }
    notifier.shutdown(Duration::from_secs(10)).await;
    assert_eq!(receiver.bodies().len(), 1);
}

#[tokio::test]
async fn an_event_of_a_client_that_sends_64_kib_of_everything_stays_small() {
    let outbox = memory(10);
    let notifier = start(
        vec![NotificationEndpoint::new("sink", "http://127.0.0.1:1/")],
        outbox.clone(),
    );
    let long = "a".repeat(65_000);
    let request = Request::builder().method("PUT").uri("/v2/a/b/manifests/t1");
    let request = request.header("host", &long).header("user-agent", &long);
    let request = request.header("referer", format!("http://{long}/{long}"));
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut record = RequestRecord::new(&parts);
    record.set_principal(&long);
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{LAYER}","size":1,"platform":{{"os":"{long}{long}"}}}}]}}"#
    );
    let manifest = Manifest {
        digest: Digest::of(Algorithm::Sha256, text.as_bytes()),
        media_type: MediaType::OCI_INDEX.parse().unwrap(),
        bytes: text.into(),
    };
    let target = EventTarget::Manifest {
        manifest,
        tags: Vec::new(),
    };
    notifier.accept(&event(EventAction::Push, target), &record).await;
    let entries = outbox.read("sink", 0, 10).await.unwrap();
    let event = String::from_utf8(entries[0].value.clone()).unwrap();
    assert!(event.len() < 4000, "{}", event.len());
    assert!(event.contains("...[64488 more bytes]"), "{event}");
}
