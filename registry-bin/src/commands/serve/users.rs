//! The file of users: creating the first user if it is missing, and reloading.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use registry_core::printable::printable_json;
use registry_http::auth::{Htpasswd, HtpasswdLine, Passwords};
use serde_json::json;
use uuid::Uuid;

use crate::commands::htpasswd;
use crate::config::Configuration;
use crate::config::sections::log::LogFormat;
use crate::failure::Failure;
use crate::secret_file;

/// The name of the first user, as in distribution.
const USER: &str = "docker";

/// The most user names in one log line.
const NAMES: usize = 20;

/// The longest name that the log shows, in bytes.
const LONGEST_NAME: usize = 64;

/// Reads the file of users that a key names.
pub(crate) fn read(key: &str, path: &Path) -> Result<Htpasswd, Failure> {
    htpasswd::read(path).map_err(|failure| failure.about(key))
}

/// Creates the files of users that are missing.
pub(super) fn provide_missing(configuration: &Configuration) -> Result<(), Failure> {
    let format = configuration.log.formatter;
    let mut files = configuration.auth.files_of_users();
    files.try_for_each(|(key, path)| provide(path, format).map_err(|failure| failure.about(key)))
}

/// Reads the file of users that a key names.
pub(super) fn start(key: &str, path: &Path) -> Result<Arc<Passwords>, Failure> {
    let passwords = Passwords::new(read(key, path)?);
    let passwords = passwords.map_err(|cause| Failure::new("cannot check passwords").because(cause))?;
    Ok(Arc::new(passwords))
}

/// Reloads the file for a server that has users, and refuses one that looks incomplete.
pub(super) fn read_again(key: &str, path: &Path, old: &Passwords) -> Result<Arc<Passwords>, Failure> {
    let table = read(key, path)?;
    let wrong = |what: &str| Failure::of(key, format!("{}: {what}", path.display()));
    if table.users().next().is_none() && old.table().users().next().is_some() {
        return Err(wrong(
            "there is no user any more, as in a file that is not written yet; restart the server to shut everybody out",
        ));
    }
    if table.ends_within_a_line() {
        return Err(wrong(
            "its last line ends within a hash, as in a file that is written by half; write the line whole, with a line break after it",
        ));
    }
    Ok(Arc::new(old.with_table(table)))
}

/// Logs the names of users that `new` does not have.
pub(super) fn tell_who_is_gone(old: &Htpasswd, new: &Htpasswd) {
    let left: BTreeSet<&str> = new.users().collect();
    let gone: Vec<&str> = old.users().filter(|user| !left.contains(user)).collect();
    if !gone.is_empty() {
        // In a broken file, a hash or a password may be in the place of a name.
        let is_name = |user: &&&str| user.len() <= LONGEST_NAME && !user.contains('$');
        let named: Vec<_> = gone.iter().filter(is_name).take(NAMES).collect();
        tracing::info!(count = gone.len(), users = ?named, "users are gone from their file and cannot log in any more");
    }
}

/// Creates a file of users with one user, if there is none, and shows the password once, on standard output and not in
/// the log. The output is JSON if the log is: its reader expects nothing else.
fn provide(path: &Path, format: LogFormat) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let failed = || Failure::new(format!("cannot make a file of users at {}", path.display()));
    // 122 random bits.
    let password = Uuid::new_v4().simple().to_string();
    let line = HtpasswdLine::new(USER, &password).map_err(|cause| failed().because(cause))?;
    let is_made = secret_file::create(path, &line.put_into("")).map_err(|cause| failed().because(cause))?;
    if is_made {
        let text = announcement(path, &password, format);
        io::stdout()
            .write_all(text.as_bytes())
            .map_err(|cause| failed().because(cause))?;
    }
    Ok(())
}

fn announcement(path: &Path, password: &str, format: LogFormat) -> String {
    let file = path.display();
    match format {
        LogFormat::Text => format!(
            "There was no file of users, so {file} was made, with the user {USER} and the password {password}\n\
             It is not shown again; set another with: registry-bin htpasswd add {file} {USER}\n"
        ),
        LogFormat::Json | LogFormat::Logstash => {
            let object = json!({
                "message": "there was no file of users, so one was made; the password is not shown again",
                "file": file.to_string(),
                "user": USER,
                "password": password,
            });
            format!("{}\n", printable_json(object.to_string()))
        }
    }
}
