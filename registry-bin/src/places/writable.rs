//! Checks of the places that a server writes to, without writing.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use registry_storage::distribution;
use registry_storage::filesystem::{check_records, require_usable};
use registry_storage::object_store::BlobCache;
use registry_storage::outbox::Outbox;
use rustix::fs::{Access, access};

use super::{OUTBOX_PATH, outbox_file, resolved};
use crate::adoption;
use crate::config::Configuration;
use crate::config::sections::http::Network;
use crate::control::SOCKET_PATH_BYTES;
use crate::failure::Failure;
use crate::kernel_files::require_storage;
use crate::ownership::{WithOwner as _, with_owner};
use crate::storage::{StorageLocation, require_writable};

/// How many files of registry:2 are examined.
const EXAMINED_LINKS: usize = 1000;

/// Returns what keeps a server from writing where it must.
pub(crate) fn failures(configuration: &Configuration) -> Vec<Result<(), Failure>> {
    let (http, audit) = (&configuration.http, &configuration.log.audit);
    let mut results = Vec::new();
    if let Ok(StorageLocation::Folder(root)) = StorageLocation::of(&configuration.storage) {
        results.push(check_root(&root, configuration));
    }
    if http.net == Network::Unix {
        let message = format!("cannot listen at the unix socket {}; name another", http.addr);
        let checked = check_socket(Path::new(&http.addr));
        results.push(checked.map_err(|cause| Failure::of("http.addr", message).because(cause)));
    }
    if let Some(path) = audit.path.as_ref().filter(|_| audit.is_on()) {
        results.push(check_file(path).map_err(|cause| {
            Failure::of("log.audit.path", format!("cannot write to {}", path.display())).because(cause)
        }));
    }
    results.push(check_outbox(configuration));
    for (key, path) in configuration.auth.files_of_users() {
        if !path.exists() {
            let message = format!("cannot make a file of users at {}", path.display());
            results.push(check_made_file(path).map_err(|cause| Failure::of(key, message).because(cause)));
        }
    }
    results.push(check_backups(configuration));
    results.push(check_cache(configuration));
    results
}

/// Checks that the outbox can be opened or created, if there are endpoints and it is in a file.
fn check_outbox(configuration: &Configuration) -> Result<(), Failure> {
    let section = &configuration.notifications;
    if !section.is_on() {
        return Ok(());
    }
    match (&section.outbox.path, &configuration.storage.filesystem) {
        (Some(path), _) => {
            let is_usable = || check_file(path).map_err(|cause| cannot_use_outbox(path).because(cause));
            let checked = check_outbox_files(path).and_then(|()| is_usable());
            checked.map_err(|failure| failure.about(OUTBOX_PATH))
        }
        // If the data is read-only, the outbox is in memory. Other problems of the folder are reported for the data.
        (None, Some(filesystem)) => {
            match require_writable(&filesystem.root, &configuration.storage.maintenance) {
                Ok(true) => check_outbox_files(&outbox_file(&filesystem.root)),
                _ => Ok(()),
            }
        }
        (None, None) => Ok(()),
    }
}

/// Checks that the files of an outbox can be used, as far as they exist.
pub(crate) fn check_outbox_files(path: &Path) -> Result<(), Failure> {
    for file in Outbox::files(path).iter().take(2) {
        require_usable(file, false)
            .map_err(|cause| cannot_use_outbox(file).because(with_owner(file, cause)))?;
    }
    Outbox::check(path).map_err(|cause| cannot_use_outbox(path).because(cause))
}

/// Returns the failure of an outbox that cannot be opened.
pub(crate) fn cannot_use_outbox(path: &Path) -> Failure {
    Failure::new(format!("cannot use the notifications in {}", path.display()))
}

/// Checks that backups can be written to their folder. A root that is only read has none.
///
/// # Errors
/// Why a backup would fail.
pub(crate) fn check_backups(configuration: &Configuration) -> Result<(), Failure> {
    let (Some(folder), Some(filesystem)) = (&configuration.backup.folder, &configuration.storage.filesystem)
    else {
        return Ok(());
    };
    if matches!(
        require_writable(&filesystem.root, &configuration.storage.maintenance),
        Ok(false)
    ) {
        return Ok(());
    }
    let message = format!("cannot make backups in {}", folder.display());
    check_made_folder(folder).map_err(|cause| Failure::of("backup.folder", message).because(cause))
}

