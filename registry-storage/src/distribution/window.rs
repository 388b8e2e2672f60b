//! Adopting several repositories at once, so that a transaction has many records however small the repositories are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry_core::storage::{ChildKind, Manifest, NewManifest, TagCondition};
use registry_core::{Digest, Error, RepositoryName, Tag, Timestamp};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::adopt::{AdoptError, AdoptOptions};
use super::blobs::{self, BlobContent};
use super::defect::Defect;
use super::linkable::LinkRules;
use super::manifest::{self, Outline};
use super::record;
use super::report::{AdoptReport, Observer};
use super::seen::{Seen, Wanted};
use super::tree::{Link, RepositoryLinks, Tree};
use crate::filesystem::{FilesystemBackend, LinkError};
use crate::store::Store;
use crate::store::adopt::{Adopted, AdoptedBlob, AdoptedManifest, Source};

/// How many links of blobs, or how many manifests, one transaction has.
const BATCH: usize = 500;
/// How many bytes of manifests one transaction has, not counting its last manifest.
const BATCH_BYTES: usize = 4 << 20;

/// How often the number of bytes read is reported.
const TICK: Duration = Duration::from_millis(200);

/// From this many files on, they are first synced together.
const MANY: usize = 100;

/// The destination of adopted content.
pub(super) enum Sink<'s> {
    /// Into a store.
    Store(&'s Store<FilesystemBackend>),
    /// Nowhere: it is only counted.
    Nowhere(Nowhere<'s>),
}

impl<'s> Sink<'s> {
    /// Returns the store that has, or would get, the content.
    pub(super) const fn store(&self) -> Option<&'s Store<FilesystemBackend>> {
        match self {
            Self::Store(store) => Some(*store),
            Self::Nowhere(nowhere) => nowhere.store,
        }
    }
}

/// What is known where content is only counted.
pub(super) struct Nowhere<'s> {
    /// What the store has is not counted.
    pub(super) store: Option<&'s Store<FilesystemBackend>>,
    /// The blobs that were counted, so that each is counted once.
    pub(super) seen: BTreeSet<Digest>,
    /// Whether files could get second names, if they would have to.
    pub(super) rules: Option<LinkRules>,
    /// The first file that could not.
    pub(super) refused: Option<AdoptError>,
}

/// A repository whose links were read.
#[derive(Debug)]
pub(super) struct Scanned {
    links: RepositoryLinks,
    /// How many links there are, including those that are left out.
    counted: u64,
    outline: Outline,
    /// Manifests that can be adopted, and blobs that were.
    available: BTreeSet<Digest>,
    /// The tags of each manifest.
    tags: BTreeMap<Digest, Vec<(Tag, Timestamp)>>,
    /// Which links need not be looked at again.
    seen: Seen,
    defects: Vec<Defect>,
}

impl Scanned {
    /// Reads the links of a repository that are wanted and what these name, and its manifests for what they say of other
    /// content. Blocks.
    pub(super) fn read(tree: &Tree, name: &RepositoryName, counted: u64, wanted: &Wanted) -> Self {
        let mut links = tree.read(name);
        let seen = wanted.seen_before(&links);
        if !matches!(wanted, Wanted::All) {
            leave_unwanted(tree, &mut links, wanted);
        }
        let mut defects = std::mem::take(&mut links.defects);
        let mut tags: BTreeMap<Digest, Vec<(Tag, Timestamp)>> = BTreeMap::new();
        for link in &links.tags {
            let tag = (link.tag.clone(), wanted.written(link));
            tags.entry(link.target.clone()).or_default().push(tag);
        }
        let mut outline = Outline::default();
        let mut available = BTreeSet::new();
        for link in &links.revisions {
            match manifest::read(tree, name, link) {
                Ok(manifest) => {
                    outline.add(&manifest, tags.get(&link.digest).map_or(&[], Vec::as_slice));
                    available.insert(link.digest.clone());
                }
                Err(defect) => defects.push(defect),
            }
        }
        for (target, tags) in &tags {
            if !available.contains(target) {
                defects.extend(tags.iter().map(|(tag, _)| Defect::DanglingTag {
                    repository: name.clone(),
                    tag: tag.clone(),
                    digest: target.clone(),
                }));
            }
        }
        links.revisions.retain(|link| available.contains(&link.digest));
        Self {
            links,
            counted,
            outline,
            available,
            tags,
            seen,
            defects,
        }
    }

