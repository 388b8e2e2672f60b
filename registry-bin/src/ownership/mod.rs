//! Whose the files of a folder are. What root makes in the folder of a service's user, that service cannot use.

mod errors;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use registry_storage::filesystem::backup::is_backup;
use registry_storage::filesystem::unusable;
use rustix::fs::{Access, access};

pub(crate) use self::errors::WithOwner;
use crate::bounded_file;
use crate::failure::Failure;

const RECORDS: &str = "records.sqlite";
const BYTES: &str = "bytes";

/// How many files a message names.
const NAMED: usize = 5;

/// How many files a start looks at, about, among the bytes and beside them.
const LOOKED: usize = 10_000;

/// Refuses to work as root in a folder whose server runs as somebody else, and says what to type.
///
/// # Errors
/// Where that is so.
pub(crate) fn require_user_of(root: &Path) -> Result<(), Failure> {
    let Some(owner) = owner_beside_root(root) else {
        return Ok(());
    };
    Err(Failure::new(format!(
        "{} belongs to {}, whose server could not use what root makes there; type: sudo -u {} {}",
        root.display(),
        described(owner),
        name(owner).unwrap_or_else(|| format!("'#{owner}'")),
        shell_line(std::env::args_os()),
    )))
}

/// Says that a server runs as root in a folder whose server is somebody else. It serves: in a container of root, a volume may
/// well belong to a user of the machine.
pub(crate) fn tell_of_root(root: &Path) {
    if let Some(owner) = owner_beside_root(root) {
        tracing::warn!(
            "this process runs as root, and {} belongs to {}, who cannot start a server there any more once root's has made \
             files in it; run this one as that user (`--user {owner}` of a container, `User=` of a service), or, if root is \
             meant, `chown root` the folder and what is in it",
            root.display(),
            described(owner)
        );
    }
}

/// The user whose server has a folder, where this process is root and that is somebody else.
fn owner_beside_root(root: &Path) -> Option<u32> {
    // The folder may be another's where the server has always been root's. One that is missing is made in another.
    let owner = [root.join(RECORDS)]
        .iter()
        .map(PathBuf::as_path)
        .chain(root.ancestors())
        .find_map(|path| Some(path.metadata().ok()?.uid()));
    owner.filter(|owner| *owner != 0 && user() == Some(0))
}

/// Passes where this process may write what there is of a store; else says which files it may not, whose they are, and how they
/// become its own.
///
/// # Errors
/// Where it may not.
pub(crate) fn require_writable(root: &Path) -> io::Result<()> {
    let denied = unusable(root);
    // The folder is another's, with all that is in it.
    let is_whole = denied.iter().any(|(path, _)| path == root);
    let with_below = denied.iter().any(|(path, _)| path.is_dir());
    let files: Vec<OsString> = if is_whole {
        vec![root.into()]
    } else {
        denied.iter().map(|(path, _)| path.into()).collect()
    };
    let Some((path, cause)) = denied.into_iter().next() else {
        return Ok(());
    };
    let (kind, note) = (cause.kind(), owner_note(&path, &cause));
    let remedy = match user().filter(|_| !note.is_empty()) {
        Some(user) => {
            let flag = if with_below { "-R " } else { "" };
            format!(
                "; as root, type: chown {flag}{user} {}",
                shell_line(files.into_iter())
            )
        }
        None => String::new(),
    };
    Err(io::Error::new(
        kind,
        format!("{}: {cause}{note}{remedy}", path.display()),
    ))
}

/// Says which files in a folder are in the way of a server: those of another user, as a command that was typed as root leaves
/// them, those that it may not use, and what is a file in the place of a folder or the other way round. It looks at the folder
/// itself, the folders of its bytes, the newest first, and further down at what this process cannot use, until it has looked at
/// some thousands. Content that was adopted keeps its owner.
pub(crate) fn tell_of_others(root: &Path) {
    let Some(user) = user() else { return };
    let (misplaced, others): (Vec<_>, Vec<_>) = in_the_way(root, user)
        .into_iter()
        .take(NAMED)
        .partition(|path| is_misplaced(root, path));
    let names = |paths: &[PathBuf]| {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    };
    if !misplaced.is_empty() {
        tracing::error!(
            files = names(&misplaced),
            "the registry has folders of these names in the folder of its bytes, or files in those, so pushes or pulls fail; \
             move them elsewhere"
        );
    }
    if !others.is_empty() {
        tracing::error!(
            files = names(&others),
            "these belong to another user, as a command that was run by root leaves them, or this server may not use them, and \
             pushes or pulls may fail; run `chown -R {user} FILE` for each, and `chmod -R u+rwX FILE` where it is its own"
        );
    }
}

