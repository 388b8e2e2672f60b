//! Whose the files of a folder are. What root makes in the folder of a service's user, that service cannot use.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::bounded_file;
use crate::failure::Failure;

const RECORDS: &str = "records.sqlite";
const BYTES: &str = "bytes";

/// How many files a message names.
const NAMED: usize = 5;

/// Refuses to work as root in a folder whose server runs as somebody else, and says what to type.
///
/// # Errors
/// Where that is so.
pub(crate) fn require_user_of(root: &Path) -> Result<(), Failure> {
    // The folder may be another's where the server has always been root's.
    let owner = [root.join(RECORDS), root.to_owned()]
        .iter()
        .find_map(|path| Some(path.metadata().ok()?.uid()));
    match (user(), owner) {
        (Some(0), Some(owner)) if owner != 0 => Err(Failure::new(format!(
            "{} belongs to {}, whose server could not use what root makes there; type: sudo -u {} {}",
            root.display(),
            described(owner),
            name(owner).unwrap_or_else(|| format!("'#{owner}'")),
            shell_line(std::env::args_os()),
        ))),
        _ => Ok(()),
    }
}

/// Says which files in a folder, and folders of its bytes, are another user's: a command that was typed as root left them.
/// Content that was adopted keeps its owner and is none of them.
pub(crate) fn tell_of_others(root: &Path) {
    let Some(user) = user().filter(|user| *user != 0) else {
        return;
    };
    let others: Vec<PathBuf> = [root.to_owned(), root.join(BYTES)]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        // That of registry:2, which is only read.
        .filter(|entry| entry.file_name() != "docker")
        .filter(|entry| entry.metadata().is_ok_and(|found| found.uid() != user))
        .filter(|entry| entry.path().parent() == Some(root) || entry.path().is_dir())
        .map(|entry| entry.path())
        .take(NAMED)
        .collect();
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|path| path.display().to_string()).collect();
        tracing::error!(
            files = names.join(", "),
            "these belong to another user, as a command that was run by root leaves them, and pushes may fail; run `chown -R \
             {user} FILE` for each"
        );
    }
}

/// The user that this process acts as.
fn user() -> Option<u32> {
    Some(fs::metadata("/proc/self").ok()?.uid())
}

fn described(user: u32) -> String {
    name(user).map_or_else(
        || format!("the user {user}"),
        |name| format!("the user {name} ({user})"),
    )
}

/// The name of a user, where this machine's own file has one.
fn name(user: u32) -> Option<String> {
    let users = passwd().ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(user)).then(|| name.to_owned())
    })
}

fn passwd() -> io::Result<String> {
    bounded_file::read_to_string(Path::new("/etc/passwd"))
}

/// The number of a group, which may be given itself, where this machine's own file has it.
pub(crate) fn group_id(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let groups = bounded_file::read_to_string(Path::new("/etc/group")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (name == group).then(|| id.parse().ok())?
    })
}

/// Writes arguments as a shell reads them.
fn shell_line(arguments: impl Iterator<Item = OsString>) -> String {
    let quoted = arguments.map(|argument| {
        let text = argument.to_string_lossy();
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=@,+".contains(character);
        if !text.is_empty() && text.chars().all(is_plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_by_a_shell_as_it_was_typed() {
        let arguments = ["registry-bin", "check", "--storage", "a b", "it's"];
        let line = shell_line(arguments.into_iter().map(OsString::from));
        assert_eq!(line, r"registry-bin check --storage 'a b' 'it'\''s'");
    }
}
