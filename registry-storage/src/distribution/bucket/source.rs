//! A tree in a bucket: its objects are listed and read page by page, and named where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::storage::{UploadKey, UploadStorage as _};
use registry_core::{Digest, Error, Hasher, RepositoryName, Timestamp};

use super::links::{self, Place};
use super::release::is_newer;
use crate::backend::{Backend as _, Expect};
use crate::bytes_name::BytesName;
use crate::distribution::amount::Amount;
use crate::distribution::blobs::{self, BlobContent};
use crate::distribution::defect::Defect;
use crate::distribution::error::AdoptError;
use crate::distribution::manifest::{self, StoredManifest};
use crate::distribution::record;
use crate::distribution::scanned::Scanned;
use crate::distribution::seen::Wanted;
use crate::distribution::source::{Candidate, Examined, Found, Repositories, Source};
use crate::distribution::tree::Link;
use crate::object_store::ObjectStoreBackend;
use crate::object_store::tree::TreeObject;
use crate::store::adopt::{Adopted, AdoptedManifest};
use crate::store::adopt_in_place::{BlobInPlace, ContentInPlace};
use crate::store::{INLINE_BYTES, Store};

/// How many objects are read at once: a bucket takes some milliseconds for each.
pub(super) const PARALLEL_READS: usize = 16;

/// A tree in a bucket. Nothing here changes it.
#[derive(Debug)]
pub(super) struct BucketTree<'b> {
    pub(super) backend: &'b ObjectStoreBackend,
    /// The update of which this is the tree: only links that came since count.
    pub(super) update: Option<Update>,
}

/// An update, which takes what came since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    /// What tells it from others.
    pub(super) begun: Timestamp,
    /// Before when all links were taken, by the clock of the bucket.
    pub(super) since: Timestamp,
}

impl<'b> BucketTree<'b> {
    /// A tree of which all counts.
    pub(super) const fn whole(backend: &'b ObjectStoreBackend) -> Self {
        Self {
            backend,
            update: None,
        }
    }

    /// Returns whether an object counts.
    pub(super) fn is_new(&self, object: &TreeObject) -> bool {
        self.update.is_none_or(|update| is_newer(object, update.since))
    }
}

