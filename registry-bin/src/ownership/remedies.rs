//! What to type if this process may not use a folder or a file in it.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use registry_storage::filesystem::{OpenError, unusable};

use super::{RECORDS, name, owner_note, user};

/// The user and the group that a file belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) user: u32,
    group: u32,
}

impl Owner {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = path.metadata().ok()?;
        Some(Self {
            user: found.uid(),
            group: found.gid(),
        })
    }

    /// Returns what to type to run this command as the user. By default sudo refuses a number that has no name, so for such
    /// a user it is `setpriv`, which is root's.
    pub(super) fn line(self) -> String {
        let Self { user: owner, group } = self;
        let command = shell_line(std::env::args_os());
        if let Some(name) = name(owner) {
            return format!("type: sudo -u {name} {command}");
        }
        let as_root = if user() == Some(0) { "" } else { "as root, " };
        format!("{as_root}type: setpriv --reuid={owner} --regid={group} --clear-groups {command}")
    }
}

/// Returns what to type to run this command as the user to whom a file belongs.
pub(crate) fn line_of_owner(path: &Path) -> Option<String> {
    Owner::of(path).map(Owner::line)
}

/// Checks that this process can write the existing files of a store.
///
/// # Errors
/// If it cannot: which files, who owns them, and how to change that.
pub(crate) fn require_writable(root: &Path) -> io::Result<()> {
    let (paths, causes): (Vec<_>, Vec<_>) = unusable(root).into_iter().unzip();
    let (Some(path), Some(cause)) = (paths.first(), causes.into_iter().next()) else {
        return Ok(());
    };
    let (kind, note) = (cause.kind(), owner_note(path, &cause));
    let remedy = remedy(root, &paths).filter(|_| !note.is_empty());
    let remedy = remedy.unwrap_or_default();
    Err(io::Error::new(
        kind,
        format!("{}: {cause}{note}{remedy}", path.display()),
    ))
}

/// Adds to the error of a store that may not be read what to type. Returns other errors unchanged.
pub(crate) fn with_remedy(root: &Path, cause: OpenError) -> OpenError {
    match cause {
        OpenError::Disk { path, cause } if cause.kind() == io::ErrorKind::PermissionDenied => {
            let remedy = remedy(root, std::slice::from_ref(&path)).unwrap_or_default();
            let cause = io::Error::new(cause.kind(), format!("{cause}{remedy}"));
            OpenError::Disk { path, cause }
        }
        other => other,
    }
}

/// Returns what to type if this process may not use some files of a store, the root among them or not.
pub(super) fn remedy(root: &Path, denied: &[PathBuf]) -> Option<String> {
    let user = user()?;
    if let Some(owner) = other_owner_of(root, user) {
        // The folder is that user's service's, which could not use it any more if it were given away.
        return Some(format!(
            "; {}; or, if no server of that user needs the folder any more, as root, type: chown -R {user} {}",
            owner.line(),
            shell_line([root.into()].into_iter())
        ));
    }
    // What cannot be examined is below a folder that is closed.
    let owned = denied
        .iter()
        .filter_map(|path| Some((path, Owner::of(path)?.user == user)));
    let (mut closed, mut of_others) = (Vec::new(), Vec::new());
    for (path, is_own) in owned {
        match is_own {
            true if is_closed(path) => closed.push(path),
            true => {}
            false => of_others.push(path),
        }
    }
    if of_others.iter().any(|path| *path == root) {
        // Everything in it belongs to that user too.
        of_others.retain(|path| *path == root);
    }
    let mut remedy = String::new();
    if !of_others.is_empty() {
        let is_folder = of_others.iter().any(|path| path.is_dir());
        let flag = if is_folder { "-R " } else { "" };
        remedy += &format!(
            "; as root, type: chown {flag}{user} {}",
            shell_line_of(&of_others)
        );
    }
    if !closed.is_empty() {
        remedy += &format!("; type: chmod u+rwX {}", shell_line_of(&closed));
    }
    Some(remedy)
}

/// Returns the owner of a whole store, or of one that is whole as far as this process can see, if that is not `user`.
fn other_owner_of(root: &Path, user: u32) -> Option<Owner> {
    let owner = Owner::of(root)?;
    let has_records = match root.join(RECORDS).metadata() {
        Ok(records) => records.uid() == owner.user,
        Err(cause) => cause.kind() != io::ErrorKind::NotFound,
    };
    (owner.user != user && has_records).then_some(owner)
}

/// Returns whether its owner may not use a file by its mode.
fn is_closed(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| {
        let needed = if found.is_dir() { 0o700 } else { 0o600 };
        found.mode() & needed != needed
    })
}

fn shell_line_of(paths: &[&PathBuf]) -> String {
    shell_line(paths.iter().map(|path| path.as_os_str().to_owned()))
}

/// Quotes arguments for a shell.
pub(crate) fn shell_line(arguments: impl Iterator<Item = OsString>) -> String {
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
