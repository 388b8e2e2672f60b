//! Runs the official conformance program, where `OCI_CONFORMANCE` names it, and wants no failure, error or skip.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::server::Server;

/// What the program's `junit.xml` counts.
#[derive(Debug, PartialEq)]
struct Counts {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
    disabled: u64,
}

impl Counts {
    /// Reads the attributes of the first `<testsuite`; those that are 0 may be absent.
    fn parse(report: &str) -> Self {
        let suite = report
            .split_once("<testsuite ")
            .expect("the report has a suite")
            .1;
        let attributes = suite.split_once('>').expect("the element ends").0;
        let count = |name: &str| {
            let value = attributes
                .split_once(&format!(" {name}=\""))
                .map_or("0", |(_, rest)| rest);
            value
                .split('"')
                .next()
                .and_then(|digits| digits.parse().ok())
                .expect("a count is a number")
        };
        Self {
            tests: count("tests"),
            failures: count("failures"),
            errors: count("errors"),
            skipped: count("skipped"),
            disabled: count("disabled"),
        }
    }
}

/// Runs the program with the settings of one version of the specification; `tests` is how many it has at least.
#[expect(clippy::print_stdout, reason = "the counts belong into the log of the test")]
fn run(server: &Server, version: &str, tests: u64) {
    let Some(program) = std::env::var_os("OCI_CONFORMANCE") else {
        println!("skipped: OCI_CONFORMANCE does not name the conformance program");
        return;
    };
    // The program answers a bad configuration with success and no report, so what is read has to be new.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let output = Command::new(&program)
        .current_dir(folder.path())
        .env("OCI_REGISTRY", server.address().to_string())
        .env("OCI_TLS", "disabled")
        .env("OCI_RESULTS_DIR", folder.path())
        .env("OCI_VERSION", version)
        .env("OCI_DATA_SPARSE", "true")
        .output()
        .expect("the conformance program runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let counts = Counts::parse(&read(&folder.path().join("junit.xml"), &printed));
    println!("{version}: {counts:?}");
    assert_eq!(
        (counts.failures, counts.errors, counts.skipped),
        (0, 0, 0),
        "{version}: {printed}"
    );
    assert!(counts.tests >= tests, "{version}: {counts:?}");
    assert!(version != "dev" || counts.disabled == 0, "{version}: {counts:?}");
    assert!(output.status.success(), "{printed}");
}

fn read(report: &Path, printed: &str) -> String {
    fs::read_to_string(report).unwrap_or_else(|error| panic!("no report ({error}): {printed}"))
}

#[test]
fn version_1_0_on_memory() {
    run(
        &Server::start(&["--storage", "memory", "--allow-missing-content"]),
        "1.0",
        850,
    );
}

#[test]
fn version_1_1_on_memory() {
    run(
        &Server::start(&["--storage", "memory", "--allow-missing-content"]),
        "1.1",
        860,
    );
}

#[test]
fn the_next_version_on_memory() {
    run(
        &Server::start(&["--storage", "memory", "--allow-missing-content"]),
        "dev",
        1032,
    );
}

#[test]
fn version_1_0_on_disk() {
    run(
        &Server::start(&["--storage", "data", "--allow-missing-content"]),
        "1.0",
        850,
    );
}

#[test]
fn version_1_1_on_disk() {
    run(
        &Server::start(&["--storage", "data", "--allow-missing-content"]),
        "1.1",
        860,
    );
}

#[test]
fn the_next_version_on_disk() {
    run(
        &Server::start(&["--storage", "data", "--allow-missing-content"]),
        "dev",
        1032,
    );
}

#[test]
fn each_version_on_a_bucket() {
    for (version, tests) in [("1.0", 850), ("1.1", 860), ("dev", 1032)] {
        let (_bucket, server) = Server::on_test_bucket(&["--allow-missing-content"]);
        run(&server, version, tests);
    }
}

#[test]
fn counts_that_are_absent_are_0() {
    let report = r#"<testsuites tests="3"><testsuite name="x" tests="3" failures="1" errors="0" time="1">"#;
    let expected = Counts {
        tests: 3,
        failures: 1,
        errors: 0,
        skipped: 0,
        disabled: 0,
    };
    assert_eq!(Counts::parse(report), expected);
}
