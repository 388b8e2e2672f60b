//! When manifests were pulled last: one record for each repository, and one that says since when pulls are recorded at all.
//!
//! What is not recorded counts as pulled when recording began, so a record may be lost or cut off, and nothing seems older
//! than it is. The newest of two times counts, so several processes may write.
//!
//! A process records the pulls of those repositories whose policies ask. The record of the beginning has a hash of which they
//! are, because what was pulled from others is not known: with other policies, recording begins anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use registry_core::retention::{Retention, RetentionPolicy};
use registry_core::{Algorithm, Digest, Error, RepositoryName, Timestamp};

use super::edge::{Found, contended, write};
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Pages;
use crate::record::{PulledRecord, PullsRecord, Stamp, state_of_size};

/// How many manifests of a repository the record names: some 900 KB. If there are more, those that were pulled longest ago
/// count as pulled when the newest of them was.
const REMEMBERED_MANIFESTS: usize = 10_000;

/// What is known of the pulls of a repository.
#[derive(Clone, Debug)]
pub(super) struct Pulled {
    /// What is not in `times` counts as pulled then.
    pub(super) since: Timestamp,
    pub(super) times: BTreeMap<Digest, Timestamp>,
}

impl<B: Backend> Store<B> {
    /// Begins to record pulls, unless that was begun before. With `is_anew`, everything counts as pulled now. Returns whether it
    /// began.
    pub(crate) async fn begin_pulls(&self, retention: &Retention, is_anew: bool) -> Result<bool, Error> {
        let of = repositories_of(retention);
        // On a disk, one thread runs all transactions, and mostly there is nothing to write.
        if !is_anew && self.read_begun(&of).await?.is_some() {
            return Ok(false);
        }
        let begin = BeginPulls {
            of,
            is_anew,
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Deferred, begin).await
    }

    /// Returns since when the pulls of these repositories are recorded, if they are and the record can be read.
    async fn read_begun(&self, of: &Digest) -> Result<Option<Timestamp>, Error> {
        let begun = self.backend.get(&Key::pulls()).await?;
        let begun = Found::<PullsRecord>::new(begun.as_ref()).ok();
        let begun = begun.and_then(Found::visible).map(|(begun, _)| begun);
        Ok(begun
            .filter(|begun| begun.of.as_ref() == Some(of))
            .map(|begun| begun.since))
    }

    /// Records that manifests were pulled by now, and returns the time that was written.
    pub(crate) async fn write_pulls(
        &self,
        repository: &RepositoryName,
        pulled: &[Digest],
    ) -> Result<Timestamp, Error> {
        let now = self.clock.now();
        let change = ChangePulled {
            repository: repository.clone(),
            pulled: pulled.into(),
            gone: [].into(),
            now,
        };
        self.backend.transact(Durability::Deferred, change).await?;
        Ok(now)
    }

    /// Forgets all pulls, because the ones that follow are not recorded. Returns whether they were recorded.
    pub(crate) async fn end_pulls(&self) -> Result<bool, Error> {
        let stored = self.backend.get(&Key::pulls()).await?;
        if !stored.is_some_and(|stored| state_of_size(stored.value.len() as u64).is_visible()) {
            return Ok(false);
        }
        // Nothing may seem older in between, and if this is cut off, it is repeated.
        self.begin_pulls(&Retention::default(), true).await?;
        let now = self.clock.now();
        let mut pages = Pages::of(Key::all_pulled());
        while let Some(page) = pages.next(&*self.backend).await? {
            for entry in page {
                if let Some(KeyKind::Pulled(repository)) = KeyKind::of(&entry.key)
                    && state_of_size(entry.size).is_visible()
                {
                    let forget = ForgetPulled { repository, now };
                    self.backend.transact(Durability::Deferred, forget).await?;
                }
            }
        }
        self.backend.transact(Durability::Deferred, EndPulls(now)).await?;
        Ok(true)
    }

