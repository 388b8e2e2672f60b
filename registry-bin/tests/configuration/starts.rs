//! What starts: variables alone.

use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::server::pause;
use crate::support::server::until;
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
        Self::start_in(
            with_configuration(text.unwrap_or_default()),
            text.is_some(),
            variables,
        )
    }

    /// The same in a folder that is there, by its `config.yml` or without one.
    pub(crate) fn start_in(folder: TempDir, has_file: bool, variables: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).expect("a file can be made");
        let mut command = program(folder.path());
        command
            .arg("serve")
            .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
            .envs(variables.iter().copied());
        if has_file {
            command.arg("config.yml");
        }
        let path = folder.path().join("output");
        let output = std::fs::File::create(&path).expect("a file can be made");
        let process = command
            .stdout(output)
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        let mut running = Self {
            process,
            url: String::new(),
            folder,
        };
        until(|| {
            let output = std::fs::read_to_string(&path).unwrap_or_default();
            let announced = output
                .split_once("Listening on ")
                .and_then(|(_, rest)| rest.split_once('\n'));
            running.url = announced
                .map(|(url, _)| url.to_owned())
                .or_else(|| running.logged_url())
                .unwrap_or_default();
            let ended = running
                .process
                .try_wait()
                .expect("an own child can be waited for");
            assert!(ended.is_none(), "it did not start: {}", running.log());
            !running.url.is_empty()
        });
        running
    }

    /// The address that it listens on, without encryption.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.url.strip_prefix("http://").expect("it is not encrypted");
        address.parse().expect("it is an address and a port")
    }

    /// Where it listens, as a log says it that is JSON.
    fn logged_url(&self) -> Option<String> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let is_told =
            |line: &serde_json::Value| [&line["msg"], &line["message"]].contains(&&"listening".into());
        let mut listening = lines.filter(is_told);
        Some(listening.next()?["address"].as_str()?.to_owned())
    }

    /// Waits until the log contains `text`, and returns what it logged so far. The log is written a moment after what it says:
    /// all that is said of a start is there once `listening` is.
    #[track_caller]
    pub(crate) fn log_with(&self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < deadline, "{text:?} is not in {log}");
            pause();
        }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Kills it and returns its folder.
    pub(crate) fn process_ended(mut self) -> TempDir {
        self.end();
        std::mem::replace(
            &mut self.folder,
            tempfile::tempdir().expect("a temporary folder can be made"),
        )
    }

    fn end(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn the_first_user_is_told_in_the_form_of_the_log() {
    let variables = |format| {
        [
            ("REGISTRY_STORAGE", "inmemory"),
            ("REGISTRY_LOG_FORMATTER", format),
            ("REGISTRY_AUTH_HTPASSWD_REALM", "registry"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", "users"),
        ]
    };
    for format in ["json", "logstash", "text"] {
        let server = Running::start(None, &variables(format));
        let output = std::fs::read_to_string(server.folder.path().join("output")).expect("it is text");
        if format == "text" {
            assert!(
                output.starts_with("There was no file of users, so users was made"),
                "{output}"
            );
            continue;
        }
        let lines: Vec<serde_json::Value> = output
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        assert_eq!(lines.len(), 1, "{output}");
        assert_eq!(
            (&lines[0]["file"], &lines[0]["user"]),
            (&"users".into(), &"docker".into())
        );
        let password = lines[0]["password"].as_str().expect("there is a password");
        let log = server.log_with("listening");
        assert!(password.len() > 20 && !log.contains(password), "{log}");
    }
}

const PLACE: (&str, &str) = ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "data");

#[test]
fn variables_alone_are_enough() {
    let server = Running::start(None, &[PLACE, ("REGISTRY_LOG_FORMATTER", "json")]);
    assert!(server.folder.path().join("data").is_dir());
}

#[test]
fn with_a_log_of_json_nothing_is_prose() {
    let server = Running::start(None, &[PLACE, ("REGISTRY_LOG_FORMATTER", "json")]);
    assert!(server.url.starts_with("http://127.0.0.1:"), "{}", server.url);
    let output = std::fs::read_to_string(server.folder.path().join("output"));
    for line in [output.expect("it is text"), server.log_with("listening")]
        .iter()
        .flat_map(|text| text.lines())
    {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "{line}");
    }
}

#[test]
fn a_server_that_is_open_to_everybody_warns_and_says_what_docker_needs() {
    let open = [("REGISTRY_HTTP_ADDR", "0.0.0.0:0")];
    let output = |server: &Running| {
        std::fs::read_to_string(server.folder.path().join("output")).expect("it can be read")
    };
    let server = Running::start(Some("version: 0.1\nstorage: inmemory\n"), &open);
    server.log_with("whoever reaches this address may pull and push");
    until(|| output(&server).contains("insecure-registries"));
    let (_, port) = server.url.rsplit_once(':').expect("it has a port");
    assert!(output(&server).contains(&format!("[\"HOST:{port}\"]")));
    for (text, variables) in [
        ("version: 0.1\nstorage: inmemory\n", &[][..]),
        (
            "version: 0.1\nstorage: inmemory\naccess: {rules: [{repositories: ['**'], identities: [anonymous], actions: [pull]}]}\n",
            &open,
        ),
    ] {
        let server = Running::start(Some(text), variables);
        until(|| output(&server).contains("Push with"));
        let log = server.log_with("listening");
        assert!(!log.contains("whoever reaches"), "{log}");
    }
}

/// Root reads everything, so the program is started as somebody else.
#[test]
fn a_file_that_may_not_be_read_is_named_with_its_owner_and_with_who_runs() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = with_configuration("version: 0.1\nstorage: inmemory\n");
    let path = folder.path().join("config.yml");
    for (path, mode) in [(folder.path(), 0o755), (&*path, 0o600)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is our own");
    }
    let mut command = program(folder.path());
    let ran = command
        .args(["config", "check", "config.yml"])
        .uid(65_534)
        .gid(65_534)
        .output();
    let Ok(output) = ran else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("this process runs as the user ")
            && said.contains("65534")
            && said.contains("config.yml belongs to the user root (0) with the mode 0600"),
        "{said}"
    );
}
