//! Storing the content of an image layout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, Manifest, NewManifest, TagCondition, UploadKey};
use registry_core::{Digest, ErrorCode, MediaType, RepositoryName, Storage, Tag};

use super::copied::Copied;
use super::index::Listed;
use super::plan::plan;
use super::source::Source;
use super::{LayoutError, LayoutReport, LeftOut, MANIFEST_BYTES, blob_path};
use crate::observer::{Finding, MaintenanceObserver};

/// How many blobs of a manifest are uploaded at once.
const PARALLEL_UPLOADS: usize = 8;

/// The maximum number of digests that the images of a repository may have, some 150 bytes of memory each: manifests can
/// name more than exist.
const MAXIMUM_DIGESTS: usize = 2_000_000;

/// Stores the images of a layout, which is a folder or an archive.
///
/// If the layout says which repositories its images belong to, the named repositories are stored, or all if none is
/// named. A layout of a single repository, or one that does not say, can be stored under the name that is given.
///
/// Every digest is compared, and a manifest is stored once everything that it names exists. What is broken is left out,
/// and the rest is stored. An existing tag is moved, even if clients may not move it. Repeatable: existing content is
/// not stored again. Cancel safe: what was stored stays.
///
/// # Errors
/// [`LayoutError`] if it is not a layout, or the storage fails; what was stored before stays.
pub async fn import(
    storage: &dyn Storage,
    source: &Path,
    repositories: &[RepositoryName],
    observer: &dyn MaintenanceObserver,
) -> Result<LayoutReport, LayoutError> {
    let source = Source::open(source).await?;
    let plan = plan(&source, repositories).await?;
    let mut import = Import {
        storage,
        observer,
        source,
        report: LayoutReport::default(),
        copied: Copied::new(observer),
    };
    for entries in plan.values() {
        let size = import.size(entries).await;
        import.copied.expect(size);
    }
    for (repository, entries) in plan {
        let mut done = BTreeMap::new();
        let mut tags = BTreeSet::new();
        for entry in entries {
            match &repository {
                Some(repository) => import.entry(repository, &entry, &mut done, &mut tags).await?,
                None => {
                    let cause = import
                        .source
                        .malformed("it does not say of which repository this is");
                    import.leave_out(None, &entry.digest, cause).await?;
                }
            }
        }
        import.report.repositories += u64::from(repository.is_some());
    }
    Ok(import.report)
}

struct Import<'a> {
    storage: &'a dyn Storage,
    observer: &'a dyn MaintenanceObserver,
    source: Source,
    report: LayoutReport,
    copied: Copied<'a>,
}

/// A manifest to store.
struct Waiting {
    digest: Digest,
    media_type: Option<MediaType>,
    /// Its children were already visited.
    has_children: bool,
}

