//! Writing a repository into the tree in a bucket.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::storage::{Blob, BlobStorage as _, ListStorage as _, ManifestStorage as _};
use registry_core::{Algorithm, Digest, Error, ErrorCode, Hasher, Reference, RepositoryName, Tag, Timestamp};

use super::export::{ExportInPlaceError, ExportInPlaceReport, newer};
use super::links::{self, Place};
use super::release::is_newer;
use crate::backend::{Backend as _, LIST_LIMIT};
use crate::bytes_name::BytesName;
use crate::distribution::export::{MAXIMUM_PASSES, all_digests, first_page, is_unknown, next_digests};
use crate::distribution::tree::LINK_BYTES;
use crate::key::Key;
use crate::object_store::ObjectStoreBackend;
use crate::object_store::tree::TreeObject;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::Pages;
use crate::record::BlobBytes;
use crate::store::Store;

/// How many requests run at once: a bucket takes some milliseconds for each.
pub(super) const PARALLEL_REQUESTS: usize = 16;

/// How many times content is looked for again that was healed or moved meanwhile.
const CONTENT_ATTEMPTS: usize = 4;

/// An export into the tree in the bucket of a store.
pub(super) struct Export<'e> {
    store: &'e Store<ObjectStoreBackend>,
    /// When it began, by the clock of the bucket.
    started: Timestamp,
    observer: &'e dyn MaintenanceObserver,
    pub(super) report: ExportInPlaceReport,
    /// How many blobs and manifests there are.
    expected: u64,
    /// What identifies the links that were written, or were right and were written in the second in which this began.
    written: HashSet<u64>,
    hasher: RandomState,
}

/// How far a repository is.
#[derive(Default)]
struct Pass {
    /// The links of the repository in the tree when the pass began, by their keys.
    there: BTreeMap<String, TreeObject>,
    /// The keys of the links that it is to have.
    wanted: BTreeSet<String>,
    /// Those of them that were written, in this pass or an earlier one.
    written: BTreeSet<String>,
    /// The digests under which the distribution registry keeps the manifests.
    manifests: BTreeSet<Digest>,
    tags: u64,
    grants: u64,
}

/// A link that is as it should be.
struct Linked {
    key: String,
    target: Digest,
    /// It was written just now.
    is_written: bool,
    /// It was written since the export began.
    is_recent: bool,
}

/// What became of the content of a blob.
enum Content {
    /// It is in the tree, under this SHA-256.
    There(Digest),
    /// It was copied there, this many bytes.
    Copied(Digest, u64),
    /// The store has lost it.
    Lost,
    /// It was deleted meanwhile.
    Gone,
}

