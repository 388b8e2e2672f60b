//! What it takes to bring a manifest back.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::{
    BlobStorage as _, ChildKind, Manifest, ManifestChild, NewManifest, RestoreTag, TagCondition,
};
use registry_core::{Digest, Error, ErrorCode, ManifestView, RepositoryName, Timestamp};

use crate::backend::Backend;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, keys};
use crate::record::{DeletedManifestRecord, ManifestRecord};
use crate::store::Store;
use crate::store::delete::parse_manifest;
use crate::store::edge::{Found, read_cached};
use crate::store::looks::is_content_of;

/// How many manifests one image may consist of.
const MANIFESTS_LIMIT: usize = 10_000;

/// How many missing digests a message names.
const NAMED_DIGESTS: usize = 4;

/// How many missing digests are counted.
const COUNTED_DIGESTS: usize = 1000;

/// How many blobs are looked at at once; a bucket takes some milliseconds for each.
const PARALLEL_LOOKS: usize = 16;

/// How many manifests, and how many blobs, a planner remembers, some 150 bytes each.
const REMEMBERED: usize = 50_000;

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
    /// How many bytes the manifest has.
    pub(super) size: u64,
}

/// What it takes to bring a manifest back.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) manifest: Manifest,
    /// What is to be pushed, in this order: the manifests of an index come before it.
    pub(super) steps: Vec<Deleted>,
    /// All manifests that it consists of, with those that are there.
    pub(super) manifests: Vec<Digest>,
    /// Until when all of that is kept; `None` if nothing is to be pushed.
    pub(super) until: Option<Timestamp>,
}

/// A manifest as it is found.
enum Source {
    Live(Manifest),
    Deleted(Manifest, Deleted, Timestamp),
}

/// What is known of a manifest with everything that it names.
#[derive(Clone, Debug, Default)]
struct Verdict {
    /// Until when all of it is kept; `None` if all of it is there.
    until: Option<Timestamp>,
    /// What it needs and is gone.
    missing: Vec<Digest>,
}

impl Verdict {
    fn add(&mut self, child: &Self) {
        self.until = match (self.until, child.until) {
            (Some(until), Some(other)) => Some(until.min(other)),
            (until, other) => until.or(other),
        };
        let room = COUNTED_DIGESTS.saturating_sub(self.missing.len());
        self.missing.extend(child.missing.iter().take(room).cloned());
    }
}

/// What to look at next.
enum Visit {
    Manifest {
        digest: Digest,
        is_required: bool,
    },
    /// Everything that this one names was looked at.
    Done {
        digest: Digest,
        deleted: Option<Deleted>,
        verdict: Verdict,
        /// The manifests that it names, and whether they have to exist.
        children: Vec<(Digest, bool)>,
    },
}

/// Plans for manifests of one repository. It remembers what it looked at, as the manifests of one history name the same.
pub(super) struct Planner<'a, B> {
    store: &'a Store<B>,
    repository: &'a RepositoryName,
    allowed: Allowed,
    verdicts: HashMap<Digest, Verdict>,
    blobs: HashMap<Digest, bool>,
}

impl<'a, B: Backend> Planner<'a, B> {
    pub(super) fn new(store: &'a Store<B>, repository: &'a RepositoryName, allowed: Allowed) -> Self {
        Self {
            store,
            repository,
            allowed,
            verdicts: HashMap::new(),
            blobs: HashMap::new(),
        }
    }

    /// Returns until when a manifest can be restored, at most [`Timestamp`]'s largest if all of it is there; `None` if it cannot.
    pub(super) async fn restorable_until(&mut self, digest: &Digest) -> Result<Option<Timestamp>, Error> {
        if let Some(known) = self.verdicts.get(digest) {
            let until = known.until.unwrap_or(Timestamp(u64::MAX));
            return Ok(known.missing.is_empty().then_some(until));
        }
        let plan = self.plan(digest).await?.ok();
        Ok(plan.map(|plan| plan.until.unwrap_or(Timestamp(u64::MAX))))
    }

