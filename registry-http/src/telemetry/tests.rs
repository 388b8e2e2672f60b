use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use registry_core::Algorithm;
use registry_core::storage::UploadStorage as _;

use super::*;
use crate::memory::{MemoryBudget, MemoryUse};

async fn ask(service: &DebugService, method: Method, path: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    let response = service.call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(service: &DebugService, path: &str) -> (u16, String) {
    ask(service, Method::GET, path).await
}

async fn eventually(mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < end, "it did not happen within ten seconds");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn health_is_shown_as_the_distribution_registry_does() {
    let health = ServerHealth::new();
    let service = DebugService::new(health.clone());
    assert_eq!(get(&service, "/startupz").await.0, 503);
    assert_eq!(get(&service, "/readyz").await.0, 503);
    assert_eq!(get(&service, "/livez").await.0, 200);
    health.started();
    for path in ["/startup", "/startupz", "/ready", "/readyz", "/live", "/livez"] {
        assert_eq!(get(&service, path).await.0, 200, "{path}");
    }
    assert_eq!(get(&service, "/debug/health").await, (200, "{}".into()));

    let is_well = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_well);
    let options = CheckOptions {
        interval: Duration::from_millis(1),
        threshold: 3,
        timeout: Duration::ZERO,
    };
    health.watch("disk", options, move || {
        let is_well = seen.load(Ordering::Relaxed);
        Box::pin(async move { is_well.then_some(()).ok_or_else(|| "no \"disk\"".to_owned()) })
    });
    eventually(|| !health.failures().is_empty()).await;
    let failure = (503, "{\"disk\":\"no \\\"disk\\\"\"}".to_owned());
    assert_eq!(get(&service, "/debug/health").await, failure);
    assert_eq!(get(&service, "/ready").await.0, 503);
    assert_eq!(
        get(&service, "/live").await.0,
        200,
        "a check does not kill the server"
    );
    is_well.store(true, Ordering::Relaxed);
    eventually(|| health.is_ready()).await;

    assert_eq!(ask(&service, Method::POST, "/debug/health/down").await.0, 200);
    assert!(
        get(&service, "/debug/health")
            .await
            .1
            .contains("manual_http_status")
    );
    assert_eq!(get(&service, "/debug/health/up").await.0, 405);
    assert_eq!(ask(&service, Method::POST, "/debug/health/up").await.0, 200);
    assert!(health.is_ready());
    health.stopping();
    assert_eq!(
        (get(&service, "/ready").await.0, get(&service, "/live").await.0),
        (503, 200)
    );
}

#[tokio::test]
async fn probes_at_the_port_of_clients_say_a_word_and_leave_all_else_to_the_service() {
    let health = ServerHealth::new();
    // A debug listener in the place of a registry: it answers other paths in its own way.
    let service = Probed::new(DebugService::new(ServerHealth::new()), health.clone());
    let ask = async |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = service.call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(ask(Method::GET, "/ready").await, (503, "not ready\n".into()));
    assert_eq!(ask(Method::GET, "/live").await, (200, "ok\n".into()));
    health.started();
    health.add_remark(|| Some("a secret of the operator".into()));
    for path in ["/ready", "/readyz", "/ready?x"] {
        assert_eq!(ask(Method::GET, path).await, (200, "ok\n".into()), "{path}");
        assert_eq!(ask(Method::HEAD, path).await.0, 200, "{path}");
    }
    health.set_down(true);
    assert_eq!(ask(Method::GET, "/ready").await.0, 503);
    health.set_down(false);
    health.stopping();
    assert_eq!(ask(Method::GET, "/ready").await.0, 503);
    assert_eq!(ask(Method::GET, "/livez").await.0, 200);
    for (path, status) in [
        ("/startup", 503),
        ("/debug/health", 200),
        ("/v2/", 404),
        ("/ready/", 404),
    ] {
        assert_eq!(ask(Method::GET, path).await.0, status, "{path}");
        assert!(!Probed::answers_at(path));
    }
    assert_eq!(ask(Method::POST, "/ready").await.0, 405);
}

