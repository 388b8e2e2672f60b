//! The way back: writing the content of a store as a tree of the distribution registry.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use registry_core::storage::{Blob, BlobStorage as _, ListStorage as _, ManifestStorage as _, PageRequest};
use registry_core::{Algorithm, Digest, Error, Hasher, Reference, RepositoryName, Tag};
use tokio::task::spawn_blocking;

use super::amount::Amount;
use super::error::AdoptError;
use super::layout;
use super::target::Target;
use crate::backend::Backend;
use crate::key::Key;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::Pages;
use crate::record::{BlobBytes, state_of_size};
use crate::store::Store;

/// How many names are listed at once.
const NAMES_PER_PAGE: usize = 500;

/// The maximum number of passes over a repository if tags are pushed meanwhile.
pub(super) const MAXIMUM_PASSES: usize = 8;

/// The result of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// How many repositories the store has.
    pub repositories: u64,
    /// How many of them are done.
    pub repositories_done: u64,
    /// How many blobs and manifests of repositories there are, if they get second names; otherwise 0.
    pub links: u64,
    /// Roughly how many bytes are to be copied, if they cannot get second names; otherwise 0.
    pub content: u64,
    /// How many of these bytes were copied, in this export or an earlier one.
    pub content_done: u64,
    /// The number of manifests.
    pub manifests: u64,
    /// The number of tags.
    pub tags: u64,
    /// The number of rights of a repository to read a blob.
    pub grants: u64,
    /// Blobs whose bytes got a second name.
    pub linked: u64,
    /// Blobs that were copied.
    pub copied: u64,
    /// The number of bytes that were copied.
    pub copied_bytes: u64,
}

