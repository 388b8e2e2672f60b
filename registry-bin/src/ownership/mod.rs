//! The owners of the files in a folder. What root creates in the folder of a service's user is unusable for that
//! service.

mod errors;
mod remedies;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use registry_storage::filesystem::backup::is_backup;
use rustix::fs::{Access, access};

pub(crate) use self::errors::WithOwner;
use self::remedies::{Owner, remedy};
pub(crate) use self::remedies::{line_of_owner, require_writable, shell_line, with_remedy};
use crate::failure::Failure;

const RECORDS: &str = "records.sqlite";
const BYTES: &str = "bytes";

/// How much is read of a file of the system, such as /etc/passwd.
const SYSTEM_FILE_BYTES: u64 = 16 << 20;

/// How many files a message names.
const NAMED_FILES: usize = 5;

/// About how many files a start looks at, among the bytes and among everything else.
const EXAMINED_FILES: usize = 10_000;

/// Refuses to work as root in a folder whose server runs as another user, and says what to type.
///
/// # Errors
/// If this process is root and the folder belongs to another user.
pub(crate) fn require_user_of(root: &Path) -> Result<(), Failure> {
    let Some(owner) = owner_beside_root(root) else {
        return Ok(());
    };
    Err(Failure::new(format!(
        "{} belongs to {}, whose server could not use what root makes there; {}",
        root.display(),
        described(owner.user),
        owner.line(),
    )))
}

/// Returns the failure of a process that may not enter a folder: who owns it, and what to type.
pub(crate) fn cannot_look_into(root: &Path, cause: &io::Error) -> Failure {
    let note = owner_note(root, cause);
    let remedy = remedy(root, &[root.to_owned()]).filter(|_| !note.is_empty());
    let remedy = remedy.unwrap_or_default();
    Failure::new(format!("cannot look into {}", root.display())).because(format!("{cause}{note}{remedy}"))
}

/// Returns the user and the group of the folder in which root creates a file: the file is for them. Returns `None` if this
/// process is not root, or the folder is root's.
pub(crate) fn heir(path: &Path) -> Option<(u32, u32)> {
    let there = path
        .ancestors()
        .skip(1)
        .map(or_current_folder)
        .find_map(|folder| folder.metadata().ok())?;
    (user() == Some(0) && there.uid() != 0).then_some((there.uid(), there.gid()))
}

/// Warns if a server runs as root in a folder that belongs to another user. It runs anyway: in a container that runs as
/// root, a volume may well belong to a user of the host.
pub(crate) fn warn_of_root(root: &Path) {
    if let Some(owner) = owner_beside_root(root) {
        tracing::warn!(
            "this process runs as root, and {} belongs to {}, who cannot start a server there any more once root's has made \
             files in it; run this one as that user (`--user {owner}` of a container, `User=` of a service), or, if root is \
             meant, `chown root` the folder and what is in it",
            root.display(),
            described(owner.user),
            owner = owner.user
        );
    }
}

/// Returns the user whose server has a folder, if this process is root and that user is not.
fn owner_beside_root(root: &Path) -> Option<Owner> {
    // The folder may belong to another user although the server was always root's. A missing folder is created in its
    // parent.
    let owner = [root.join(RECORDS)]
        .iter()
        .map(PathBuf::as_path)
        .chain(root.ancestors())
        .find_map(Owner::of);
    owner.filter(|owner| owner.user != 0 && user() == Some(0))
}

/// Logs which files in a folder obstruct a server: those of another user, as left by a command that was run as root,
/// those that it cannot use, and files in place of folders or the other way round. It looks at the folder itself, then
/// at the folders of bytes, newest first, and further down at what this process cannot use, up to some thousands of
/// files. Adopted content keeps its owner.
pub(crate) fn log_unusable_files(root: &Path) {
    let Some(user) = user() else { return };
    let (misplaced, others): (Vec<_>, Vec<_>) = in_the_way(root, user)
        .into_iter()
        .take(NAMED_FILES)
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

/// Returns whether something of the wrong kind obstructs the bytes: their folder has one folder per day, which contains
/// only files.
fn is_misplaced(root: &Path, path: &Path) -> bool {
    let bytes = root.join(BYTES);
    let is_dir = path.is_dir();
    match path.parent() {
        Some(folder) if folder == bytes => !is_dir,
        Some(folder) if folder.parent() == Some(&*bytes) => is_dir,
        _ => false,
    }
}

/// Finds what obstructs a user's server: among some of the bytes, and among everything else.
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
    // What a command left recently is in the newest folders.
    let mut days = look(&bytes, &mut found, &mut looked);
    for queue in [&mut folders, &mut days] {
        looked = 0;
        while let Some(folder) = queue.pop() {
            queue.extend(look(&folder, &mut found, &mut looked));
            if found.len() >= NAMED_FILES || looked >= EXAMINED_FILES {
                break;
            }
        }
    }
    found
}

