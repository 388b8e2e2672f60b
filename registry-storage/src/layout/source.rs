//! Where a layout is read: files in a folder, or an archive, which is read at any place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use registry_core::Error;
use tokio::task::spawn_blocking;

use super::{LayoutError, blocking, disk};

/// How much is read at once, in bytes.
const CHUNK: u64 = 512 * 1024;

/// A layout that is read.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// The files of an archive: about 200 bytes of memory for each.
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
    place_start: u64,
    pub(super) size: u64,
}

impl Source {
    pub(super) async fn open(path: &Path) -> Result<Self, LayoutError> {
        let owned = path.to_owned();
        let archive = blocking(path, move || {
            if fs::metadata(&owned)?.is_dir() {
                return Ok(None);
            }
            let file = File::open(&owned)?;
            let files = table_of_contents(&file)?;
            Ok(Some((Arc::new(file), files)))
        });
        Ok(Self {
            path: path.to_owned(),
            archive: archive.await?,
        })
    }

    /// Opens a file; nothing where there is none.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Input>, LayoutError> {
        if let Some((file, files)) = &self.archive {
            return Ok(files.get(path).map(|place| Input {
                file: Arc::clone(file),
                place_start: place.start,
                size: place.size,
            }));
        }
        let path = self.path.join(path);
        blocking(&path.clone(), move || match File::open(&path) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some(Input {
                    file: Arc::new(file),
                    place_start: 0,
                    size,
                }))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        })
        .await
    }

    /// Reads a file of at most `limit` bytes; nothing where there is none.
    pub(super) async fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, LayoutError> {
        let Some(input) = self.find(path).await? else {
            return Ok(None);
        };
        if input.size > limit {
            return Err(self.malformed(format!(
                "{path} has {} bytes, and {limit} are read at most",
                input.size
            )));
        }
        let content = input.read(0, input.size).await.map_err(disk(&self.path))?;
        Ok(Some(content))
    }

    /// Returns the names of the folders that hold a file of this name.
    pub(super) async fn folders_with(&self, file: &str) -> Result<BTreeSet<String>, LayoutError> {
        if let Some((_, files)) = &self.archive {
            let folders = files
                .keys()
                .filter_map(|path| path.strip_suffix(file)?.strip_suffix('/'));
            return Ok(folders
                .filter(|folder| !folder.contains('/'))
                .map(str::to_owned)
                .collect());
        }
        let (path, file) = (self.path.clone(), file.to_owned());
        blocking(&self.path, move || {
            let mut folders = BTreeSet::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if let Ok(name) = entry.file_name().into_string()
                    && entry.path().join(&file).is_file()
                {
                    folders.insert(name);
                }
            }
            Ok(folders)
        })
        .await
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
    async fn read(&self, offset: u64, size: u64) -> io::Result<Bytes> {
        let (file, start) = (Arc::clone(&self.file), self.place_start + offset);
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
            let size = CHUNK.min(input.size - offset);
            if size == 0 {
                return Ok(None);
            }
            let chunk = input.read(offset, size).await.map_err(Error::internal)?;
            Ok(Some((chunk, (input, offset + size))))
        })
    }
}

/// Goes through an archive once. Links name what stands before them.
fn table_of_contents(file: &File) -> io::Result<BTreeMap<String, Place>> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = plain(&entry.path()?);
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            let target = entry.link_name()?.map(|target| plain(&target));
            if let Some(place) = target.and_then(|target| files.get(&target).copied()) {
                files.insert(path, place);
            }
        } else if kind.is_file() {
            let place = Place {
                start: entry.raw_file_position(),
                size: entry.size(),
            };
            files.insert(path, place);
        }
    }
    Ok(files)
}

/// Spells a path as it is asked for. `./` before it is common.
fn plain(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches("./").to_owned()
}
