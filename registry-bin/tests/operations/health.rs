//! The debug listener.

use std::fs;
use std::process::Command;

use crate::support::address::free_address;
use crate::support::client::{Request, Response};
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::write;

#[test]
fn a_failing_check_is_shown_and_refuses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let debug = free_address();
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\n\
         http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true, path: /m}}}}}}\n\
         health:\n  storagedriver: {{enabled: true, interval: 5s}}\n  \
         file: [{{file: FOLDER/down, interval: 10ms}}]\n  \
         tcp: [{{addr: '{debug}', interval: 10ms, timeout: 5s}}]\n  \
         http: [{{uri: 'http://{debug}/livez', interval: 10ms, timeout: 5s}}]\n"
    );
    let server = Server::configured(&write(folder.path(), &configuration));
    let get = |path: &str| -> Response { Request::new(debug, "GET", path).send() };
    let repository = Repository::new(server.address(), "a");
    repository.push_image("v1", "x");
    for path in ["/livez", "/readyz", "/startupz", "/debug/health"] {
        get(path).expect_status(200);
    }
    fs::write(folder.path().join("down"), "").expect("a file can be written");
    until(|| get("/debug/health").status == 503);
    let shown = get("/debug/health").json();
    let shown = shown.as_object().expect("a map of what fails");
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown.keys().all(|name| name.ends_with("/down")), "{shown:?}");
    get("/ready").expect_status(503);
    get("/live").expect_status(200);
    repository.get("manifests/v1").expect_status(200);
    fs::remove_file(folder.path().join("down")).expect("a file can be removed");
    until(|| get("/ready").status == 200);

    let metrics = String::from_utf8(get("/m").body).expect("metrics are text");
    let counted = "registry_http_requests_total{code=\"200\",handler=\"manifest\",method=\"get\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        let value = value.and_then(|value| value.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {metrics}");
    }
    get("/metrics").expect_status(404);
    assert!(server.terminate().success());
}

#[test]
fn what_is_used_of_a_quota_is_a_metric() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let debug = free_address();
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\n\
         http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}\n\
         quotas: [{{repositories: [a, 'b/*'], bytes: 1MB}}, {{repositories: ['**'], tags: 7}}]\n"
    );
    let configuration = write(folder.path(), &configuration);
    let shows = |lines: &[&str]| {
        let metrics = Request::new(debug, "GET", "/metrics").send().body;
        let metrics = String::from_utf8(metrics).expect("metrics are text");
        lines
            .iter()
            .all(|wanted| metrics.lines().any(|line| line == *wanted))
    };
    let server = Server::configured(&configuration);
    until(|| {
        shows(&[
            "registry_quota_used_bytes{repositories=\"a,b/*\"} 0",
            "registry_quota_limit_bytes{repositories=\"a,b/*\"} 1000000",
            "registry_quota_used_tags{repositories=\"**\"} 0",
            "registry_quota_limit_tags{repositories=\"**\"} 7",
        ])
    });
    Repository::new(server.address(), "a").push_image("v1", "x");
    assert!(server.terminate().success());
    let server = Server::configured(&configuration);
    until(|| shows(&["registry_quota_used_tags{repositories=\"**\"} 1"]));
    assert!(!shows(&["registry_quota_used_bytes{repositories=\"a,b/*\"} 0"]));
    assert!(server.terminate().success());
}

#[test]
fn the_largest_repositories_are_metrics_and_all_others_one() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let debug = free_address();
    let configure = |repositories: &str| {
        let configuration = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\ncollector: {{interval: 1s}}\n\
             http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true{repositories}}}}}}}\n"
        );
        write(folder.path(), &configuration)
    };
    let series = || -> Vec<String> {
        let metrics = String::from_utf8(Request::new(debug, "GET", "/metrics").send().body);
        let metrics = metrics.expect("metrics are text");
        let series = metrics
            .lines()
            .filter(|line| line.starts_with("registry_repository_"));
        series.map(str::to_owned).collect()
    };
    let server = Server::configured(&configure(""));
    let content = |number: usize| vec![b'x'; 1000 + number];
    for number in 0..1000 {
        Repository::new(server.address(), format!("r{number}")).push_blob(&content(number));
    }
    let others = |named: usize| -> usize { (0..1000 - named).map(|number| 1000 + number).sum() };
    let has = |wanted: &str| series().iter().any(|line| line == wanted);
    until(|| {
        has(&format!(
            "registry_repository_bytes{{repository=\"*\"}} {}",
            others(100)
        ))
    });
    assert_eq!(series().len(), 101);
    assert!(has("registry_repository_bytes{repository=\"r900\"} 1900"));
    assert!(server.terminate().success());
    // They are there at once after a restart.
    let server = Server::configured(&configure(", repositories: 1"));
    until(|| series().len() == 2);
    assert!(has(&format!(
        "registry_repository_bytes{{repository=\"*\"}} {}",
        others(1)
    )));
    assert!(server.terminate().success());
    let server = Server::configured(&configure(", repositories: 0"));
    assert!(server.terminate().success());
}

