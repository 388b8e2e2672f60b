//! Writing the content of a storage as an image layout.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, Manifest, Page, PageRequest, ReferrersRequest};
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName, Storage, Tag};

use super::copied::Copied;
use super::index::{Entry, INDEX_FILE, Index, LAYOUT_FILE, LayoutVersion};
use super::sink::Sink;
use super::{LayoutError, LayoutReport, LeftOut, MAXIMUM_ENTRIES};
use crate::observer::{Finding, MaintenanceObserver};

/// How many names are listed at once.
const NAMES_PER_PAGE: usize = 500;

/// How many sizes of blobs are asked for at once; a bucket takes some milliseconds for each.
const PARALLEL_LOOKUPS: usize = 16;

/// The maximum size in bytes of a page of referrers.
const REFERRERS_PAGE_BYTES: usize = 1024 * 1024;

/// Writes the named repositories, or all if none is named, into the folder `target`, or into an archive if its name
/// ends with `.tar`.
///
/// Each tag is written with everything it leads to: the images of an index, what refers to any of them, and so on. What
/// is pushed or deleted meanwhile may be included or not. Content is streamed and compared with its digest. Missing or
/// damaged content is left out, but the manifests that name it are still written. A folder keeps its content, so an
/// export can be repeated; its `index.json` is rewritten. Cancel safe: a folder keeps what was written, and has no new
/// `index.json`; an archive is removed, unless it was just finished.
///
/// # Errors
/// [`LayoutError`].
pub async fn export(
    storage: &dyn Storage,
    repositories: &[RepositoryName],
    target: &Path,
    observer: &dyn MaintenanceObserver,
) -> Result<LayoutReport, LayoutError> {
    let plan = plan(storage, repositories).await?;
    let mut export = Export {
        storage,
        observer,
        sink: Sink::create(target).await?,
        is_one: repositories.len() == 1,
        entries: Vec::new(),
        report: LayoutReport::default(),
        copied: Copied::new(observer),
    };
    for (repository, tags) in &plan {
        let size = size(storage, repository, tags).await;
        export.copied.expect(size);
    }
    let version = serde_json::to_vec(&LayoutVersion::current()).map_err(Error::internal)?;
    export.sink.write(LAYOUT_FILE, version.into()).await?;
    for (repository, tags) in plan {
        export.repository(&repository, tags).await?;
    }
    // Last, so that a layout that has it is complete.
    let index = serde_json::to_vec(&Index::new(export.entries)).map_err(Error::internal)?;
    export.sink.write(INDEX_FILE, index.into()).await?;
    export.sink.finish().await?;
    Ok(export.report)
}

/// Lists what is to be written.
async fn plan(
    storage: &dyn Storage,
    repositories: &[RepositoryName],
) -> Result<Vec<(RepositoryName, Vec<Tag>)>, LayoutError> {
    let mut plan = Vec::new();
    let mut left = MAXIMUM_ENTRIES;
    if repositories.is_empty() {
        let mut last = None;
        loop {
            let request = PageRequest {
                last,
                limit: NAMES_PER_PAGE,
            };
            let page = storage.list_repositories(request).await?;
            for repository in page.items {
                match tags(storage, &repository, &mut left).await {
                    Ok(tags) => plan.push((repository, tags)),
                    // It was just deleted.
                    Err(LayoutError::Storage { cause, .. }) if cause.code() == ErrorCode::NameUnknown => {}
                    Err(error) => return Err(error),
                }
            }
            last = page.next;
            if last.is_none() {
                return Ok(plan);
            }
        }
    }
    for repository in BTreeSet::from_iter(repositories) {
        let tags = tags(storage, repository, &mut left).await?;
        plan.push((repository.clone(), tags));
    }
    Ok(plan)
}

