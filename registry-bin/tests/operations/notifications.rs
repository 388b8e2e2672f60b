//! Notifications of the program, whatever ends it.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::address::free_address;
use crate::support::bucket::BucketServer;
use crate::support::client::Request;
use crate::support::content::Random;
use crate::support::repository::{IMAGE, INDEX, Repository, descriptor, index};
use crate::support::server::{Server, until};
use crate::support::sink::{Sink, Told};
use crate::write;

const FOLDER: &str = "filesystem: {rootdirectory: FOLDER/data}";

fn configuration(url: &str) -> String {
    configured(FOLDER, "{}", url)
}

fn configured(storage: &str, outbox: &str, url: &str) -> String {
    format!(
        "version: 0.1\nstorage: {{{storage}, delete: {{enabled: true}}}}\nnotifications:\n  outbox: {outbox}\n  \
         endpoints: [{{name: sink, url: '{url}', backoff: 20ms, ignore: {{actions: [pull]}}}}]\n"
    )
}

fn start(folder: &Path, url: &str) -> Server {
    Server::configured(&write(folder, &configuration(url)))
}

/// Returns the tags of manifests that were pushed, each once, in the order in which they were told.
fn tags(told: &[Told]) -> Vec<String> {
    let mut seen = Vec::new();
    let mut tags = Vec::new();
    for told in told {
        let event = &told.json()["events"][0];
        if let (Some(tag), false) = (event["target"]["tag"].as_str(), seen.contains(&event["id"])) {
            tags.push(tag.to_owned());
        }
        seen.push(event["id"].clone());
    }
    tags
}

#[test]
fn nothing_is_lost_when_the_server_is_killed_before_it_told() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = free_address();
    let url = format!("http://{address}/");
    let mut expected = Vec::new();
    for round in 0..3 {
        let server = start(folder.path(), &url);
        let repository = Repository::new(server.address(), "a/b");
        for number in 0..5 {
            let tag = format!("t{round}-{number}");
            repository.push_image(&tag, &tag);
            expected.push(tag);
        }
        // The last push was answered just now, and nobody ever listened at the endpoint.
        server.kill9();
    }
    let server = start(folder.path(), &url);
    let sink = Sink::on(TcpListener::bind(address).expect("the port is still free"));
    let mut count = expected.len();
    loop {
        // Blobs are told of too.
        let told = sink.wait(count);
        let found = tags(&told);
        if found.len() >= expected.len() {
            assert_eq!(found, expected);
            break;
        }
        count = told.len() + 1;
    }
    assert!(server.terminate().success());
}

#[test]
fn no_delete_is_lost_by_a_kill_at_any_moment() {
    no_delete_is_lost(30, FOLDER, "{}");
}

/// Events waited in memory, and ended with the process.
#[test]
fn no_delete_of_what_is_in_a_bucket_is_lost_where_the_outbox_has_a_file() {
    let bucket = BucketServer::start();
    let storage = format!(
        "s3: {{region: us-east-1, bucket: bucket, regionendpoint: '{}', accesskey: a, secretkey: b}}",
        bucket.url()
    );
    no_delete_is_lost(10, &storage, "{path: FOLDER/outbox}");
}

