//! Files that are read whole: up to a size, whatever stands in their place.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest file that is read whole, in bytes: far more than a configuration, a file of keys or of users needs.
const LIMIT: u64 = 16 << 20;

/// Reads a file whole.
///
/// # Errors
/// Those of the file system, and where it is larger than 16 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LIMIT {
        let message = format!("it is larger than the {} MiB that are read at most", LIMIT >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

/// Reads a file of text whole.
///
/// # Errors
/// Those of [`read`], and where it is not UTF-8.
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
    fn a_file_of_the_largest_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(LIMIT).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LIMIT);
        file.set_len(LIMIT + 1).unwrap();
        assert!(read(&path).is_err());
    }
}
