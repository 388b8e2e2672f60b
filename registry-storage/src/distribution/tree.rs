//! Reading a tree. Everything here blocks.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use registry_core::{Algorithm, Digest, RepositoryName, Tag, Timestamp};

use super::amount::entries;
use super::defect::{BrokenLink, Defect};
use super::layout;
use super::plain;
use super::target::sync_file_system;

/// The maximum number of bytes of a link that are read; a digest has fewer.
pub(super) const LINK_BYTES: u64 = 512;

/// A tree of the distribution registry. Nothing here changes it.
#[derive(Clone, Debug)]
pub struct Tree {
    folder: PathBuf,
}

/// The link of a blob or manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The digest under which it is known.
    pub digest: Digest,
    /// The digest under which its content is stored: that registry stores all content under SHA-256.
    pub target: Digest,
    /// When the link was written.
    pub written: Timestamp,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagLink {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it names.
    pub target: Digest,
    /// When the link was written.
    pub written: Timestamp,
}

/// The links of one repository.
#[derive(Debug)]
pub struct RepositoryLinks {
    /// The repository.
    pub name: RepositoryName,
    /// Whether a manifest was ever pushed to it.
    pub is_listed: bool,
    /// The blobs that it may read.
    pub layers: Vec<Link>,
    /// Its manifests.
    pub revisions: Vec<Link>,
    /// Its tags.
    pub tags: Vec<TagLink>,
    /// How many uploads are in progress. They are not adopted: their state is the other program's.
    pub uploads: u64,
    /// What is broken.
    pub defects: Vec<Defect>,
}

impl Tree {
    /// Finds the tree below a root, the `rootdirectory` of that registry's configuration. Returns `None` if nothing was
    /// ever pushed.
    ///
    /// # Errors
    /// If it cannot be found out whether there is a tree, or a symbolic link leads to it. The root itself may be one.
    pub fn find(root: &Path) -> io::Result<Option<Self>> {
        let folder = root.join(layout::TREE);
        let repositories = layout::repositories(&folder);
        match plain::require_no_link(root, &repositories) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
            Ok(()) => Ok(repositories.is_dir().then_some(Self { folder })),
        }
    }

    /// Returns the folder of the tree.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens a file of the tree.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        plain::open(&self.folder, path)
    }

    /// Counts the links of the blobs and manifests of a repository, by the names of their folders alone.
    pub(super) fn count_links(&self, name: &RepositoryName) -> u64 {
        let folder = layout::repository(&self.folder, name);
        let mut count = 0;
        for links in [layout::layers(&folder), layout::revisions(&folder)] {
            for algorithm in self.folders(&links, &mut Vec::new()) {
                count += entries(&links.join(algorithm)).count() as u64;
            }
        }
        count
    }

    /// Makes the files durable, all at once. One by one, files that were just copied take five times as long.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_file_system(&self.folder)
    }

    pub(super) fn data(&self, digest: &Digest) -> PathBuf {
        layout::data(&self.folder, digest)
    }

    /// Lists the repositories, in no particular order. What is broken is added to `defects`.
    #[must_use]
    pub fn repositories(&self, defects: &mut Vec<Defect>) -> Vec<RepositoryName> {
        let mut found = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(parent) = waiting.pop() {
            let path = layout::repositories(&self.folder).join(&parent);
            let mut is_repository = false;
            for name in self.folders(&path, defects) {
                if matches!(name.as_str(), "_manifests" | "_layers") {
                    is_repository = true;
                } else if !name.starts_with('_') {
                    let full = if parent.is_empty() {
                        name
                    } else {
                        format!("{parent}/{name}")
                    };
                    match full.parse::<RepositoryName>() {
                        Ok(_) => waiting.push(full),
                        Err(_) => defects.push(Defect::InvalidName {
                            path: layout::repositories(&self.folder).join(full),
                            expected: "a repository",
                        }),
                    }
                }
            }
            if is_repository && let Ok(name) = parent.parse() {
                found.push(name);
            }
        }
        found
    }

    /// Reads the links of a repository.
    #[must_use]
    pub fn read(&self, name: &RepositoryName) -> RepositoryLinks {
        let folder = layout::repository(&self.folder, name);
        let mut defects = Vec::new();
        let layers = self.read_links(&layout::layers(&folder), &mut defects);
        let mut revisions = self.read_links(&layout::revisions(&folder), &mut defects);
        let tags = self.read_tags(&folder, &mut defects);
        add_manifests_among_layers(&layers, &mut revisions, &tags);
        let uploads = self.folders(&layout::uploads(&folder), &mut defects).len();
        RepositoryLinks {
            name: name.clone(),
            is_listed: fs::symlink_metadata(layout::manifests(&folder)).is_ok_and(|found| found.is_dir()),
            layers,
            revisions,
            tags,
            uploads: uploads as u64,
            defects,
        }
    }
}

/// Adds the manifests that tags name and that are linked as layers: registry 2.1.0 did so, and later versions find them
/// there.
pub(super) fn add_manifests_among_layers(layers: &[Link], revisions: &mut Vec<Link>, tags: &[TagLink]) {
    let known: BTreeSet<Digest> = revisions.iter().map(|link| link.digest.clone()).collect();
    let missing: BTreeSet<&Digest> = tags
        .iter()
        .map(|tag| &tag.target)
        .filter(|target| !known.contains(target))
        .collect();
    let among_layers = layers.iter().filter(|link| missing.contains(&link.digest));
    revisions.extend(among_layers.cloned());
}