/// Kills a server again and again while tags are deleted, and looks whether each delete is told of, and nothing else.
fn no_delete_is_lost(rounds: u64, storage: &str, outbox: &str) {
    /// How many tags there are in each round.
    const TAGS: u64 = 40;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = Sink::start();
    let start = || Server::configured(&write(folder.path(), &configured(storage, outbox, &sink.url())));
    let mut random = Random::new(20_261_128);
    let mut deleted = BTreeSet::new();
    for round in 0..rounds {
        let server = start();
        let repository = Repository::new(server.address(), "a/b");
        let tags: Vec<String> = (0..TAGS).map(|number| format!("r{round}-t{number}")).collect();
        let image = repository.push_image(&tags[0], "the same").content;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        for tag in &tags[1..] {
            let request = repository.request("PUT", &format!("manifests/{tag}"));
            request
                .header("Content-Type", kind)
                .body(&image)
                .send()
                .expect_status(201);
        }
        let (steps, begun) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let delete = |tag: &str| {
                    repository
                        .request("DELETE", &format!("manifests/{tag}"))
                        .try_send()
                };
                while let Some(tag) = tags.iter().find(|tag| !deleted.contains(*tag)) {
                    steps.send(()).ok();
                    let Ok(response) = delete(tag) else { break };
                    response.expect_status(202);
                    deleted.insert(tag.clone());
                }
            });
            for _ in 0..=random.below(TAGS - 10) {
                begun
                    .recv_timeout(Duration::from_secs(60))
                    .expect("the client makes progress");
            }
            thread::sleep(Duration::from_micros(random.below(2500)));
            server.kill9();
        });
    }
    let server = start();
    let repository = Repository::new(server.address(), "a/b");
    // Those too whose delete was done and not answered.
    let mut left: BTreeSet<String> = BTreeSet::new();
    let mut last = String::new();
    loop {
        let page = repository.get(&format!("tags/list?n=1000&last={last}"));
        page.expect_status(200);
        let page: Value = serde_json::from_slice(&page.body).expect("lists are JSON");
        let tags: Vec<&str> = page["tags"]
            .as_array()
            .map_or_else(Vec::new, |tags| tags.iter().filter_map(Value::as_str).collect());
        let Some(end) = tags.last() else { break };
        last = (*end).to_owned();
        left.extend(tags.into_iter().map(str::to_owned));
    }
    let all = (0..rounds).flat_map(|round| (0..TAGS).map(move |number| format!("r{round}-t{number}")));
    let gone: BTreeSet<String> = all.filter(|tag| !left.contains(tag)).collect();
    assert!(
        gone.is_superset(&deleted) && gone.len() as u64 > rounds,
        "{}",
        gone.len()
    );
    assert!(server.terminate().success());
    let mut told = BTreeSet::new();
    for event in sink.told() {
        let event = &event.json()["events"][0];
        if event["action"] == "delete" {
            told.insert(
                event["target"]["tag"]
                    .as_str()
                    .expect("tags were deleted")
                    .to_owned(),
            );
        }
    }
    let lost: Vec<_> = gone.difference(&told).collect();
    let untrue: Vec<_> = told.difference(&gone).collect();
    assert!(
        lost.is_empty() && untrue.is_empty(),
        "lost: {lost:?}, untrue: {untrue:?}"
    );
}

#[test]
fn pulls_with_long_header_fields_do_not_fill_the_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = free_address();
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\n\
         notifications: {{outbox: {{bytes: 1048576}}, endpoints: [{{name: sink, url: 'http://{address}/', backoff: 1h}}]}}\n"
    );
    let server = Server::configured(&write(folder.path(), &configuration));
    let repository = Repository::new(server.address(), "a/b");
    repository.push_image("t1", "one");
    let long = "a".repeat(60_000);
    let pull = |count: usize, agent: &str| {
        for _ in 0..count {
            let request = repository
                .request("HEAD", "manifests/t1")
                .header("User-Agent", agent);
            request.send().expect_status(200);
        }
    };
    let taken = || -> u64 {
        let files = std::fs::read_dir(folder.path().join("data")).expect("there is a folder");
        let files = files.map(|file| file.expect("it can be read"));
        files
            .filter(|file| file.file_name().to_string_lossy().starts_with("notifications"))
            .map(|file| file.metadata().expect("it is there").len())
            .sum()
    };
    // The limit, and the log of the database.
    let most = 8 * 1024 * 1024;
    pull(300, &long);
    assert!(taken() < most, "{}", taken());
    pull(3000, "agent");
    assert!(taken() < most, "{}", taken());
    assert!(server.finish().contains("the outbox is full"));
    let file = folder.path().join("data/notifications").metadata();
    let size = file.expect("it is there").len();
    assert!(size <= 1_200_000, "{size}");
}

