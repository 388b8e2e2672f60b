//! Whether files can get a second name, found out without giving them one. Everything here blocks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatxFlags, accessat, statx};
use rustix::io::Errno;

use super::amount::entries;
use super::error::AdoptError;
use super::tree::Tree;
use crate::filesystem::{BYTES_FOLDER, is_root};
use crate::store::INLINE_BYTES;

/// The capability to do what only the owner of a file may (capabilities(7)).
const CAP_FOWNER: u32 = 3;
const SET_USER: u32 = 0o4000;
const SET_GROUP_AND_EXECUTABLE: u32 = 0o2010;

/// What the kernel asks before it gives a file a second name in a folder.
#[derive(Clone, Debug)]
pub(super) struct LinkRules {
    /// Where the name would be.
    folder: PathBuf,
    /// The user of this process, if it may only link its own files and those that it may read and write.
    restricted: Option<u32>,
}

impl LinkRules {
    /// Finds out what holds for the bytes of a store in `root`, which need not be there.
    pub(super) fn of(root: &Path) -> Self {
        let bytes = root.join(BYTES_FOLDER);
        let folder = if bytes.exists() { bytes } else { root.to_owned() };
        Self {
            folder,
            restricted: restricted_user(),
        }
    }

    /// Returns why a file cannot get a second name; `None` if it can, or if that cannot be known.
    pub(super) fn refusal(&self, file: &Path) -> Option<AdoptError> {
        let cause = if self.is_elsewhere(file) {
            Errno::XDEV
        } else if self.restricted.is_some_and(|user| !may_link(file, user)) {
            Errno::PERM
        } else {
            return None;
        };
        Some(AdoptError::Link {
            file: file.to_owned(),
            cause: cause.into(),
        })
    }

    /// Returns whether a file is on another file system or mount. A folder shows the first more reliably: in a
    /// container, files may have the device number of a lower layer.
    fn is_elsewhere(&self, file: &Path) -> bool {
        let device = |folder: &Path| fs::metadata(folder).ok().map(|found| found.dev());
        let devices = file.parent().and_then(device).zip(device(&self.folder));
        let mounts = mount(file).zip(mount(&self.folder));
        let differ = |(one, other): (u64, u64)| one != other;
        devices.is_some_and(differ) || mounts.is_some_and(differ)
    }
}

/// Returns the number of the mount that a file is in, if the kernel reports it.
fn mount(path: &Path) -> Option<u64> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    let is_told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    is_told.then_some(found.stx_mnt_id)
}

/// Returns the user of this process if the kernel protects the files of others from links (`fs.protected_hardlinks` in
/// proc(5)), and this process is not exempt.
fn restricted_user() -> Option<u32> {
    let setting = fs::read_to_string("/proc/sys/fs/protected_hardlinks").ok()?;
    if setting.trim() == "0" {
        return None;
    }
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let capabilities = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
    if capabilities >> CAP_FOWNER & 1 == 1 {
        return None;
    }
    // The real user, the effective one, the saved one and that of files.
    field("Uid:")?.split_whitespace().nth(3)?.parse().ok()
}

/// Returns whether the kernel gives a user a link to a file although it protects those of others.
fn may_link(file: &Path, user: u32) -> bool {
    let Ok(found) = fs::symlink_metadata(file) else {
        return true;
    };
    if found.uid() == user {
        return true;
    }
    let mode = found.permissions().mode();
    let is_plain = found.is_file()
        && mode & SET_USER == 0
        && mode & SET_GROUP_AND_EXECUTABLE != SET_GROUP_AND_EXECUTABLE;
    is_plain && accessat(CWD, file, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Looks whether the content of a tree can get second names in `root`: at up to `limit` files, and at none if that was done
/// for some already.
///
/// # Errors
/// [`AdoptError::Link`] for a file that cannot.
pub fn check_links(root: &Path, tree: &Tree, limit: usize) -> Result<(), AdoptError> {
    let has_bytes = || entries(&root.join(BYTES_FOLDER)).any(|day| entries(&day).next().is_some());
    if is_root(root).is_ok_and(|is_root| is_root) && has_bytes() {
        return Ok(());
    }
    let rules = LinkRules::of(root);
    let algorithms = entries(&tree.folder().join("blobs"));
    let contents = algorithms
        .flat_map(|algorithm| entries(&algorithm))
        .flat_map(|part| entries(&part));
    for folder in contents.take(limit) {
        let file = folder.join("data");
        let is_large = |found: fs::Metadata| found.len() > INLINE_BYTES as u64;
        if fs::symlink_metadata(&file).is_ok_and(is_large)
            && let Some(refused) = rules.refusal(&file)
        {
            return Err(refused);
        }
    }
    Ok(())
}
