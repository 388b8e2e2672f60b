//! Whose the files of a folder are. What root makes in the folder of a service's user, that service cannot use.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use registry_storage::filesystem::backup::is_backup;
use rustix::fs::{Access, access};

use crate::bounded_file;
use crate::failure::Failure;

const RECORDS: &str = "records.sqlite";
const BYTES: &str = "bytes";

/// How many files a message names.
const NAMED: usize = 5;

/// How many files a start looks at, about.
const LOOKED: usize = 10_000;

/// Refuses to work as root in a folder whose server runs as somebody else, and says what to type.
///
/// # Errors
/// Where that is so.
pub(crate) fn require_user_of(root: &Path) -> Result<(), Failure> {
    // The folder may be another's where the server has always been root's. One that is missing is made in another.
    let owner = [root.join(RECORDS)]
        .iter()
        .map(PathBuf::as_path)
        .chain(root.ancestors())
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

/// Says which files in a folder are another user's, as a command that was typed as root leaves them: those in the folder
/// itself, the folders of its bytes, and further down those that this process cannot use. Content that was adopted keeps its
/// owner.
pub(crate) fn tell_of_others(root: &Path) {
    let Some(user) = user().filter(|user| *user != 0) else {
        return;
    };
    let others: Vec<PathBuf> = others(root, user).into_iter().take(NAMED).collect();
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|path| path.display().to_string()).collect();
        tracing::error!(
            files = names.join(", "),
            "these belong to another user, as a command that was run by root leaves them, and pushes or pulls may fail; run \
             `chown -R {user} FILE` for each"
        );
    }
}

/// Finds files of others in a folder of a user.
fn others(root: &Path, user: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // The newest bytes first: what a command left lately is among them.
    let mut folders = vec![root.to_owned()];
    let mut looked = 0;
    while let Some(folder) = folders.pop() {
        let (is_root, is_bytes) = (folder == root, folder == root.join(BYTES));
        let mut entries: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flat_map(|entries| entries.filter_map(Result::ok))
            // That of registry:2, which is only read, and that of a file system.
            .filter(|entry| {
                !(is_root
                    && ["docker", "lost+found"]
                        .iter()
                        .any(|name| entry.file_name() == *name))
            })
            .take(LOOKED)
            .collect();
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            looked += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            let is_usable = || {
                let needed = if metadata.is_dir() {
                    Access::WRITE_OK
                } else {
                    Access::READ_OK
                };
                access(&path, needed).is_ok()
            };
            let is_at_top = is_root || is_bytes && metadata.is_dir();
            if metadata.uid() != user && (is_at_top || !(metadata.is_symlink() || is_usable())) {
                found.push(path);
            } else if is_root && entry.file_name() == BYTES {
                // Those are many.
                folders.insert(0, path);
            } else if metadata.is_dir() && !is_backup(&path) {
                folders.push(path);
            }
        }
        if found.len() >= NAMED || looked >= LOOKED {
            break;
        }
    }
    found
}

/// Says of a file or folder that this process may not use who it runs as, and whose the file is. Other errors stay as they
/// are.
pub(crate) fn with_owner(path: &Path, cause: io::Error) -> io::Error {
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return cause;
    }
    let Some(user) = user() else { return cause };
    // Where the file cannot be looked at, a folder above it is closed.
    let Some((found, owner)) = path
        .ancestors()
        .find_map(|path| Some((path, path.metadata().ok()?)))
    else {
        return cause;
    };
    let found = if found.as_os_str().is_empty() {
        Path::new(".")
    } else {
        found
    };
    let message = format!(
        "{cause}; this process runs as {}, and {} belongs to {} with the mode {:04o}",
        described(user),
        found.display(),
        described(owner.uid()),
        owner.mode() & 0o7777
    );
    io::Error::new(io::ErrorKind::PermissionDenied, message)
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