impl Source for BucketTree<'_> {
    type Backend = ObjectStoreBackend;

    async fn repositories(&self) -> Result<Repositories, Error> {
        let prefix = links::repositories();
        let mut found = Repositories::default();
        let mut last = String::new();
        let mut pages = pin!(self.backend.tree_pages(prefix.clone()));
        while let Some(page) = pages.try_next().await? {
            for object in page.iter().filter(|object| self.is_new(object)) {
                let Some((name, rest)) = object.key.strip_prefix(&prefix).and_then(links::split) else {
                    continue;
                };
                let is_new = name != last;
                if is_new {
                    name.clone_into(&mut last);
                }
                let is_link = u64::from(Place::of(rest).is_content());
                match (found.counted.last_mut(), name.parse::<RepositoryName>()) {
                    (Some((_, links)), Ok(_)) if !is_new => *links += is_link,
                    // What has uploads alone is no repository yet.
                    (_, Ok(_)) if rest.starts_with("_uploads/") => last.clear(),
                    (_, Ok(name)) => found.counted.push((name, is_link)),
                    (_, Err(_)) if is_new => {
                        let path = self.backend.whole_key(&format!("{prefix}{name}"));
                        found.defects.push(links::invalid_name(path, "a repository"));
                    }
                    (_, Err(_)) => {}
                }
            }
        }
        Ok(found)
    }

    async fn count_links(&self, names: Vec<RepositoryName>) -> Result<Vec<(RepositoryName, u64)>, Error> {
        let mut counted = Vec::with_capacity(names.len());
        for name in names {
            let links = self.links(&name).await?;
            let count = links.layers.len() + links.revisions.len();
            counted.push((name, count as u64));
        }
        Ok(counted)
    }

    async fn scan(&self, name: RepositoryName, counted: u64, wanted: Wanted) -> Result<Scanned, Error> {
        let mut links = self.links(&name).await?;
        let seen = wanted.seen_before(&links);
        if !matches!(wanted, Wanted::All) {
            self.leave_unwanted(&mut links, &wanted).await?;
        }
        let mut scanned = Scanned::of(links, counted, seen, &wanted);
        let revisions = scanned.links.revisions.clone();
        let mut reading = pin!(
            stream::iter(revisions)
                .map(|link| self.manifest(&name, link))
                .buffered(PARALLEL_READS)
        );
        while let Some((link, read)) = reading.try_next().await? {
            scanned.add_manifest(&link, read);
        }
        scanned.leave_unavailable();
        Ok(scanned)
    }

    async fn manifests(
        &self,
        name: &RepositoryName,
        links: &[Link],
    ) -> Result<Vec<(Link, StoredManifest)>, Error> {
        let reading = stream::iter(links.to_vec()).map(|link| self.manifest(name, link));
        let read: Vec<_> = reading.buffered(PARALLEL_READS).try_collect().await?;
        let whole = read
            .into_iter()
            .filter_map(|(link, read)| Some((link, read.ok()?)));
        Ok(whole.collect())
    }

    async fn examine(&self, examined: Examined) -> Result<Found, Error> {
        let Examined {
            links,
            stored,
            verify,
            read,
            rules: _,
        } = examined;
        let mut by_digest: BTreeMap<Digest, Vec<(RepositoryName, Link, Option<u64>)>> = BTreeMap::new();
        for link in links {
            by_digest.entry(link.1.digest.clone()).or_default().push(link);
        }
        let (stored, read) = (&stored, &*read);
        let examining = stream::iter(by_digest).map(|(digest, links)| async move {
            let mut found = Found::default();
            for (repository, link, declared) in links {
                if !found.join(&repository, &digest) {
                    continue;
                }
                let content = if stored.contains(&digest) {
                    Ok(None)
                } else {
                    self.check(&repository, &link, declared, (verify, read))
                        .await?
                        .map(Some)
                };
                found.add(repository, digest.clone(), content);
            }
            Ok::<_, Error>(found)
        });
        let mut examining = pin!(examining.buffered(PARALLEL_READS));
        let mut all = Found::default();
        while let Some(found) = examining.try_next().await? {
            all.candidates.extend(found.candidates);
            all.defects.extend(found.defects);
        }
        Ok(all)
    }

    async fn adopt_blobs(
        &self,
        store: &Store<ObjectStoreBackend>,
        candidates: BTreeMap<Digest, Candidate>,
    ) -> Result<Adopted, AdoptError> {
        let mut copied = Adopted::default();
        let mut blobs = Vec::new();
        for (digest, candidate) in candidates {
            let content = match candidate.content {
                Some(BlobContent::Inline(content)) => Some(ContentInPlace::Inline(content)),
                Some(BlobContent::InPlace(name, size)) => Some(ContentInPlace::Named(name, size)),
                Some(BlobContent::Copied(name, size)) => {
                    if let Some(repository) = candidate.grants.first() {
                        self.copy(store, repository, &digest, (&name, size)).await?;
                        copied.blobs += 1;
                        copied.bytes += size;
                        copied.grants += 1;
                    }
                    None
                }
                // No file is in a bucket.
                Some(BlobContent::File(..)) | None => None,
            };
            blobs.push(BlobInPlace {
                digest,
                content,
                grants: candidate.grants,
            });
        }
        Ok(copied.plus(store.adopt_in_place(blobs).await?))
    }

    async fn adopt_manifests(
        &self,
        store: &Store<ObjectStoreBackend>,
        repositories: Vec<RepositoryName>,
        manifests: Vec<AdoptedManifest>,
    ) -> Result<Adopted, Error> {
        store.adopt_manifests_at_once(repositories, manifests).await
    }

    /// Notes nothing: a bucket is compared as a whole.
    async fn write_seen(&self, _: &Store<ObjectStoreBackend>, _: &[Scanned]) -> Result<(), Error> {
        Ok(())
    }

    async fn goes_on(&self, store: &Store<ObjectStoreBackend>) -> Result<bool, Error> {
        let Some(update) = self.update else {
            return Ok(true);
        };
        let record = record::read(store).await?;
        Ok(record.is_some_and(|record| record.begun == update.begun && record.finished.is_none()))
    }

    async fn amount(&self, store: Option<&Store<ObjectStoreBackend>>) -> Result<Amount, Error> {
        let mut amount = Amount::default();
        let mut pages = pin!(self.backend.tree_pages(links::blobs()));
        while let Some(page) = pages.try_next().await? {
            let content = page.iter();
            let content: BTreeMap<Digest, u64> = content
                .filter_map(|object| Some((links::digest_of_content(object)?, object.size)))
                .collect();
            let stored = match store {
                Some(store) => store.stored_blobs(&content.keys().cloned().collect()).await?,
                None => BTreeSet::new(),
            };
            for (digest, size) in content {
                amount.all = amount.all.saturating_add(size);
                if stored.contains(&digest) {
                    amount.stored = amount.stored.saturating_add(size);
                }
            }
        }
        Ok(amount)
    }
}

