//! The server under load, as a process with a folder and a port of its own.

#![expect(clippy::disallowed_methods, reason = "benchmarks are programs of their own")]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: f64 = 1_048_576.0;

/// A server that runs. Dropping it kills it.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Server {
    /// Starts it with an empty store in `folder`, open to everybody, with notifications for an endpoint that is not there.
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(said)?;
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let nobody = nobody.map_err(said)?;
        let configuration = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"0.0.0.0:0\"}}\n\
             notifications: {{endpoints: [{{name: nobody, url: \"http://{nobody}\", timeout: 1s, threshold: 3, backoff: 1s}}]}}\n",
            folder.join("data").display()
        );
        fs::write(&configuration, text).map_err(said)?;
        let log = File::create(folder.join("log")).map_err(said)?;
        let process = Command::new(program)
            .arg("serve")
            .arg(&configuration)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(said)?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut server = Self {
            process,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            folder: folder.to_owned(),
        };
        let began = Instant::now();
        loop {
            let is_ended = !matches!(server.process.try_wait(), Ok(None));
            let log = fs::read_to_string(folder.join("log")).map_err(said)?;
            if let Some(port) = announced_port(&log) {
                server.address.set_port(port);
                return Ok(server);
            }
            if is_ended || began.elapsed() > PATIENCE {
                return Err(format!("the server does not start: {log}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to take the peak of memory anew (proc(5), `clear_refs`).
    pub(crate) fn reset_peak(&self) -> Result<(), String> {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))
    }

    /// Returns the peak of memory in MiB.
    pub(crate) fn peak(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes / 1024.0)
            .ok_or_else(|| "the server has ended".to_owned())
    }

    /// Returns the size of its folder in MiB.
    pub(crate) fn stored(&self) -> Result<f64, String> {
        size_of(&self.folder)
            .map(|bytes| bytes as f64 / MIB)
            .map_err(|error| format!("{}: {error}", self.folder.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Returns the port that the server says it listens on.
fn announced_port(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("Listening on http://")?;
    let (address, _) = rest.split_once('\n')?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// What is taken away meanwhile counts as nothing.
fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
    }
    Ok(size)
}
