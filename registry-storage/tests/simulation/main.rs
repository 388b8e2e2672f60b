//! A deterministic simulation of the real code on one bucket. A seed says who does what, and how many turns each call of the
//! bucket waits, so a seed that fails fails again.
//!
//! [`large`] has two processes and six clients, who do much at once. [`small`] has a few processes, each of which does one or
//! two things to the same few records; some stop for as long as others take for whole cycles. In some, all pairs of stops at
//! which two others do something come one after the other. After each request, all records are compared.
//!
//! `SIMULATION_SEEDS=from..to` runs other seeds than every run of the tests does, and prints what the clients of the small
//! worlds do.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]
#![expect(clippy::unwrap_used, reason = "test code")]
#![expect(clippy::print_stdout, reason = "what a seed does is printed if it fails")]

mod contents;
mod large;
mod small;
#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use registry_storage::testing::Faulty;
use registry_storage::testing::repeat::repeat_identifiers;
use registry_storage::{CollectOptions, Maintenance as _, ObjectStoreBackend, Store};

type Process = Store<Faulty<ObjectStoreBackend>>;

/// Names the seeds to run.
const SEEDS: &str = "SIMULATION_SEEDS";

#[test]
fn nothing_breaks_in_large_worlds() {
    let calls = run(0..240, large::run);
    assert!(
        calls.is_none_or(|calls| calls >= 600_000),
        "too little is done to be a test: {calls:?}"
    );
}

#[test]
fn nothing_breaks_in_small_worlds() {
    let calls = run(0..5000, small::run);
    assert!(
        calls.is_none_or(|calls| calls >= 600_000),
        "too little is done to be a test: {calls:?}"
    );
}

#[test]
fn nothing_breaks_at_two_stops() {
    run(0..small::PAIRS, small::run_pair);
}

/// Runs worlds, each of which returns how many calls of the bucket it made. Returns how many all made, unless other seeds
/// than the usual ones ran.
fn run(usual: std::ops::Range<u64>, world: impl AsyncFn(u64) -> u64) -> Option<u64> {
    let asked = asked_seeds();
    let mut calls = 0;
    for seed in asked.clone().unwrap_or(usual) {
        // Printed only if the test fails, as all output of a test is.
        print!("seed {seed}: ");
        repeat_identifiers(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let made = runtime.block_on(world(seed));
        println!("{made} calls");
        calls += made;
    }
    println!("{calls} calls of the bucket");
    asked.is_none().then_some(calls)
}

fn asked_seeds() -> Option<std::ops::Range<u64>> {
    let text = std::env::var(SEEDS).ok()?;
    let (from, to) = text.split_once("..").unwrap();
    Some(from.parse().unwrap()..to.parse().unwrap())
}

fn collecting() -> CollectOptions {
    CollectOptions::new().grace(Duration::ZERO)
}

/// Asserts that cycles find all there is without a pass over everything; but for what is still Pending.
async fn assert_cycles_find_all(process: &Process) {
    for _ in 0..4 {
        process.collect(&collecting(), &()).await.unwrap();
    }
    let all = process.collect(&collecting().dry_run(true), &()).await.unwrap();
    let found = [
        all.young,
        all.waiting,
        all.condemned,
        all.removed,
        all.removed_blobs,
    ];
    assert!(
        found.iter().all(|found| found.blobs == 0) && all.blobs_left == 0,
        "{all:?}"
    );
}

/// Lets all others run this many times, as a delayed call does. Tokio's own `yield_now` lets them run much more often.
async fn wait(mut turns: usize) {
    poll_fn(|context| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls a future so often at most, then drops it.
async fn poll_times<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if times == 0 => Poll::Ready(None),
        Poll::Pending => {
            times -= 1;
            Poll::Pending
        }
    })
    .await
}