    /// Adds to what was seen the links whose content is here now. Those that lack it are looked at again.
    fn see(&mut self) {
        let available = &self.available;
        self.links.layers.retain(|link| available.contains(&link.digest));
        self.links.tags.retain(|link| available.contains(&link.target));
        self.seen.add(&self.links);
    }

    /// Returns how many records it may become.
    pub(super) fn weight(&self) -> usize {
        self.links.layers.len() + self.links.revisions.len() + self.links.tags.len()
    }
}

/// Leaves out what is not wanted, unless something that is names it: what was deleted here stays so.
fn leave_unwanted(tree: &Tree, links: &mut RepositoryLinks, wanted: &Wanted) {
    links.tags.retain(|tag| wanted.has_tag(tag));
    let tagged: BTreeSet<Digest> = links.tags.iter().map(|tag| tag.target.clone()).collect();
    let is_first = |link: &&Link| wanted.has_revision(link) || tagged.contains(&link.digest);
    let mut named: BTreeSet<Digest> = BTreeSet::new();
    let mut waiting: Vec<Link> = links.revisions.iter().filter(is_first).cloned().collect();
    while let Some(link) = waiting.pop() {
        if !named.insert(link.digest.clone()) {
            continue;
        }
        let Ok(manifest) = manifest::read(tree, &links.name, &link) else {
            continue;
        };
        let (children, optional) = (manifest.view.children(), manifest.view.optional_children());
        for child in children.iter().chain(optional) {
            match child.kind {
                ChildKind::Manifest => {
                    let child = links.revisions.iter().find(|link| link.digest == child.digest);
                    waiting.extend(child.cloned());
                }
                ChildKind::Blob => {
                    named.insert(child.digest.clone());
                }
            }
        }
    }
    links.revisions.retain(|link| named.contains(&link.digest));
    links
        .layers
        .retain(|link| wanted.has_layer(link) || named.contains(&link.digest));
}

/// The state of an adoption.
pub(super) struct Run<'r> {
    pub(super) tree: &'r Tree,
    pub(super) sink: Sink<'r>,
    pub(super) options: &'r AdoptOptions,
    /// How it is told what is new, if that is all that is wanted.
    pub(super) news: Option<News>,
    /// The file system was synced as a whole.
    pub(super) is_synced: bool,
    /// The links of the repositories that are done.
    pub(super) settled: u64,
    /// How many repositories had something to adopt.
    pub(super) with_some: u64,
    /// How many bytes were compared with their digests.
    pub(super) read: Arc<AtomicU64>,
    pub(super) report: AdoptReport,
    pub(super) observer: &'r mut dyn Observer,
}

/// How the links that are new are told from others.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// As [`Wanted::New`].
    New,
    /// As [`Wanted::Unseen`].
    Unseen(Timestamp),
    /// As [`Wanted::After`].
    After(Timestamp),
}

/// A blob on its way.
struct Candidate {
    content: Option<BlobContent>,
    grants: Vec<RepositoryName>,
}