#[tokio::test]
async fn a_check_that_hangs_fails_and_one_below_its_threshold_does_not() {
    let health = ServerHealth::new();
    let options = CheckOptions {
        interval: Duration::from_millis(2),
        threshold: 1,
        timeout: Duration::from_millis(1),
    };
    health.watch("hangs", options, || Box::pin(std::future::pending()));
    let flaps = Arc::new(AtomicBool::new(false));
    let options = CheckOptions {
        threshold: 2,
        ..options
    };
    health.watch("flaps", options, move || {
        let fails = flaps.fetch_xor(true, Ordering::Relaxed);
        Box::pin(std::future::ready(if fails {
            Err("x".to_owned())
        } else {
            Ok(())
        }))
    });
    eventually(|| !health.failures().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let failures: Vec<_> = health.failures().into_iter().collect();
    assert_eq!(failures, [("hangs".into(), "no answer within 1ms".into())]);
}

fn record(method: &str, target: &str, status: u16) -> RequestRecord {
    let request = Request::builder().method(method).uri(target).body(()).unwrap();
    let mut record = RequestRecord::new(&request.into_parts().0);
    if let Ok(request) = registry_core::Request::parse(method, target, &[("", "")][..]) {
        record.set_request(&request);
    }
    record.status = Some(status);
    record.is_complete = true;
    record.sent = 7;
    record.received = 3;
    record
}

#[tokio::test]
async fn metrics_have_the_names_of_the_distribution_registry_and_bounded_labels() {
    let metrics = Arc::new(Metrics::new());
    let service = DebugService::new(ServerHealth::new()).with_metrics("/m", Arc::clone(&metrics));
    let none = HeaderMap::new();
    metrics.began(&mut record("GET", "/v2/", 200), &none);
    for mut record in [
        record("GET", "/v2/canary/manifests/canary", 200),
        record("PUT", "/v2/canary/manifests/canary", 409),
        record(
            "PATCH",
            "/v2/canary/blobs/uploads/00000000-0000-0000-0000-000000000001",
            202,
        ),
        record("CANARY", "/canary", 401),
    ] {
        metrics.began(&mut record, &none);
        metrics.finished(&record);
    }
    let storage = registry_storage::Store::new(registry_storage::ObjectStoreBackend::memory());
    let storage = MeteredStorage::new(Arc::new(storage), "memory", Arc::clone(&metrics));
    storage
        .create_upload(&"a".parse().unwrap(), "canary", Algorithm::Sha256)
        .await
        .unwrap();
    let (status, text) = get(&service, "/m").await;
    assert_eq!(status, 200);
    for line in [
        "registry_http_in_flight_requests 1",
        "registry_http_requests_total{code=\"200\",handler=\"manifest\",method=\"get\"} 1",
        "registry_http_requests_total{code=\"202\",handler=\"blob_upload_chunk\",method=\"patch\"} 1",
        "registry_http_requests_total{code=\"401\",handler=\"other\",method=\"other\"} 1",
        "registry_http_request_duration_seconds_count{handler=\"manifest\",method=\"get\"} 1",
        "registry_http_response_size_bytes_sum{handler=\"manifest\"} 14.0",
        "registry_http_refused_requests_total{reason=\"tag_conflict\"} 1",
        "registry_http_refused_requests_total{reason=\"unauthorized\"} 1",
        "registry_pushed_bytes_total 6",
        "registry_pulled_bytes_total 7",
        "registry_storage_action_seconds_count{driver=\"memory\",action=\"create_upload\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(
        get(&service, "/metrics").await.0,
        404,
        "the path is the operator's choice"
    );
}

#[test]
fn what_clients_hold_and_what_was_refused_are_metrics() {
    let budget = MemoryBudget::new(1000);
    let metrics = Metrics::new();
    metrics.add_memory(budget.clone());
    let account = budget.account(None);
    let _held = account.charge(300, MemoryUse::Connection).unwrap();
    account.charge(900, MemoryUse::Manifest).unwrap_err();
    let text = metrics.encode();
    for line in [
        "registry_http_memory_bytes 300",
        "registry_http_memory_limit_bytes 1000",
        "registry_http_memory_refused_total{use=\"connection\"} 0",
        "registry_http_memory_refused_total{use=\"manifest\"} 1",
    ] {
        assert!(text.lines().any(|written| written == line), "{line}: {text}");
    }
}
