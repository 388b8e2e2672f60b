//! Configurations and the real program: what it starts with, what it refuses and how it says so, what it takes over
//! while it runs.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod broken;
mod canaries;
mod claims;
mod commands;
mod handshakes;
mod images;
mod owners;
mod places;
mod registry2;
mod reload;
mod secrets;
mod starts;
mod surroundings;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The program, in a folder and an environment of its own.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("REGISTRY_")) {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs the program to its end, with `text` as `config.yml` of its folder.
fn run(arguments: &[&str], text: &str, variables: &[(&str, &str)]) -> Output {
    let folder = with_configuration(text);
    let mut command = program(folder.path());
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the program can be started")
}

/// Waits until something holds.
#[track_caller]
/// A folder with `text` as `config.yml`.
fn with_configuration(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("config.yml"), text).expect("a file can be written");
    folder
}