/// Checks that the blobs of a bucket can be kept in their folder.
fn check_cache(configuration: &Configuration) -> Result<(), Failure> {
    let storage = &configuration.storage;
    match (&storage.cache.folder, StorageLocation::of(storage)) {
        (Some(folder), Ok(StorageLocation::Bucket(_))) => {
            check_made_folder(folder).map_err(|cause| cannot_cache(folder).because(cause))?;
            BlobCache::check_folder(folder).map_err(|cause| cannot_cache(folder).because(cause))
        }
        _ => Ok(()),
    }
}

/// Returns the failure of a folder in which no blobs can be kept.
pub(crate) fn cannot_cache(folder: &Path) -> Failure {
    let message = format!("cannot keep blobs in {}", folder.display());
    Failure::of("storage.cache.folder", message)
}

/// Checks that a folder can be written, or made if it is missing.
fn check_made_folder(folder: &Path) -> io::Result<()> {
    match folder.metadata() {
        Ok(_) => check_folder(folder),
        Err(_) => check_made(folder),
    }
}

/// Checks that a store can be opened or created in a folder.
fn check_root(root: &Path, configuration: &Configuration) -> Result<(), Failure> {
    let key = "storage.filesystem.rootdirectory";
    let failed = || Failure::of(key, format!("cannot store in {}", root.display()));
    match root.metadata() {
        Ok(found) if found.is_dir() => {
            if require_writable(root, &configuration.storage.maintenance)? {
                check_adoption(root)?;
            }
        }
        Ok(_) => return Err(failed().because(io::Error::from(io::ErrorKind::NotADirectory))),
        Err(_) => require_usable(root, true)
            .and_then(|()| check_made(root))
            .map_err(|cause| failed().because(cause))?,
    }
    check_records(root).map_err(|cause| failed().because(cause.with_owner()))
}

/// Checks that what registry:2 left in a folder can be adopted, as far as some of its files show.
fn check_adoption(root: &Path) -> Result<(), Failure> {
    let Some(tree) = adoption::find_if_there(root)? else {
        return Ok(());
    };
    distribution::check_links(root, &tree, EXAMINED_LINKS)
        .map_err(|cause| adoption::failure(root).because(cause.with_owner()))
}

/// Checks that a missing path can be created, with its parent folders, in the nearest one that exists.
pub(crate) fn check_made(path: &Path) -> io::Result<()> {
    let is_there = |place: &&Path| place.symlink_metadata().is_ok();
    let place = path.ancestors().skip(1).find(is_there);
    check_folder(place.unwrap_or_else(|| Path::new(".")))
}

/// The same check for a file that is not created through a link.
pub(crate) fn check_made_file(path: &Path) -> io::Result<()> {
    check_name(path)?;
    if path.is_symlink() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "it is a link to what is not there",
        ));
    }
    check_made(path)
}

/// Checks that a file, and the temporary files next to it, can have this name.
fn check_name(path: &Path) -> io::Result<()> {
    const LONGEST_NAME_BYTES: usize = 255 - "-journal.123".len();
    let refused = |message: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return refused("it ends with a slash, as the path of a folder does");
    }
    if path
        .components()
        .any(|part| part.as_os_str().len() > LONGEST_NAME_BYTES)
    {
        return refused("a name in it is too long");
    }
    Ok(())
}

/// Checks that a socket can be created.
fn check_socket(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES {
        let message =
            format!("its path has {length} bytes, and that of a socket has at most {SOCKET_PATH_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    check_name(path)?;
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket",
        )),
        // An existing socket belongs to a running server, or to one that ended.
        _ => check_folder(folder_of(path)),
    }
}

/// Checks that a file can be written, or created if it is missing.
pub(crate) fn check_file(path: &Path) -> io::Result<()> {
    check_name(path)?;
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a socket, not a file",
        )),
        Ok(_) => check_access(path),
        // The file is created where a link points.
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_folder(folder_of(&resolved(path))),
        Err(error) => Err(with_owner(path, error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Checks that a file can be created in a folder.
fn check_folder(folder: &Path) -> io::Result<()> {
    if !folder
        .metadata()
        .map_err(|cause| with_owner(folder, cause))?
        .is_dir()
    {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    require_storage(folder)?;
    check_access(folder)
}

fn check_access(path: &Path) -> io::Result<()> {
    access(path, Access::WRITE_OK).map_err(|cause| with_owner(path, cause.into()))
}
