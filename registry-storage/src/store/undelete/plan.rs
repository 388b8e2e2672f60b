//! What it takes to bring a manifest back.

use std::collections::BTreeSet;

use bytes::Bytes;
use registry_core::storage::{ChildKind, Manifest, ManifestChild, NewManifest, RestoreTag, TagCondition};
use registry_core::{Digest, Error, ErrorCode, ManifestView, RepositoryName, Timestamp};

use crate::backend::{Backend, LIST_LIMIT};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, keys};
use crate::record::{DeletedManifestRecord, ManifestRecord, state_of_size};
use crate::store::Store;
use crate::store::delete::parse_manifest;
use crate::store::edge::{Found, read_cached};
use crate::store::looks::is_content_of;

/// How many manifests one image may consist of.
const MANIFESTS_LIMIT: usize = 10_000;

/// How many missing digests a message names.
const NAMED_DIGESTS: usize = 4;

/// What may be missing of what manifests name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    missing: bool,
    sparse_indexes: bool,
}

impl Allowed {
    pub(super) const fn by(restore: &RestoreTag) -> Self {
        Self {
            missing: restore.allow_missing,
            sparse_indexes: restore.allow_sparse_indexes,
        }
    }

    /// Returns the children that have to exist, and the others.
    fn children(self, view: &ManifestView) -> (Vec<ManifestChild>, Vec<ManifestChild>) {
        let is_optional =
            |child: &ManifestChild| self.missing || self.sparse_indexes && child.kind == ChildKind::Manifest;
        let (mut optional, required): (Vec<_>, Vec<_>) =
            view.children().iter().cloned().partition(is_optional);
        optional.extend_from_slice(view.optional_children());
        (required, optional)
    }

    /// Returns the push of a manifest. What an embedder stored instead of one names nothing.
    pub(super) fn push(self, view: Option<&ManifestView>, manifest: Manifest) -> NewManifest {
        let (children, optional_children) = view.map(|view| self.children(view)).unwrap_or_default();
        let size = manifest.bytes.len() as u64;
        let subject = view.and_then(|view| {
            let descriptor = view.referrer_descriptor(&manifest.digest, size);
            Some((view.subject()?.clone(), descriptor))
        });
        NewManifest {
            children,
            optional_children,
            allow_missing: false,
            subject,
            tags: Vec::new(),
            condition: TagCondition::Any,
            immutable_tags: Vec::new(),
            principal: String::new(),
            manifest,
        }
    }
}

/// A deleted manifest that is to be pushed.
#[derive(Clone, Debug)]
pub(super) struct Deleted {
    pub(super) digest: Digest,
    pub(super) key: Key,
}

/// What it takes to bring a manifest back.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) manifest: Manifest,
    /// What is to be pushed, in this order. The manifest itself is the last one; nothing if it is there.
    pub(super) steps: Vec<Deleted>,
    /// Until when all of that is kept; `None` if nothing is to be pushed.
    pub(super) until: Option<Timestamp>,
}

/// A manifest as it is found.
enum Source {
    Live(Manifest),
    Deleted(Manifest, Deleted, Timestamp),
}

/// What to look at next.
enum Visit {
    Manifest {
        digest: Digest,
        is_required: bool,
    },
    /// Everything that this one needs was looked at.
    Done(Deleted),
}

impl<B: Backend> Store<B> {
    /// Returns what it takes to bring a manifest back. The outer error is of the medium, the inner one says what is missing.
    pub(super) async fn plan(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        allowed: Allowed,
    ) -> Result<Result<Plan, Error>, Error> {
        let Some(source) = self.find_source(repository, digest).await? else {
            return Ok(Err(not_kept(digest)));
        };
        let root = match source {
            Source::Live(manifest) => {
                return Ok(Ok(Plan {
                    manifest,
                    steps: Vec::new(),
                    until: None,
                }));
            }
            Source::Deleted(manifest, ..) => manifest,
        };
        let (mut steps, mut until) = (Vec::new(), None);
        let (mut seen, mut missing) = (BTreeSet::new(), Vec::new());
        let mut visits = vec![Visit::Manifest {
            digest: digest.clone(),
            is_required: true,
        }];
        while let Some(visit) = visits.pop() {
            let (digest, is_required) = match visit {
                Visit::Done(deleted) => {
                    steps.push(deleted);
                    continue;
                }
                Visit::Manifest { digest, is_required } => (digest, is_required),
            };
            if !seen.insert(digest.clone()) {
                continue;
            }
            if seen.len() > MANIFESTS_LIMIT {
                let message = format!("{digest} consists of more than {MANIFESTS_LIMIT} manifests");
                return Ok(Err(Error::new(ErrorCode::ManifestInvalid, message)));
            }
            match self.find_source(repository, &digest).await? {
                Some(Source::Live(_)) => {}
                Some(Source::Deleted(manifest, deleted, kept_until)) => {
                    until = Some(until.map_or(kept_until, |until: Timestamp| until.min(kept_until)));
                    visits.push(Visit::Done(deleted));
                    let (manifests, blobs) = children(manifest, allowed).await?;
                    visits.extend(manifests);
                    missing.extend(self.missing_blobs(repository, &blobs).await?);
                }
                // An entry of an index may be a blob.
                None if is_required => {
                    missing.extend(
                        self.missing_blobs(repository, std::slice::from_ref(&digest))
                            .await?,
                    );
                }
                None => {}
            }
        }
        if !missing.is_empty() {
            return Ok(Err(gone(digest, &missing)));
        }
        Ok(Ok(Plan {
            manifest: root,
            steps,
            until,
        }))
    }

