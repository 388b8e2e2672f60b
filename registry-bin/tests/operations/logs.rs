//! Logs that nobody reads, that are full, and what is in them by default.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::address::free_address;
use crate::support::client::Request;
use crate::support::repository::Repository;
use crate::support::server::{Server, pause, until};
use crate::support::users::GuardedServer;
use crate::write;

/// Lines are long, so that few requests fill the pipe and the queue.
fn long_path(number: usize) -> String {
    format!("/{number}/{}", "x".repeat(900))
}

#[test]
fn a_standard_error_that_nobody_reads_stops_no_request_and_no_end() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let debug = free_address();
    let path = write(
        folder.path(),
        &format!(
            "version: 0.1\nstorage: {{inmemory: {{}}}}\nlog: {{accesslog: {{format: text}}, audit: {{enabled: true}}}}\n\
             http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}\n"
        ),
    );
    let (reader, errors) = io::pipe().expect("a pipe can be made");
    let server = Server::configured_with_errors_to(&path, Stdio::from(errors));
    let requests = 6000;
    for number in 0..requests {
        server
            .request("DELETE", &long_path(number))
            .send()
            .expect_status(404);
    }
    let metrics = || {
        let metrics = Request::new(debug, "GET", "/metrics").send().body;
        String::from_utf8(metrics).expect("metrics are text")
    };
    let dropped = |metrics: &str| -> u64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("registry_log_dropped_lines_total{log=\"server\"} "));
        line.expect("there is such a metric").parse().expect("a number")
    };
    let dropped = dropped(&metrics());
    assert!(dropped > 0, "the test does not fill the queue");

    // It is read after all, and says how much is missing.
    let mut lines = BufReader::new(reader)
        .lines()
        .map(|line| line.expect("lines can be read"));
    let mut seen = 0;
    let told = loop {
        let line = lines.next().expect("the server says how many lines are missing");
        if line.contains("/x") || line.contains("xxx") {
            seen += 1;
        }
        if let Some((_, count)) = line.split_once("WARN ") {
            let count = count
                .split(" lines were dropped")
                .next()
                .expect("there is a part");
            if let Ok(count) = count.parse::<u64>() {
                break count;
            }
        }
    };
    assert!(told >= dropped, "{told} {dropped}");
    // Of each request there are two lines: that of the log, and that of the audit.
    assert_eq!(seen + told, 2 * requests as u64);

    // Filled again, it does not hold up the end either.
    for number in 0..200 {
        server
            .request("DELETE", &long_path(number))
            .send()
            .expect_status(404);
    }
    let begin = Instant::now();
    assert!(server.terminate().success());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn a_failed_start_says_why_after_the_log_and_ends_where_nobody_reads_it() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let text = "version: 0.1\nstorage: {inmemory: {}}\nhttp: {addr: 'nowhere:x'}\n";
    let path = write(folder.path(), text);
    let serve = |errors: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
        command.arg("serve").arg(&path).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        command.spawn().expect("the server can be started")
    };
    let (mut reader, errors) = io::pipe().expect("a pipe can be made");
    let mut process = serve(Stdio::from(errors));
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("it can be read");
    assert!(!process.wait().expect("it can be waited for").success());
    let last = said.lines().last().expect("it says something");
    assert!(
        last.starts_with("error: ") && last.contains("http.addr"),
        "{said}"
    );

    // A pipe that is full and stays so.
    let (_reader, mut errors) = io::pipe().expect("a pipe can be made");
    fill(&mut errors);
    let mut process = serve(Stdio::from(errors));
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        match process.try_wait().expect("it can be waited for") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                process.kill().expect("it can be killed");
                panic!("it does not end");
            }
            None => pause(),
        }
    };
    assert!(!status.success());
}

/// Fills a pipe of the usual 64 KiB.
fn fill(pipe: &mut io::PipeWriter) {
    pipe.write_all(&[b'x'; 65_536]).expect("a pipe takes 64 KiB");
}

#[test]
fn an_audit_log_on_a_full_disk_or_a_pipe_without_reader_stops_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    for (audit, is_told) in [("/dev/full", true), ("FOLDER/pipe", false)] {
        let text = format!("version: 0.1\nstorage: {{inmemory: {{}}}}\nlog: {{audit: {{path: {audit}}}}}\n");
        let server = Server::configured(&write(folder.path(), &text));
        for number in 0..300 {
            server
                .request("DELETE", &long_path(number))
                .send()
                .expect_status(404);
        }
        until(|| server.output().contains("cannot be written") == is_told);
        assert!(server.terminate().success());
    }
}

