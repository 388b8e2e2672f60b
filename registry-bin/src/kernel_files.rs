//! Virtual file systems of the kernel, such as /proc, in which nothing can be stored whatever their modes say.

use std::io;
use std::path::Path;

use rustix::fs::{PROC_SUPER_MAGIC, statfs};

/// The file systems that seem writable to root: their magic numbers (statfs(2)) and names.
const MADE_UP: [(u64, &str); 10] = [
    (PROC_SUPER_MAGIC as u64, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xcafe_4a11, "bpf"),
    (0x0000_1cd1, "devpts"),
    (0x6265_6570, "configfs"),
];

/// Refuses a path in such a file system, whether it exists or would have to be created.
///
/// # Errors
/// If the path is in one, an error that names it.
pub(crate) fn require_storage(path: &Path) -> io::Result<()> {
    let is_there = |place: &&Path| place.symlink_metadata().is_ok();
    let place = path.ancestors().find(is_there).unwrap_or_else(|| Path::new("."));
    // If it cannot be examined, its user reports the error.
    let Ok(found) = statfs(place) else { return Ok(()) };
    match MADE_UP.iter().find(|(number, _)| *number == found.f_type as u64) {
        None => Ok(()),
        Some((_, name)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{} is of the kernel's own ({name}), where nothing can be stored",
                place.display()
            ),
        )),
    }
}