async fn tags(
    storage: &dyn Storage,
    repository: &RepositoryName,
    left: &mut usize,
) -> Result<Vec<Tag>, LayoutError> {
    let mut tags = Vec::new();
    let mut last = None;
    loop {
        let request = PageRequest {
            last,
            limit: NAMES_PER_PAGE,
        };
        let page = storage.list_tags(repository, request).await;
        let Page { items, next } = page.map_err(LayoutError::storage(repository, "listing its tags"))?;
        *left = left.checked_sub(items.len()).ok_or(LayoutError::TooMany {
            limit: MAXIMUM_ENTRIES,
        })?;
        tags.extend(items);
        last = next;
        if last.is_none() {
            return Ok(tags);
        }
    }
}

struct Export<'a> {
    storage: &'a dyn Storage,
    observer: &'a dyn MaintenanceObserver,
    sink: Sink,
    /// Whether the layout has one repository only, so that its name is not needed.
    is_one: bool,
    entries: Vec<Entry>,
    report: LayoutReport,
    /// A blob of several repositories is counted for each.
    copied: Copied<'a>,
}

/// Returns the size of the blobs that tags of a repository lead to, each counted once. What cannot be read is reported
/// when it is written.
async fn size(storage: &dyn Storage, repository: &RepositoryName, tags: &[Tag]) -> u64 {
    let (mut seen, mut size) = (BTreeSet::new(), 0_u64);
    for tag in tags {
        let mut waiting = vec![Reference::Tag(tag.clone())];
        while let Some(reference) = waiting.pop() {
            let Ok(manifest) = storage.get_manifest(repository, &reference).await else {
                continue;
            };
            if !seen.insert(manifest.digest.clone()) {
                continue;
            }
            let Ok(view) = ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)) else {
                continue;
            };
            let children = view.children().iter().chain(view.optional_children());
            let (blobs, manifests): (Vec<_>, Vec<_>) =
                children.partition(|child| child.kind == ChildKind::Blob);
            waiting.extend(
                manifests
                    .into_iter()
                    .map(|child| Reference::Digest(child.digest.clone())),
            );
            let new = blobs
                .into_iter()
                .filter(|child| seen.insert(child.digest.clone()));
            let looks = new.map(|child| storage.stat_blob(repository, &child.digest));
            let looks: Vec<_> = looks.collect();
            let sizes: Vec<_> = stream::iter(looks)
                .buffer_unordered(PARALLEL_LOOKUPS)
                .collect()
                .await;
            size = sizes.into_iter().flatten().fold(size, u64::saturating_add);
        }
    }
    size
}

