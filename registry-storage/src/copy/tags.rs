//! Copying tags, and comparing them.

use std::vec;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, Manifest, ManifestChild, PageRequest};
use registry_core::{Error, ErrorCode, Reference, RepositoryName, Storage, Tag};

use super::error::{in_source, in_target};
use super::known::Repository;
use super::{Copy, CopyError, NotCopiedReason, PAGE, PARALLEL_TAGS, is_unknown};

impl Copy<'_> {
    /// Copies the tags of a repository, whose manifests were copied.
    pub(super) async fn tags(&self, repository: &Repository) -> Result<(), CopyError> {
        let failed = || in_source(format!("listing the tags of {repository}"));
        let mut tags = Tags::of(self.source, &repository.name);
        while let Some(page) = tags.page().await.map_err(failed())? {
            let copies: Vec<_> = page.iter().map(|tag| self.tag(repository, tag)).collect();
            let copies = stream::iter(copies).buffer_unordered(PARALLEL_TAGS);
            copies.try_collect::<()>().await?;
        }
        self.count_others(repository).await
    }

    async fn tag(&self, repository: &Repository, tag: &Tag) -> Result<(), CopyError> {
        let by_tag = Reference::Tag(tag.clone());
        let read = optional(self.source.get_manifest(&repository.name, &by_tag).await);
        let read = read.map_err(in_source(format!("reading the tag {tag} of {repository}")))?;
        let Some(manifest) = read else {
            // It was just deleted.
            return Ok(());
        };
        let before = optional(self.target.get_manifest(&repository.name, &by_tag).await);
        let before = before.map_err(in_target(format!("reading the tag {tag} of {repository}")))?;
        match before {
            Some(before) if before.digest == manifest.digest => {
                self.count(|report| report.tags_there += 1);
                Ok(())
            }
            before => self.point(repository, tag, &manifest, before.is_some()).await,
        }
    }

    /// Points a tag at a manifest. It may have been pushed after the manifests were listed.
    async fn point(
        &self,
        repository: &Repository,
        tag: &Tag,
        manifest: &Manifest,
        is_moved: bool,
    ) -> Result<(), CopyError> {
        if !self.has_manifest(repository, &manifest.digest).await? {
            if repository.known().manifest(&manifest.digest) == Some(true) {
                repository.known().forget(&manifest.digest);
            }
            self.tree(repository, &manifest.digest).await?;
            if repository.known().manifest(&manifest.digest) == Some(false) {
                self.fault(repository, tag, NotCopiedReason::Incomplete).await;
                return Ok(());
            }
        }
        let view = match ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)) {
            Ok(view) => view,
            Err(error) => {
                self.fault(repository, tag, NotCopiedReason::Refused(error)).await;
                return Ok(());
            }
        };
        // What the tag names in the target may be whole, and an image without a layer is of no use.
        let is_lost = |child: &ManifestChild| {
            child.kind == ChildKind::Blob && repository.known().blob(&child.digest) == Some(false)
        };
        if is_moved && view.children().iter().any(is_lost) {
            self.fault(repository, tag, NotCopiedReason::Incomplete).await;
            return Ok(());
        }
        let mut stored = self.store(repository, manifest, &view, Some(tag), false).await;
        if is_missing(&stored) {
            stored = self.store(repository, manifest, &view, Some(tag), true).await;
        }
        match stored {
            Ok(()) => self.count(|report| {
                report.tags += 1;
                report.tags_moved += u64::from(is_moved);
            }),
            Err(error) if error.code() == ErrorCode::TagConflict => {
                self.count(|report| report.tags_kept += 1);
                self.fault(repository, tag, NotCopiedReason::Immutable).await;
            }
            Err(error) => self.refused(repository, tag, error).await?,
        }
        Ok(())
    }

    /// Counts the tags that only the target has. Both lists are in the same order.
    async fn count_others(&self, repository: &Repository) -> Result<(), CopyError> {
        let failed_source = || in_source(format!("listing the tags of {repository}"));
        let failed_target = || in_target(format!("listing the tags of {repository}"));
        let mut here = Tags::of(self.source, &repository.name);
        let mut there = Tags::of(self.target, &repository.name);
        let mut next = here.next().await.map_err(failed_source())?;
        let mut others = 0;
        while let Some(tag) = there.next().await.map_err(failed_target())? {
            while next.as_ref().is_some_and(|next| *next < tag) {
                next = here.next().await.map_err(failed_source())?;
            }
            others += u64::from(next.as_ref() != Some(&tag));
        }
        self.count(|report| report.tags_only_in_target += others);
        Ok(())
    }
}

fn optional(read: Result<Manifest, Error>) -> Result<Option<Manifest>, Error> {
    match read {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if is_unknown(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(stored: &Result<(), Error>) -> bool {
    stored
        .as_ref()
        .is_err_and(|error| error.code() == ErrorCode::ManifestBlobUnknown)
}

/// The tags of a repository, page by page; none if the repository is unknown.
struct Tags<'a> {
    storage: &'a dyn Storage,
    repository: &'a RepositoryName,
    listed: vec::IntoIter<Tag>,
    last: Option<String>,
    is_done: bool,
}

impl<'a> Tags<'a> {
    fn of(storage: &'a dyn Storage, repository: &'a RepositoryName) -> Self {
        Self {
            storage,
            repository,
            listed: Vec::new().into_iter(),
            last: None,
            is_done: false,
        }
    }

    /// Returns the next tags; `None` at the end.
    async fn page(&mut self) -> Result<Option<Vec<Tag>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let request = PageRequest {
            last: self.last.take(),
            limit: PAGE,
        };
        match self.storage.list_tags(self.repository, request).await {
            Ok(page) => {
                self.last = page.next;
                self.is_done = self.last.is_none();
                Ok(Some(page.items))
            }
            Err(error) if is_unknown(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the next tag; `None` at the end.
    async fn next(&mut self) -> Result<Option<Tag>, Error> {
        loop {
            if let Some(tag) = self.listed.next() {
                return Ok(Some(tag));
            }
            match self.page().await? {
                Some(page) => self.listed = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}
