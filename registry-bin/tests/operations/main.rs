//! What operators see of a server: notifications, logs, metrics, health.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod audit;
mod health;
mod listeners;
mod logs;
mod notifications;
mod proxies;
mod redirects;
mod scripts;
mod secrets;
#[cfg(feature = "opentelemetry")]
mod traces;

use std::path::{Path, PathBuf};

/// Writes a configuration with `FOLDER` in place of the folder's path.
fn write(folder: &Path, configuration: &str) -> PathBuf {
    let path = folder.join("config.yml");
    let text = configuration.replace(
        "FOLDER",
        folder.to_str().expect("temporary folders have plain names"),
    );
    std::fs::write(&path, text).expect("a file can be written");
    path
}
