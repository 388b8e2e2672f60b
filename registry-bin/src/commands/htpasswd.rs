//! `registry-bin htpasswd`.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use registry_core::printable::Printable;
use registry_http::auth::{Htpasswd, HtpasswdLine};

use crate::bounded_file;
use crate::config::values::no_path;
use crate::control::show::print_bytes;
use crate::failure::Failure;
use crate::secret_file;

#[derive(Debug, Subcommand)]
pub(crate) enum HtpasswdCommand {
    /// Add a user or change a password. The command prompts for the password, or reads it from standard input.
    Add {
        /// The file; created if missing.
        file: PathBuf,
        /// The user.
        user: String,
    },
    /// Remove a user.
    Remove {
        /// The file.
        file: PathBuf,
        /// The user.
        user: String,
    },
    /// List the users.
    List {
        /// The file.
        file: PathBuf,
    },
}

/// Changes or lists a file of users.
pub(crate) fn run(command: &HtpasswdCommand) -> Result<(), Failure> {
    let (HtpasswdCommand::Add { file, .. }
    | HtpasswdCommand::Remove { file, .. }
    | HtpasswdCommand::List { file }) = command;
    if let Some(problem) = file.to_str().and_then(no_path) {
        return Err(Failure::new(format!("the path of the file of users: {problem}")));
    }
    match command {
        HtpasswdCommand::Add { file, user } => add(file, user),
        HtpasswdCommand::Remove { file, user } => remove(file, user),
        HtpasswdCommand::List { file } => list(file),
    }
}

fn add(path: &Path, user: &str) -> Result<(), Failure> {
    if user.contains(':') {
        // The value is not shown, because the text after the colon may be a password.
        return Err(Failure::new(
            "the name of a user has no colon; give the name alone, and the password where it is asked for or by the \
             standard input",
        ));
    }
    let password = password(user)?;
    let line = HtpasswdLine::new(user, &password)
        .map_err(|cause| Failure::new(format!("cannot add {user:?}")).because(cause))?;
    edit(path, |text| Ok(line.put_into(text)))
}

fn remove(path: &Path, user: &str) -> Result<(), Failure> {
    if !path.exists() {
        return read(path).map(drop);
    }
    edit(path, |text| {
        Htpasswd::without(text, user)
            .ok_or_else(|| Failure::new(format!("there is no user {user:?} in {}", path.display())))
    })
}

/// Changes a file of users, safely with concurrent changes.
fn edit(path: &Path, change: impl Fn(&str) -> Result<String, Failure>) -> Result<(), Failure> {
    let changed = secret_file::edit(path, |text| change(text).map_err(EditError::Change));
    changed.map_err(|error| match error {
        EditError::Change(failure) => failure,
        EditError::File(cause) => Failure::new(format!("cannot change {}", path.display())).because(cause),
    })
}

/// Why an edit failed.
enum EditError {
    Change(Failure),
    File(io::Error),
}

impl From<io::Error> for EditError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

fn list(path: &Path) -> Result<(), Failure> {
    let table = read(path)?;
    let users = table.users().map(|user| format!("{}\n", Printable(user)));
    print_bytes(users.collect::<String>().as_bytes())
}

/// Reads a file of users.
pub(crate) fn read(path: &Path) -> Result<Htpasswd, Failure> {
    let text = bounded_file::read_to_string(path).map_err(|cause| {
        Failure::new(format!("cannot read the users of {}", path.display())).because(cause)
    })?;
    Htpasswd::parse(&text).map_err(|cause| Failure::new(path.display().to_string()).because(cause))
}

/// Prompts for a password twice on a terminal, or reads the first line of standard input.
fn password(user: &str) -> Result<String, Failure> {
    let failed = |cause| Failure::new("cannot read a password").because(cause);
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(failed)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        return Ok(line.strip_suffix('\r').unwrap_or(line).to_owned());
    }
    let password = rpassword::prompt_password(format!("Password of {user}: ")).map_err(failed)?;
    if rpassword::prompt_password("Again: ").map_err(failed)? != password {
        return Err(Failure::new("the passwords differ; nothing was changed"));
    }
    Ok(password)
}