    /// Returns what it takes to bring a manifest back that was not planned before. The outer error is of the medium, the inner
    /// one says what is missing.
    pub(super) async fn plan(&mut self, root: &Digest) -> Result<Result<Plan, Error>, Error> {
        if self.verdicts.len() > REMEMBERED {
            self.verdicts.clear();
        }
        let (mut steps, mut manifests, mut root_manifest) = (Vec::new(), Vec::new(), None);
        let mut visits = vec![Visit::Manifest {
            digest: root.clone(),
            is_required: true,
        }];
        while let Some(visit) = visits.pop() {
            let (digest, is_required) = match visit {
                Visit::Manifest { digest, is_required } => (digest, is_required),
                Visit::Done {
                    digest,
                    deleted,
                    mut verdict,
                    children,
                } => {
                    for (child, is_required) in children {
                        let child = self.verdicts.get(&child);
                        let counts = |child: &&Verdict| is_required || child.missing.is_empty();
                        if let Some(child) = child.filter(counts) {
                            verdict.add(child);
                        }
                    }
                    // One that an index may lack is left out if it is not whole.
                    steps.extend(deleted.filter(|_| verdict.missing.is_empty()));
                    self.verdicts.insert(digest, verdict);
                    continue;
                }
            };
            if self.verdicts.contains_key(&digest) {
                continue;
            }
            if manifests.len() >= MANIFESTS_LIMIT {
                let message = format!("{root} consists of more than {MANIFESTS_LIMIT} manifests");
                return Ok(Err(Error::new(ErrorCode::ManifestInvalid, message)));
            }
            let found = self.store.find_source(self.repository, &digest).await?;
            let (manifest, deleted, until) = match found {
                Some(Source::Live(manifest)) => (manifest, None, None),
                Some(Source::Deleted(manifest, deleted, until)) => (manifest, Some(deleted), Some(until)),
                None if digest == *root => return Ok(Err(not_kept(root))),
                None => {
                    // An entry of an index may be a blob. One that it may lack is only looked at if another one needs it.
                    if is_required {
                        let missing = self.missing_blobs(vec![digest.clone()]).await?;
                        let verdict = Verdict { until: None, missing };
                        self.verdicts.insert(digest, verdict);
                    }
                    continue;
                }
            };
            manifests.push(digest.clone());
            if root_manifest.is_none() {
                root_manifest = Some(manifest.clone());
            }
            let (children, blobs) = children(manifest, self.allowed).await?;
            let missing = self.missing_blobs(blobs).await?;
            let visit = |(digest, is_required): &(Digest, bool)| Visit::Manifest {
                digest: digest.clone(),
                is_required: *is_required,
            };
            let next: Vec<Visit> = children.iter().map(visit).collect();
            visits.push(Visit::Done {
                digest,
                deleted,
                verdict: Verdict { until, missing },
                children,
            });
            visits.extend(next);
        }
        let verdict = self.verdicts.get(root).cloned().unwrap_or_default();
        if !verdict.missing.is_empty() {
            return Ok(Err(gone(root, &verdict.missing)));
        }
        let Some(manifest) = root_manifest else {
            return Ok(Err(not_kept(root)));
        };
        Ok(Ok(Plan {
            manifest,
            steps,
            manifests,
            until: verdict.until,
        }))
    }

    /// Returns which blobs the repository cannot read: it does not have them, or their bytes are gone.
    async fn missing_blobs(&mut self, digests: Vec<Digest>) -> Result<Vec<Digest>, Error> {
        let (store, repository) = (self.store, self.repository);
        let unknown: BTreeSet<Digest> = digests
            .iter()
            .filter(|digest| !self.blobs.contains_key(*digest))
            .cloned()
            .collect();
        let looks = unknown.into_iter().map(|digest| async move {
            // A read for clients may be answered by a cache that still has what the bucket lost.
            match store.stat_blob(repository, &digest).await {
                Ok(_) => Ok((digest, true)),
                Err(error) if error.code() == ErrorCode::BlobUnknown => Ok((digest, false)),
                Err(error) => Err(error),
            }
        });
        let mut looks = stream::iter(looks).buffer_unordered(PARALLEL_LOOKS);
        while let Some(looked) = looks.next().await {
            let (digest, is_there) = looked?;
            self.blobs.insert(digest, is_there);
        }
        let missing = digests.into_iter();
        let missing = missing.filter(|digest| self.blobs.get(digest) != Some(&true));
        let missing = missing.take(COUNTED_DIGESTS).collect();
        if self.blobs.len() > REMEMBERED {
            self.blobs.clear();
        }
        Ok(missing)
    }
}