#[test]
fn what_waits_is_sent_before_an_orderly_end() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = Sink::start();
    let server = start(folder.path(), &sink.url());
    let repository = Repository::new(server.address(), "a/b");
    let expected: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    for tag in &expected {
        repository.push_image(tag, "the same");
    }
    repository.delete("manifests/t3").expect_status(202);
    assert!(server.terminate().success());
    let told = sink.told();
    let mut found = tags(&told);
    assert_eq!(found.pop().as_deref(), Some("t3"), "the delete comes last");
    assert_eq!(found, expected);
    let last = &told.last().expect("there are some").json()["events"][0];
    assert_eq!(
        (&last["action"], &last["actor"]),
        (&"delete".into(), &serde_json::json!({}))
    );
}

#[test]
fn an_endpoint_that_hangs_holds_up_no_push_and_fills_no_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = hanging.local_addr().expect("a socket has an address");
    let (sink, debug) = (Sink::start(), free_address());
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\n\
         http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}\n\
         notifications:\n  outbox: {{limit: 10}}\n  endpoints:\n    \
         - {{name: hangs, url: 'http://{url}', timeout: 30s, ignore: {{actions: [pull]}}}}\n    \
         - {{name: takes, url: '{}', ignore: {{actions: [pull]}}}}\n",
        sink.url()
    );
    let server = Server::configured(&write(folder.path(), &configuration));
    let repository = Repository::new(server.address(), "a");
    let mut expected = Vec::new();
    for number in 0..20 {
        let tag = format!("t{number}");
        let begin = Instant::now();
        repository.push_image(&tag, &tag);
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        expected.push(tag);
        // Each image is two blobs and a manifest; who takes them in time misses none.
        sink.wait(3 * (number + 1));
    }
    assert_eq!(tags(&sink.told()), expected);
    let metrics = || {
        let metrics = Request::new(debug, "GET", "/metrics").send().body;
        String::from_utf8(metrics).expect("metrics are text")
    };
    for line in [
        "registry_notifications_pending_total{endpoint=\"hangs\"} 10",
        "registry_notifications_pending_total{endpoint=\"takes\"} 0",
        "registry_notifications_lost_total 50",
    ] {
        // What was taken is written down a moment later.
        until(|| metrics().lines().any(|found| found == line));
    }
    let output = server.output_with("the outbox is full");
    assert_eq!(output.matches("the outbox is full").count(), 1, "{output}");
    assert!(server.terminate().success());
}

#[test]
fn a_restore_tells_of_every_manifest_that_came_back() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = Sink::start();
    let server = start(folder.path(), &sink.url());
    let repository = Repository::new(server.address(), "a/b");
    let images = ["t1", "t2"].map(|tag| repository.push_image(tag, tag));
    let entries = images.each_ref().map(|image| descriptor(IMAGE, &image.content));
    let of_index = repository.push_manifest("both", INDEX, index(&entries).to_string().as_bytes());
    for digest in [&of_index, &images[0].digest, &images[1].digest] {
        repository
            .delete(&format!("manifests/{digest}"))
            .expect_status(202);
    }
    // Two blobs and a manifest for each image, the index, and the deletes.
    let before = sink.wait(10).len();
    let restored = repository
        .request("POST", "_registry/tags/restore?tag=both")
        .send();
    restored.expect_status(201);
    let told = sink.wait(before + 3);
    let told = told[before..].iter().map(|told| {
        let event = &told.json()["events"][0];
        assert_eq!(event["action"], "push");
        let text = |field: &str| event["target"][field].as_str().unwrap_or_default().to_owned();
        (text("digest"), text("tag"))
    });
    let expected = [
        (images[0].digest.clone(), String::new()),
        (images[1].digest.clone(), String::new()),
        (of_index, "both".to_owned()),
    ];
    assert_eq!(told.collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert!(server.terminate().success());
}
