//! Listing what was counted.

use std::collections::BTreeMap;

use registry_core::{Error, RepositoryName};

use super::{CountedPage, CountedRepository, LargestRepositories, RepositoryUsage};
use crate::backend::{Backend, LIST_LIMIT, RecordEntry, VersionedRecord};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Values;
use crate::record::{PassRecord, UsageRecord, state_of_size};
use crate::store::Store;
use crate::store::edge::{Found, read_cached};

/// A repository of a page, before its record is read.
struct Listed {
    repository: RepositoryName,
    is_counted: bool,
    is_changed: bool,
}

/// Returns the repository that an entry of a listing is about.
fn repository_of(entry: &RecordEntry) -> Option<RepositoryName> {
    KeyKind::of(&entry.key)?.repository().cloned()
}

fn read(stored: Option<&VersionedRecord>) -> Option<UsageRecord> {
    let found = Found::<UsageRecord>::new(stored).ok()?;
    Some(found.visible()?.0)
}

impl<B: Backend> Store<B> {
    /// Returns whether a pass over all repositories has counted them.
    async fn has_counted_all(&self) -> Result<bool, Error> {
        let pass = read_cached::<PassRecord>(&*self.backend, &Key::pass_over_repositories()).await;
        let pass = pass.ok().and_then(|pass| pass.record);
        Ok(pass.is_some_and(|(pass, _)| pass.counts_usage && pass.expected.is_some()))
    }

    /// Returns what was counted of the repositories after one, in the order of their records; `None` if a cycle is still to
    /// count them. What appeared since is counted now.
    pub(crate) async fn list_counted(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<Option<CountedPage>, Error> {
        if after.is_none() && !self.has_counted_all().await? {
            return Ok(None);
        }
        let (repositories, next) = self.list_known(after).await?;
        let counted: Vec<Key> = repositories
            .iter()
            .filter(|(_, listed)| listed.is_counted)
            .map(|(key, _)| key.clone())
            .collect();
        let mut records = self.backend.get_all(&counted).await?.into_iter();
        let mut page = CountedPage {
            repositories: Vec::with_capacity(repositories.len()),
            next,
        };
        for listed in repositories.into_values() {
            let record = if listed.is_counted {
                records.next().flatten()
            } else {
                None
            };
            let repository = match read(record.as_ref()) {
                Some(record) => record.of(listed.repository, listed.is_changed),
                None => self.count_now(listed.repository).await?,
            };
            if !repository.usage.is_nothing() {
                page.repositories.push(repository);
            }
        }
        Ok(Some(page))
    }

    async fn count_now(&self, repository: RepositoryName) -> Result<CountedRepository, Error> {
        let counted = self.clock.now();
        Ok(CountedRepository {
            usage: self.count_repository(&repository, false).await?,
            repository,
            counted,
            shared_counted: None,
            is_changed: false,
        })
    }

    /// Lists the repositories after one that were counted or changed, by the keys of their records, and returns after which
    /// one the next page begins.
    async fn list_known(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<(BTreeMap<Key, Listed>, Option<RepositoryName>), Error> {
        let after_counted = after.map(Key::usage);
        let counted = self
            .backend
            .list(&Key::all_usage(), after_counted.as_ref(), LIST_LIMIT)
            .await?;
        let after_changed = after.map(Key::changed);
        let changed = self
            .backend
            .list(&Key::all_changed(), after_changed.as_ref(), LIST_LIMIT)
            .await?;
        // What comes after the end of a listing that is full is not known of all of them.
        let ends = [&counted, &changed]
            .into_iter()
            .filter(|listing| listing.len() == LIST_LIMIT);
        let ends = ends.filter_map(|listing| listing.iter().rev().find_map(repository_of));
        let end = ends.min_by_key(Key::usage);
        let last = end.as_ref().map(Key::usage);
        let is_of_page = |key: &Key| last.as_ref().is_none_or(|last| key <= last);

        let mut known = BTreeMap::new();
        let mut add = |repository: RepositoryName, is_counted: bool, is_changed: bool| {
            let key = Key::usage(&repository);
            if is_of_page(&key) {
                let listed = known.entry(key).or_insert(Listed {
                    repository,
                    is_counted: false,
                    is_changed: false,
                });
                listed.is_counted |= is_counted;
                listed.is_changed |= is_changed;
            }
        };
        for entry in counted {
            if state_of_size(entry.size).is_visible()
                && let Some(repository) = repository_of(&entry)
            {
                add(repository, true, false);
            }
        }
        for entry in changed {
            // Pending is one that a cycle has read, and that has not changed since.
            let state = state_of_size(entry.size);
            if matches!(state, State::Live | State::Pending)
                && let Some(repository) = repository_of(&entry)
            {
                add(repository, false, state == State::Live);
            }
        }
        let is_later = |repository: &RepositoryName| Some(&Key::usage(repository)) > after_counted.as_ref();
        for repository in self.touched.select(is_later) {
            add(repository, false, true);
        }
        Ok((known, end))
    }

    /// Returns the repositories that had most when they were counted, and what the others had together.
    pub(crate) async fn find_largest(&self, count: usize) -> Result<LargestRepositories, Error> {
        let mut largest: BTreeMap<(u64, RepositoryName), RepositoryUsage> = BTreeMap::new();
        let mut found = LargestRepositories {
            other_own_bytes: Some(0),
            ..LargestRepositories::default()
        };
        let is_visible = |entry: &RecordEntry| state_of_size(entry.size).is_visible();
        let mut records = Values::of(Key::all_usage(), is_visible);
        while let Some(values) = records.next(&*self.backend).await? {
            for (key, stored) in values {
                let Some(KeyKind::Usage(repository)) = KeyKind::of(&key) else {
                    continue;
                };
                let Some(record) = read(stored.as_ref()) else {
                    continue;
                };
                let usage = record.usage();
                largest.insert((usage.amount().bytes, repository), usage);
                if largest.len() > count
                    && let Some(((bytes, _), other)) = largest.pop_first()
                {
                    found.others += 1;
                    found.other_bytes = found.other_bytes.saturating_add(bytes);
                    let own = found.other_own_bytes.zip(other.own_bytes());
                    found.other_own_bytes = own.map(|(sum, own)| sum.saturating_add(own));
                }
            }
        }
        let largest = largest.into_iter().rev();
        found.largest = largest
            .map(|((_, repository), usage)| (repository, usage))
            .collect();
        Ok(found)
    }
}