impl Import<'_> {
    /// Returns the size of the blobs that entries of one repository lead to, each counted once. What is broken is
    /// reported when it is stored.
    async fn size(&self, entries: &[Listed]) -> u64 {
        let (mut seen, mut size) = (BTreeSet::new(), 0_u64);
        let roots = entries
            .iter()
            .map(|entry| (entry.digest.clone(), entry.media_type.clone()));
        let mut waiting: Vec<_> = roots.collect();
        while let Some((digest, media_type)) = waiting.pop() {
            if seen.len() >= MAXIMUM_DIGESTS || !seen.insert(digest.clone()) {
                continue;
            }
            let Ok(Some(content)) = self.manifest(&digest).await else {
                size = size.saturating_add(self.size_of(&digest).await);
                continue;
            };
            let Ok(view) = ManifestView::parse(&content, media_type.as_ref()) else {
                size = size.saturating_add(content.len() as u64);
                continue;
            };
            for child in view.children().iter().chain(view.optional_children()) {
                match child.kind {
                    ChildKind::Manifest => waiting.push((child.digest.clone(), None)),
                    ChildKind::Blob if seen.insert(child.digest.clone()) => {
                        size = size.saturating_add(self.size_of(&child.digest).await);
                    }
                    ChildKind::Blob => {}
                }
            }
        }
        size
    }

    /// Returns the size of a blob; 0 if it does not exist.
    async fn size_of(&self, digest: &Digest) -> u64 {
        let found = self.source.find(&blob_path(digest)).await;
        found.ok().flatten().map_or(0, |input| input.size)
    }

    /// Stores everything that an entry of the index leads to, then its tag.
    async fn entry(
        &mut self,
        repository: &RepositoryName,
        entry: &Listed,
        done: &mut BTreeMap<Digest, bool>,
        tags: &mut BTreeSet<Tag>,
    ) -> Result<(), LayoutError> {
        let media_type = entry.media_type.as_ref();
        self.tree(repository, entry.digest.clone(), media_type.cloned(), done)
            .await?;
        let Some(tag) = entry.name.tag.clone() else {
            return Ok(());
        };
        let tagged = match done.get(&entry.digest) {
            _ if !tags.insert(tag.clone()) => Err(self.source.malformed("another image in it has this tag")),
            Some(true) => {
                self.put(repository, &entry.digest, media_type, Some(tag.clone()))
                    .await
            }
            _ => Err(LayoutError::Incomplete {
                digest: entry.digest.clone(),
            }),
        };
        match tagged {
            Ok(()) => self.report.tags += 1,
            Err(error) => self.leave_out(Some(repository), tag, error).await?,
        }
        Ok(())
    }

    /// Stores a manifest after everything that it names. `done` records for each visited digest whether it is stored
    /// now.
    async fn tree(
        &mut self,
        repository: &RepositoryName,
        root: Digest,
        media_type: Option<MediaType>,
        done: &mut BTreeMap<Digest, bool>,
    ) -> Result<(), LayoutError> {
        let mut waiting = vec![Waiting {
            digest: root.clone(),
            media_type,
            has_children: false,
        }];
        while let Some(next) = waiting.pop() {
            if done.contains_key(&next.digest) {
                continue;
            }
            let digest = next.digest.clone();
            let is_root = digest == root;
            let stored = if next.has_children {
                self.finish(repository, &next, done).await.map(|()| true)
            } else {
                self.begin(repository, next, is_root, &mut waiting, done).await
            };
            match stored {
                Ok(true) => {
                    done.insert(digest, true);
                }
                Ok(false) => {}
                Err(error) => {
                    self.leave_out(Some(repository), &digest, error).await?;
                    done.insert(digest, false);
                }
            }
        }
        Ok(())
    }

    /// Stores the blobs of a manifest and queues its manifests; returns `true` if it is not a manifest, and is stored.
    async fn begin(
        &mut self,
        repository: &RepositoryName,
        next: Waiting,
        is_root: bool,
        waiting: &mut Vec<Waiting>,
        done: &mut BTreeMap<Digest, bool>,
    ) -> Result<bool, LayoutError> {
        let content = self.manifest(&next.digest).await?;
        let view = content.map(|content| ManifestView::parse(&content, next.media_type.as_ref()));
        let view = match view {
            Some(Ok(view)) => view,
            Some(Err(cause)) if is_root => return Err(cause.into()),
            None if is_root => {
                let digest = next.digest;
                return Err(LayoutError::Missing { digest });
            }
            // An entry of an index may be a blob: BuildKit's caches have such entries.
            _ => {
                let stored = self.blob(repository, &next.digest).await?;
                self.count(repository, &next.digest, Ok(stored)).await?;
                return Ok(true);
            }
        };
        let mut manifests = Vec::new();
        let mut blobs = Vec::new();
        for child in view.children() {
            match child.kind {
                _ if done.contains_key(&child.digest) => {}
                ChildKind::Manifest => manifests.push(Waiting {
                    digest: child.digest.clone(),
                    media_type: None,
                    has_children: false,
                }),
                ChildKind::Blob => blobs.push(&child.digest),
            }
        }
        for child in view.optional_children() {
            let path = blob_path(&child.digest);
            if !done.contains_key(&child.digest) && self.source.find(&path).await?.is_some() {
                blobs.push(&child.digest);
            }
        }
        if waiting.len() + manifests.len() + done.len() + blobs.len() > MAXIMUM_DIGESTS {
            let reason = format!("its manifests name more than {MAXIMUM_DIGESTS} digests");
            return Err(self.source.malformed(reason));
        }
        for some in blobs.chunks(PARALLEL_UPLOADS) {
            let storing = some.iter().map(|digest| self.blob(repository, digest));
            for (digest, stored) in some.iter().zip(join_all(storing).await) {
                done.insert((*digest).clone(), stored.is_ok());
                self.count(repository, digest, stored).await?;
            }
        }
        waiting.push(Waiting {
            has_children: true,
            ..next
        });
        waiting.append(&mut manifests);
        Ok(false)
    }

    /// Stores a manifest whose children were visited.
    async fn finish(
        &mut self,
        repository: &RepositoryName,
        next: &Waiting,
        done: &BTreeMap<Digest, bool>,
    ) -> Result<(), LayoutError> {
        let digest = &next.digest;
        let content = self.manifest(digest).await?;
        let content = content.ok_or_else(|| LayoutError::Missing {
            digest: digest.clone(),
        })?;
        let view = ManifestView::parse(&content, next.media_type.as_ref())?;
        let mut children = view.children().iter().map(|child| &child.digest);
        if let Some(broken) = children.find(|child| done.get(child) == Some(&false)) {
            return Err(LayoutError::Incomplete {
                digest: broken.clone(),
            });
        }
        self.store(repository, digest, &view, content, None).await?;
        self.report.manifests += 1;
        Ok(())
    }

    /// Reads what may be a manifest and compares its digest; `None` if it does not exist or is too large for a
    /// manifest.
    async fn manifest(&self, digest: &Digest) -> Result<Option<Bytes>, LayoutError> {
        let path = blob_path(digest);
        match self.source.find(&path).await? {
            Some(input) if input.size <= MANIFEST_BYTES => {}
            _ => return Ok(None),
        }
        let Some(content) = self.source.read(&path, MANIFEST_BYTES).await? else {
            return Ok(None);
        };
        let found = Digest::of(digest.supported_algorithm()?, &content);
        if found == *digest {
            Ok(Some(content))
        } else {
            let digest = digest.clone();
            Err(LayoutError::OtherContent { digest, found })
        }
    }

    /// Gives a stored manifest a tag.
    async fn put(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        media_type: Option<&MediaType>,
        tag: Option<Tag>,
    ) -> Result<(), LayoutError> {
        let content = self.manifest(digest).await?;
        let content = content.ok_or_else(|| LayoutError::Missing {
            digest: digest.clone(),
        })?;
        let view = ManifestView::parse(&content, media_type)?;
        self.store(repository, digest, &view, content, tag).await
    }

    async fn store(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        view: &ManifestView,
        content: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), LayoutError> {
        let subject = view.subject().cloned();
        let descriptor = view.referrer_descriptor(digest, content.len() as u64);
        let new = NewManifest {
            manifest: Manifest {
                digest: digest.clone(),
                media_type: view.media_type().clone(),
                bytes: content,
            },
            children: view.children().to_vec(),
            allow_missing: false,
            optional_children: view.optional_children().to_vec(),
            subject: subject.map(|subject| (subject, descriptor)),
            tags: tag.into_iter().collect(),
            condition: TagCondition::Any,
            immutable_tags: Vec::new(),
            principal: String::new(),
        };
        Ok(self.storage.put_manifest(repository, new).await?)
    }

    /// Uploads a blob and returns its size; `None` if the repository has it.
    async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, LayoutError> {
        if let Ok(size) = self.storage.stat_blob(repository, digest).await {
            self.copied.add(size);
            return Ok(None);
        }
        let Some(input) = self.source.find(&blob_path(digest)).await? else {
            let digest = digest.clone();
            return Err(LayoutError::Missing { digest });
        };
        let size = input.size;
        let algorithm = digest.supported_algorithm()?;
        let id = self.storage.create_upload(repository, "", algorithm).await?;
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        let stored = async {
            let stream = input
                .stream()
                .inspect_ok(|chunk| self.copied.add(chunk.len() as u64));
            let mut body = pin!(stream);
            self.storage.append_upload(&upload, None, body.as_mut()).await?;
            self.storage.commit_upload(&upload, digest).await
        };
        if let Err(error) = stored.await {
            // The upload is not continued, so it need not wait for the sweeper.
            drop(self.storage.cancel_upload(&upload).await);
            return Err(error.into());
        }
        Ok(Some(size))
    }

    /// Counts a blob that was uploaded, or reports why it was not.
    async fn count(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        stored: Result<Option<u64>, LayoutError>,
    ) -> Result<(), LayoutError> {
        match stored {
            Ok(None) => Ok(()),
            Ok(Some(size)) => {
                self.report.blobs += 1;
                self.report.size += size;
                Ok(())
            }
            Err(error) => self.leave_out(Some(repository), digest, error).await,
        }
    }

    /// Reports what is broken in the layout. An error of the storage itself ends the import.
    async fn leave_out(
        &mut self,
        repository: Option<&RepositoryName>,
        what: impl ToString,
        error: LayoutError,
    ) -> Result<(), LayoutError> {
        let what = what.to_string();
        match error {
            LayoutError::Storage { .. } => Err(error),
            LayoutError::Store(cause) if is_of_storage(cause.code()) => Err(match repository {
                Some(repository) => LayoutError::storage(repository, format!("storing {what}"))(cause),
                None => cause.into(),
            }),
            cause => {
                self.report.left_out += 1;
                let left_out = LeftOut::new(repository, what, cause);
                self.observer.found(Finding::LeftOut(left_out)).await;
                Ok(())
            }
        }
    }
}

/// Returns whether an error is unrelated to what was to be stored.
fn is_of_storage(code: ErrorCode) -> bool {
    code.status() >= 500 || code == ErrorCode::TooManyRequests
}
