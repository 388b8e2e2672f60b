//! Looking what changed in a tree, without reading it. Everything here blocks.
//!
//! A copy of a file may get any time of writing, as `cp -a` and `rsync -a` do. The time when its inode changed is the
//! system's own. So that one shows where to look, and what is there is then compared with what was adopted.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use registry_core::{RepositoryName, Timestamp};

use super::amount::entries;
use super::layout;
use super::tree::{Tree, written};

/// What changed in a tree, and when.
#[derive(Debug)]
pub(super) struct Look {
    /// All repositories.
    pub(super) all: Vec<RepositoryName>,
    /// Those that changed after the time that was asked for.
    pub(super) changed: Vec<RepositoryName>,
    /// Whether content came after that time. It is looked for only if that was asked for.
    pub(super) has_new_content: bool,
    /// The time of the last change.
    pub(super) last_change: Timestamp,
    /// When the last link was written, and the first one.
    pub(super) newest: Timestamp,
    pub(super) oldest: Timestamp,
    /// What tells the folder of the tree from a copy of it, if that can be told.
    pub(super) folder: Option<u64>,
}

impl Tree {
    /// Looks when repositories changed: the folders above them and in them, and the links of tags and manifests. With
    /// `with_content`, also when content came.
    ///
    /// A folder that was moved to its place changed itself, and nothing in it did.
    pub(super) fn look(&self, since: Timestamp, with_content: bool) -> Look {
        let mut look = Look {
            all: self.repositories(&mut Vec::new()),
            changed: Vec::new(),
            has_new_content: false,
            last_change: Timestamp(0),
            newest: Timestamp(0),
            oldest: Timestamp(u64::MAX),
            folder: self.identity(),
        };
        for name in &look.all {
            let mut change = self.change_above(name);
            for path in self.folders_of(name) {
                change = change.max(changed_at(&path));
            }
            for path in self.links_of(name) {
                if let Ok(metadata) = fs::symlink_metadata(path) {
                    change = change.max(changed(&metadata));
                    look.newest = look.newest.max(written(&metadata));
                    look.oldest = look.oldest.min(written(&metadata));
                }
            }
            look.last_change = look.last_change.max(change);
            if change > since {
                look.changed.push(name.clone());
            }
        }
        if with_content {
            let content = self.last_change_of_content();
            look.has_new_content = content > since;
            look.last_change = look.last_change.max(content);
        }
        look
    }

    /// Returns what tells the folder of the tree from a copy of it, if that can be told.
    fn identity(&self) -> Option<u64> {
        let metadata = fs::metadata(layout::repositories(self.folder())).ok()?;
        Some(metadata.ino())
    }

    /// Returns when a folder above a repository changed last, without that of all.
    fn change_above(&self, name: &RepositoryName) -> Timestamp {
        let all = layout::repositories(self.folder());
        let folder = layout::repository(self.folder(), name);
        let above = folder.ancestors().skip(1).take_while(|above| *above != all);
        above.map(changed_at).max().unwrap_or(Timestamp(0))
    }

    /// Lists the folders of a repository that change when a link comes.
    fn folders_of(&self, name: &RepositoryName) -> Vec<PathBuf> {
        let folder = layout::repository(self.folder(), name);
        let mut paths = vec![layout::manifests(&folder), layout::tags(&folder)];
        for links in [layout::layers(&folder), layout::revisions(&folder)] {
            let algorithms = self.folders(&links, &mut Vec::new());
            paths.extend(algorithms.iter().map(|algorithm| links.join(algorithm)));
            paths.push(links);
        }
        paths.push(folder);
        paths
    }

    /// Lists the links of a repository's tags and manifests. They may be written anew where they are.
    fn links_of(&self, name: &RepositoryName) -> Vec<PathBuf> {
        let folder = layout::repository(self.folder(), name);
        let tags = self.folders(&layout::tags(&folder), &mut Vec::new());
        let tags = tags.iter().filter_map(|tag| tag.parse().ok());
        let mut paths: Vec<_> = tags.map(|tag| layout::tag(&folder, &tag)).collect();
        let revisions = layout::revisions(&folder);
        for algorithm in self.folders(&revisions, &mut Vec::new()) {
            let links = entries(&revisions.join(algorithm));
            paths.extend(links.map(|folder| folder.join("link")));
        }
        paths
    }

    /// Returns when the folders of content changed last. The files themselves change when they get a second name.
    pub(super) fn last_change_of_content(&self) -> Timestamp {
        let algorithms = entries(&self.folder().join("blobs"));
        let parts = algorithms.flat_map(|algorithm| entries(&algorithm));
        let times = parts.flat_map(|part| {
            let folders = entries(&part).map(|folder| changed_at(&folder));
            folders.chain([changed_at(&part)]).max()
        });
        times.max().unwrap_or(Timestamp(0))
    }
}

fn changed_at(path: &Path) -> Timestamp {
    fs::symlink_metadata(path).map_or(Timestamp(0), |metadata| changed(&metadata))
}

/// Returns when an inode changed last.
fn changed(metadata: &Metadata) -> Timestamp {
    let millis = metadata
        .ctime()
        .saturating_mul(1000)
        .saturating_add(metadata.ctime_nsec() / 1_000_000);
    Timestamp(u64::try_from(millis).unwrap_or(0))
}
