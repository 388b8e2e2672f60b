//! A server with users, all of which have the same password.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::repository::Repository;
use super::server::Server;

/// The password of every user.
pub(crate) const PASSWORD: &str = "secret";

/// The users, and what a client sends of each and the password.
const USERS: [(&str, &str); 3] = [
    ("alice", "Basic YWxpY2U6c2VjcmV0"),
    ("bob", "Basic Ym9iOnNlY3JldA=="),
    ("root", "Basic cm9vdDpzZWNyZXQ="),
];

/// What a client sends of a user.
pub(crate) fn basic(user: &str) -> &'static str {
    let found = USERS.iter().find(|(name, _)| *name == user);
    found.expect("a user of the tests").1
}

/// A server, its configuration and its users.
pub(crate) struct GuardedServer {
    pub(crate) server: Server,
    folder: TempDir,
}

impl GuardedServer {
    /// As [`Self::start`], with variables of the environment.
    pub(crate) fn start_with(configuration: &str, environment: &[(&str, &str)]) -> Self {
        let folder = folder_with_users();
        let path = write(folder.path(), configuration);
        Self {
            server: Server::configured_with(&path, environment),
            folder,
        }
    }

    /// Starts a server by a configuration, in which `USERS` is the path of the file of users and `FOLDER` that of the
    /// folder it is in.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_with(configuration, &[])
    }

    /// Starts a server by a configuration, with the files of a folder.
    pub(crate) fn start_in(folder: TempDir, configuration: &str) -> Self {
        let path = write(folder.path(), configuration);
        Self {
            server: Server::configured(&path),
            folder,
        }
    }

    /// Stops the server, and starts another by a configuration, with the same files.
    pub(crate) fn restart(self, configuration: &str) -> Self {
        let Self { server, folder } = self;
        assert!(server.terminate().success(), "the server stops");
        Self::start_in(folder, configuration)
    }

    /// Returns a repository as a user sees it; the empty one is nobody.
    pub(crate) fn repository(&self, user: &str, name: &str) -> Repository {
        let repository = Repository::new(self.server.address(), name);
        if user.is_empty() {
            repository
        } else {
            repository.with_authorization(basic(user))
        }
    }

    /// Changes the configuration's file.
    pub(crate) fn write(&self, configuration: &str) {
        write(self.folder.path(), configuration);
    }

    /// Returns the file of users.
    pub(crate) fn users(&self) -> PathBuf {
        self.folder.path().join("users")
    }
}

fn folder_with_users() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let users = folder.path().join("users");
    for (user, _) in USERS {
        set_password(&users, user, PASSWORD);
    }
    folder
}

fn write(folder: &Path, configuration: &str) -> PathBuf {
    let path = folder.join("config.yml");
    let folder = folder.to_str().expect("temporary folders have plain names");
    let text = configuration
        .replace("USERS", &format!("{folder}/users"))
        .replace("FOLDER", folder);
    std::fs::write(&path, text).expect("a file can be written");
    path
}

/// Sets a password by the command that is for it.
pub(crate) fn set_password(users: &Path, user: &str, password: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["htpasswd", "add"])
        .arg(users)
        .arg(user)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = command.stdin.take().expect("it has an input");
    writeln!(input, "{password}").expect("it takes the password");
    drop(input);
    assert!(command.wait().expect("it ends").success());
}
