//! Files that are read whole, up to a size limit, whatever kind of file they are.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::statfs;

use crate::ownership;

/// The largest file that is read whole, in bytes: far more than a configuration or a file of keys or users needs.
const LIMIT_BYTES: u64 = 16 << 20;

/// The file system of unnamed pipes (statfs(2)).
const UNNAMED_PIPES: u64 = 0x5049_5045;

/// The byte order mark that Windows editors write before UTF-8 text. It is not part of the text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The byte order marks of UTF-16 text, as PowerShell writes it.
const OTHER_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Reads a whole file, without a byte order mark.
///
/// # Errors
/// Errors of the file system, and if the file is larger than 16 MiB, UTF-16 text or a named pipe.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    require_no_named_pipe(path)?;
    let mut content = Vec::new();
    let file = File::open(path).map_err(|cause| ownership::with_owner(path, cause))?;
    file.take(LIMIT_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LIMIT_BYTES {
        let message = format!(
            "it is larger than the {} MiB that are read at most",
            LIMIT_BYTES >> 20
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    if OTHER_MARKS.iter().any(|mark| content.starts_with(mark)) {
        let message = "it is text in UTF-16; save it as UTF-8";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    if content.starts_with(MARK) {
        content.drain(..MARK.len());
    }
    Ok(content)
}

/// Refuses a named pipe: opening it blocks until another process writes to it, and it can be read only once. An unnamed
/// pipe, as of a shell's `<(...)`, has its writer.
fn require_no_named_pipe(path: &Path) -> io::Result<()> {
    let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
    if is_pipe && statfs(path).is_ok_and(|system| system.f_type as u64 != UNNAMED_PIPES) {
        let message = "it is a named pipe, which can be read once, when somebody writes to it; write a file in its place";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// Reads a whole text file.
///
/// # Errors
/// Those of [`read`], and if the file is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_never_ends_is_refused_and_not_read_into_memory() {
        for result in [
            read(Path::new("/dev/zero")).map(drop),
            read_to_string(Path::new("/dev/zero")).map(drop),
        ] {
            let error = result.unwrap_err();
            assert!(error.to_string().contains("16 MiB"), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (content, expected) in [
            ("\u{feff}text", "text"),
            ("\u{feff}", ""),
            ("a\u{feff}", "a\u{feff}"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_to_string(&path).unwrap(), expected);
        }
        std::fs::write(&path, b"\xff\xfet\0").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("UTF-16"));
    }

    #[test]
    fn a_file_of_the_largest_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(LIMIT_BYTES).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LIMIT_BYTES);
        file.set_len(LIMIT_BYTES + 1).unwrap();
        assert!(read(&path).is_err());
    }
}
