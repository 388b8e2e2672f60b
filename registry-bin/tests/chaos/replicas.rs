//! The run itself. `CHAOS_SECONDS` says how long it takes, `CHAOS_SEED` which faults and clients it has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::balancer::Balancer;
use super::client::Client;
use super::engine::Engine;
use super::skopeo::Skopeo;
use super::store::Store;
use crate::support::content::Random;
use crate::support::server::{Server, until};

const SECONDS: u64 = 45;
/// How many there are at most.
const MOST_REPLICAS: usize = 3;
const CLIENTS: u64 = 4;
/// How many requests in a hundred the bucket fails.
const FAULTS: usize = 5;
/// More than twice the longest push, and than the clocks differ.
const GRACE: Duration = Duration::from_secs(30);
/// How long an upload may be idle: longer than the clocks differ, or one server aborts what another one has just begun, and docker does
/// not repeat the upload of a configuration.
const IDLE: Duration = Duration::from_secs(25);
/// By how many seconds the clocks of the replicas are wrong, where `faketime` is installed.
const CLOCKS: [&str; MOST_REPLICAS] = ["+5s", "-5s", "+0s"];

fn variable(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// Starts the replica with this number, whose clock is wrong.
fn start(number: usize, configuration: &Path, store: &Store) -> Server {
    let path = configuration
        .to_str()
        .expect("temporary folders have plain names");
    let mut environment = store.environment();
    let library = faketime_library();
    if let Some(library) = &library {
        environment.push(("LD_PRELOAD", library));
        environment.push(("FAKETIME", CLOCKS[number]));
        environment.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
    }
    Server::run_with(&["serve", path, "--wait"], &environment)
}

/// Returns the library that changes the clock of a process, if it is installed.
fn faketime_library() -> Option<String> {
    let output = Command::new("faketime")
        .args(["-f", "+0s", "printenv", "LD_PRELOAD"])
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn replicas_that_are_killed_over_a_bucket_that_fails_lose_nothing_and_leave_nothing() {
    run(&Store::double());
}

/// The server does not fail, and its clients are those of real life.
#[test]
#[ignore = "needs S3_TEST_ENDPOINT and S3_TEST_BUCKET"]
fn replicas_that_are_killed_over_any_bucket_lose_nothing_and_leave_nothing() {
    run(&Store::of_variables());
}

#[expect(
    clippy::print_stdout,
    reason = "the seed repeats the run, and the counts are to be noted"
)]
fn run(store: &Store) {
    let seconds = variable("CHAOS_SECONDS", SECONDS);
    let clock = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock")
        .as_secs();
    let seed = variable("CHAOS_SEED", clock);
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = folder.path().join("config.yml");
    let deletes_on_condition = seed.is_multiple_of(2);
    let count = if seed.is_multiple_of(3) { 2 } else { MOST_REPLICAS };
    let text = format!(
        "version: 0.1\nstorage: {{s3: {}, delete: {{enabled: true}}, \
         maintenance: {{uploadpurging: {{age: {}s, interval: 1s}}}}}}\n\
         collector: {{interval: 1s, grace: {}s, keepdeleted: 1s}}\nhttp: {{addr: 127.0.0.1:0, draintimeout: 5s}}\n",
        store.section(deletes_on_condition),
        IDLE.as_secs(),
        GRACE.as_secs()
    );
    fs::write(&configuration, text).expect("the file can be written");

    let balancer = Balancer::start(count);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| Client::new(number, seed, balancer.address(), GRACE))
        .collect();
    let skopeo = Skopeo::find(folder.path(), balancer.address());
    let mut engines = Engine::all(folder.path(), balancer.address());
    let (mut kills, mut stops) = (0, 0);
    let stop = AtomicBool::new(false);
    let mut replicas: Vec<Server> = Vec::new();
    for number in 0..count {
        let replica = start(number, &configuration, store);
        balancer.set(number, Some(replica.address()));
        replicas.push(replica);
    }
    store.fail(seed, FAULTS);
    thread::scope(|scope| {
        // A client that fails stops all, or the scope would wait for the others.
        let _stopped = StopAtEnd(&stop);
        for client in &mut clients {
            scope.spawn(|| {
                let _stopped = StopAtEnd(&stop);
                client.work(&stop);
            });
        }
        if let Some(skopeo) = &skopeo {
            scope.spawn(|| {
                let _stopped = StopAtEnd(&stop);
                skopeo.work(&stop);
            });
        }
        for engine in &mut engines {
            scope.spawn(|| {
                let _stopped = StopAtEnd(&stop);
                engine.work(&stop);
            });
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !stop.load(Ordering::SeqCst) {
            let pause = Duration::from_millis(300 + random.below(3000));
            let waited = Instant::now();
            while waited.elapsed() < pause && Instant::now() < end && !stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(50));
            }
            let number = random.below(count as u64) as usize;
            let replica = replicas.remove(number);
            require_no_panic(&replica);
            if random.below(4) == 0 {
                // As a deployment does: it takes no new connection, and ends what it has.
                balancer.set(number, None);
                assert!(replica.terminate().success());
                stops += 1;
            } else {
                replica.kill9();
                thread::sleep(Duration::from_millis(random.below(500)));
                balancer.set(number, None);
                kills += 1;
            }
            let replica = start(number, &configuration, store);
            balancer.set(number, Some(replica.address()));
            replicas.insert(number, replica);
            store.forget_requests();
        }
    });
    store.fail(seed, 0);

    let total = |count: fn(&Client) -> u64| clients.iter().map(count).sum::<u64>();
    println!(
        "{seconds} s, {kills} kills, {stops} stops: {} pushes, {} pulls, {} deletes; {} broken connections, {} answers to try \
         later, {} uploads resumed, {} begun again; longest push {:.1} s; skopeo {}, {}",
        total(|client| client.counts.pushed),
        total(|client| client.counts.pulled),
        total(|client| client.counts.deleted),
        total(|client| client.counts.broken),
        total(|client| client.counts.unavailable),
        total(|client| client.counts.resumed),
        total(|client| client.counts.restarted),
        clients
            .iter()
            .map(|client| client.counts.longest_push)
            .max()
            .unwrap_or_default()
            .as_secs_f32(),
        skopeo.as_ref().map_or(0, Skopeo::copies),
        engines
            .iter()
            .map(Engine::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    );
    let enough = seconds / 2;
    assert!(
        total(|client| client.counts.pushed) > enough && total(|client| client.counts.pulled) > enough / 2
    );

    // Every replica has what was answered.
    for client in &mut clients {
        for replica in &replicas {
            client.expect_all(replica.address());
        }
    }
    // What nothing names goes, and nothing else.
    let named: BTreeSet<(u64, u64)> = clients
        .iter()
        .flat_map(|client| client.images.values())
        .flat_map(|image| image.layers.iter().copied())
        .filter(|(_, length)| *length > SMALL_BLOB)
        .collect();
    if let Some(skopeo) = &skopeo {
        skopeo.delete_all();
    }
    engines.iter().for_each(Engine::delete_all);
    expect_bytes(store, named.len());
    for client in &mut clients {
        client.expect_all(replicas[0].address());
        client.delete_all();
    }
    expect_bytes(store, 0);
    println!("objects at the end: {:?}", store.folders());
    // Of an upload that was begun in the bucket and never recorded there are no parts.
    until(|| store.parts_of_open_uploads() == 0);
    for replica in replicas {
        require_no_panic(&replica);
        assert!(replica.terminate().success());
    }
}

/// The longest blob that is kept in its record, in bytes.
const SMALL_BLOB: u64 = 16 << 10;

/// Tells everybody to stop at the end of a thread, however it ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn require_no_panic(replica: &Server) {
    let output = replica.output();
    assert!(!output.contains("panicked"), "{output}");
}

/// How long nothing may go: a manifest, the grants of its blobs and the blobs themselves go one after the other, each after a
/// grace and in the next cycle, and on a busy machine a cycle takes a minute.
const PATIENCE: Duration = Duration::from_mins(6);

/// Waits until the bucket has this many blobs in objects of their own.
fn expect_bytes(store: &Store, expected: usize) {
    let mut end = Instant::now() + PATIENCE;
    let mut fewest = usize::MAX;
    loop {
        let found = store.byte_strings();
        if found == expected {
            return;
        }
        if found < fewest {
            fewest = found;
            end = Instant::now() + PATIENCE;
        }
        assert!(
            Instant::now() < end,
            "{expected} blobs are named, and {found} are there"
        );
        thread::sleep(Duration::from_millis(100));
    }
}