impl Run<'_> {
    /// Adopts repositories: first their blobs, then the manifests and tags that name them.
    pub(super) async fn take(&mut self, mut window: Vec<Scanned>) -> Result<(), AdoptError> {
        for repository in &mut window {
            for defect in std::mem::take(&mut repository.defects) {
                self.note(&defect).await;
            }
        }
        self.take_blobs(&mut window).await?;
        self.take_manifests(&window).await?;
        for repository in &mut window {
            self.with_some += u64::from(repository.weight() > 0);
            repository.see();
            self.report.repositories_done += 1;
            self.settled += repository.counted;
            self.report.uploads += repository.links.uploads;
        }
        if let Sink::Store(store) = &self.sink {
            let seen = window.iter().map(|scanned| (&scanned.links.name, &scanned.seen));
            record::write_seen(store, seen).await?;
        }
        self.report.links_done = self.settled;
        self.observer.progress(&self.report);
        Ok(())
    }

    /// Reports that some links of unfinished repositories are done.
    fn tell(&mut self, links: usize) {
        let done = self.report.links_done.saturating_add(links as u64);
        self.report.links_done = done.min(self.report.links);
        self.report.content_done = self.read.load(Ordering::Relaxed).min(self.report.content);
        self.observer.progress(&self.report);
    }

    pub(super) async fn note(&mut self, defect: &Defect) {
        self.report.note(self.observer, defect).await;
    }

    async fn take_blobs(&mut self, window: &mut [Scanned]) -> Result<(), AdoptError> {
        let mut places = Vec::new();
        for (at, repository) in window.iter().enumerate() {
            places.extend((0..repository.links.layers.len()).map(|link| (at, link)));
        }
        for batch in places.chunks(BATCH) {
            let links: Vec<(RepositoryName, Link, Option<u64>)> = batch
                .iter()
                .filter_map(|&(at, link)| {
                    let repository = window.get(at)?;
                    let link = repository.links.layers.get(link)?.clone();
                    let size = repository.outline.sizes.get(&link.digest).copied();
                    Some((repository.links.name.clone(), link, size))
                })
                .collect();
            let adopted = self.take_links(links).await?;
            for &(at, link) in batch {
                if let Some(repository) = window.get_mut(at)
                    && let Some(link) = repository.links.layers.get(link)
                    && adopted.contains(&link.digest)
                {
                    repository.available.insert(link.digest.clone());
                }
            }
            self.tell(batch.len());
        }
        Ok(())
    }

    /// Adopts the blobs of some links, and returns which of them are stored now.
    async fn take_links(
        &mut self,
        links: Vec<(RepositoryName, Link, Option<u64>)>,
    ) -> Result<BTreeSet<Digest>, AdoptError> {
        let digests: BTreeSet<Digest> = links.iter().map(|(_, link, _)| link.digest.clone()).collect();
        let mut stored = match self.sink.store() {
            Some(store) => store.stored_blobs(&digests).await?,
            None => BTreeSet::new(),
        };
        let mut rules = None;
        if let Sink::Nowhere(nowhere) = &self.sink {
            stored.extend(digests.intersection(&nowhere.seen).cloned());
            rules = nowhere.rules.clone().filter(|_| nowhere.refused.is_none());
        }
        let (tree, verify) = (self.tree.clone(), self.options.verify);
        let read = Arc::clone(&self.read);
        let check = move || {
            let (candidates, defects) = check_links(&tree, links, &stored, verify, &read);
            let refused = rules.and_then(|rules| refused(&rules, &candidates));
            (candidates, defects, refused)
        };
        let mut checking = spawn_blocking(check);
        let checked = loop {
            tokio::select! {
                checked = &mut checking => break checked,
                // Reading content takes long.
                () = sleep(TICK) => self.tell(0),
            }
        };
        let (candidates, defects, refused) = checked.map_err(Error::internal)?;
        for defect in &defects {
            self.note(defect).await;
        }
        let found = candidates.keys().cloned().collect();
        match &mut self.sink {
            Sink::Store(store) => {
                let store = *store;
                if !self.is_synced && candidates.len() >= MANY {
                    self.is_synced = true;
                    let tree = self.tree.clone();
                    // Each file is synced once more when it gets its name, and only that sync counts.
                    if let Err(cause) = spawn_blocking(move || tree.sync())
                        .await
                        .map_err(Error::internal)?
                    {
                        tracing::debug!(%cause, "the file system could not be synced as a whole");
                    }
                }
                let adopted = adopt_candidates(store, candidates).await?;
                self.count(&adopted);
            }
            Sink::Nowhere(nowhere) => {
                nowhere.refused = nowhere.refused.take().or(refused);
                for (digest, candidate) in candidates {
                    self.report.grants += match nowhere.store {
                        Some(store) => store.lacks_grants(&digest, &candidate.grants).await?,
                        None => candidate.grants.len() as u64,
                    };
                    if let Some(content) = candidate.content {
                        self.report.blobs += 1;
                        self.report.bytes += content.size();
                        nowhere.seen.insert(digest);
                    }
                }
            }
        }
        Ok(found)
    }

    async fn take_manifests(&mut self, window: &[Scanned]) -> Result<(), AdoptError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let listed: Vec<_> = window
            .iter()
            .filter(|repository| repository.links.is_listed)
            .map(|repository| repository.links.name.clone())
            .collect();
        self.take_batch(listed, Vec::new()).await?;
        for repository in window {
            for links in repository.links.revisions.chunks(BATCH) {
                for read in self.read_manifests(&repository.links.name, links).await? {
                    let manifest = self.prepare(repository, read).await;
                    bytes += manifest.new.manifest.bytes.len();
                    batch.push(manifest);
                    if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                        let count = batch.len();
                        self.take_batch(Vec::new(), std::mem::take(&mut batch)).await?;
                        self.tell(count);
                        bytes = 0;
                    }
                }
            }
        }
        self.take_batch(Vec::new(), batch).await
    }

    async fn read_manifests(
        &self,
        name: &RepositoryName,
        links: &[Link],
    ) -> Result<Vec<(Link, manifest::StoredManifest)>, AdoptError> {
        let (tree, name, links) = (self.tree.clone(), name.clone(), links.to_vec());
        let read = move || {
            let read = |link: Link| manifest::read(&tree, &name, &link).ok().map(|read| (link, read));
            links.into_iter().filter_map(read).collect()
        };
        Ok(spawn_blocking(read).await.map_err(Error::internal)?)
    }

    async fn prepare(
        &mut self,
        repository: &Scanned,
        (link, read): (Link, manifest::StoredManifest),
    ) -> AdoptedManifest {
        let manifest::StoredManifest { view, bytes } = read;
        for child in view.children() {
            if !repository.available.contains(&child.digest) {
                self.note(&Defect::Incomplete {
                    repository: repository.links.name.clone(),
                    digest: link.digest.clone(),
                    child: child.digest.clone(),
                })
                .await;
            }
        }
        let subject = view
            .subject()
            .or_else(|| repository.outline.subjects.get(&link.digest));
        let descriptor = view.referrer_descriptor(&link.digest, bytes.len() as u64);
        AdoptedManifest {
            repository: repository.links.name.clone(),
            new: NewManifest {
                children: view.children().to_vec(),
                allow_missing: true,
                optional_children: view.optional_children().to_vec(),
                subject: subject.cloned().map(|subject| (subject, descriptor)),
                tags: Vec::new(),
                condition: TagCondition::Any,
                immutable_tags: Vec::new(),
                principal: String::new(),
                manifest: Manifest {
                    digest: link.digest.clone(),
                    media_type: view.media_type().clone(),
                    bytes,
                },
            },
            tags: repository.tags.get(&link.digest).cloned().unwrap_or_default(),
        }
    }

    async fn take_batch(
        &mut self,
        repositories: Vec<RepositoryName>,
        manifests: Vec<AdoptedManifest>,
    ) -> Result<(), AdoptError> {
        if repositories.is_empty() && manifests.is_empty() {
            return Ok(());
        }
        if let Sink::Store(store) = &self.sink {
            let adopted = store.adopt_manifests(repositories, manifests).await?;
            self.count(&adopted);
        } else if let Some(store) = self.sink.store() {
            let lacking = store.lacks_manifests(&manifests).await?;
            self.count(&lacking);
        } else {
            self.report.manifests += manifests.len() as u64;
            self.report.tags += manifests
                .iter()
                .map(|manifest| manifest.tags.len() as u64)
                .sum::<u64>();
        }
        self.observer.progress(&self.report);
        Ok(())
    }

    fn count(&mut self, adopted: &Adopted) {
        let report = &mut self.report;
        report.blobs += adopted.blobs;
        report.bytes += adopted.bytes;
        report.grants += adopted.grants;
        report.manifests += adopted.manifests;
        report.tags += adopted.tags;
        report.kept_tags += adopted.kept_tags;
    }
}