#[test]
fn what_is_stored_is_a_metric_after_a_sweep_of_everything() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let debug = free_address();
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}, delete: {{enabled: true}}, \
         maintenance: {{uploadpurging: {{interval: 50ms}}}}}}\n\
         http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}\n"
    );
    let server = Server::configured(&write(folder.path(), &configuration));
    let metric = |name: &str| -> Option<u64> {
        let metrics = String::from_utf8(Request::new(debug, "GET", "/metrics").send().body);
        let metrics = metrics.expect("metrics are text");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().expect("a number"))
    };
    let is_stored = |blobs: u64, bytes: u64| {
        metric("registry_storage_blobs") == Some(blobs)
            && metric("registry_storage_blob_bytes") == Some(bytes)
    };
    until(|| is_stored(0, 0));
    let large = vec![7; 100_000];
    let digests: Vec<_> = ["a", "b"]
        .map(|name| Repository::new(server.address(), name).push_blob(&large))
        .into();
    Repository::new(server.address(), "a").push_blob(b"small");
    // The server does that once a day.
    let sweep_everything = || {
        let root = folder.path().join("data");
        let run = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
            .args(["collect", "--full", "--storage"])
            .arg(root)
            .output();
        assert!(run.expect("it runs").status.success());
    };
    sweep_everything();
    until(|| is_stored(2, 100_005));
    for (name, digest) in ["a", "b"].into_iter().zip(digests) {
        let deleted = Repository::new(server.address(), name).delete(&format!("blobs/{digest}"));
        deleted.expect_status(202);
    }
    sweep_everything();
    until(|| is_stored(1, 5));
    let swept = metric("registry_storage_swept_timestamp_seconds").expect("it is there");
    assert!(swept > 1_700_000_000, "{swept}");
    assert!(server.terminate().success());
}

/// A load balancer sees only the port of clients: it needs no login there, and learns nothing else.
#[test]
fn a_load_balancer_asks_at_the_port_of_clients() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = "version: 0.1\nstorage: inmemory\nhttp: {prefix: /registry/}\n\
                         auth: {htpasswd: {realm: Registry, path: FOLDER/users}}\n\
                         health: {file: [{file: FOLDER/down, interval: 10ms}]}\n";
    let server = Server::configured(&write(folder.path(), configuration));
    let ask = |method: &str, path: &str| server.request(method, path).send();
    let word = |status: u16, text: &str| {
        let answer = ask("GET", "/ready");
        answer.status == status && answer.body == text.as_bytes()
    };
    assert!(word(200, "ok\n"));
    ask("GET", "/registry/v2/").expect_status(401);
    ask("HEAD", "/readyz").expect_status(200);
    fs::write(folder.path().join("down"), "").expect("a file can be written");
    until(|| word(503, "not ready\n"));
    ask("GET", "/live").expect_status(200);
    ask("GET", "/registry/v2/").expect_status(401);
    fs::remove_file(folder.path().join("down")).expect("a file can be removed");
    until(|| word(200, "ok\n"));
    let log = server.output();
    assert!(!log.contains("/ready") && !log.contains("/live"), "{log}");
    // All else is the registry's.
    ask("GET", "/registry/ready").expect_status(404);
    ask("POST", "/ready").expect_status(404);
}

#[test]
fn a_server_that_ends_is_not_ready_first_and_serves_on_until_the_delay_is_over() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = "version: 0.1\nstorage: inmemory\nhttp: {draindelay: 1h}\n";
    let mut server = Server::configured(&write(folder.path(), configuration));
    server.request("GET", "/ready").send().expect_status(200);
    server.signal_termination();
    until(|| server.request("GET", "/ready").send().status == 503);
    server.output_with("not ready any more");
    Repository::new(server.address(), "a").push_image("v1", "x");
    server.signal_termination();
    assert!(server.wait_for_end().success());
}