    /// Returns what is known of the pulls of a repository; `None` if they are not recorded as these policies need it.
    pub(super) async fn read_pulled(
        &self,
        repository: &RepositoryName,
        retention: &Retention,
    ) -> Result<Option<Pulled>, Error> {
        let Some(begun) = self.read_begun(&repositories_of(retention)).await? else {
            return Ok(None);
        };
        let pulled = self.backend.get(&Key::pulled(repository)).await?;
        let Ok(pulled) = Found::<PulledRecord>::new(pulled.as_ref()) else {
            return Ok(None);
        };
        let (since, times) = match pulled.visible() {
            Some((record, content)) => (record.since, parse(&content)),
            None => (None, BTreeMap::new()),
        };
        Ok(Some(Pulled {
            since: begun.max(since.unwrap_or_default()),
            times,
        }))
    }

    /// Forgets the pulls of manifests that are gone.
    pub(super) async fn forget_pulls(
        &self,
        repository: &RepositoryName,
        gone: Vec<Digest>,
    ) -> Result<(), Error> {
        let change = ChangePulled {
            repository: repository.clone(),
            pulled: [].into(),
            gone: gone.into(),
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Deferred, change).await
    }
}

/// Returns a hash of the patterns that say of which repositories these policies need pulls. Policies that are behind the last
/// one that needs any do not matter.
fn repositories_of(retention: &Retention) -> Digest {
    let policies = &retention.policies;
    let last = policies.iter().rposition(RetentionPolicy::uses_pulls);
    let before = policies.iter().take(last.map_or(0, |last| last + 1));
    let patterns = before.fold(String::new(), |mut text, policy| {
        // A pattern has no space and no line end. Writing to a text cannot fail.
        let _ = write!(text, "{}", policy.uses_pulls());
        for glob in &policy.repositories {
            let _ = write!(text, " {}", glob.as_str());
        }
        text.push('\n');
        text
    });
    Digest::of(Algorithm::Sha256, patterns.as_bytes())
}

fn parse(content: &[u8]) -> BTreeMap<Digest, Timestamp> {
    let lines = std::str::from_utf8(content).unwrap_or_default().lines();
    lines
        .filter_map(|line| {
            let (digest, time) = line.split_once(' ')?;
            Some((digest.parse().ok()?, Timestamp(time.parse().ok()?)))
        })
        .collect()
}

fn print(times: &BTreeMap<Digest, Timestamp>) -> String {
    times.iter().fold(String::new(), |mut text, (digest, time)| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{digest} {}", time.0);
        text
    })
}

#[derive(Clone)]
struct BeginPulls {
    of: Digest,
    is_anew: bool,
    now: Timestamp,
}

impl Transaction for BeginPulls {
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let key = Key::pulls();
        let stored = records.get(&key).await?;
        let begun = Found::<PullsRecord>::new(stored.as_ref()).ok();
        let begun = begun.and_then(Found::visible).map(|(begun, _)| begun);
        let is_same = |begun: &PullsRecord| begun.of.as_ref() == Some(&self.of);
        if begun.as_ref().is_some_and(is_same) && !self.is_anew {
            return Ok(false);
        }
        let begun = PullsRecord {
            state: State::Live,
            since: self.now.max(begun.map(|begun| begun.since).unwrap_or_default()),
            of: Some(self.of),
            stamp: Stamp::new(self.now),
        };
        // The latest of several that write at once is later than each of them began.
        write(records, &key, &begun, &[], Condition::Any).await?;
        Ok(true)
    }
}

#[derive(Clone)]
struct EndPulls(Timestamp);

impl Transaction for EndPulls {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = Key::pulls();
        let ended = PullsRecord {
            state: State::Dead,
            since: self.0,
            of: None,
            stamp: Stamp::new(self.0),
        };
        if let Some(version) = write(records, &key, &ended, &[], Condition::Any).await? {
            records.purge_if(&key, &version).await?;
        }
        Ok(())
    }
}

