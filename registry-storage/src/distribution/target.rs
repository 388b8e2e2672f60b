//! Writing the files of a tree. Everything here blocks.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_core::{Digest, RepositoryName, Tag};
use rustix::fs::FlockOperation;

use super::{layout, plain};

/// A tree that is being written. Each file appears whole: it is written under another name and then renamed.
#[derive(Clone, Debug)]
pub(super) struct Target {
    tree: PathBuf,
    /// Locked, so that only one export writes here at a time.
    _lock: Arc<File>,
}

impl Target {
    /// Creates the missing folders of a tree below `root`.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        let tree = root.join(layout::TREE);
        plain::require_no_link_so_far(root, &layout::repositories(&tree))?;
        fs::create_dir_all(layout::repositories(&tree))?;
        fs::create_dir_all(tree.join("blobs"))?;
        let lock = Arc::new(lock(&tree)?);
        Ok(Self { tree, _lock: lock })
    }

    /// Creates the folders that make a repository known to that registry, even one without tags.
    pub(super) fn create_repository(&self, name: &RepositoryName) -> io::Result<()> {
        let repository = layout::repository(&self.tree, name);
        for folder in [
            layout::layers(&repository),
            layout::revisions(&repository),
            layout::tags(&repository),
        ] {
            plain::require_no_link_so_far(&self.tree, &folder)?;
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }

    /// Returns whether there is content of this size, which is then assumed to match the digest.
    pub(super) fn has_data(&self, digest: &Digest, size: u64) -> io::Result<bool> {
        match fs::symlink_metadata(layout::data(&self.tree, digest)) {
            Ok(metadata) => Ok(metadata.is_file() && metadata.len() == size),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// Hard-links a file under the name of content.
    pub(super) fn link_data(&self, digest: &Digest, file: &Path) -> io::Result<()> {
        let path = layout::data(&self.tree, digest);
        let aside = self.aside(&path)?;
        remove(&aside)?;
        fs::hard_link(file, &aside)?;
        fs::rename(aside, path)
    }

    /// Begins to write content.
    pub(super) fn begin_data(&self) -> io::Result<DataFile> {
        let path = self.tree.join("content.exporting");
        remove(&path)?;
        Ok(DataFile {
            file: File::create_new(&path)?,
            path,
        })
    }

    /// Gives finished content its name.
    pub(super) fn finish_data(&self, data: DataFile, digest: &Digest) -> io::Result<()> {
        let path = layout::data(&self.tree, digest);
        // An export that ended early may have left a file there.
        remove(&self.aside(&path)?)?;
        data.file.sync_all()?;
        fs::rename(data.path, path)
    }

    /// Writes content that is in memory.
    pub(super) fn write_data(&self, digest: &Digest, content: &[u8]) -> io::Result<()> {
        self.write(&layout::data(&self.tree, digest), content)
    }

    /// Lets a repository read a blob that is stored under `target`.
    pub(super) fn link_layer(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        target: &Digest,
    ) -> io::Result<()> {
        let folder = layout::layers(&layout::repository(&self.tree, name));
        self.write(&layout::link(&folder, digest), target.as_str().as_bytes())
    }

    /// Gives a repository a manifest that is stored under `target`.
    pub(super) fn link_revision(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        target: &Digest,
    ) -> io::Result<()> {
        let folder = layout::revisions(&layout::repository(&self.tree, name));
        self.write(&layout::link(&folder, digest), target.as_str().as_bytes())
    }

    pub(super) fn has_revision(&self, name: &RepositoryName, digest: &Digest) -> bool {
        let folder = layout::revisions(&layout::repository(&self.tree, name));
        layout::link(&folder, digest).is_file()
    }

    /// Points a tag at a manifest of the repository.
    pub(super) fn write_tag(&self, name: &RepositoryName, tag: &Tag, target: &Digest) -> io::Result<()> {
        let repository = layout::repository(&self.tree, name);
        let text = target.as_str().as_bytes();
        self.write(&layout::tag_entry(&repository, tag, target), text)?;
        self.write(&layout::tag(&repository, tag), text)
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_file_system(&self.tree)
    }

    /// Writes a file, unless it is there already.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        plain::require_no_link_so_far(&self.tree, path)?;
        if let Ok(metadata) = fs::metadata(path)
            && metadata.is_file()
            && metadata.len() == content.len() as u64
            && fs::read(path)? == content
        {
            return Ok(());
        }
        let aside = self.aside(path)?;
        // It may be a link to a file that other programs keep.
        remove(&aside)?;
        fs::write(&aside, content)?;
        fs::rename(aside, path)
    }

    /// Returns the name of a file until it is complete, in a folder that exists.
    fn aside(&self, path: &Path) -> io::Result<PathBuf> {
        if let Some(parent) = path.parent() {
            plain::require_no_link_so_far(&self.tree, parent)?;
            fs::create_dir_all(parent)?;
        }
        let mut name: OsString = path.into();
        name.push(".exporting");
        Ok(name.into())
    }
}

/// Locks a folder for as long as the file is open (flock(2)).
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(cause) if cause == rustix::io::Errno::WOULDBLOCK => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another export writes there",
        )),
        // Some network file systems have no locks.
        _ => Ok(file),
    }
}

/// Makes a whole file system durable, in one call instead of two for each file.
pub(super) fn sync_file_system(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(&folder)?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    folder.sync_all()
}

/// Content that is being written.
pub(super) struct DataFile {
    file: File,
    path: PathBuf,
}

impl DataFile {
    pub(super) fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