/// Returns when a file was last written.
pub(super) fn written(metadata: &Metadata) -> Timestamp {
    let written = metadata.modified().ok();
    let since_epoch = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok());
    let millis = since_epoch.unwrap_or_default().as_millis();
    Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl Tree {
    /// Lists the names of the folders in a folder, which need not exist.
    pub(super) fn folders(&self, path: &Path, defects: &mut Vec<Defect>) -> Vec<String> {
        let mut names = Vec::new();
        let listed = plain::require_no_link(&self.folder, path).and_then(|()| fs::read_dir(path));
        let entries = match listed {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return names,
            Err(cause) => {
                defects.push(unreadable(path, cause));
                return names;
            }
        };
        for entry in entries {
            let name = match entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))) {
                Ok((name, kind)) if kind.is_dir() => name,
                Ok((name, kind)) if kind.is_symlink() => {
                    let place = path.join(name);
                    let cause = plain::is_link(&place);
                    defects.push(unreadable(&place, cause));
                    continue;
                }
                Ok(_) => continue,
                Err(cause) => {
                    defects.push(unreadable(path, cause));
                    continue;
                }
            };
            match name.into_string() {
                Ok(name) => names.push(name),
                Err(name) => defects.push(Defect::InvalidName {
                    path: path.join(name),
                    expected: "what stands here",
                }),
            }
        }
        // Sorted, so that two runs report the same.
        names.sort_unstable();
        names
    }

    /// Reads the links in `_layers` or `revisions`.
    fn read_links(&self, folder: &Path, defects: &mut Vec<Defect>) -> Vec<Link> {
        let mut links = Vec::new();
        for algorithm in self.folders(folder, defects) {
            let within = folder.join(&algorithm);
            if algorithm.parse::<Algorithm>().is_err() {
                defects.push(Defect::InvalidName {
                    path: within,
                    expected: "a digest that this registry can check",
                });
                continue;
            }
            for encoded in self.folders(&within, defects) {
                let path = within.join(&encoded).join("link");
                let Ok(digest) = format!("{algorithm}:{encoded}").parse::<Digest>() else {
                    defects.push(Defect::InvalidName {
                        path: within.join(encoded),
                        expected: "a digest",
                    });
                    continue;
                };
                match self.read_link(&path) {
                    Ok((target, written)) => {
                        if is_same_content(&digest, &target) {
                            links.push(Link {
                                digest,
                                target,
                                written,
                            });
                        } else {
                            defects.push(Defect::BrokenLink {
                                path,
                                reason: BrokenLink::OtherDigest,
                            });
                        }
                    }
                    // That registry deletes by removing the link, and leaves the folder.
                    Err(Defect::BrokenLink {
                        reason: BrokenLink::Missing,
                        ..
                    }) => {}
                    Err(defect) => defects.push(defect),
                }
            }
        }
        links
    }

    fn read_tags(&self, repository: &Path, defects: &mut Vec<Defect>) -> Vec<TagLink> {
        let mut tags = Vec::new();
        let folder = layout::tags(repository);
        for name in self.folders(&folder, defects) {
            let Ok(tag) = name.parse::<Tag>() else {
                defects.push(Defect::InvalidName {
                    path: folder.join(name),
                    expected: "a tag",
                });
                continue;
            };
            match self.read_link(&layout::tag(repository, &tag)) {
                Ok((target, written)) => tags.push(TagLink { tag, target, written }),
                Err(defect) => defects.push(defect),
            }
        }
        tags
    }

    fn read_link(&self, path: &Path) -> Result<(Digest, Timestamp), Defect> {
        let broken = |reason| Defect::BrokenLink {
            path: path.to_owned(),
            reason,
        };
        let read = || {
            let file = self.open(path)?;
            let mut text = Vec::new();
            let written = written(&file.metadata()?);
            file.take(LINK_BYTES).read_to_end(&mut text)?;
            Ok((text, written))
        };
        let (text, written) = read().map_err(|cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => broken(BrokenLink::Missing),
            _ => unreadable(path, cause),
        })?;
        let digest = parse_link(&text).map_err(broken)?;
        Ok((digest, written))
    }
}

/// Parses the content of a link.
pub(super) fn parse_link(text: &[u8]) -> Result<Digest, BrokenLink> {
    if text.is_empty() {
        return Err(BrokenLink::Empty);
    }
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<Digest>().ok())
        .filter(|digest| digest.algorithm().is_some())
        .ok_or(BrokenLink::NotADigest)
}

/// Returns whether both may be digests of the same content: two different ones of one algorithm may not.
pub(super) fn is_same_content(one: &Digest, other: &Digest) -> bool {
    one == other || one.algorithm() != other.algorithm()
}

pub(super) fn unreadable(path: &Path, cause: io::Error) -> Defect {
    Defect::Unreadable {
        path: path.to_owned(),
        cause,
    }
}