impl<'e> Export<'e> {
    pub(super) fn new(
        store: &'e Store<ObjectStoreBackend>,
        started: Timestamp,
        observer: &'e dyn MaintenanceObserver,
    ) -> Self {
        Self {
            store,
            started,
            observer,
            report: ExportInPlaceReport::default(),
            expected: 0,
            written: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Sets how many blobs and manifests there are.
    pub(super) fn expect(&mut self, count: u64) {
        self.expected = count;
        self.report_progress(&Pass::default());
    }

    /// Returns whether a link that was written since this began is this export's.
    pub(super) async fn has_written(&self, object: &TreeObject) -> Result<bool, Error> {
        // Only what a tag names may differ under one key.
        let is_tag = object.key.ends_with("/current/link");
        let text = match is_tag && object.size <= LINK_BYTES {
            true => self.store.backend().read_object(&object.key).await?,
            false => None,
        };
        let text = text.unwrap_or_default();
        Ok(self.written.contains(&self.identity(&object.key, &text)))
    }

    fn identity(&self, key: &str, text: &[u8]) -> u64 {
        let text = if key.ends_with("/current/link") { text } else { &[] };
        self.hasher.hash_one((key, text))
    }

    fn report_progress(&self, pass: &Pass) {
        let done = self.report.grants + self.report.manifests + pass.grants + pass.manifests.len() as u64;
        // What is pushed meanwhile is counted too.
        self.observer
            .step(Step::Links, done, Some(self.expected.max(done)));
    }

    /// Makes a repository of the tree as it is here. One that is not here loses its links.
    pub(super) async fn repository(&mut self, name: &RepositoryName) -> Result<(), ExportInPlaceError> {
        let mut written = BTreeSet::new();
        for _ in 0..MAXIMUM_PASSES {
            let mut pass = Pass {
                there: self.links(name).await?,
                written: std::mem::take(&mut written),
                ..Pass::default()
            };
            // An image that is pushed meanwhile may have blobs that were not listed, so it comes with the next pass.
            let manifests = all_digests(self.store, &Key::manifests(name)).await?;
            self.blobs(name, &mut pass).await?;
            self.manifests(name, manifests, &mut pass).await?;
            if self.tags(name, &mut pass).await? {
                self.delete_others(name, &pass).await?;
                self.report.grants += pass.grants;
                self.report.manifests += pass.manifests.len() as u64;
                self.report.tags += pass.tags;
                self.report_progress(&Pass::default());
                return Ok(());
            }
            // A tag that was pushed meanwhile names a manifest that came after they were listed.
            written = pass.written;
        }
        Err(ExportInPlaceError::Busy(name.clone()))
    }

    /// Lists the links of a repository in the tree.
    async fn links(&self, name: &RepositoryName) -> Result<BTreeMap<String, TreeObject>, Error> {
        let mut links = BTreeMap::new();
        let mut pages = pin!(self.store.backend().tree_pages(links::below(name)));
        while let Some(page) = pages.try_next().await? {
            let page = page.into_iter().filter(|object| object.key.ends_with("/link"));
            links.extend(page.map(|object| (object.key.clone(), object)));
        }
        Ok(links)
    }

    /// Notes links that are as they should be.
    fn note(&mut self, pass: &mut Pass, links: Vec<Linked>) {
        for link in links {
            if link.is_written || link.is_recent {
                let identity = self.identity(&link.key, link.target.as_str().as_bytes());
                self.written.insert(identity);
            }
            if link.is_written {
                self.report.written += 1;
                pass.written.insert(link.key.clone());
            }
            pass.wanted.insert(link.key);
        }
    }

    /// Writes a link, unless it is there.
    async fn link(&self, pass: &Pass, key: String, target: &Digest) -> Result<Linked, ExportInPlaceError> {
        let text = Bytes::copy_from_slice(target.as_str().as_bytes());
        let there = pass.there.get(&key);
        let is_recent = there.is_some_and(|object| is_newer(object, self.started));
        let may_be_right = there.is_some_and(|object| object.size == text.len() as u64);
        let is_right = may_be_right && self.store.backend().has_content(&key, &text).await?;
        if !is_right {
            if let Some(object) = there
                && is_recent
                && !pass.written.contains(&key)
            {
                // Somebody else writes to the tree.
                return Err(newer(self.store, object));
            }
            self.store.backend().put_tree_object(&key, text).await?;
        }
        Ok(Linked {
            key,
            target: target.clone(),
            is_written: !is_right,
            is_recent,
        })
    }

    async fn blobs(&mut self, name: &RepositoryName, pass: &mut Pass) -> Result<(), ExportInPlaceError> {
        let prefix = Key::repository_blobs(name);
        let mut pages = Pages::of(prefix.clone());
        while let Some(digests) = next_digests(self.store, &prefix, &mut pages).await? {
            let done: Vec<_> = {
                let (export, pass) = (&*self, &*pass);
                let writing = stream::iter(digests).map(|digest| export.blob(name, digest, pass));
                writing.buffered(PARALLEL_REQUESTS).try_collect().await?
            };
            for (content, links) in done {
                match content {
                    Content::There(_) => pass.grants += 1,
                    Content::Copied(_, size) => {
                        pass.grants += 1;
                        self.report.copied += 1;
                        self.report.copied_bytes += size;
                    }
                    Content::Lost => self.report.lost += 1,
                    Content::Gone => {}
                }
                self.note(pass, links);
            }
            self.report_progress(pass);
        }
        Ok(())
    }

    /// Writes the content of a blob and then its links.
    async fn blob(
        &self,
        name: &RepositoryName,
        digest: Digest,
        pass: &Pass,
    ) -> Result<(Content, Vec<Linked>), ExportInPlaceError> {
        let content = self.content(name, &digest).await?;
        let mut links = Vec::new();
        match &content {
            Content::There(kept_as) | Content::Copied(kept_as, _) => {
                links.push(self.link(pass, links::layer(name, &digest), kept_as).await?);
            }
            // What the tree has stays, for a push that heals the blob.
            Content::Lost => links.push(Linked {
                key: links::layer(name, &digest),
                target: digest,
                is_written: false,
                is_recent: false,
            }),
            Content::Gone => {}
        }
        Ok((content, links))
    }

    /// Writes the content of a blob into the tree, unless it is there.
    async fn content(&self, name: &RepositoryName, digest: &Digest) -> Result<Content, Error> {
        let mut before: Option<BlobBytes> = None;
        for _ in 0..CONTENT_ATTEMPTS {
            // The list is of back references: the repository may no longer have the blob.
            let Some(blob) = self.store.granted_bytes(name, digest).await? else {
                return Ok(Content::Gone);
            };
            if before.as_ref() == Some(&blob) {
                return Ok(Content::Lost);
            }
            if let Some(content) = self.place(name, digest, &blob).await? {
                return Ok(content);
            }
            // It may have been healed meanwhile, which gives it other bytes.
            before = Some(blob);
        }
        Err(ErrorCode::Unavailable.into())
    }

    /// Returns `None` if the bytes of a blob are not there.
    async fn place(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        blob: &BlobBytes,
    ) -> Result<Option<Content>, Error> {
        let Some(bytes) = &blob.bytes else {
            let Some(content) = self.read_small(name, digest).await? else {
                return Ok(None);
            };
            let kept_as = Digest::of(Algorithm::Sha256, &content);
            let size = content.len() as u64;
            let is_written = self.put_content(&kept_as, content).await?;
            return Ok(Some(match is_written {
                true => Content::Copied(kept_as, size),
                false => Content::There(kept_as),
            }));
        };
        let kept_as = match digest.algorithm() {
            Some(Algorithm::Sha256) => digest.clone(),
            _ => match self.hash(name, digest).await? {
                Some(kept_as) => kept_as,
                None => return Ok(None),
            },
        };
        let Some(place) = BytesName::in_tree(&kept_as) else {
            return Err(ErrorCode::Internal.into());
        };
        let backend = self.store.backend();
        if backend.is_copy(bytes, &place, blob.size).await? || self.is_named(digest, &kept_as, &place).await?
        {
            return Ok(Some(Content::There(kept_as)));
        }
        let is_copied = *bytes != place && backend.copy_bytes(bytes, &place, blob.size).await?;
        Ok(is_copied.then_some(Content::Copied(kept_as, blob.size)))
    }

    /// Returns whether the blob under the SHA-256 names the object of the tree, and has its content there. Nothing is written over that.
    async fn is_named(&self, digest: &Digest, kept_as: &Digest, place: &BytesName) -> Result<bool, Error> {
        if digest == kept_as {
            return Ok(false);
        }
        let named = self.store.named_bytes(kept_as).await?;
        match named.filter(|named| named.bytes.as_ref() == Some(place)) {
            Some(named) => Ok(self.store.backend().bytes_size(place).await? == Some(named.size)),
            None => Ok(false),
        }
    }

    /// Writes content that is in memory, and returns whether it was not there.
    async fn put_content(&self, digest: &Digest, content: Bytes) -> Result<bool, Error> {
        let (backend, key) = (self.store.backend(), links::data(digest));
        if backend.has_content(&key, &content).await? {
            return Ok(false);
        }
        backend.put_tree_object(&key, content).await?;
        Ok(true)
    }

    async fn open(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, Error> {
        match self.store.open_blob(name, digest).await {
            Ok(blob) => Ok(Some(blob)),
            Err(error) if error.code() == ErrorCode::BlobUnknown => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a blob that is in its record.
    async fn read_small(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let Some(blob) = self.open(name, digest).await? else {
            return Ok(None);
        };
        let chunks: Vec<Bytes> = blob.content.read(0..blob.size).try_collect().await?;
        Ok(Some(chunks.concat().into()))
    }

    /// Returns the SHA-256 of a blob that has another digest, under which the distribution registry keeps it.
    async fn hash(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Digest>, Error> {
        let Some(blob) = self.open(name, digest).await? else {
            return Ok(None);
        };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut content = blob.content.read(0..blob.size);
        while let Some(chunk) = content.try_next().await? {
            hasher.update(&chunk);
        }
        Ok(Some(hasher.finish()))
    }

    async fn manifests(
        &mut self,
        name: &RepositoryName,
        digests: Vec<Digest>,
        pass: &mut Pass,
    ) -> Result<(), ExportInPlaceError> {
        for digests in digests.chunks(LIST_LIMIT) {
            let done: Vec<_> = {
                let (export, pass) = (&*self, &*pass);
                let writing = digests
                    .iter()
                    .cloned()
                    .map(|digest| export.manifest(name, digest, pass));
                let writing = stream::iter(writing.collect::<Vec<_>>());
                writing.buffered(PARALLEL_REQUESTS).try_collect().await?
            };
            for (kept_as, links) in done.into_iter().flatten() {
                pass.manifests.insert(kept_as);
                self.note(pass, links);
            }
            self.report_progress(pass);
        }
        Ok(())
    }

    /// Writes a manifest and then its links; returns `None` if it was deleted meanwhile.
    async fn manifest(
        &self,
        name: &RepositoryName,
        digest: Digest,
        pass: &Pass,
    ) -> Result<Option<(Digest, Vec<Linked>)>, ExportInPlaceError> {
        let reference = Reference::Digest(digest.clone());
        let manifest = match self.store.get_manifest(name, &reference).await {
            Ok(manifest) => manifest,
            Err(error) if is_unknown(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let kept_as = Digest::of(Algorithm::Sha256, &manifest.bytes);
        self.put_content(&kept_as, manifest.bytes).await?;
        let mut links = Vec::new();
        for digest in BTreeSet::from([&kept_as, &digest]) {
            links.push(self.link(pass, links::revision(name, digest), &kept_as).await?);
        }
        Ok(Some((kept_as, links)))
    }

    /// Writes the tags; returns `false` if one of them names a manifest that was not exported.
    async fn tags(&mut self, name: &RepositoryName, pass: &mut Pass) -> Result<bool, ExportInPlaceError> {
        let mut request = first_page();
        loop {
            let page = match self.store.list_tags(name, request.clone()).await {
                Ok(page) => page,
                Err(error) if is_unknown(&error) => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            let done: Vec<_> = {
                let (export, pass) = (&*self, &*pass);
                let writing = stream::iter(page.items).map(|tag| export.tag(name, tag, pass));
                writing.buffered(PARALLEL_REQUESTS).try_collect().await?
            };
            let is_complete = done.iter().all(Option::is_some);
            for links in done.into_iter().flatten() {
                pass.tags += u64::from(!links.is_empty());
                self.note(pass, links);
            }
            if !is_complete {
                return Ok(false);
            }
            match page.next {
                Some(next) => request.last = Some(next),
                None => return Ok(true),
            }
        }
    }

    /// Writes a tag, unless it was deleted meanwhile; returns `None` if it names a manifest that was not exported.
    async fn tag(
        &self,
        name: &RepositoryName,
        tag: Tag,
        pass: &Pass,
    ) -> Result<Option<Vec<Linked>>, ExportInPlaceError> {
        let manifest = match self.store.get_manifest(name, &Reference::Tag(tag.clone())).await {
            Ok(manifest) => manifest,
            Err(error) if is_unknown(&error) => return Ok(Some(Vec::new())),
            Err(error) => return Err(error.into()),
        };
        let kept_as = Digest::of(Algorithm::Sha256, &manifest.bytes);
        if !pass.manifests.contains(&kept_as) {
            return Ok(None);
        }
        let entry = links::tag_entry(name, &tag, &kept_as);
        let entry = self.link(pass, entry, &kept_as).await?;
        let current = self.link(pass, links::tag(name, &tag), &kept_as).await?;
        Ok(Some(vec![entry, current]))
    }

    /// Deletes the links that a repository of the tree is not to have, unless they came since the export began. Tags go first, so
    /// that none of them names what is gone; the list of tags is of all that have any link, so what a tag named before goes
    /// before the tag.
    async fn delete_others(&mut self, name: &RepositoryName, pass: &Pass) -> Result<(), ExportInPlaceError> {
        if pass
            .there
            .keys()
            .chain(&pass.written)
            .all(|key| pass.wanted.contains(key))
        {
            return Ok(());
        }
        let (mut entries, mut tags, mut revisions, mut layers) = (vec![], vec![], vec![], vec![]);
        // What was pushed to the distribution registry since the pass began is newer now.
        let folder = links::folder(name);
        for (key, object) in self.links(name).await? {
            let is_foreign = is_newer(&object, self.started) && !pass.written.contains(&key);
            if pass.wanted.contains(&key) || is_foreign {
                continue;
            }
            let rest = key.get(folder.len() + 1..).unwrap_or_default();
            match Place::of(rest) {
                Place::OfTag(tag) if !is_wanted_entry(name, tag, rest, pass) => entries.push(key),
                Place::Tag(tag) if tag.parse::<Tag>().is_ok() => tags.push(key),
                Place::Revision(algorithm, encoded) if is_digest(algorithm, encoded) => revisions.push(key),
                Place::Layer(algorithm, encoded) if is_digest(algorithm, encoded) => layers.push(key),
                // What is no tag or digest nobody can see.
                _ => {}
            }
        }
        for keys in [entries, tags, revisions, layers] {
            self.report.deleted += keys.len() as u64;
            let backend = self.store.backend();
            let deleting =
                stream::iter(keys).map(|key| async move { backend.delete_tree_object(&key).await });
            deleting
                .buffered(PARALLEL_REQUESTS)
                .try_collect::<Vec<()>>()
                .await?;
        }
        Ok(())
    }
}

fn is_digest(algorithm: &str, encoded: &str) -> bool {
    format!("{algorithm}:{encoded}").parse::<Digest>().is_ok()
}

/// Returns whether a link records that a tag, which is to stay, once named a manifest that is to stay too.
fn is_wanted_entry(name: &RepositoryName, tag: &str, rest: &str, pass: &Pass) -> bool {
    let Ok(tag) = tag.parse::<Tag>() else {
        // It is no tag, and nobody can see it.
        return true;
    };
    let manifest = rest.split_once("/index/").map(|(_, entry)| entry);
    let manifest = manifest.map(|entry| format!("{}{entry}", links::revisions(name)));
    pass.wanted.contains(&links::tag(name, &tag))
        && manifest.is_some_and(|revision| pass.wanted.contains(&revision))
}