/// Examines the content of links, once for each digest. Blocks.
fn check_links(
    tree: &Tree,
    links: Vec<(RepositoryName, Link, Option<u64>)>,
    stored: &BTreeSet<Digest>,
    verify: bool,
    read: &AtomicU64,
) -> (BTreeMap<Digest, Candidate>, Vec<Defect>) {
    let mut candidates: BTreeMap<Digest, Candidate> = BTreeMap::new();
    let mut defects = Vec::new();
    for (repository, link, declared_size) in links {
        if let Some(candidate) = candidates.get_mut(&link.digest) {
            candidate.grants.push(repository);
            continue;
        }
        let content = if stored.contains(&link.digest) {
            None
        } else {
            match blobs::check(tree, &repository, &link, declared_size, (verify, read)) {
                Ok(content) => Some(content),
                Err(defect) => {
                    defects.push(defect);
                    continue;
                }
            }
        };
        let grants = vec![repository];
        candidates.insert(link.digest, Candidate { content, grants });
    }
    (candidates, defects)
}

/// Finds a file that could not get a second name. Blocks.
fn refused(rules: &LinkRules, candidates: &BTreeMap<Digest, Candidate>) -> Option<AdoptError> {
    let contents = candidates
        .values()
        .filter_map(|candidate| candidate.content.as_ref());
    let mut files = contents.filter_map(|content| match content {
        BlobContent::File(path, _) => Some(path),
        BlobContent::Inline(_) => None,
    });
    files.find_map(|path| rules.refusal(path))
}

