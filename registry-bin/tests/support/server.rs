//! The server as a process of its own, which ends with the test, however that ends.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::bucket::BucketServer;
use super::client::Request;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names another program to test in place of the one that was built; it has to understand the same command line.
const PROGRAM: &str = "REGISTRY_UNDER_TEST";

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    guard: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Server {
    /// Starts `serve` with these arguments on a port of the system's choice and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer in time; the message holds what it printed.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = vec!["serve"];
        command.extend(arguments);
        command.extend(["--listen", "127.0.0.1:0"]);
        Self::run(&command)
    }

    /// Starts a server by this file.
    pub(crate) fn configured(configuration: &Path) -> Self {
        Self::configured_with(configuration, &[])
    }

    /// As [`Self::configured`], with variables of the environment beside those of the test.
    pub(crate) fn configured_with(configuration: &Path, environment: &[(&str, &str)]) -> Self {
        let path = configuration
            .to_str()
            .expect("temporary folders have plain names");
        Self::run_with(&["serve", path, "--listen", "127.0.0.1:0"], environment)
    }

    /// Starts a server by this file from a shell that runs `limits` before, such as `ulimit -n 1024`.
    pub(crate) fn configured_under(configuration: &Path, limits: &str) -> Self {
        let path = configuration
            .to_str()
            .expect("temporary folders have plain names");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits}\nexec \"$@\""), "sh"]);
        command.arg(program());
        Self::launch(command, &["serve", path, "--listen", "127.0.0.1:0"], &[], None)
    }

    /// Returns the identifier of its process.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub(crate) fn signal_hangup(&self) {
        let sent = Command::new("kill")
            .args(["-HUP", &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Has it read its configuration again, and waits until it says what came of that. It also does so by itself if a file has
    /// changed for long enough, which is another time.
    ///
    /// # Panics
    /// If it says nothing in time.
    pub(crate) fn read_again(&self) {
        let is_told =
            |line: &&str| line.contains("the configuration was read again") && line.contains("SIGHUP");
        let told = || self.output().lines().filter(is_told).count();
        let before = told();
        self.signal_hangup();
        until(|| told() > before);
    }

    /// Starts a server that stores in memory.
    pub(crate) fn memory() -> Self {
        Self::start(&["--storage", "memory"])
    }

    /// Starts a server that stores in `folder`.
    pub(crate) fn on(folder: &Path) -> Self {
        Self::start(&[
            "--storage",
            folder.to_str().expect("temporary folders have plain names"),
        ])
    }

    /// Starts a server on a bucket of `double`, which sends its clients there for blobs.
    pub(crate) fn redirecting_to(double: &BucketServer) -> Self {
        // A variable of the configuration is one that allows no deletes.
        let variables = [
            ("REGISTRY_STORAGE_DELETE_ENABLED", "true"),
            ("REGISTRY_STORAGE_REDIRECT_DISABLE", "false"),
        ];
        Self::on_bucket_with(double, &variables)
    }

    /// Starts a server on a bucket of `double`.
    pub(crate) fn on_bucket(double: &BucketServer) -> Self {
        Self::on_bucket_with(double, &[])
    }

    /// As [`Self::on_bucket`], with more variables of the environment.
    pub(crate) fn on_bucket_with(double: &BucketServer, more: &[(&str, &str)]) -> Self {
        let arguments = [
            "serve",
            "--storage",
            "s3://bucket/registry",
            "--listen",
            "127.0.0.1:0",
        ];
        Self::run_with(&arguments, &[&double.environment(), more].concat())
    }

    /// Starts a server with these arguments on a bucket: of the double, or, if `S3_TEST_ENDPOINT` names a server that speaks S3, a
    /// folder of its own in `S3_TEST_BUCKET` there, with the access key of the variables `AWS_…`. What tests leave there stays.
    pub(crate) fn on_test_bucket(arguments: &[&str]) -> (Option<BucketServer>, Self) {
        let run = |url: &str, environment: &[(&str, &str)]| {
            let command = ["serve", "--storage", url, "--listen", "127.0.0.1:0"];
            Self::run_with(&[&command, arguments].concat(), environment)
        };
        let Ok(endpoint) = std::env::var("S3_TEST_ENDPOINT") else {
            let double = BucketServer::start();
            let server = run("s3://bucket/registry", &double.environment());
            return (Some(double), server);
        };
        let bucket = std::env::var("S3_TEST_BUCKET").expect("S3_TEST_BUCKET is set");
        let url = format!("s3://{bucket}/registry-tests/{}", uuid::Uuid::new_v4());
        let server = run(&url, &[("AWS_ENDPOINT", &endpoint), ("AWS_REGION", "us-east-1")]);
        (None, server)
    }

    /// Starts the program with exactly these arguments and waits until it answers.
    pub(crate) fn run(arguments: &[&str]) -> Self {
        Self::run_with(arguments, &[])
    }

    /// As [`Self::run`], with variables of the environment beside those of the test.
    pub(crate) fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launch(Command::new(program()), arguments, environment, None)
    }

    /// Starts a server by this file, whose standard error goes to `errors`.
    pub(crate) fn configured_with_errors_to(configuration: &Path, errors: Stdio) -> Self {
        let path = configuration
            .to_str()
            .expect("temporary folders have plain names");
        let arguments = ["serve", path, "--listen", "127.0.0.1:0"];
        Self::launch(Command::new(program()), &arguments, &[], Some(errors))
    }

    fn launch(
        mut command: Command,
        arguments: &[&str],
        environment: &[(&str, &str)],
        errors: Option<Stdio>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let output = File::create(folder.path().join("output")).expect("a temporary file can be made");
        let errors =
            errors.unwrap_or_else(|| Stdio::from(output.try_clone().expect("a file handle can be copied")));
        let process = command
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let guard = guard(&process, folder.path());
        let mut server = Self {
            process,
            guard,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder,
        };
        server.wait_until_ready();
        server
    }

    /// Returns the address it listens on.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a request to it.
    pub(crate) fn request<'a>(&self, method: &str, target: &str) -> Request<'a> {
        Request::new(self.address, method, target)
    }

    /// Returns what it printed so far, on both streams.
    pub(crate) fn output(&self) -> String {
        let bytes = fs::read(self.folder.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has printed this, and returns all that it printed so far: a log may come a moment after what it
    /// tells of.
    ///
    /// # Panics
    /// If that takes too long.
    #[track_caller]
    pub(crate) fn output_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.output();
            if output.contains(text) {
                return output;
            }
            assert!(Instant::now() < deadline, "{text} is not printed: {output}");
            pause();
        }
    }

    /// Returns the most memory it ever held, in KiB (`VmHWM`).
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Returns the memory it holds now beside the pages of its program and of other files, in KiB (`RssAnon`).
    pub(crate) fn anonymous_memory(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// Kills it as a power switch would and waits until it is gone.
    pub(crate) fn kill9(mut self) {
        self.end();
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// If it does not stop in time.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal_termination();
        self.wait_for_end()
    }

    /// Asks it to stop (SIGTERM), waits until it has, and returns all that it printed.
    ///
    /// # Panics
    /// If it does not stop in time, or says that it failed.
    pub(crate) fn finish(mut self) -> String {
        self.signal_termination();
        assert!(self.wait_for_end().success(), "{}", self.output());
        self.output()
    }

    /// Waits until it has ended, and returns how.
    ///
    /// # Panics
    /// If it does not end in time.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("an own child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "no end after SIGTERM: {}",
                self.output()
            );
            pause();
        }
    }

    /// Asks it to stop (SIGTERM) without waiting.
    pub(crate) fn signal_termination(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("the server runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("the kernel tells");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("the kernel tells kibibytes")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = announced(&self.output()) {
                self.address = address;
                // 404: all is below a prefix.
                if self
                    .request("GET", "/v2/")
                    .try_send()
                    .is_ok_and(|response| matches!(response.status, 200 | 401 | 404))
                {
                    return;
                }
            }
            let ended = self.process.try_wait().expect("an own child can be waited for");
            assert!(ended.is_none(), "ended with {ended:?}: {}", self.output());
            assert!(Instant::now() < deadline, "not ready in time: {}", self.output());
            pause();
        }
    }

    fn end(&mut self) {
        // The guard first: the process id may be given to another process as soon as the server was waited for.
        self.guard.kill().ok();
        self.guard.wait().ok();
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until something holds.
///
/// # Panics
/// If that takes too long.
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come to that");
        pause();
    }
}

/// Waits a moment between two looks at something that takes time.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Starts a shell that ends `process` and removes `folder` when this process ends without doing so: a server that is
/// shared by tests lives in a `static`, which is never dropped.
pub(crate) fn guard(process: &Child, folder: &Path) -> Child {
    Command::new("sh")
        .args([
            "-c",
            "read _; kill -9 \"$1\"; rm -rf \"$2\"",
            "sh",
            &process.id().to_string(),
        ])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell runs")
}

fn program() -> OsString {
    std::env::var_os(PROGRAM).unwrap_or_else(|| env!("CARGO_BIN_EXE_registry-bin").into())
}

/// Returns the address in the first complete line that holds one.
fn announced(output: &str) -> Option<SocketAddr> {
    let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
    // As it is printed, or logged as JSON.
    let after = [
        "Listening on http://127.0.0.1:",
        "\"address\":\"http://127.0.0.1:",
    ]
    .iter()
    .find_map(|before| Some(complete.split_once(before)?.1))?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Some(SocketAddr::from(([127, 0, 0, 1], digits.parse().ok()?)))
}