const USERS: &str = "\
version: 0.1
log: {LOG accesslog: {disabled: true}}
storage: {inmemory: {}}
auth: {htpasswd: {realm: registry, path: USERS}}
access:
  rules:
    - {repositories: ['**'], identities: [alice], actions: ['*']}
";

/// Returns what a server says of a push that is done and one that is refused, without the lines before them.
fn said_of_pushes(log: &str) -> String {
    let server = GuardedServer::start(&USERS.replace("LOG", log));
    server.repository("alice", "app").push_image("v1", "one");
    server
        .repository("bob", "app")
        .get("manifests/v1")
        .expect_status(403);
    server
        .repository("", "app")
        .request("DELETE", "manifests/v1")
        .send()
        .expect_status(401);
    server.server.finish()
}

#[test]
fn by_default_a_refusal_is_one_readable_line_and_a_push_is_none() {
    let said = said_of_pushes("");
    assert!(!said.contains("{\""), "JSON within a text: {said}");
    let refused: Vec<&str> = said.lines().filter(|line| line.contains("refused")).collect();
    assert_eq!(refused.len(), 2, "{said}");
    for part in [
        " INFO refused method=GET path=/v2/app/manifests/v1 status=403 ",
        "principal=\"bob\"",
    ] {
        assert!(refused[0].contains(part), "{part}: {said}");
    }
    assert!(refused[1].contains("status=401"), "{said}");
    assert!(!said.contains("status=201"), "{said}");
}

#[test]
fn with_the_level_error_nothing_is_said_of_pushes() {
    let said = said_of_pushes("level: error,");
    for line in said.lines() {
        let is_ours = ["Listening", "Storing", "Push with"]
            .iter()
            .any(|word| line.starts_with(word));
        assert!(is_ours, "{said}");
    }
}

#[test]
fn an_audit_log_on_the_standard_error_is_lines_of_json_and_has_a_level_of_its_own() {
    for (level, outcomes) in [
        ("info", vec!["done", "done", "done", "refused", "refused"]),
        ("warn", vec!["refused", "refused"]),
        ("error", vec![]),
    ] {
        let said = said_of_pushes(&format!(
            "level: error, audit: {{enabled: true, level: {level}}},"
        ));
        let lines = said.lines().filter(|line| line.contains("audit"));
        let found: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let found: Vec<&str> = found
            .iter()
            .filter(|line| !matches!(line["method"].as_str(), Some("POST" | "PATCH")))
            // Not the first question, how to log in.
            .filter(|line| line["path"] != "/v2/")
            .map(|line| line["outcome"].as_str().expect("there is an outcome"))
            .collect();
        assert_eq!(found, outcomes, "{level}: {said}");
    }
}

#[test]
fn a_long_header_and_hidden_characters_make_short_printable_lines() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let text = "version: 0.1\nstorage: {inmemory: {}}\n\
                log: {accesslog: {format: json}, audit: {path: FOLDER/audit}}\n";
    let server = Server::configured(&write(folder.path(), text));
    let agent = format!("\u{85}\u{9b}31m\u{202e}\u{2066}\u{2028}{}", "a".repeat(60_000));
    let repository = Repository::new(server.address(), "app");
    let request = repository
        .request("DELETE", "manifests/v1")
        .header("User-Agent", &agent);
    request.send().expect_status(405);
    let audit = || std::fs::read_to_string(folder.path().join("audit")).unwrap_or_default();
    until(|| audit().contains("DELETE") && server.output().contains("DELETE"));
    for log in [audit(), server.output()] {
        let line = log
            .lines()
            .find(|line| line.contains("DELETE"))
            .expect("it is there");
        assert!(line.len() < 2000, "{}", line.len());
        assert!(
            line.chars().all(|character| (' '..='~').contains(&character)),
            "{line}"
        );
        if let Ok(line) = serde_json::from_str::<Value>(line) {
            let agent = line["user_agent"].as_str().expect("a text");
            assert!(agent.starts_with("\u{85}\u{9b}31m\u{202e}"), "{agent}");
            assert!(agent.ends_with(" more bytes]"), "{agent}");
        }
    }
}