/// Names the bytes, gives them these names, and makes them blobs.
async fn adopt_candidates(
    store: &Store<FilesystemBackend>,
    candidates: BTreeMap<Digest, Candidate>,
) -> Result<Adopted, AdoptError> {
    let mut sizes = Vec::new();
    let mut files = Vec::new();
    for candidate in candidates.values() {
        if let Some(BlobContent::File(path, size)) = &candidate.content {
            files.push(path.clone());
            sizes.push(*size);
        }
    }
    let first = candidates.values().find_map(|candidate| candidate.grants.first());
    let Some(repository) = first else {
        return Ok(Adopted::default());
    };
    let sessions = if sizes.is_empty() {
        Vec::new()
    } else {
        store.name_bytes(repository, &sizes).await?
    };
    let names = sessions.iter().map(|session| session.bytes().clone());
    let links: Vec<_> = names.zip(files).collect();
    if !links.is_empty() {
        store.backend().link_bytes(links).await?;
    }
    let mut sessions = sessions.into_iter();
    let mut blobs = Vec::new();
    for (digest, candidate) in candidates {
        let source = match candidate.content {
            None => Source::Stored,
            Some(BlobContent::Inline(content)) => Source::Inline(content),
            Some(BlobContent::File(..)) => match sessions.next() {
                Some(session) => Source::Session(Box::new(session)),
                None => continue,
            },
        };
        blobs.push(AdoptedBlob {
            digest,
            source,
            grants: candidate.grants,
        });
    }
    Ok(store.adopt_blobs(blobs).await?)
}

impl From<LinkError> for AdoptError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused { file, cause } => Self::Link { file, cause },
            LinkError::Storage(error) => Self::Storage(error),
        }
    }
}
