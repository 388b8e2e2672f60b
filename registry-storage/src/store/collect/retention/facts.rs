//! What retention knows of a repository.

use std::collections::BTreeMap;
use std::time::Duration;

use registry_core::retention::{Facts, ManifestFacts, TagFacts};
use registry_core::storage::ChildKind;
use registry_core::{Digest, Error, MediaType, RepositoryName, Tag, Timestamp};

use super::RetainOptions;
use crate::backend::{Backend, RecordEntry, Version};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Values;
use crate::record::{ManifestRecord, TagRecord, state_of_size};
use crate::store::Store;
use crate::store::delete::{all_children, parse_manifest};
use crate::store::edge::Found;
use crate::store::looks::is_content_of;
use crate::store::pulled::{Pulled, is_forgotten};

/// The tags and manifests of a repository: some hundred bytes each.
pub(super) struct Repository {
    pub(super) facts: Facts,
    /// The version of each tag that was read.
    pub(super) tags: BTreeMap<Tag, Version>,
    pub(super) manifests: BTreeMap<Digest, ReadManifest>,
    /// Manifests that are gone, and whose pulls are recorded and may be forgotten.
    pub(super) pulled_and_gone: Vec<Digest>,
}

/// A visible manifest that was read.
pub(super) struct ReadManifest {
    pub(super) version: Version,
    pub(super) state: State,
    pub(super) condemned_in: Option<u64>,
    incarnation: String,
}

impl<B: Backend> Store<B> {
    /// Reads what the policy for a repository needs to know of it. Returns `None` if a tag or manifest cannot be read.
    pub(super) async fn read_facts(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
    ) -> Result<Option<Repository>, Error> {
        let Some(mut found) = self.read_repository(repository, options.grace).await? else {
            return Ok(None);
        };
        if options.retention.uses_pulls_of(repository)
            && let Some(pulled) = self.read_pulled(repository, &options.retention).await?
        {
            found.add_pulls(pulled, self.clock.now());
        }
        Ok(Some(found))
    }

    pub(super) async fn forget_pulls_of_what_is_gone(
        &self,
        repository: &RepositoryName,
        found: &Repository,
    ) -> Result<(), Error> {
        if found.pulled_and_gone.is_empty() {
            return Ok(());
        }
        self.forget_pulls(repository, found.pulled_and_gone.clone()).await
    }

    /// Reads the tags of a repository and then its manifests. Returns `None` if one of them cannot be read.
    async fn read_repository(
        &self,
        repository: &RepositoryName,
        grace: Duration,
    ) -> Result<Option<Repository>, Error> {
        let mut found = Repository {
            facts: Facts::default(),
            tags: BTreeMap::new(),
            manifests: BTreeMap::new(),
            pulled_and_gone: Vec::new(),
        };
        let Some(tags) = self.read_tags(repository).await? else {
            return Ok(None);
        };
        let is_read = |entry: &RecordEntry| state_of_size(entry.size) != State::Dead;
        let mut manifests = Values::of(Key::manifests(repository), is_read);
        while let Some(batch) = manifests.next(&*self.backend).await? {
            for (key, stored) in batch {
                let is_read = match Found::new(stored.as_ref()) {
                    Ok(manifest) => self.add_manifest(&key, manifest, grace, &mut found).await?,
                    Err(_) => false,
                };
                if !is_read {
                    log_unreadable(&key);
                    return Ok(None);
                }
            }
        }
        for (tag, record, version) in tags {
            let named = found.manifests.get(&record.digest);
            // A tag whose manifest was deleted counts as absent, and the sweeper removes it.
            if named.is_some_and(|named| named.incarnation == record.incarnation) {
                found.facts.tags.push(TagFacts {
                    tag: tag.clone(),
                    digest: record.digest,
                    pushed: record.stamp.written,
                    pulled: None,
                });
                found.tags.insert(tag, version);
            }
        }
        Ok(Some(found))
    }

    async fn read_tags(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<Vec<(Tag, TagRecord, Version)>>, Error> {
        let is_read = |entry: &RecordEntry| state_of_size(entry.size).is_visible();
        let (mut tags, mut records) = (Vec::new(), Values::of(Key::tags(repository), is_read));
        while let Some(read) = records.next(&*self.backend).await? {
            for (key, stored) in read {
                let (Some(KeyKind::Tag(_, tag)), Ok(found)) =
                    (KeyKind::of(&key), Found::<TagRecord>::new(stored.as_ref()))
                else {
                    log_unreadable(&key);
                    return Ok(None);
                };
                let version = found.version().cloned();
                tags.extend(
                    found
                        .visible()
                        .zip(version)
                        .map(|((record, _), version)| (tag, record, version)),
                );
            }
        }
        Ok(Some(tags))
    }

    /// Adds a manifest. Returns `false` if it cannot be read.
    async fn add_manifest(
        &self,
        key: &Key,
        manifest: Found<ManifestRecord>,
        grace: Duration,
        found: &mut Repository,
    ) -> Result<bool, Error> {
        let (Some(KeyKind::Manifest(_, digest)), Some(manifest)) =
            (KeyKind::of(key), self.newest(key, manifest).await?)
        else {
            return Ok(false);
        };
        if !manifest.state().holds_children() {
            return Ok(true);
        }
        let is_index = manifest
            .header()
            .is_some_and(|header| is_index(&header.media_type));
        if is_index && !is_content_of(&digest, &manifest).await? {
            return Ok(false);
        }
        let version = manifest.version().cloned();
        let (Some((record, content)), Some(version)) = (manifest.record, version) else {
            return Ok(true);
        };
        let mut children = Vec::new();
        if is_index {
            let Some(view) = parse_manifest(content, record.media_type.clone()).await? else {
                return Ok(false);
            };
            let named = all_children(&view).into_iter();
            children.extend(
                named
                    .filter(|child| child.kind == ChildKind::Manifest)
                    .map(|child| child.digest),
            );
        }
        if !record.state.is_visible() {
            found.facts.held.extend(children);
            return Ok(true);
        }
        let written = record.stamp.written;
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let is_condemned = record.state == State::Condemned;
        found.facts.manifests.push(ManifestFacts {
            digest: digest.clone(),
            pushed: written,
            pulled: None,
            condemned_until: is_condemned.then(|| Timestamp(written.0.saturating_add(grace))),
            children,
            subject: record.subject,
        });
        let read = ReadManifest {
            version,
            state: record.state,
            condemned_in: record.condemned_in,
            incarnation: record.incarnation,
        };
        found.manifests.insert(digest, read);
        Ok(true)
    }
}

impl Repository {
    fn add_pulls(&mut self, pulled: Pulled, now: Timestamp) {
        self.facts.pulls_since = Some(pulled.since);
        for manifest in &mut self.facts.manifests {
            manifest.pulled = pulled.times.get(&manifest.digest).copied();
        }
        let gone = pulled.times.into_iter();
        self.pulled_and_gone = gone
            .filter(|(digest, time)| is_forgotten(*time, now) && !self.manifests.contains_key(digest))
            .map(|(digest, _)| digest)
            .collect();
    }
}

fn is_index(media_type: &MediaType) -> bool {
    [MediaType::OCI_INDEX, MediaType::DOCKER_LIST].contains(&media_type.as_str())
}

fn log_unreadable(key: &Key) {
    tracing::error!(
        %key,
        "a record cannot be read, so retention drops nothing in its repository, as it may name anything; a check with repair \
         puts it aside"
    );
}
