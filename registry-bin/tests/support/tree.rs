//! What the distribution registry leaves in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::content::sha256;

/// A tree as the distribution registry writes it.
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// Returns the tree below a root, of which nothing need be there.
    pub(crate) fn new(root: &Path) -> Self {
        Self(root.join("docker/registry/v2"))
    }

    /// Returns the file with the content of a digest.
    pub(crate) fn data(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        self.0.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    fn link(&self, repository: &str, folder: &str, digest: &str) {
        let place = format!(
            "repositories/{repository}/{folder}/{}/link",
            digest.replace(':', "/")
        );
        write(&self.0.join(place), digest.as_bytes());
    }

    /// Pushes a blob.
    pub(crate) fn push_blob(&self, repository: &str, content: &[u8]) {
        write(&self.data(&sha256(content)), content);
        self.link(repository, "_layers", &sha256(content));
    }

    /// Tells whether nothing was written to the repositories for some time.
    pub(crate) fn is_older_than(&self, time: Duration) -> bool {
        let mut waiting = vec![self.0.join("repositories")];
        while let Some(path) = waiting.pop() {
            let metadata = path.metadata().expect("it is there");
            let written = metadata.modified().expect("this system has it");
            if written.elapsed().is_ok_and(|elapsed| elapsed < time) {
                return false;
            }
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).expect("it can be read");
                waiting.extend(entries.map(|entry| entry.expect("it can be read").path()));
            }
        }
        true
    }

    /// Pushes a manifest with a tag, or moves the tag to it.
    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        write(&self.data(&sha256(manifest)), manifest);
        self.link(repository, "_manifests/revisions", &sha256(manifest));
        let tag = format!("repositories/{repository}/_manifests/tags/{tag}/current/link");
        write(&self.0.join(tag), sha256(manifest).as_bytes());
    }
}

/// Writes a file, unless it is content that is there.
fn write(path: &Path, content: &[u8]) {
    if path.ends_with("data") && path.exists() {
        return;
    }
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder can be made");
    fs::write(path, content).expect("a file can be written");
}
