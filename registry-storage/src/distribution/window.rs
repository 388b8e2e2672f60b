//! Adopting several repositories at once, so that a transaction has many records however small the repositories are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use registry_core::storage::{Manifest, NewManifest, TagCondition};
use registry_core::{Digest, Error, RepositoryName};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::blobs::{self, BlobContent};
use super::defect::Defect;
use super::error::AdoptError;
use super::linkable::LinkRules;
use super::manifest;
use super::record;
use super::run::{Run, Sink};
use super::scanned::Scanned;
use super::tree::{Link, Tree};
use crate::filesystem::FilesystemBackend;
use crate::store::Store;
use crate::store::adopt::{Adopted, AdoptedBlob, AdoptedManifest, Source};

/// How many links of blobs, or how many manifests, one transaction has.
const RECORDS_PER_BATCH: usize = 500;
/// How many bytes of manifests one transaction has, not counting its last manifest.
const BYTES_PER_BATCH: usize = 4 << 20;

/// How often the number of bytes read is reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// From this many files on, they are first synced together.
const MANY_FILES: usize = 100;

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
                self.note(defect).await;
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
        self.report_progress();
        Ok(())
    }

    async fn take_blobs(&mut self, window: &mut [Scanned]) -> Result<(), AdoptError> {
        let mut places = Vec::new();
        for (at, repository) in window.iter().enumerate() {
            places.extend((0..repository.links.layers.len()).map(|link| (at, link)));
        }
        for batch in places.chunks(RECORDS_PER_BATCH) {
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
                () = sleep(REPORT_INTERVAL) => self.tell(0),
            }
        };
        let (candidates, defects, refused) = checked.map_err(Error::internal)?;
        for defect in defects {
            self.note(defect).await;
        }
        let found = candidates.keys().cloned().collect();
        match &mut self.sink {
            Sink::Store(store) => {
                let store = *store;
                if !self.is_synced && candidates.len() >= MANY_FILES {
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
            for links in repository.links.revisions.chunks(RECORDS_PER_BATCH) {
                for read in self.read_manifests(&repository.links.name, links).await? {
                    let manifest = self.prepare(repository, read).await;
                    bytes += manifest.new.manifest.bytes.len();
                    batch.push(manifest);
                    if batch.len() >= RECORDS_PER_BATCH || bytes >= BYTES_PER_BATCH {
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
                self.note(Defect::Incomplete {
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
        self.report_progress();
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