/// Notes pulls of a repository, and forgets others.
#[derive(Clone)]
struct ChangePulled {
    repository: RepositoryName,
    pulled: Arc<[Digest]>,
    gone: Arc<[Digest]>,
    now: Timestamp,
}

impl Transaction for ChangePulled {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = Key::pulled(&self.repository);
        for _ in 0..TRANSACTION_ATTEMPTS {
            let stored = records.get(&key).await?;
            let unchanged = stored.as_ref().map_or(Condition::Absent, |stored| {
                Condition::Matches(stored.version.clone())
            });
            let (mut since, mut times) = match Found::<PulledRecord>::new(stored.as_ref()) {
                Ok(found) => match found.visible() {
                    Some((record, content)) => (record.since, parse(&content)),
                    None if self.pulled.is_empty() => return Ok(()),
                    None => (None, BTreeMap::new()),
                },
                // What was pulled before is not known any more.
                Err(_) => (Some(self.now), BTreeMap::new()),
            };
            for digest in &*self.gone {
                times.remove(digest);
            }
            for digest in &*self.pulled {
                let time = times.entry(digest.clone()).or_default();
                *time = self.now.max(*time);
            }
            since = since.max(cut(&mut times));
            let record = PulledRecord {
                state: State::Live,
                repository: self.repository.clone(),
                since,
                stamp: Stamp::new(self.now),
            };
            let content = print(&times);
            if write(records, &key, &record, content.as_bytes(), unchanged)
                .await?
                .is_some()
            {
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// Forgets what was pulled longest ago of too many; returns when the newest of that was pulled.
fn cut(times: &mut BTreeMap<Digest, Timestamp>) -> Option<Timestamp> {
    let surplus = times.len().saturating_sub(REMEMBERED_MANIFESTS);
    let last = surplus.checked_sub(1)?;
    let mut all: Vec<Timestamp> = times.values().copied().collect();
    all.sort_unstable();
    let newest = all.get(last).copied()?;
    times.retain(|_, time| *time > newest);
    Some(newest)
}

/// Forgets all pulls of a repository.
#[derive(Clone)]
struct ForgetPulled {
    repository: RepositoryName,
    now: Timestamp,
}

impl Transaction for ForgetPulled {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        forget_pulled(records, &self.repository, self.now).await
    }
}

/// Forgets all pulls of a repository.
pub(super) async fn forget_pulled(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::pulled(repository);
    let stat = records.stat(&key).await?;
    if !stat.is_some_and(|stat| state_of_size(stat.size).is_visible()) {
        return Ok(());
    }
    let dead = PulledRecord {
        state: State::Dead,
        repository: repository.clone(),
        since: None,
        stamp: Stamp::new(now),
    };
    // A pull that is recorded at the same time is forgotten with the others, or stays.
    if let Some(version) = write(records, &key, &dead, &[], Condition::Any).await? {
        records.purge_if(&key, &version).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> Digest {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    #[test]
    fn what_is_printed_is_parsed() {
        let times: BTreeMap<Digest, Timestamp> =
            (0..9).map(|number| (digest(number), Timestamp(number))).collect();
        assert_eq!(parse(print(&times).as_bytes()), times);
        assert_eq!(parse(b"no line\nsha256:x 1\n\xff"), BTreeMap::new());
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten_and_seem_no_older() {
        let all = REMEMBERED_MANIFESTS as u64 + 5;
        let mut times: BTreeMap<Digest, Timestamp> = (0..all)
            .map(|number| (digest(number), Timestamp(number)))
            .collect();
        assert_eq!(cut(&mut times), Some(Timestamp(4)));
        assert_eq!(times.len(), REMEMBERED_MANIFESTS);
        assert_eq!(times.values().min(), Some(&Timestamp(5)));
        assert_eq!(cut(&mut times), None);
    }
}
