//! Adopting several repositories at once, so that a transaction has many records however small the repositories are.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use registry_core::storage::{Manifest, NewManifest, TagCondition};
use registry_core::{Digest, RepositoryName};
use tokio::time::sleep;

use super::defect::Defect;
use super::error::AdoptError;
use super::manifest;
use super::run::{Run, Sink};
use super::scanned::Scanned;
use super::source::{Examined, Found, Source};
use super::tree::Link;
use crate::store::adopt::{Adopted, AdoptedManifest};

/// How many links of blobs, or how many manifests, one transaction has.
const RECORDS_PER_BATCH: usize = 500;
/// How many bytes of manifests one transaction has, not counting its last manifest.
const BYTES_PER_BATCH: usize = 4 << 20;

/// How often the number of bytes read is reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// From this many files on, they are first synced together.
const MANY_FILES: usize = 100;

impl<S: Source> Run<'_, S> {
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
            self.tree.write_seen(store, &window).await?;
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
        let examined = Examined {
            links,
            stored,
            verify: self.options.verify,
            read: Arc::clone(&self.read),
            rules,
        };
        let mut examining = pin!(self.tree.examine(examined));
        let found = loop {
            tokio::select! {
                found = &mut examining => break found?,
                // Reading content takes long.
                () = sleep(REPORT_INTERVAL) => self.tell(0),
            }
        };
        let Found {
            candidates,
            defects,
            refused,
        } = found;
        for defect in defects {
            self.note(defect).await;
        }
        let found = candidates.keys().cloned().collect();
        match &mut self.sink {
            Sink::Store(store) => {
                let store = *store;
                if !self.is_synced && candidates.len() >= MANY_FILES {
                    self.is_synced = true;
                    // Each file is synced once more when it gets its name, and only that sync counts.
                    if let Err(cause) = self.tree.sync().await {
                        tracing::debug!(%cause, "the file system could not be synced as a whole");
                    }
                }
                let adopted = self.tree.adopt_blobs(store, candidates).await?;
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
                for read in self.tree.manifests(&repository.links.name, links).await? {
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
            let adopted = self.tree.adopt_manifests(store, repositories, manifests).await?;
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