    /// Finds a manifest, or what is kept of it.
    async fn find_source(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Source>, Error> {
        let manifest = Key::manifest(repository, digest);
        let found = read_cached::<ManifestRecord>(&*self.backend, &manifest).await?;
        if found.state().is_visible()
            && is_content_of(digest, &found).await?
            && let Some((record, bytes)) = found.visible()
        {
            let digest = digest.clone();
            return Ok(Some(Source::Live(Manifest {
                digest,
                media_type: record.media_type,
                bytes,
            })));
        }
        let mut newest = None;
        let mut pages = Pages::of(Key::deleted_manifest_of(repository, digest));
        while let Some(page) = pages.next(&*self.backend).await? {
            newest = keys(page).last().or(newest);
        }
        let Some(key) = newest else { return Ok(None) };
        let Some(KeyKind::DeletedManifest { until, .. }) = KeyKind::of(&key) else {
            return Ok(None);
        };
        let manifest = self.read_deleted(digest, &key).await?;
        let digest = digest.clone();
        Ok(manifest.map(|manifest| Source::Deleted(manifest, Deleted { digest, key }, until)))
    }

    /// Reads a deleted manifest; returns `None` if it is kept no longer, or its content does not have its digest.
    pub(super) async fn read_deleted(&self, digest: &Digest, key: &Key) -> Result<Option<Manifest>, Error> {
        let stored = self.backend.get(key).await?;
        let Ok(found) = Found::<DeletedManifestRecord>::new(stored.as_ref()) else {
            return Ok(None);
        };
        if !is_content_of(digest, &found).await? {
            return Ok(None);
        }
        let manifest = |(record, bytes): (DeletedManifestRecord, Bytes)| Manifest {
            digest: digest.clone(),
            media_type: record.media_type,
            bytes,
        };
        Ok(found.record.map(manifest))
    }

    /// Returns which blobs the repository does not have.
    async fn missing_blobs(
        &self,
        repository: &RepositoryName,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, Error> {
        let mut missing = Vec::new();
        for digests in digests.chunks(LIST_LIMIT) {
            let grants: Vec<Key> = digests
                .iter()
                .map(|digest| Key::grant(digest, repository))
                .collect();
            let sizes = self.backend.sizes(&grants).await?;
            let is_there = |size: &Option<u64>| size.is_some_and(|size| state_of_size(size).is_visible());
            let gone = digests.iter().zip(&sizes).filter(|(_, size)| !is_there(size));
            missing.extend(gone.map(|(digest, _)| digest.clone()));
        }
        Ok(missing)
    }
}

/// Returns the manifests that one names, and the blobs that have to exist for it.
async fn children(manifest: Manifest, allowed: Allowed) -> Result<(Vec<Visit>, Vec<Digest>), Error> {
    let Some(view) = parse_manifest(manifest.bytes, manifest.media_type).await? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (required, optional) = allowed.children(&view);
    let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
    let required = required.into_iter().map(|child| (child, true));
    for (child, is_required) in required.chain(optional.into_iter().map(|child| (child, false))) {
        let digest = child.digest;
        match child.kind {
            ChildKind::Manifest => manifests.push(Visit::Manifest { digest, is_required }),
            ChildKind::Blob if is_required => blobs.push(digest),
            ChildKind::Blob => {}
        }
    }
    Ok((manifests, blobs))
}

/// Returns the error of a manifest of which nothing is kept.
pub(super) fn not_kept(digest: &Digest) -> Error {
    let message = format!(
        "{digest} is not in this repository and not kept: it never was there, or it was deleted too long ago"
    );
    Error::new(ErrorCode::ManifestUnknown, message)
}

fn gone(digest: &Digest, missing: &[Digest]) -> Error {
    let named: Vec<String> = missing
        .iter()
        .take(NAMED_DIGESTS)
        .map(Digest::to_string)
        .collect();
    let more = missing.len().saturating_sub(named.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let message = format!(
        "{digest} cannot be restored, because content that it needs is gone: {}{more}",
        named.join(", ")
    );
    Error::new(ErrorCode::ManifestBlobUnknown, message)
}
