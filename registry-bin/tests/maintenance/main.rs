//! The commands of `docs/maintenance.md`, with a running server and without one.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod backup;
mod check;
mod collect;
mod copy;
mod failover;
mod images;
mod quotas;
mod repositories;
mod retention;
mod socket;
mod tags;
mod usage;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::repository::{CONFIG, IMAGE, LAYER, Repository, descriptor, image};

/// Pushes an image with a large layer, and returns the digests of its manifest and of its layer.
fn push(repository: &Repository, tag: &str, fill: u8) -> (String, String) {
    let (config, layer) = (format!("{{\"fill\":{fill}}}"), vec![fill; 100_000]);
    repository.push_blob(config.as_bytes());
    let layer_digest = repository.push_blob(&layer);
    let manifest = image(
        &descriptor(CONFIG, config.as_bytes()),
        &[descriptor(LAYER, &layer)],
    );
    let digest = repository.push_manifest(tag, IMAGE, manifest.to_string().as_bytes());
    (digest, layer_digest)
}

/// Runs the program in `folder`, and waits for its end.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .arg("120")
        .arg(env!("CARGO_BIN_EXE_registry-bin"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

/// Runs the program and returns what it printed.
///
/// # Panics
/// If it did not succeed.
#[track_caller]
fn success(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the program and returns all that it said.
///
/// # Panics
/// If the exit code is not 1.
#[track_caller]
fn failure(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}