impl Export<'_> {
    async fn repository(&mut self, repository: &RepositoryName, tags: Vec<Tag>) -> Result<(), LayoutError> {
        let mut done = BTreeSet::new();
        for tag in tags {
            let Some(manifest) = self.manifest(repository, &Reference::Tag(tag.clone())).await? else {
                continue;
            };
            let name = if self.is_one {
                tag.to_string()
            } else {
                format!("{repository}:{tag}")
            };
            let size = manifest.bytes.len() as u64;
            self.entries.push(Entry::new(
                &manifest.media_type,
                &manifest.digest,
                size,
                Some(name),
            ));
            self.tree(repository, manifest, &mut done).await?;
            self.report.tags += 1;
        }
        self.report.repositories += 1;
        Ok(())
    }

    fn enter(&mut self, entry: Entry) -> Result<(), LayoutError> {
        if self.entries.len() >= MAXIMUM_ENTRIES {
            return Err(LayoutError::TooMany {
                limit: MAXIMUM_ENTRIES,
            });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Writes a manifest, everything that it names and everything that refers to it.
    async fn tree(
        &mut self,
        repository: &RepositoryName,
        root: Manifest,
        done: &mut BTreeSet<Digest>,
    ) -> Result<(), LayoutError> {
        let mut waiting = vec![root.digest.clone()];
        let mut known = Some(root);
        while let Some(digest) = waiting.pop() {
            if !done.insert(digest.clone()) {
                continue;
            }
            let by_digest = Reference::Digest(digest.clone());
            let manifest = match known.take() {
                Some(root) => Some(root),
                None => self.manifest(repository, &by_digest).await?,
            };
            let Some(manifest) = manifest else {
                // An entry of an index may be a blob: BuildKit's caches have such entries.
                self.blob(repository, &digest).await?;
                continue;
            };
            if let Ok(view) = ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)) {
                for child in view.children() {
                    match child.kind {
                        ChildKind::Manifest => waiting.push(child.digest.clone()),
                        ChildKind::Blob if done.contains(&child.digest) => {}
                        ChildKind::Blob => {
                            self.blob(repository, &child.digest).await?;
                            done.insert(child.digest.clone());
                        }
                    }
                }
                for child in view.optional_children() {
                    if self.storage.stat_blob(repository, &child.digest).await.is_ok() {
                        self.blob(repository, &child.digest).await?;
                    }
                }
            }
            match self.sink.manifest(&digest, manifest.bytes).await {
                Ok(()) => self.report.manifests += 1,
                Err(error) => self.leave_out(repository, &digest, error).await?,
            }
            self.referrers(repository, &digest, done, &mut waiting).await?;
        }
        Ok(())
    }

    /// Queues what refers to a manifest for writing, and adds it to the index.
    async fn referrers(
        &mut self,
        repository: &RepositoryName,
        subject: &Digest,
        done: &BTreeSet<Digest>,
        waiting: &mut Vec<Digest>,
    ) -> Result<(), LayoutError> {
        let mut last = None;
        loop {
            let request = ReferrersRequest {
                last,
                limit: NAMES_PER_PAGE,
                size_limit: REFERRERS_PAGE_BYTES,
                artifact_type: None,
            };
            let page = self.storage.list_referrers(repository, subject, request).await;
            let page = page.map_err(LayoutError::storage(repository, "listing referrers"))?;
            for referrer in page.items {
                if !done.contains(&referrer.digest) {
                    let digest = &referrer.digest;
                    let name = (!self.is_one).then(|| format!("{repository}@{digest}"));
                    self.enter(Entry::new(&referrer.media_type, digest, referrer.size, name))?;
                    waiting.push(referrer.digest);
                }
            }
            last = page.next;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads a manifest; `None` if it does not exist (any more).
    async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Manifest>, LayoutError> {
        match self.storage.get_manifest(repository, reference).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if matches!(error.code(), ErrorCode::ManifestUnknown | ErrorCode::NameUnknown) => {
                Ok(None)
            }
            Err(error) => Err(LayoutError::storage(repository, "reading a manifest")(error)),
        }
    }

    async fn blob(&mut self, repository: &RepositoryName, digest: &Digest) -> Result<(), LayoutError> {
        let written = match self.storage.open_blob(repository, digest).await {
            Ok(blob) => match self
                .sink
                .blob(digest, &blob, &|bytes| self.copied.add(bytes))
                .await
            {
                Ok(true) => {
                    self.report.blobs += 1;
                    self.report.size += blob.size;
                    Ok(())
                }
                Ok(false) => {
                    self.copied.add(blob.size);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Err(error) if error.code() == ErrorCode::BlobUnknown => Err(LayoutError::Missing {
                digest: digest.clone(),
            }),
            Err(error) => Err(error.into()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) => self.leave_out(repository, digest, error).await,
        }
    }

    /// Reports what is broken in the storage. An error of the target, or of an unavailable storage, ends the export.
    async fn leave_out(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        error: LayoutError,
    ) -> Result<(), LayoutError> {
        match &error {
            LayoutError::OtherContent { .. } | LayoutError::Missing { .. } => {}
            LayoutError::Store(cause) if cause.code() == ErrorCode::Internal => {}
            _ => return Err(error),
        }
        self.report.left_out += 1;
        let left_out = LeftOut::new(Some(repository), digest.to_string(), error);
        self.observer.found(Finding::LeftOut(left_out)).await;
        Ok(())
    }
}