/// Returns the entries of a folder in the order of their names. In the root, skips what is not a server's: the folder
/// of registry:2, which is only read, and that of the file system.
fn entries(root: &Path, folder: &Path) -> Vec<fs::DirEntry> {
    let is_left_out = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        folder == root && ["docker", "lost+found"].iter().any(|other| name == *other)
    };
    let mut entries: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter(|entry| !is_left_out(entry))
        .take(EXAMINED_FILES)
        .collect();
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    entries
}

/// Adds to an error about a denied file or folder which user this process runs as, and who owns the file. Returns other
/// errors unchanged.
pub(crate) fn with_owner(path: &Path, cause: io::Error) -> io::Error {
    match owner_note(path, &cause) {
        note if note.is_empty() => cause,
        note => io::Error::new(io::ErrorKind::PermissionDenied, format!("{cause}{note}")),
    }
}

/// Returns what to append to an error about a denied file: which user this process runs as, and who owns it.
pub(crate) fn owner_note(path: &Path, cause: &io::Error) -> String {
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    // If the file cannot be examined, a folder above it is closed.
    let owner = path
        .ancestors()
        .map(or_current_folder)
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

/// Returns the current folder in place of an empty path.
fn or_current_folder(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Describes the user that this process runs as.
pub(crate) fn this_user() -> String {
    user().map_or_else(|| "an unknown user".to_owned(), described)
}

/// Returns the user that this process runs as.
fn user() -> Option<u32> {
    Some(fs::metadata("/proc/self").ok()?.uid())
}

fn described(user: u32) -> String {
    name(user).map_or_else(
        || format!("the user {user}"),
        |name| format!("the user {name} ({user})"),
    )
}

/// Returns the name of a user, if /etc/passwd has it.
fn name(user: u32) -> Option<String> {
    let users = passwd().ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(user)).then(|| name.to_owned())
    })
}

fn passwd() -> io::Result<String> {
    system_file("/etc/passwd")
}

/// Reads a text file of the system, as far as [`SYSTEM_FILE_BYTES`].
fn system_file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(SYSTEM_FILE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the ID of a group, which may be given as a number or as a name in /etc/group.
pub(crate) fn group_id(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let groups = system_file("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (name == group).then(|| id.parse().ok())?
    })
}

/// Returns whether this process may give its files to a group: it is in the group, or may give files to anybody. It may if
/// the kernel does not say.
pub(crate) fn may_give_to_group(group: u32) -> bool {
    let status = system_file("/proc/self/status");
    status.map_or(true, |status| gives_to_group(&status, group))
}

/// Returns the same by the text of `/proc/PID/status` (`proc_pid_status(5)`).
fn gives_to_group(status: &str, group: u32) -> bool {
    /// The bit of `CAP_CHOWN`.
    const CHOWN: u64 = 1;
    let field = |name: &str| {
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(found, value)| (found == name).then_some(value.trim()))
    };
    let has_group = |name: &str| {
        let groups = field(name).unwrap_or_default();
        groups.split_whitespace().any(|found| found.parse() == Ok(group))
    };
    let capabilities = field("CapEff").and_then(|bits| u64::from_str_radix(bits, 16).ok());
    has_group("Gid") || has_group("Groups") || capabilities.is_none_or(|bits| bits & CHOWN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_given_by_its_members_and_by_who_may_give_files_to_anybody() {
        let status = "Name:\ta\nGid:\t7\t7\t7\t7\nGroups:\t20 30 \nCapEff:\t0000000000000400\n";
        assert!([7, 20, 30].into_iter().all(|group| gives_to_group(status, group)));
        assert!([0, 2, 40].into_iter().all(|group| !gives_to_group(status, group)));
        assert!(gives_to_group(&status.replace("400", "401"), 40));
    }
}