impl BucketTree<'_> {
    pub(super) async fn manifest(
        &self,
        name: &RepositoryName,
        link: Link,
    ) -> Result<(Link, Result<StoredManifest, Defect>), Error> {
        let read = self.read_manifest(name, &link).await?;
        Ok((link, read))
    }

    async fn read_manifest(
        &self,
        name: &RepositoryName,
        link: &Link,
    ) -> Result<Result<StoredManifest, Defect>, Error> {
        let missing = || Ok(Err(blobs::missing(name, link)));
        let Some((bytes, size)) = self.content(link).await? else {
            return missing();
        };
        if let Err(defect) = manifest::require_size(size, name, link) {
            return Ok(Err(defect));
        }
        match self.backend.read_bytes(&bytes).await? {
            Some(bytes) => Ok(manifest::check(bytes, name, link)),
            None => missing(),
        }
    }

    /// Returns the name and the size of what a link names; `None` if it is not there. That registry keeps all content under
    /// SHA-256.
    async fn content(&self, link: &Link) -> Result<Option<(BytesName, u64)>, Error> {
        let Some(name) = BytesName::in_tree(&link.target) else {
            return Ok(None);
        };
        let size = self.backend.bytes_size(&name).await?;
        Ok(size.map(|size| (name, size)))
    }

    /// Examines the content of a blob, by the rules of [`blobs::check`](crate::distribution::blobs::check).
    async fn check(
        &self,
        repository: &RepositoryName,
        link: &Link,
        declared_size: Option<u64>,
        (verify, read): (bool, &AtomicU64),
    ) -> Result<Result<BlobContent, Defect>, Error> {
        let Some((name, size)) = self.content(link).await? else {
            return Ok(Err(blobs::missing(repository, link)));
        };
        let algorithm = link.digest.algorithm().unwrap_or_default();
        let corrupt = |found, size| blobs::corrupt(repository, link, found, size);
        if size <= INLINE_BYTES as u64 {
            let Some(content) = self.backend.read_bytes(&name).await? else {
                return Ok(Err(blobs::missing(repository, link)));
            };
            read.fetch_add(size, Ordering::Relaxed);
            let found = Digest::of(algorithm, &content);
            return Ok(if found == link.digest {
                Ok(BlobContent::Inline(content))
            } else {
                Err(corrupt(found, size))
            });
        }
        let is_doubtful = declared_size.is_some_and(|declared| declared != size);
        if verify || is_doubtful || link.target != link.digest {
            let mut hasher = Hasher::new(algorithm);
            let Some(content) = self.backend.open_bytes(&name, Expect::SizeNow(size)).await? else {
                return Ok(Err(blobs::missing(repository, link)));
            };
            let mut content = content.read(0..size);
            while let Some(chunk) = content.try_next().await? {
                hasher.update(&chunk);
                read.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            let found = hasher.finish();
            if found != link.digest {
                return Ok(Err(corrupt(found, size)));
            }
        }
        Ok(Ok(if link.target == link.digest {
            BlobContent::InPlace(name, size)
        } else {
            // The name of bytes in the tree belongs to the blob of their SHA-256.
            BlobContent::Copied(name, size)
        }))
    }

    /// Stores content under another digest than it has in the tree.
    async fn copy(
        &self,
        store: &Store<ObjectStoreBackend>,
        repository: &RepositoryName,
        digest: &Digest,
        (name, size): (&BytesName, u64),
    ) -> Result<(), Error> {
        let Some(content) = self.backend.open_bytes(name, Expect::Size(size)).await? else {
            // It was deleted since it was examined, and the next adoption says so.
            return Ok(());
        };
        let algorithm = digest.supported_algorithm()?;
        let id = store.create_upload(repository, "", algorithm).await?;
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        let stored = async {
            let mut body = content.read(0..size);
            store.append_upload(&upload, None, body.as_mut()).await?;
            store.commit_upload(&upload, digest).await
        };
        let stored = stored.await;
        if stored.is_err() {
            // The upload is not continued, so it need not wait for the sweeper.
            drop(store.cancel_upload(&upload).await);
        }
        stored
    }
}