impl<B: Backend> Store<B> {
    /// Finds a manifest, or what is kept of it.
    async fn find_source(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Source>, Error> {
        if let Some(manifest) = self.find_live(repository, digest).await? {
            return Ok(Some(Source::Live(manifest)));
        }
        let Some((key, until)) = self.newest_deleted(repository, digest).await? else {
            return Ok(None);
        };
        let Some((_, manifest)) = self.read_deleted(digest, &key).await? else {
            return Ok(None);
        };
        let deleted = Deleted {
            digest: digest.clone(),
            key,
            size: manifest.bytes.len() as u64,
        };
        Ok(Some(Source::Deleted(manifest, deleted, until)))
    }

    /// Finds a manifest that clients can read.
    pub(super) async fn find_live(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Manifest>, Error> {
        let manifest = Key::manifest(repository, digest);
        let found = read_cached::<ManifestRecord>(&*self.backend, &manifest).await?;
        if !found.state().is_visible() || !is_content_of(digest, &found).await? {
            return Ok(None);
        }
        Ok(found.visible().map(|(record, bytes)| Manifest {
            digest: digest.clone(),
            media_type: record.media_type,
            bytes,
        }))
    }

    /// Finds what is kept of a manifest, and until when.
    pub(super) async fn newest_deleted(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Key, Timestamp)>, Error> {
        let mut newest = None;
        let mut pages = Pages::of(Key::deleted_manifest_of(repository, digest));
        while let Some(page) = pages.next(&*self.backend).await? {
            newest = keys(page).last().or(newest);
        }
        Ok(newest.and_then(|key| match KeyKind::of(&key) {
            Some(KeyKind::DeletedManifest { until, .. }) => Some((key, until)),
            _ => None,
        }))
    }

    /// Reads a deleted manifest; returns `None` if it is kept no longer, or its content does not have its digest.
    pub(super) async fn read_deleted(
        &self,
        digest: &Digest,
        key: &Key,
    ) -> Result<Option<(DeletedManifestRecord, Manifest)>, Error> {
        let stored = self.backend.get(key).await?;
        let Ok(found) = Found::<DeletedManifestRecord>::new(stored.as_ref()) else {
            return Ok(None);
        };
        if !is_content_of(digest, &found).await? {
            return Ok(None);
        }
        let manifest = |(record, bytes): (DeletedManifestRecord, Bytes)| {
            let media_type = record.media_type.clone();
            let digest = digest.clone();
            (
                record,
                Manifest {
                    digest,
                    media_type,
                    bytes,
                },
            )
        };
        Ok(found.record.map(manifest))
    }
}

/// Returns the manifests that one names and whether they have to exist, and the blobs that have to exist for it.
async fn children(manifest: Manifest, allowed: Allowed) -> Result<(Vec<(Digest, bool)>, Vec<Digest>), Error> {
    let Some(view) = parse_manifest(manifest.bytes, manifest.media_type).await? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (required, optional) = allowed.children(&view);
    let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
    let required = required.into_iter().map(|child| (child, true));
    for (child, is_required) in required.chain(optional.into_iter().map(|child| (child, false))) {
        match child.kind {
            ChildKind::Manifest => manifests.push((child.digest, is_required)),
            ChildKind::Blob if is_required => blobs.push(child.digest),
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
    let missing: BTreeSet<&Digest> = missing.iter().collect();
    let named: Vec<String> = missing
        .iter()
        .take(NAMED_DIGESTS)
        .map(|digest| digest.to_string())
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
