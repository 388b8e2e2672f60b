//! Copying manifests, each after what it names.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, Manifest, NewManifest, PageRequest, TagCondition};
use registry_core::{Digest, Error, ErrorCode, Reference, Tag};

use super::blobs::IfMissing;
use super::error::{in_source, in_target};
use super::known::Repository;
use super::{Copy, CopyError, CopyReport, NotCopiedReason, PARALLEL_MANIFESTS, is_unknown};

/// How often a manifest is tried whose content the target does not have although it was copied: a collector without a grace may
/// take it in between. After that the manifest is stored without.
const TRIES: u8 = 3;

/// A manifest to copy.
struct Waiting {
    digest: Digest,
    tries: u8,
}

impl Copy<'_> {
    /// Copies a manifest after everything that it names. Returns `false` if the source does not have it.
    pub(super) async fn tree(&self, repository: &Repository, root: &Digest) -> Result<bool, CopyError> {
        let mut failed = BTreeSet::new();
        let mut waiting = vec![Waiting {
            digest: root.clone(),
            tries: 0,
        }];
        while let Some(next) = waiting.pop() {
            let digest = next.digest.clone();
            match repository.known().manifest(&digest) {
                None => {}
                Some(true) => continue,
                Some(false) => {
                    failed.insert(digest);
                    continue;
                }
            }
            let Some(manifest) = self.read_manifest(repository, &digest).await? else {
                if digest == *root {
                    return Ok(false);
                }
                // An entry of an index may be a blob: BuildKit's caches have such entries.
                if !self.blob(repository, &digest, IfMissing::Allowed).await? {
                    failed.insert(digest);
                }
                continue;
            };
            match self.step(repository, next, &manifest, &failed).await? {
                Next::Done => {}
                Next::Failed => {
                    repository.known().add_manifest(&digest, false);
                    failed.insert(digest);
                }
                Next::After(more) => waiting.extend(more),
            }
        }
        Ok(true)
    }

    /// Copies the blobs of a manifest, and the manifest itself if all manifests that it names were tried.
    async fn step(
        &self,
        repository: &Repository,
        next: Waiting,
        manifest: &Manifest,
        failed: &BTreeSet<Digest>,
    ) -> Result<Next, CopyError> {
        let digest = &next.digest;
        let view = match ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)) {
            Ok(view) => view,
            Err(error) => {
                self.fault(repository, digest, NotCopiedReason::Refused(error))
                    .await;
                return Ok(Next::Failed);
            }
        };
        let has_blobs = self.blobs_of(repository, &view).await?;
        let lacking = self.lacking(repository, &view, failed).await?;
        let is_last = next.tries + 1 >= TRIES;
        let again = Waiting {
            digest: digest.clone(),
            tries: next.tries + 1,
        };
        if !lacking.is_empty() && !is_last {
            let children = lacking.into_iter().map(|digest| Waiting { digest, tries: 0 });
            return Ok(Next::After(std::iter::once(again).chain(children).collect()));
        }
        let _turn = self.turn(digest).await;
        if repository.known().manifest(digest) == Some(true) {
            return Ok(Next::Done);
        }
        let done = |count: fn(&mut CopyReport)| {
            repository.known().add_manifest(digest, true);
            self.progress.add(manifest.bytes.len() as u64);
            self.count(count);
            Ok(Next::Done)
        };
        let is_there = self.has_manifest(repository, digest).await?;
        if is_there && view.subject().is_none() && self.is_listed(repository).await? {
            return done(|report| report.manifests_there += 1);
        }
        // In a bucket, a push that was cut off may have left a manifest without its entry in the lists of its subject and of the
        // repositories. To push it again costs little more than to look for them.
        let names_failed = || view.children().iter().any(|child| failed.contains(&child.digest));
        let allow_missing = is_last || !has_blobs || names_failed();
        match self.store(repository, manifest, &view, None, allow_missing).await {
            Ok(()) => {
                repository.known().is_listed = true;
                done(if is_there {
                    |report| report.manifests_there += 1
                } else {
                    |report| report.manifests += 1
                })
            }
            Err(error) if error.code() == ErrorCode::ManifestBlobUnknown && !is_last => {
                let mut known = repository.known();
                for child in view.children() {
                    known.forget(&child.digest);
                }
                Ok(Next::After(vec![again]))
            }
            Err(error) => {
                self.refused(repository, digest, error).await?;
                Ok(Next::Failed)
            }
        }
    }

    /// Returns the manifests that a manifest names and the target does not have, without those that cannot be copied.
    async fn lacking(
        &self,
        repository: &Repository,
        view: &ManifestView,
        failed: &BTreeSet<Digest>,
    ) -> Result<Vec<Digest>, CopyError> {
        let manifests = view
            .children()
            .iter()
            .filter(|child| child.kind == ChildKind::Manifest);
        let looks: Vec<_> = manifests
            .filter(|child| !failed.contains(&child.digest))
            .map(|child| self.lacks(repository, &child.digest))
            .collect();
        let looks = stream::iter(looks).buffered(PARALLEL_MANIFESTS);
        looks
            .try_filter_map(async |lacking| Ok(lacking))
            .try_collect()
            .await
    }

    /// Returns the digest of an entry of an index if the target does not have it.
    async fn lacks(&self, repository: &Repository, digest: &Digest) -> Result<Option<Digest>, CopyError> {
        if repository.known().manifest(digest) == Some(true) || self.has_manifest(repository, digest).await? {
            return Ok(None);
        }
        let is_blob = repository.known().blob(digest) == Some(true);
        Ok((!is_blob).then(|| digest.clone()))
    }

    /// Returns whether the target lists the repository.
    async fn is_listed(&self, repository: &Repository) -> Result<bool, CopyError> {
        if repository.known().is_listed {
            return Ok(true);
        }
        let page = PageRequest { last: None, limit: 1 };
        match self.target.list_tags(&repository.name, page).await {
            Ok(_) => {
                repository.known().is_listed = true;
                Ok(true)
            }
            Err(error) if is_unknown(&error) => Ok(false),
            Err(error) => Err(in_target(format!("looking for {repository}"))(error)),
        }
    }

    pub(super) async fn has_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, CopyError> {
        let by_digest = Reference::Digest(digest.clone());
        match self.target.stat_manifest(&repository.name, &by_digest).await {
            Ok(_) => Ok(true),
            Err(error) if is_unknown(&error) => Ok(false),
            Err(error) => Err(in_target(format!("asking for {digest} of {repository}"))(error)),
        }
    }

    async fn read_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Manifest>, CopyError> {
        let by_digest = Reference::Digest(digest.clone());
        match self.source.get_manifest(&repository.name, &by_digest).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if is_unknown(&error) => Ok(None),
            Err(error) => Err(in_source(format!("reading {digest} of {repository}"))(error)),
        }
    }

    /// Stores a manifest, and points a tag at it.
    pub(super) async fn store(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        view: &ManifestView,
        tag: Option<&Tag>,
        allow_missing: bool,
    ) -> Result<(), Error> {
        let subject = view.subject().map(|subject| {
            let descriptor = view.referrer_descriptor(&manifest.digest, manifest.bytes.len() as u64);
            (subject.clone(), descriptor)
        });
        let is_immutable = |tag: &&Tag| {
            let mut rules = self.options.immutable.iter();
            rules.any(|rule| rule.covers(&repository.name, tag))
        };
        let new = NewManifest {
            manifest: manifest.clone(),
            children: view.children().to_vec(),
            allow_missing,
            optional_children: view.optional_children().to_vec(),
            subject,
            tags: tag.cloned().into_iter().collect(),
            condition: TagCondition::Any,
            immutable_tags: tag.filter(is_immutable).cloned().into_iter().collect(),
            principal: String::new(),
        };
        self.target.put_manifest(&repository.name, new).await
    }
}

/// What follows a step.
enum Next {
    /// The target has the manifest.
    Done,
    /// It cannot have it.
    Failed,
    /// These come next, the last one first.
    After(Vec<Waiting>),
}
