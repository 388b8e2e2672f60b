//! The servers that are measured, as processes with a folder and a port of their own.

#![expect(clippy::disallowed_methods, reason = "benchmarks are programs of their own")]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Request;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Debug)]
pub(crate) enum Kind {
    /// This server, with environment variables.
    Ours(PathBuf, Vec<(String, String)>),
    /// distribution, by a configuration file.
    Distribution(PathBuf),
    /// nginx, which serves files and takes none.
    Nginx(PathBuf),
}

impl Kind {
    /// Returns the program.
    pub(crate) fn program(&self) -> &Path {
        match self {
            Self::Ours(path, _) | Self::Distribution(path) | Self::Nginx(path) => path,
        }
    }
}

/// A server. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Subject {
    name: String,
    kind: Kind,
    folder: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
}

impl Subject {
    /// Starts a server with an empty store in `folder`.
    pub(crate) fn create(name: &str, kind: Kind, folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(folder.join("data")).map_err(|error| error.to_string())?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.map_err(|error| error.to_string())?;
        let mut subject = Self {
            name: name.to_owned(),
            kind,
            folder: folder.to_owned(),
            address,
            process: None,
        };
        subject.start()?;
        Ok(subject)
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder of its data; what is put there is served where it takes no pushes.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Returns whether it takes pushes.
    pub(crate) const fn is_registry(&self) -> bool {
        !matches!(self.kind, Kind::Nginx(_))
    }

    /// Starts a request to it.
    pub(crate) fn request<'a>(&self, method: &str, target: &str) -> Request<'a> {
        Request::new(self.address, method, target)
    }

    /// Returns where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it on its store and returns how long it took until it answered.
    pub(crate) fn start(&mut self) -> Result<Duration, String> {
        let (data, address) = (self.data(), self.address);
        let config = self.folder.join("config");
        let mut command = Command::new(self.kind.program());
        match &self.kind {
            Kind::Ours(_, variables) => {
                command
                    .envs(variables.iter().map(|(name, value)| (name, value)))
                    .args(["serve", "--listen", &address.to_string(), "--storage"])
                    .arg(&data);
            }
            Kind::Distribution(_) => {
                let text = format!(
                    "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                     rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
                    data.display()
                );
                fs::write(&config, text).map_err(|error| error.to_string())?;
                command.arg("serve").arg(&config);
            }
            Kind::Nginx(_) => {
                let text = format!(
                    "daemon off;\nworker_processes auto;\npid {0}/pid;\nerror_log stderr;\nuser root;\n\
                     events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  \
                     keepalive_requests 1000000;\n  open_file_cache max=100;\n  server {{ listen {address}; root {0}/data; }}\n}}\n",
                    self.folder.display()
                );
                fs::write(&config, text).map_err(|error| error.to_string())?;
                command.arg("-e").arg("stderr").arg("-c").arg(&config);
            }
        }
        let log = File::create(self.folder.join("log")).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let began = Instant::now();
        self.process = Some(
            command
                .spawn()
                .map_err(|error| format!("{}: {error}", self.name))?,
        );
        while self.request("GET", "/v2/").try_send().is_err() {
            if began.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("{} does not start: {log}", self.name));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(began.elapsed())
    }

    /// Asks it to stop and waits until it has; kills it if it takes too long.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        Command::new("kill").arg(process.id().to_string()).status().ok();
        let began = Instant::now();
        while matches!(process.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                process.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns a figure of `/proc/PID/status` in MiB, such as `VmRSS` or `VmHWM`.
    pub(crate) fn memory(&self, field: &str) -> Result<f64, String> {
        let id = self.process.as_ref().ok_or("it does not run")?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).map_err(|error| error.to_string())?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let figure = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        figure
            .map(|kibibytes| kibibytes / 1024.0)
            .ok_or_else(|| format!("no {field}"))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.stop();
    }
}
