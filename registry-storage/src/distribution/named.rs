//! What the wanted links of a repository name. The rest is left out: what was deleted here stays so.

use std::collections::BTreeSet;

use registry_core::Digest;
use registry_core::storage::ChildKind;

use super::manifest::StoredManifest;
use super::seen::Wanted;
use super::tree::{Link, RepositoryLinks};

/// What was found to be named so far.
pub(super) struct Named {
    digests: BTreeSet<Digest>,
    /// Manifests that are still to be read.
    waiting: Vec<Link>,
}

impl Named {
    /// Begins with what is wanted, and drops the tags that are not.
    pub(super) fn of(links: &mut RepositoryLinks, wanted: &Wanted) -> Self {
        links.tags.retain(|tag| wanted.has_tag(tag));
        let tagged: BTreeSet<&Digest> = links.tags.iter().map(|tag| &tag.target).collect();
        let is_first = |link: &&Link| wanted.has_revision(link) || tagged.contains(&link.digest);
        Self {
            digests: BTreeSet::new(),
            waiting: links.revisions.iter().filter(is_first).cloned().collect(),
        }
    }

    /// Takes the manifests that are to be read next; there are none at the end.
    pub(super) fn take_waiting(&mut self) -> Vec<Link> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting
            .filter(|link| self.digests.insert(link.digest.clone()))
            .collect()
    }

    /// Adds what a manifest names.
    pub(super) fn add(&mut self, links: &RepositoryLinks, manifest: &StoredManifest) {
        let (children, optional) = (manifest.view.children(), manifest.view.optional_children());
        for child in children.iter().chain(optional) {
            match child.kind {
                ChildKind::Manifest => {
                    let child = links.revisions.iter().find(|link| link.digest == child.digest);
                    self.waiting.extend(child.cloned());
                }
                ChildKind::Blob => {
                    self.digests.insert(child.digest.clone());
                }
            }
        }
    }

    /// Leaves out the links of what is neither wanted nor named.
    pub(super) fn keep(self, links: &mut RepositoryLinks, wanted: &Wanted) {
        let named = self.digests;
        links.revisions.retain(|link| named.contains(&link.digest));
        links
            .layers
            .retain(|link| wanted.has_layer(link) || named.contains(&link.digest));
    }
}
