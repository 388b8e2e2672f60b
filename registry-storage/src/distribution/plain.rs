//! Staying within a folder whose content is not trusted, for example one that was unpacked from an archive: no symbolic
//! link is followed, so nothing outside is read or written, and nothing is opened that could keep the reader waiting.
//! Everything here blocks.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::defect::Shown;

/// Requires that neither `path` nor a folder between it and `folder` is a symbolic link. `folder` itself may be one.
///
/// # Errors
/// The link, or that `path` does not exist or is not below `folder`.
pub(super) fn require_no_link(folder: &Path, path: &Path) -> io::Result<()> {
    let below = path.strip_prefix(folder).map_err(io::Error::other)?;
    let mut place = folder.to_owned();
    for part in below.components() {
        place.push(part);
        if fs::symlink_metadata(&place)?.is_symlink() {
            return Err(is_link(&place));
        }
    }
    Ok(())
}

/// As [`require_no_link`], for a path that may not exist, or not all of it.
///
/// # Errors
/// The link, or that `path` is not below `folder`.
pub(super) fn require_no_link_so_far(folder: &Path, path: &Path) -> io::Result<()> {
    match require_no_link(folder, path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Opens a file for reading.
///
/// # Errors
/// Those of [`require_no_link`], and an error if `path` is not a regular file.
pub(super) fn open(folder: &Path, path: &Path) -> io::Result<File> {
    require_no_link(folder, path)?;
    // A pipe would keep the reader waiting for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

pub(super) fn is_link(place: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is a symbolic link, which is not followed",
        Shown(place)
    ))
}