/// Tells whether something is in the way of the bytes because it is of another kind: each entry of their folder is one of a
/// day, and has files alone.
fn is_misplaced(root: &Path, path: &Path) -> bool {
    let bytes = root.join(BYTES);
    let is_dir = path.is_dir();
    match path.parent() {
        Some(folder) if folder == bytes => !is_dir,
        Some(folder) if folder.parent() == Some(&*bytes) => is_dir,
        _ => false,
    }
}

/// Finds what is in the way of a user's server: among a part of the bytes, and of all else.
fn in_the_way(root: &Path, user: u32) -> Vec<PathBuf> {
    let bytes = root.join(BYTES);
    let mut found = Vec::new();
    let look = |folder: &Path, found: &mut Vec<PathBuf>, looked: &mut usize| {
        let mut below = Vec::new();
        for entry in entries(root, folder) {
            *looked += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            let (is_dir, is_link) = (path.is_dir(), metadata.is_symlink());
            let is_usable = || {
                let needed = if is_dir { Access::WRITE_OK } else { Access::READ_OK };
                access(&path, needed).is_ok()
            };
            let is_of_bytes = folder.starts_with(&bytes);
            let is_other = user != 0 && metadata.uid() != user && !is_link;
            let is_at_top = folder == root || folder == bytes && is_dir;
            if is_misplaced(root, &path) || is_other && is_at_top || (is_other || is_of_bytes) && !is_usable()
            {
                found.push(path);
            } else if is_dir && !is_link && path != bytes && !is_backup(&path) {
                below.push(path);
            }
        }
        below
    };
    let mut looked = 0;
    let mut folders = vec![root.to_owned()];
    // What a command left lately is in the newest ones.
    let mut days = look(&bytes, &mut found, &mut looked);
    for queue in [&mut folders, &mut days] {
        looked = 0;
        while let Some(folder) = queue.pop() {
            queue.extend(look(&folder, &mut found, &mut looked));
            if found.len() >= NAMED || looked >= LOOKED {
                break;
            }
        }
    }
    found
}

/// Returns what a folder has, in the order of the names, but for what is no server's: in the root, that of registry:2, which is
/// only read, and that of a file system.
fn entries(root: &Path, folder: &Path) -> Vec<fs::DirEntry> {
    let is_left_out = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        folder == root && ["docker", "lost+found"].iter().any(|other| name == *other)
    };
    let mut entries: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter(|entry| !is_left_out(entry))
        .take(LOOKED)
        .collect();
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    entries
}

/// Says of a file or folder that this process may not use who it runs as, and whose the file is. Other errors stay as they
/// are.
pub(crate) fn with_owner(path: &Path, cause: io::Error) -> io::Error {
    match owner_note(path, &cause) {
        note if note.is_empty() => cause,
        note => io::Error::new(io::ErrorKind::PermissionDenied, format!("{cause}{note}")),
    }
}

/// What is to be said behind an error where something may not be used: who this process runs as, and whose it is.
pub(crate) fn owner_note(path: &Path, cause: &io::Error) -> String {
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    // Where the file cannot be looked at, a folder above it is closed.
    let owner = path
        .ancestors()
        .map(|path| {
            if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            }
        })
        .find_map(|path| Some((path, path.metadata().ok()?)));
    let (Some(user), Some((found, owner))) = (user(), owner) else {
        return String::new();
    };
    format!(
        "; this process runs as {}, and {} belongs to {} with the mode {:04o}",
        described(user),
        found.display(),
        described(owner.uid()),
        owner.mode() & 0o7777
    )
}

/// Says who this process runs as.
pub(crate) fn this_user() -> String {
    user().map_or_else(|| "an unknown user".to_owned(), described)
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