/// Why a tree was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The tree cannot be written.
    #[error("{} cannot be written", folder.display())]
    Folder {
        /// The folder that the tree is in.
        folder: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// Tags of a repository are pushed faster than they are exported.
    #[error("{0} is pushed to all the time; export again")]
    Busy(RepositoryName),
    /// It was written to the tree that was adopted, and what came there was not noted as adopted.
    #[error(transparent)]
    Adopted(#[from] AdoptError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Writes a tree below `root`, as [`Maintenance::export_distribution`](crate::Maintenance::export_distribution) says.
/// `bytes` is the folder of the store's bytes, if they may get second names.
pub(crate) async fn export<B: Backend>(
    store: &Store<B>,
    bytes: Option<PathBuf>,
    root: &Path,
    observer: &dyn MaintenanceObserver,
) -> Result<ExportReport, ExportError> {
    let mut export = Export {
        store,
        root: root.to_owned(),
        target: {
            let folder = root.to_owned();
            in_folder(root, move || Target::create(&folder)).await?
        },
        bytes,
        report: ExportReport::default(),
        observer,
    };
    let names = all_repositories(store).await?;
    export.report.repositories = names.len() as u64;
    export.count(&names).await?;
    export.report_progress();
    for name in &names {
        export.repository(name).await?;
        export.report.repositories_done += 1;
        export.report_progress();
    }
    // The rest is in no repository.
    export.report.content_done = export.report.content_done.max(export.report.content);
    export.report_progress();
    let target = export.target.clone();
    export.run(move || target.sync()).await?;
    Ok(export.report)
}

struct Export<'e, B> {
    store: &'e Store<B>,
    root: PathBuf,
    target: Target,
    /// The folder of bytes that may get second names.
    bytes: Option<PathBuf>,
    report: ExportReport,
    observer: &'e dyn MaintenanceObserver,
}

impl<B: Backend> Export<'_, B> {
    fn report_progress(&self) {
        let report = &self.report;
        let (step, done, total) = if report.content > 0 {
            (Step::Copying, report.content_done, report.content)
        } else {
            (Step::Links, report.grants + report.manifests, report.links)
        };
        // What is pushed meanwhile is counted too.
        self.observer.step(step, done, Some(total.max(done)));
    }

    /// Runs what blocks.
    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ExportError> {
        in_folder(&self.root, act).await
    }

    /// Counts what there is to do: bytes if they are copied, otherwise what gets second names.
    async fn count(&mut self, names: &[RepositoryName]) -> Result<(), ExportError> {
        let (bytes, root) = (self.bytes.clone(), self.root.clone());
        let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
        let may_link = move || Ok(bytes.is_some_and(|bytes| device(&bytes) == device(&root)));
        if !self.run(may_link).await? {
            let content = self.store.contents().await?.bytes;
            let there = Amount::of(&self.root.join(layout::TREE), Some(self.store)).await?;
            (self.report.content, self.report.content_done) = (content, there.stored.min(content));
            return Ok(());
        }
        for name in names {
            for prefix in [Key::repository_blobs(name), Key::manifests(name)] {
                let mut pages = Pages::of(prefix.clone());
                while let Some(digests) = next_digests(self.store, &prefix, &mut pages).await? {
                    self.report.links += digests.len() as u64;
                }
            }
        }
        Ok(())
    }

    async fn repository(&mut self, name: &RepositoryName) -> Result<(), ExportError> {
        let (target, repository) = (self.target.clone(), name.clone());
        self.run(move || target.create_repository(&repository)).await?;
        for _ in 0..MAXIMUM_PASSES {
            let before = self.report.clone();
            // An image that is pushed meanwhile may have blobs that were not listed, so it comes with the next pass.
            let manifests = all_digests(self.store, &Key::manifests(name)).await?;
            self.blobs(name).await?;
            self.manifests(name, manifests).await?;
            if self.tags(name).await? {
                return Ok(());
            }
            // A tag that was pushed meanwhile names a manifest that came after they were listed.
            self.report = ExportReport {
                grants: before.grants,
                manifests: before.manifests,
                tags: before.tags,
                ..self.report.clone()
            };
        }
        Err(ExportError::Busy(name.clone()))
    }

    async fn blobs(&mut self, name: &RepositoryName) -> Result<(), ExportError> {
        let prefix = Key::repository_blobs(name);
        let mut pages = Pages::of(prefix.clone());
        while let Some(digests) = next_digests(self.store, &prefix, &mut pages).await? {
            for digest in digests {
                // The list is of back references: the repository may no longer have the blob.
                let Some(blob) = self.store.granted_bytes(name, &digest).await? else {
                    continue;
                };
                let Some(kept_as) = self.content(name, &digest, blob).await? else {
                    continue;
                };
                let (target, name) = (self.target.clone(), name.clone());
                self.run(move || {
                    target.link_layer(&name, &kept_as, &kept_as)?;
                    target.link_layer(&name, &digest, &kept_as)
                })
                .await?;
                self.report.grants += 1;
            }
            self.report_progress();
        }
        Ok(())
    }

    /// Writes the content of a blob, and returns the digest under which it is stored; `None` if it was deleted
    /// meanwhile.
    async fn content(
        &mut self,
        name: &RepositoryName,
        digest: &Digest,
        blob: BlobBytes,
    ) -> Result<Option<Digest>, ExportError> {
        if digest.algorithm() == Some(Algorithm::Sha256) {
            let (target, wanted) = (self.target.clone(), digest.clone());
            let file = self.bytes.as_ref().zip(blob.bytes);
            let file = file.map(|(folder, bytes)| folder.join(bytes.as_str()));
            let place = move || {
                if target.has_data(&wanted, blob.size)? {
                    return Ok(Placed::Before);
                }
                // On another file system, or one without hard links, it is copied.
                let linked = file.is_some_and(|file| target.link_data(&wanted, &file).is_ok());
                Ok(if linked { Placed::Linked } else { Placed::Not })
            };
            match self.run(place).await? {
                Placed::Before => return Ok(Some(digest.clone())),
                Placed::Linked => {
                    self.report.linked += 1;
                    self.report.content_done = self.report.content_done.saturating_add(blob.size);
                    return Ok(Some(digest.clone()));
                }
                Placed::Not => {}
            }
        }
        match self.store.open_blob(name, digest).await {
            Ok(blob) => self.copy(blob).await.map(Some),
            Err(error) if error.code() == registry_core::ErrorCode::BlobUnknown => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies content, and returns its SHA-256, under which that registry stores all content.
    async fn copy(&mut self, blob: Blob) -> Result<Digest, ExportError> {
        let target = self.target.clone();
        let mut file = self.run(move || target.begin_data()).await?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut content = blob.content.read(0..blob.size);
        while let Some(chunk) = content.next().await {
            let chunk = chunk?;
            let length = chunk.len() as u64;
            (file, hasher) = self
                .run(move || {
                    hasher.update(&chunk);
                    file.write(&chunk)?;
                    Ok((file, hasher))
                })
                .await?;
            self.report.content_done = self.report.content_done.saturating_add(length);
            self.report_progress();
        }
        let (target, digest) = (self.target.clone(), hasher.finish());
        let name = digest.clone();
        self.run(move || target.finish_data(file, &name)).await?;
        self.report.copied += 1;
        self.report.copied_bytes += blob.size;
        self.report_progress();
        Ok(digest)
    }

    async fn manifests(&mut self, name: &RepositoryName, digests: Vec<Digest>) -> Result<(), ExportError> {
        for digest in digests {
            let reference = Reference::Digest(digest.clone());
            let manifest = match self.store.get_manifest(name, &reference).await {
                Ok(manifest) => manifest,
                Err(error) if is_unknown(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let (target, name) = (self.target.clone(), name.clone());
            self.run(move || {
                let kept_as = Digest::of(Algorithm::Sha256, &manifest.bytes);
                target.write_data(&kept_as, &manifest.bytes)?;
                target.link_revision(&name, &kept_as, &kept_as)?;
                target.link_revision(&name, &digest, &kept_as)
            })
            .await?;
            self.report.manifests += 1;
            self.report_progress();
        }
        Ok(())
    }

    /// Writes the tags; returns `false` if one of them names a manifest that was not exported.
    async fn tags(&mut self, name: &RepositoryName) -> Result<bool, ExportError> {
        let mut request = first_page();
        loop {
            let page = self.store.list_tags(name, request.clone()).await?;
            for tag in page.items {
                if !self.tag(name, tag).await? {
                    return Ok(false);
                }
            }
            self.report_progress();
            match page.next {
                Some(next) => request.last = Some(next),
                None => return Ok(true),
            }
        }
    }

    async fn tag(&mut self, name: &RepositoryName, tag: Tag) -> Result<bool, ExportError> {
        let manifest = match self.store.get_manifest(name, &Reference::Tag(tag.clone())).await {
            Ok(manifest) => manifest,
            Err(error) if is_unknown(&error) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let (target, name) = (self.target.clone(), name.clone());
        let is_written = self
            .run(move || {
                let kept_as = Digest::of(Algorithm::Sha256, &manifest.bytes);
                let is_there = target.has_revision(&name, &kept_as);
                if is_there {
                    target.write_tag(&name, &tag, &kept_as)?;
                }
                Ok(is_there)
            })
            .await?;
        self.report.tags += u64::from(is_written);
        Ok(is_written)
    }
}

/// Where content was placed without reading it.
enum Placed {
    Before,
    Linked,
    Not,
}

/// Lists all repositories.
pub(super) async fn all_repositories<B: Backend>(store: &Store<B>) -> Result<Vec<RepositoryName>, Error> {
    let mut names = Vec::new();
    let mut request = first_page();
    loop {
        let page = store.list_repositories(request.clone()).await?;
        names.extend(page.items);
        match page.next {
            Some(next) => request.last = Some(next),
            None => return Ok(names),
        }
    }
}

/// Lists all digests below a prefix.
pub(super) async fn all_digests<B: Backend>(store: &Store<B>, prefix: &Key) -> Result<Vec<Digest>, Error> {
    let mut all = Vec::new();
    let mut pages = Pages::of(prefix.clone());
    while let Some(digests) = next_digests(store, prefix, &mut pages).await? {
        all.extend(digests);
    }
    Ok(all)
}

/// Lists the digests in the next page of the keys with `prefix`.
pub(super) async fn next_digests<B: Backend>(
    store: &Store<B>,
    prefix: &Key,
    pages: &mut Pages,
) -> Result<Option<Vec<Digest>>, Error> {
    let Some(page) = pages.next(store.backend()).await? else {
        return Ok(None);
    };
    let visible = page.iter().filter(|entry| state_of_size(entry.size).is_visible());
    let digests = visible.filter_map(|entry| entry.key.after(prefix)?.replacen('/', ":", 1).parse().ok());
    Ok(Some(digests.collect()))
}

pub(super) const fn first_page() -> PageRequest {
    PageRequest {
        last: None,
        limit: NAMES_PER_PAGE,
    }
}

pub(super) fn is_unknown(error: &Error) -> bool {
    matches!(
        error.code(),
        registry_core::ErrorCode::ManifestUnknown | registry_core::ErrorCode::NameUnknown
    )
}

/// Runs what blocks, on a folder that an error names.
async fn in_folder<T: Send + 'static>(
    folder: &Path,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ExportError> {
    spawn_blocking(act)
        .await
        .map_err(Error::internal)?
        .map_err(|cause| ExportError::Folder {
            folder: folder.to_owned(),
            cause,
        })
}
