//! The links of a repository, and what its manifests say of other content.

use std::collections::{BTreeMap, BTreeSet};

use registry_core::{Digest, RepositoryName, Tag, Timestamp};

use super::defect::Defect;
use super::manifest::{self, Outline, StoredManifest};
use super::named::Named;
use super::seen::{Seen, Wanted};
use super::tree::{Link, RepositoryLinks, Tree};

/// A repository whose links were read.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) links: RepositoryLinks,
    /// How many links there are, including those that are left out.
    pub(super) counted: u64,
    pub(super) outline: Outline,
    /// Manifests that can be adopted, and blobs that were.
    pub(super) available: BTreeSet<Digest>,
    /// The tags of each manifest.
    pub(super) tags: BTreeMap<Digest, Vec<(Tag, Timestamp)>>,
    /// Which links need not be looked at again.
    pub(super) seen: Seen,
    pub(super) defects: Vec<Defect>,
}

impl Scanned {
    /// Reads the links of a repository that are wanted and what these name, and its manifests for what they say of other
    /// content. Blocks.
    pub(super) fn read(tree: &Tree, name: &RepositoryName, counted: u64, wanted: &Wanted) -> Self {
        let mut links = tree.read(name);
        let seen = wanted.seen_before(&links);
        if !matches!(wanted, Wanted::All) {
            leave_unwanted(tree, &mut links, wanted);
        }
        let mut scanned = Self::of(links, counted, seen, wanted);
        for link in scanned.links.revisions.clone() {
            let read = manifest::read(tree, name, &link);
            scanned.add_manifest(&link, read);
        }
        scanned.leave_unavailable();
        scanned
    }

    /// Takes the links of a repository whose manifests are still to be [added](Self::add_manifest).
    pub(super) fn of(mut links: RepositoryLinks, counted: u64, seen: Seen, wanted: &Wanted) -> Self {
        let mut tags: BTreeMap<Digest, Vec<(Tag, Timestamp)>> = BTreeMap::new();
        for link in &links.tags {
            let tag = (link.tag.clone(), wanted.written(link));
            tags.entry(link.target.clone()).or_default().push(tag);
        }
        let defects = std::mem::take(&mut links.defects);
        Self {
            links,
            counted,
            outline: Outline::default(),
            available: BTreeSet::new(),
            tags,
            seen,
            defects,
        }
    }

    /// Adds what a manifest says of other content.
    pub(super) fn add_manifest(&mut self, link: &Link, read: Result<StoredManifest, Defect>) {
        match read {
            Ok(manifest) => {
                let tags = self.tags.get(&link.digest).map_or(&[][..], Vec::as_slice);
                self.outline.add(&manifest, tags);
                self.available.insert(link.digest.clone());
            }
            Err(defect) => self.defects.push(defect),
        }
    }

    /// Leaves out the manifests that cannot be adopted, once all were added.
    pub(super) fn leave_unavailable(&mut self) {
        for (target, tags) in &self.tags {
            if !self.available.contains(target) {
                self.defects
                    .extend(tags.iter().map(|(tag, _)| Defect::DanglingTag {
                        repository: self.links.name.clone(),
                        tag: tag.clone(),
                        digest: target.clone(),
                    }));
            }
        }
        let available = &self.available;
        self.links
            .revisions
            .retain(|link| available.contains(&link.digest));
    }

    /// Adds to what was seen the links whose content is here now. Those that lack it are looked at again.
    pub(super) fn see(&mut self) {
        let available = &self.available;
        self.links.layers.retain(|link| available.contains(&link.digest));
        self.links.tags.retain(|link| available.contains(&link.target));
        self.seen.add(&self.links);
    }

    /// Returns how many records it may become.
    pub(super) fn weight(&self) -> usize {
        self.links.layers.len() + self.links.revisions.len() + self.links.tags.len()
    }
}

/// Leaves out what is not wanted, unless something that is names it.
fn leave_unwanted(tree: &Tree, links: &mut RepositoryLinks, wanted: &Wanted) {
    let mut named = Named::of(links, wanted);
    loop {
        let waiting = named.take_waiting();
        if waiting.is_empty() {
            break;
        }
        for link in waiting {
            if let Ok(manifest) = manifest::read(tree, &links.name, &link) {
                named.add(links, &manifest);
            }
        }
    }
    named.keep(links, wanted);
}
