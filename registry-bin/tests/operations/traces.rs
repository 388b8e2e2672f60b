//! Traces, as a collector of OpenTelemetry gets them.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::support::address::free_address;
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::support::sink::{Sink, Told};
use crate::write;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A span as the collector gets it.
#[derive(Debug)]
struct Received {
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: Vec<(String, String)>,
    is_error: bool,
}

impl Received {
    fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pairs(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |pair: KeyValue| (pair.key, text(pair.value.and_then(|value| value.value)));
    attributes.into_iter().map(pair).collect()
}

/// Returns the attributes of the server, and all spans.
fn read(told: &[Told]) -> (Vec<(String, String)>, Vec<Received>) {
    let (mut resource, mut spans) = (Vec::new(), Vec::new());
    for told in told {
        let request = ExportTraceServiceRequest::decode(&*told.body).expect("it is protobuf");
        for of_resource in request.resource_spans {
            resource = pairs(of_resource.resource.expect("there is one").attributes);
            let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(all.map(|span: Span| Received {
                name: span.name,
                trace: hexadecimal(&span.trace_id),
                id: hexadecimal(&span.span_id),
                parent: hexadecimal(&span.parent_span_id),
                attributes: pairs(span.attributes),
                is_error: span.status.is_some_and(|status| status.code == 2),
            }));
        }
    }
    (resource, spans)
}

fn start(sink: &str, more: &[(&str, &str)], folder: &std::path::Path) -> Server {
    let path = write(
        folder,
        "version: 0.1\nlog: {accesslog: {format: json}}\nstorage: {filesystem: {rootdirectory: FOLDER/data}}\n",
    );
    let path = path.to_str().expect("temporary folders have plain names");
    let mut environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    environment.extend(more);
    Server::run_with(&["serve", path, "--listen", "127.0.0.1:0"], &environment)
}

#[test]
fn each_request_is_a_span_of_its_callers_trace() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = Sink::start();
    let endpoint = sink.url().replace("http://", "http://user:canary@");
    let more = [
        ("OTEL_SERVICE_NAME", "depot"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=canary"),
    ];
    let server = start(&endpoint, &more, folder.path());
    Repository::new(server.address(), "a/b").push_image("v1", "v1");
    let traced = |method: &str, target: &str, sampled: &str| {
        let parent = format!("00-{TRACE}-{PARENT}-{sampled}");
        let request = server.request(method, target).header("traceparent", &parent);
        let request = request
            .header("Authorization", "Bearer canary")
            .header("User-Agent", "test/1");
        request.send().status
    };
    assert_eq!(
        traced("GET", "/v2/a/b/manifests/v1?access_token=canary&n=1", "01"),
        200
    );
    assert_eq!(traced("CANARY", "/v2/a/b/manifests/none", "00"), 405);
    assert_eq!(traced("GET", "/v2/a/b/manifests/none", "01"), 404);
    let alone = server
        .request("GET", "/v2/_catalog")
        .header("traceparent", "00-nonsense-01");
    assert_eq!(alone.send().status, 200);
    until(|| server.output().contains("/v2/_catalog"));
    let output = server.output();
    // What waits is sent before the server ends.
    assert!(server.terminate().success());

    let (resource, spans) = read(&sink.told());
    let has = |name: &str, value: &str| resource.contains(&(name.to_owned(), value.to_owned()));
    assert!(
        has("service.name", "depot") && has("deployment.environment", "test"),
        "{resource:?}"
    );
    let of_trace: Vec<&Received> = spans.iter().filter(|span| span.parent == PARENT).collect();
    let [get, none] = of_trace[..] else {
        panic!("{of_trace:?}")
    };
    assert_eq!(
        (&*get.trace, &*get.name),
        (TRACE, "GET /v2/{name}/manifests/{reference}")
    );
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/v2/{name}/manifests/{reference}"),
        ("url.path", "/v2/a/b/manifests/v1"),
        ("url.query", "***&n=1"),
        ("url.scheme", "http"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test/1"),
        ("registry.repository", "a/b"),
        ("registry.tag", "v1"),
    ] {
        assert_eq!(get.attribute(name), Some(value), "{name}: {get:?}");
    }
    assert!(
        get.attribute("registry.digest")
            .is_some_and(|digest| digest.starts_with("sha256:"))
    );
    assert!(!get.is_error);
    assert_eq!(none.attribute("error.type"), Some("MANIFEST_UNKNOWN"));
    assert_eq!(none.attribute("http.response.status_code"), Some("404"));
    assert!(!none.is_error, "a client's mistake is no failure of the server");
    // The calls of the storage are within their request.
    let call = spans
        .iter()
        .find(|span| span.parent == get.id)
        .expect("the storage was called");
    assert_eq!((&*call.name, &*call.trace), ("pull_manifest", TRACE));
    assert_eq!(call.attribute("registry.storage.driver"), Some("filesystem"));
    // A parent that is not recorded has no children; one that is none begins a trace.
    assert!(
        spans
            .iter()
            .all(|span| span.attribute("http.request.method") != Some("_OTHER"))
    );
    let catalog = spans
        .iter()
        .find(|span| span.name == "GET /v2/_catalog")
        .expect("it is traced");
    assert!(catalog.parent.is_empty() && catalog.trace != TRACE);
    let push = spans
        .iter()
        .find(|span| span.name == "PUT /v2/{name}/manifests/{reference}");
    assert_eq!(push.and_then(|span| span.attribute("registry.tag")), Some("v1"));

    // The access log names the same trace and span, also of what was not recorded. The server's own log tells of refusals
    // too, and either may be the first.
    let line = |path: &str| -> serde_json::Value {
        let line = output
            .lines()
            .find(|line| line.starts_with('{') && line.contains(path))
            .expect("it is logged");
        serde_json::from_str(line).expect("the access log is JSON")
    };
    let logged = line("/v2/a/b/manifests/v1\",\"query");
    assert_eq!(
        (&logged["trace_id"], &logged["span_id"]),
        (&TRACE.into(), &get.id.as_str().into())
    );
    assert_eq!(
        logged["id"],
        get.attribute("registry.request.id").expect("it has one")
    );
    assert_eq!(line("CANARY")["trace_id"], TRACE);

    let told = sink.told();
    assert!(told.iter().all(|told| told.header.contains("x-token: canary")));
    assert!(
        told.iter()
            .all(|told| told.header.contains("POST /events/v1/traces "))
    );
    for secret in ["canary", "dXNlcjpjYW5hcnk="] {
        assert!(!output.contains(secret), "{output}");
        assert!(!format!("{spans:?}{resource:?}").contains(secret), "{spans:?}");
    }
}

#[test]
fn a_sampler_decides_what_is_recorded() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = Sink::start();
    let more = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let server = start(&sink.url(), &more, folder.path());
    server.request("GET", "/v2/_catalog").send();
    let parent = format!("00-{TRACE}-{PARENT}-01");
    server
        .request("GET", "/v2/")
        .header("traceparent", &parent)
        .send();
    assert!(server.terminate().success());
    let (_, spans) = read(&sink.told());
    let parents: Vec<&str> = spans.iter().map(|span| &*span.parent).collect();
    assert_eq!(parents, [PARENT], "{spans:?}");
}

