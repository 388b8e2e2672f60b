//! Where a layout is read from: files in a folder, or an archive, which is read at any position.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use registry_core::{Error, ErrorCode};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use super::{LayoutError, blocking, disk};

/// How much is read at once, in bytes.
const CHUNK_BYTES: u64 = 512 * 1024;

/// The maximum size in bytes of the headers of one file in an archive: a hostile one has a name of gigabytes.
const HEADER_BYTES: usize = 64 * 1024;

/// The maximum number of files of a layout in an archive: some 200 bytes of memory for each.
const MAXIMUM_FILES: usize = 1_000_000;

/// The maximum length in bytes of the path of a file of a layout: that of a SHA-512 has 141.
const PATH_BYTES: usize = 256;

/// A layout that is being read.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    archive: Option<(Arc<File>, BTreeMap<String, Place>)>,
}

/// Where a file is in an archive, in bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    size: u64,
}

/// A file that was found.
#[derive(Clone, Debug)]
pub(super) struct Input {
    file: Arc<File>,
    start: u64,
    pub(super) size: u64,
}

impl Source {
    pub(super) async fn open(path: &Path) -> Result<Self, LayoutError> {
        let owned = path.to_owned();
        let archive = blocking(path, move || {
            if fs::metadata(&owned)?.is_dir() {
                return Ok(None);
            }
            let file = open(&owned)?;
            refuse_compressed(&file)?;
            let files = table_of_contents(&file)?;
            Ok(Some((Arc::new(file), files)))
        });
        Ok(Self {
            path: path.to_owned(),
            archive: archive.await?,
        })
    }

    /// Opens a file; `None` if it does not exist.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Input>, LayoutError> {
        if let Some((file, files)) = &self.archive {
            return Ok(files.get(path).map(|place| Input {
                file: Arc::clone(file),
                start: place.start,
                size: place.size,
            }));
        }
        let path = self.path.join(path);
        blocking(&path.clone(), move || match open(&path) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some(Input {
                    file: Arc::new(file),
                    start: 0,
                    size,
                }))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        })
        .await
    }

    /// Reads a file of at most `limit` bytes; `None` if it does not exist.
    pub(super) async fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, LayoutError> {
        let Some(input) = self.find_small(path, limit).await? else {
            return Ok(None);
        };
        let content = input.read_part(0, input.size).await;
        content.map(Some).map_err(disk(&self.path.join(path)))
    }

    /// Reads a JSON document of at most `limit` bytes, of which only what `T` holds is in memory; `None` if it does not
    /// exist.
    pub(super) async fn read_json<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        limit: u64,
    ) -> Result<Option<T>, LayoutError> {
        let Some(input) = self.find_small(path, limit).await? else {
            return Ok(None);
        };
        let parse = move || serde_json::from_reader(BufReader::with_capacity(64 * 1024, input));
        let parsed = spawn_blocking(parse).await.map_err(io::Error::other);
        match parsed.map_err(disk(&self.path.join(path)))? {
            Ok(document) => Ok(Some(document)),
            Err(cause) if cause.is_io() => Err(disk(&self.path.join(path))(cause.into())),
            Err(cause) => Err(self.malformed(format!("{path}: {cause}"))),
        }
    }

    /// Opens a file of at most `limit` bytes; `None` if it does not exist.
    async fn find_small(&self, path: &str, limit: u64) -> Result<Option<Input>, LayoutError> {
        let input = self.find(path).await?;
        match &input {
            Some(Input { size, .. }) if *size > limit => {
                let reason = format!("{path} has {size} bytes, and {limit} are read at most");
                Err(self.malformed(reason))
            }
            _ => Ok(input),
        }
    }

    pub(super) fn malformed(&self, reason: impl Into<String>) -> LayoutError {
        LayoutError::Malformed {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}

impl Input {
    /// Reads `size` bytes from `offset`.
    async fn read_part(&self, offset: u64, size: u64) -> io::Result<Bytes> {
        let (file, start) = (Arc::clone(&self.file), self.start.saturating_add(offset));
        spawn_blocking(move || {
            let mut buffer = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            file.read_exact_at(&mut buffer, start)?;
            Ok(Bytes::from(buffer))
        })
        .await
        .unwrap_or_else(|cause| Err(io::Error::other(cause)))
    }

    /// Returns the content, one chunk at a time.
    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::try_unfold((self, 0), |(input, offset)| async move {
            let size = CHUNK_BYTES.min(input.size - offset);
            if size == 0 {
                return Ok(None);
            }
            let chunk = input.read_part(offset, size).await.map_err(|cause| {
                Error::new(ErrorCode::BodyInterrupted, "the content cannot be read").with_cause(cause)
            })?;
            Ok(Some((chunk, (input, offset + size))))
        })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.size).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        let read = self.file.read_at(buffer, self.start)?;
        self.start = self.start.saturating_add(read as u64);
        self.size = self.size.saturating_sub(read as u64);
        Ok(read)
    }
}

/// Opens a regular file only: opening a pipe would wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))
    }
}

fn refuse_compressed(file: &File) -> io::Result<()> {
    let mut start = [0; 4];
    let length = file.read_at(&mut start, 0)?;
    let program = match start.get(..length).unwrap_or_default() {
        [0x1f, 0x8b, ..] => "gunzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "unzstd",
        [b'B', b'Z', b'h', _] => "bunzip2",
        [0xfd, b'7', b'z', b'X'] => "unxz",
        _ => return Ok(()),
    };
    let message = format!("the archive is compressed; unpack it with {program} first");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Reads an archive once and notes where the files of a layout are. Nothing is unpacked, so paths outside of it do no
/// harm. Links refer to files before them.
fn table_of_contents(file: &File) -> io::Result<BTreeMap<String, Place>> {
    let mut files = BTreeMap::new();
    let left = Cell::new(HEADER_BYTES);
    let mut archive = tar::Archive::new(Headers { file, left: &left });
    let mut entries = archive.entries_with_seek()?;
    loop {
        left.set(HEADER_BYTES);
        let Some(entry) = entries.next() else {
            return Ok(files);
        };
        let entry = entry?;
        let Some(path) = of_layout(&entry.path_bytes()) else {
            continue;
        };
        let kind = entry.header().entry_type();
        let place = if kind.is_hard_link() {
            let target = entry.link_name_bytes().and_then(|target| of_layout(&target));
            target.and_then(|target| files.get(&target).copied())
        } else {
            kind.is_file().then(|| Place {
                start: entry.raw_file_position(),
                size: entry.size(),
            })
        };
        if let Some(place) = place {
            files.insert(path, place);
        }
        if files.len() > MAXIMUM_FILES {
            let message = format!("the archive has more than {MAXIMUM_FILES} files; unpack it into a folder");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
}

/// Normalizes a path, which often begins with `./`; `None` if it is too long for a file of a layout.
fn of_layout(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.trim_start_matches("./");
    (path.len() <= PATH_BYTES).then(|| path.to_owned())
}

/// An archive of which only the headers are read, up to a limit.
struct Headers<'a> {
    file: &'a File,
    left: &'a Cell<usize>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        let count = buffer.len().min(left);
        if count == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a header of the archive has more than {HEADER_BYTES} bytes"),
            ));
        }
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        let read = self.file.read(buffer)?;
        self.left.set(left - read);
        Ok(read)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // A file with an impossible length is the last one, as is one that is longer than the archive.
        self.file.seek(to).or_else(|_| self.file.seek(SeekFrom::End(0)))
    }
}
