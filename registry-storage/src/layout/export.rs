//! Writing what a storage has as image layouts.

use std::collections::BTreeSet;
use std::path::Path;

use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, Manifest, Page, PageRequest};
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName, Storage};

use super::index::{Entry, INDEX_FILE, Index, LAYOUT_FILE, LayoutVersion};
use super::sink::Sink;
use super::{LayoutError, LayoutReport, blob_path, prefix_of};
use crate::progress::{Progress, Step};

/// How many names are listed at once.
const PAGE: usize = 500;

/// Writes repositories into the folder `target`, or into an archive where its name ends with `.tar`.
///
/// One repository becomes a layout; several, or all where none is named, become a folder each. With every tag goes what
/// it leads to: the images of an index, and what refers to any of them, and so on. What is pushed meanwhile may be in it
/// or not, and what is deleted meanwhile too. Content is streamed and compared with its digest. Repeatable: a folder keeps
/// what it has. Cancel safe: what was written so far stays, an archive under another name.
///
/// # Errors
/// [`LayoutError`].
pub async fn export(
    storage: &dyn Storage,
    repositories: &[RepositoryName],
    target: &Path,
    progress: &dyn Progress,
) -> Result<LayoutReport, LayoutError> {
    let mut export = Export {
        storage,
        progress,
        sink: Sink::create(target).await?,
        report: LayoutReport::default(),
    };
    match repositories {
        [single] => export.repository(single, "").await?,
        [] => {
            let mut last = None;
            loop {
                let page = storage
                    .list_repositories(PageRequest { last, limit: PAGE })
                    .await?;
                for repository in &page.items {
                    export.repository(repository, &prefix_of(repository)).await?;
                }
                last = page.next;
                if last.is_none() {
                    break;
                }
            }
        }
        several => {
            for repository in several {
                export.repository(repository, &prefix_of(repository)).await?;
            }
        }
    }
    export.sink.finish().await?;
    Ok(export.report)
}

struct Export<'a> {
    storage: &'a dyn Storage,
    progress: &'a dyn Progress,
    sink: Sink,
    report: LayoutReport,
}

impl Export<'_> {
    async fn repository(&mut self, repository: &RepositoryName, prefix: &str) -> Result<(), LayoutError> {
        let mut entries = Vec::new();
        let mut done = BTreeSet::new();
        let mut last = None;
        loop {
            let request = PageRequest { last, limit: PAGE };
            let page = self.storage.list_tags(repository, request).await;
            let page = page.map_err(storage_error(repository, "listing its tags"))?;
            for tag in &page.items {
                let Some(manifest) = self.manifest(repository, &Reference::Tag(tag.clone())).await? else {
                    continue;
                };
                entries.push(entry(&manifest, Some(tag)));
                self.report.tags += 1;
                self.tree(repository, prefix, manifest, &mut done, &mut entries)
                    .await?;
            }
            last = page.next;
            if last.is_none() {
                break;
            }
        }
        let version = serde_json::to_vec(&LayoutVersion::current()).map_err(Error::internal)?;
        self.sink
            .write(&format!("{prefix}{LAYOUT_FILE}"), version.into())
            .await?;
        // Last, so that a layout is whole once it has it.
        let index = serde_json::to_vec(&Index::new(entries)).map_err(Error::internal)?;
        self.sink
            .write(&format!("{prefix}{INDEX_FILE}"), index.into())
            .await?;
        self.report.repositories += 1;
        Ok(())
    }

    /// Writes a manifest, all that it names and all that refers to it.
    async fn tree(
        &mut self,
        repository: &RepositoryName,
        prefix: &str,
        root: Manifest,
        done: &mut BTreeSet<Digest>,
        entries: &mut Vec<Entry>,
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
                // An entry of an index may be a blob: the caches of BuildKit have such.
                self.blob(repository, prefix, &digest).await?;
                continue;
            };
            if let Ok(view) = ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)) {
                for child in view.children() {
                    match child.kind {
                        ChildKind::Manifest => waiting.push(child.digest.clone()),
                        ChildKind::Blob => self.blob(repository, prefix, &child.digest).await?,
                    }
                }
                for child in view.optional_children() {
                    if self.storage.stat_blob(repository, &child.digest).await.is_ok() {
                        self.blob(repository, prefix, &child.digest).await?;
                    }
                }
            }
            let path = blob_path(prefix, &digest);
            self.sink.manifest(&path, &digest, manifest.bytes).await?;
            self.report.manifests += 1;
            self.progress.step(Step::Manifests, self.report.manifests, None);
            self.referrers(repository, &digest, done, &mut waiting, entries)
                .await?;
        }
        Ok(())
    }

    /// Adds what refers to a manifest to what is to be written, and to the index.
    async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        done: &BTreeSet<Digest>,
        waiting: &mut Vec<Digest>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), LayoutError> {
        let mut last = None;
        loop {
            let request = PageRequest { last, limit: PAGE };
            let page = self.storage.list_referrers(repository, subject, request).await;
            let Page { items, next } = page.map_err(storage_error(repository, "listing referrers"))?;
            for referrer in items {
                if !done.contains(&referrer.digest) {
                    let media_type = referrer.media_type.as_str();
                    entries.push(Entry::new(media_type, &referrer.digest, referrer.size, None));
                    waiting.push(referrer.digest);
                }
            }
            last = next;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads a manifest; nothing where it is not there (any more).
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
            Err(error) => Err(storage_error(repository, "reading a manifest")(error)),
        }
    }

    async fn blob(
        &mut self,
        repository: &RepositoryName,
        prefix: &str,
        digest: &Digest,
    ) -> Result<(), LayoutError> {
        match self.storage.open_blob(repository, digest).await {
            Ok(blob) => {
                if self.sink.blob(&blob_path(prefix, digest), digest, &blob).await? {
                    self.report.blobs += 1;
                    self.report.size += blob.size;
                }
                Ok(())
            }
            Err(error) if error.code() == ErrorCode::BlobUnknown => {
                tracing::warn!(%repository, %digest, "a manifest names what is not in the repository");
                self.report.missing += 1;
                Ok(())
            }
            Err(error) => Err(storage_error(repository, "reading a blob")(error)),
        }
    }
}

fn entry(manifest: &Manifest, tag: Option<&registry_core::Tag>) -> Entry {
    let size = manifest.bytes.len() as u64;
    Entry::new(manifest.media_type.as_str(), &manifest.digest, size, tag)
}

pub(super) fn storage_error(
    repository: &RepositoryName,
    what: impl Into<String>,
) -> impl FnOnce(Error) -> LayoutError {
    let (repository, what) = (repository.clone(), what.into());
    move |cause| LayoutError::Storage {
        repository,
        what,
        cause,
    }
}
