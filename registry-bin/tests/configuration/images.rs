//! The files that the images registry:2 and registry:3 have inside start unchanged.

use crate::run;
use crate::starts::Running;
use crate::support::client::Request;

/// `/etc/docker/registry/config.yml` of registry:2.
const REGISTRY_2: &str = "\
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// `/etc/distribution/config.yml` of registry:3.
const REGISTRY_3: &str = "\
version: 0.1
log:
  level: debug
  fields:
    service: registry
    environment: development
storage:
    delete:
      enabled: true
    cache:
        blobdescriptor: inmemory
    filesystem:
        rootdirectory: /var/lib/registry
    tag:
      concurrencylimit: 5
http:
    addr: :5000
    debug:
        addr: :5001
        prometheus:
            enabled: true
            path: /metrics
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// What a test cannot use as it is: the folder of the machine.
const FOLDER: (&str, &str) = ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "data");

#[test]
fn the_files_of_the_images_are_good_as_they_are() {
    for file in [REGISTRY_2, REGISTRY_3] {
        let output = run(&["config", "check", "config.yml"], file, &[]);
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        let expected = "It listens on :5000 and stores in /var/lib/registry.\nstorage.cache.blobdescriptor has no effect: ";
        assert!(report.contains(expected), "{report}");
    }
}

#[test]
fn the_file_of_registry_2_starts_with_one_notice() {
    let server = Running::start(Some(REGISTRY_2), &[FOLDER]);
    let response = Request::new(server.address(), "GET", "/v2/").send();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    let log = server.log_with("listening");
    let notices: Vec<&str> = log.lines().filter(|line| line.contains("no effect")).collect();
    assert_eq!(notices.len(), 1, "{log}");
    assert!(
        notices[0].contains("storage.cache") && notices[0].contains("service"),
        "{log}"
    );
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn the_file_of_registry_3_starts_with_its_metrics() {
    let server = Running::start(
        Some(REGISTRY_3),
        &[FOLDER, ("REGISTRY_HTTP_DEBUG_ADDR", "127.0.0.1:0")],
    );
    assert_eq!(Request::new(server.address(), "GET", "/v2/").send().status, 200);
    let log = server.log_with("listening");
    let address = log
        .split_once("address=")
        .expect("the debug listener is logged")
        .1;
    let address = address.split_whitespace().next().expect("it has an address");
    let address = address.parse().expect("it is an address and a port");
    let metrics = Request::new(address, "GET", "/metrics").send();
    assert_eq!(metrics.status, 200);
    assert!(String::from_utf8_lossy(&metrics.body).contains("registry_"));
    assert_eq!(Request::new(address, "GET", "/debug/health").send().status, 200);
    let notices = log.lines().filter(|line| line.contains("no effect"));
    assert_eq!(notices.count(), 1, "{log}");
    assert!(log.contains("storage.cache.blobdescriptor, storage.tag"), "{log}");
}