#[test]
fn nothing_is_connected_unless_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = Sink::start();
    for (name, value) in [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")] {
        let server = start(&sink.url(), &[(name, value)], folder.path());
        server.request("GET", "/v2/_catalog").send();
        until(|| server.output().contains("/v2/_catalog"));
        assert!(!server.output().contains("trace"), "{}", server.output());
        assert!(server.terminate().success());
    }
    assert!(sink.told().is_empty(), "{:?}", sink.told());
}

#[test]
fn a_collector_that_is_away_or_hangs_holds_up_no_request_and_no_end() {
    // It is away, and is told of once; then it is there, and that is told.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = free_address();
    let more = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "50"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
    ];
    let server = start(&format!("http://user:canary@{address}"), &more, folder.path());
    for _ in 0..100 {
        assert_eq!(server.request("GET", "/v2/_catalog").send().status, 200);
    }
    until(|| server.output().contains("traces cannot be sent"));
    assert!(!server.output().contains("canary"), "{}", server.output());
    let sink = Sink::on(TcpListener::bind(address).expect("the port is still free"));
    until(|| {
        server.request("GET", "/v2/").send();
        server.output().contains("the collector takes traces again")
    });
    assert_eq!(server.output().matches("traces cannot be sent").count(), 1);
    assert!(!sink.told().is_empty());
    assert!(server.terminate().success());

    // It takes connections and never answers.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!(
        "http://{}",
        hanging.local_addr().expect("a socket has an address")
    );
    let server = start(&url, &[], folder.path());
    for _ in 0..100 {
        assert_eq!(server.request("GET", "/v2/").send().status, 200);
    }
    let begin = Instant::now();
    assert!(server.terminate().success());
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["serve", "--storage", "memory", "--listen", "127.0.0.1:0"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        errors.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\", but takes http/protobuf"),
        "{errors}"
    );
}
