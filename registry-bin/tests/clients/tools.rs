//! Finding and running programs, with a limit on their time.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::server::{guard, pause};

/// Seconds that one command of a client may take.
const SECONDS: &str = "300";

/// Returns the path of a program, with the system's own folders first.
///
/// # Panics
/// If it is missing where `CI` is set.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
    let found = own
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is missing");
        eprintln!("skipped: {name} is not on this machine");
    }
    found
}

/// A command with the arguments that stand before those of each call.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Tool {
    /// Finds a program; it works in `folder`, and what it writes to its home ends there too.
    pub(crate) fn find(name: &str, folder: &Path) -> Option<Self> {
        let home = folder.to_str().expect("a plain path").to_owned();
        Some(Self {
            program: find(name)?,
            arguments: Vec::new(),
            folder: folder.to_owned(),
            variables: vec![("HOME", home)],
        })
    }

    /// Adds arguments that stand before those of each call.
    #[must_use]
    pub(crate) fn with<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    /// Sets a variable of the environment for each call.
    #[must_use]
    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Runs the program, requires success and returns what it printed.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        self.try_run(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs the program and returns what it printed, or what it complained about.
    pub(crate) fn try_run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, String> {
        let mut command = Command::new("timeout");
        command
            .arg(SECONDS)
            .arg(&self.program)
            .args(&self.arguments)
            .args(arguments);
        command
            .current_dir(&self.folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = command.output().map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}: {}\n{printed}\n{complaint}", output.status))
    }
}

/// podman with its images in `folder`; nothing where it is not on this machine.
pub(crate) fn podman(folder: &Path) -> Option<Tool> {
    let (root, run) = (folder.join("root"), folder.join("run"));
    let (root, run) = (
        root.to_str().expect("a plain path"),
        run.to_str().expect("a plain path"),
    );
    let podman = Tool::find("podman", folder)?.with(["--root", root, "--runroot", run]);
    Some(podman.with(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]))
}

/// A program that runs beside the test. Dropping it asks it to stop, and kills it if it does not.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    guard: Child,
}

impl Daemon {
    /// Starts a program whose files are in `folder`; its output goes to `folder`/log.
    pub(crate) fn start(program: &Path, folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        Self::run(command, folder)
    }

    /// Starts a command in `folder`; its output goes to `folder`/log.
    pub(crate) fn run(mut command: Command, folder: &Path) -> Self {
        let log = std::fs::File::create(folder.join("log")).expect("a file can be made");
        let errors = log.try_clone().expect("a file handle can be copied");
        let process = command
            .current_dir(folder)
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        let guard = guard(&process, folder);
        Self { process, guard }
    }

    /// Sends a signal, for example `-HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until `ready` says so.
    ///
    /// # Panics
    /// If that takes longer than a minute; the message has the program's log.
    pub(crate) fn wait_until(&mut self, folder: &Path, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready() {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            let ended = self.process.try_wait().expect("an own child can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "not ready, {ended:?}: {}",
                log()
            );
            pause();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.guard.kill().ok();
        self.guard.wait().ok();
        Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .ok();
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.process.kill().ok();
            }
            pause();
        }
    }
}

/// A server on disk and a folder for a client's files.
pub(crate) fn server_and_folder() -> (crate::support::server::Server, tempfile::TempDir) {
    let server = crate::support::server::Server::start(&["--storage", "data"]);
    (
        server,
        tempfile::tempdir().expect("a temporary folder can be made"),
    )
}
