//! Files that only their owner can read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use registry_storage::filesystem::create_private_folder;
use uuid::Uuid;

use crate::bounded_file;
use crate::ownership::{heir, with_owner};

/// Writes a file atomically. A new file is only readable by its owner; a replaced one keeps its mode and owner.
///
/// # Errors
/// Errors of the file system, also if the file has another owner and this process may not give it away.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    // A link, as to a mounted secret, stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let replaced = fs::metadata(&path).ok();
    let mode = replaced.as_ref().map_or(0o600, |file| file.mode() & 0o777);
    let owner = replaced.map(|file| (file.uid(), file.gid()));
    with_temporary(&path, text, mode, owner, |temporary| fs::rename(temporary, &path))
}

/// Changes or creates a file so that concurrent edits by other processes are not lost. `change` gets the text, which is
/// empty if there is no file, and may be called again.
///
/// # Errors
/// Those of `change` and of the file system.
pub(crate) fn edit<E: From<io::Error>>(
    path: &Path,
    change: impl Fn(&str) -> Result<String, E>,
) -> Result<(), E> {
    loop {
        if let Some(_lock) = lock_in_place(path)? {
            let text = bounded_file::read_to_string(path)?;
            return Ok(write(path, &change(&text)?)?);
        }
        // If another process creates the file first, it is complete.
        if create_for(path, &change("")?, heir(path))? {
            return Ok(());
        }
    }
}

/// Locks a file against other editors until the result is dropped. Returns `None` if there is no file.
fn lock_in_place(path: &Path) -> io::Result<Option<File>> {
    loop {
        // Some file systems can only lock files that are open for writing.
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = match opened.or_else(|_| File::open(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|cause| with_owner(path, cause))?,
        };
        file.lock()?;
        // The previous holder of the lock may have replaced the file.
        let locked = file.metadata()?;
        match fs::metadata(path) {
            Ok(now) if (locked.dev(), locked.ino()) == (now.dev(), now.ino()) => return Ok(Some(file)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

/// Locks a dedicated lock file until the result is dropped, and creates it if needed.
///
/// # Errors
/// Those of the file system.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        // Like the rest of what a server creates.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|cause| with_owner(folder, cause))?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|cause| with_owner(path, cause))?;
    file.lock()?;
    Ok(file)
}

/// Creates a file atomically that only its owner can read. Returns `false` if it exists already.
///
/// # Errors
/// Those of the file system.
pub(crate) fn create(path: &Path, text: &str) -> io::Result<bool> {
    create_for(path, text, None)
}

/// The same for another user and group, who also get the folders that are made for it.
///
/// # Errors
/// Those of the file system.
pub(crate) fn create_for(path: &Path, text: &str, owner: Option<(u32, u32)>) -> io::Result<bool> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
        create_private_folder(folder).map_err(|cause| with_owner(folder, cause))?;
        if let Some((user, group)) = owner {
            let mut made = missing.into_iter().filter(|made| !made.as_os_str().is_empty());
            made.try_for_each(|made| chown(made, Some(user), Some(group)))?;
        }
    }
    // Unlike a rename, a link replaces nothing: of several processes that start at once, only one creates the file.
    let made = with_temporary(path, text, 0o600, owner, |temporary| {
        let linked = fs::hard_link(temporary, path);
        fs::remove_file(temporary)?;
        linked
    });
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a temporary file next to `path` and has `finish` put it in place.
fn with_temporary(
    path: &Path,
    text: &str,
    mode: u32,
    owner: Option<(u32, u32)>,
    finish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|cause| with_owner(&temporary, cause))?;
        file.write_all(text.as_bytes())?;
        let made = file.metadata()?;
        if let Some((user, group)) = owner.filter(|owner| *owner != (made.uid(), made.gid())) {
            fchown(&file, Some(user), Some(group)).map_err(|error| {
                let text = "the file belongs to somebody else, and would not any more; change it as that user or as root";
                io::Error::new(error.kind(), text)
            })?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        finish(&temporary)?;
        sync_folder(path)
    })();
    if written.is_err() {
        // A leftover temporary file does no harm; the first error is the one to report.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Returns a name next to `path` that no other process uses, on this machine or another that shares the folder.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().simple()));
    name.into()
}

/// Makes the entries of the file's folder survive a power loss.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_a_lock_needs_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        lock(&folder.path().join("data/tls/lock")).unwrap();
        for made in ["data", "data/tls"] {
            let mode = fs::metadata(folder.path().join(made))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
    }

    #[test]
    fn of_several_that_create_a_file_one_does_and_all_find_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/secret");
        let made: Vec<bool> = std::thread::scope(|scope| {
            let create = |number: usize| {
                let path = &path;
                move || {
                    let made = create(path, &number.to_string().repeat(10_000)).unwrap();
                    assert_eq!(fs::read_to_string(path).unwrap().len(), 10_000);
                    made
                }
            };
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(create(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        for (path, mode) in [(path.as_path(), 0o600), (path.parent().unwrap(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn of_several_that_edit_a_file_at_once_each_finds_what_the_others_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::thread::scope(|scope| {
            for number in 0..12 {
                let path = &path;
                scope.spawn(move || {
                    let add = |text: &str| Ok::<_, io::Error>(format!("{text}{number}\n"));
                    edit(path, add).unwrap();
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        lines.sort_unstable();
        assert_eq!(lines, (0..12).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let refuse = |_: &str| Err(io::Error::other("no"));
        edit(&path, refuse).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_behind_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("secret"), folder.path().join("link"));
        write(&path, "first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
