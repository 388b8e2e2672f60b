//! What starts: variables alone.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::{program, with_configuration};

/// A server that is killed at its end, and where it listens.
pub(crate) struct Running {
    process: Child,
    pub(crate) url: String,
    pub(crate) folder: TempDir,
}

impl Running {
    /// Starts `serve` with `text` as its file and these variables, on a port of the system's choice.
    pub(crate) fn start(text: Option<&str>, variables: &[(&str, &str)]) -> Self {
        let folder = with_configuration(text.unwrap_or_default());
        let log = std::fs::File::create(folder.path().join("log")).expect("a file can be made");
        let mut command = program(folder.path());
        command.arg("serve").envs(variables.iter().copied());
        if text.is_some() {
            command.arg("config.yml");
        }
        let mut process = command
            .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        let output = process.stdout.take().expect("it was piped");
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it says where it listens");
        let url = line.trim().strip_prefix("Listening on ").map(str::to_owned);
        let mut running = Self {
            process,
            url: String::new(),
            folder,
        };
        running.url = url.unwrap_or_else(|| panic!("it did not start: {line}{}", running.log()));
        running
    }

    /// The address that it listens on, without encryption.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.url.strip_prefix("http://").expect("it is not encrypted");
        address.parse().expect("it is an address and a port")
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

const PLACE: (&str, &str) = ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "data");

#[test]
fn variables_alone_are_enough() {
    let server = Running::start(None, &[PLACE, ("REGISTRY_LOG_FORMATTER", "json")]);
    assert!(server.folder.path().join("data").is_dir());
}
