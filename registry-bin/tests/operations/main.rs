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

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::server::pause;

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

/// Returns an address at which nobody listens just now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a socket has an address")
}

/// Waits until `check` is true.
fn until(mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < end, "it did not happen in time");
        pause();
    }
}
