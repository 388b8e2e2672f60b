//! When manifests were pulled last: one record for each repository, and one that says since when pulls are recorded at all.
//!
//! What is not recorded counts as pulled when recording began, so a record may be lost or cut off, and nothing seems older
//! than it is. The newest of two times counts, so several processes may write.
//!
//! A process records the pulls of those repositories whose policies ask. The record of the beginning has a hash of which they
//! are, because what was pulled from others is not known: with other policies, recording begins anew.
//!
//! It also has until when pulls were recorded. A server that cannot write, or that does not know of pulls, may have served since,
//! so after a [gap](UNRECORDED_LIMIT) recording begins anew, and until then nothing is known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use registry_core::retention::{PULL_PRECISION, Retention, RetentionPolicy};
use registry_core::{Algorithm, Digest, Error, RepositoryName, Timestamp};

use super::edge::{Found, contended, write};
use super::noted_pulls::NotedPulls;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Pages;
use crate::record::{PulledRecord, PullsRecord, RepositoryRecord, Stamp, state_of_size};

/// How many manifests of a repository the record names: some 900 KB. If there are more, those that were pulled longest ago
/// count as pulled when the newest of them was.
const REMEMBERED_MANIFESTS: usize = 10_000;

/// For how long nobody may have recorded pulls: longer than a restart or an update takes.
const UNRECORDED_LIMIT: Duration = Duration::from_hours(1);

/// How often is written down that pulls are recorded: often enough that a process which was killed is missed for much less than
/// [`UNRECORDED_LIMIT`].
const RENEWAL_INTERVAL: Duration = Duration::from_mins(10);

/// How long the pull of a manifest that is gone is remembered at least. A recorder does not write for [`PULL_PRECISION`] what it
/// has written, also if the manifest comes back; clocks of processes may differ.
const GONE_FOR: Duration = PULL_PRECISION.saturating_mul(2);

/// What is known of the pulls of a repository.
#[derive(Clone, Debug)]
pub(super) struct Pulled {
    /// What is not in `times` counts as pulled then.
    pub(super) since: Timestamp,
    pub(super) times: BTreeMap<Digest, Timestamp>,
}

impl<B: Backend> Store<B> {
    /// Begins to record pulls, unless they are recorded: then it goes on. With `is_anew`, everything counts as pulled now. Returns
    /// whether it began.
    pub(crate) async fn begin_pulls(&self, retention: &Retention, is_anew: bool) -> Result<bool, Error> {
        let of = repositories_of(retention);
        let now = self.clock.now();
        // On a disk, one thread runs all transactions, and mostly there is nothing to write.
        let begun = if is_anew {
            None
        } else {
            self.read_begun(&of).await?
        };
        if begun.is_some_and(|begun| begun.until <= now && now.since(begun.until) < RENEWAL_INTERVAL) {
            return Ok(false);
        }
        let begin = BeginPulls {
            of,
            is_anew,
            noted_since: self.pulls_noted_since(),
            now,
        };
        self.backend.transact(Durability::Deferred, begin).await
    }

    /// Returns since when this process knows of every pull that it serves.
    fn pulls_noted_since(&self) -> Timestamp {
        self.recorders.since().unwrap_or_else(|| self.clock.now())
    }

    /// Returns the record that says since when the pulls of these repositories are recorded, if they are, without a gap, and it
    /// can be read.
    async fn read_begun(&self, of: &Digest) -> Result<Option<PullsRecord>, Error> {
        let begun = self.backend.get(&Key::pulls()).await?;
        let begun = Found::<PullsRecord>::new(begun.as_ref()).ok();
        let begun = begun.and_then(Found::visible).map(|(begun, _)| begun);
        Ok(begun.filter(|begun| begun.goes_on(of, self.pulls_noted_since())))
    }

    /// Remembers a recorder, whose pulls count although they are not written down.
    pub(crate) fn add_recorder(&self, recorder: Weak<dyn NotedPulls>) {
        self.recorders.add(recorder);
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
        // Before the record is read: what is written meanwhile waits no more.
        let (waiting, now) = (self.recorders.waiting_of(repository), self.clock.now());
        let pulled = self.backend.get(&Key::pulled(repository)).await?;
        let entry = self.backend.get(&Key::repository(repository)).await?;
        let (Ok(pulled), Ok(entry)) = (
            Found::<PulledRecord>::new(pulled.as_ref()),
            Found::<RepositoryRecord>::new(entry.as_ref()),
        ) else {
            return Ok(None);
        };
        // All pulls of a repository are forgotten when it leaves the catalog. If it comes back soon, a recorder may not write for
        // up to [`PULL_PRECISION`] what it has written before.
        let created = entry
            .header()
            .map(|entry| entry.stamp.written)
            .unwrap_or_default();
        let (since, mut times) = match pulled.visible() {
            Some((record, content)) => (record.since, parse(&content)),
            None => (None, BTreeMap::new()),
        };
        times.extend(waiting.into_iter().map(|digest| (digest, now)));
        Ok(Some(Pulled {
            since: begun.since.max(since.unwrap_or_default()).max(created),
            times,
        }))
    }

    /// Forgets the pulls of manifests that are gone, except those of the last hours.
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

impl PullsRecord {
    /// Returns whether the pulls of these repositories are recorded without a gap, if a process knows of all since a time.
    fn goes_on(&self, of: &Digest, noted_since: Timestamp) -> bool {
        self.of.as_ref() == Some(of) && noted_since.since(self.until) <= UNRECORDED_LIMIT
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
    /// Since when this process knows of every pull.
    noted_since: Timestamp,
    now: Timestamp,
}

impl Transaction for BeginPulls {
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let key = Key::pulls();
        let stored = records.get(&key).await?;
        let unchanged = stored.as_ref().map(|stored| stored.version.clone());
        let begun = Found::<PullsRecord>::new(stored.as_ref()).ok();
        let begun = begun.and_then(Found::visible).map(|(begun, _)| begun);
        let goes_on = |begun: &PullsRecord| !self.is_anew && begun.goes_on(&self.of, self.noted_since);
        let goes_on = begun.as_ref().is_some_and(goes_on);
        let since = begun.map(|begun| begun.since).unwrap_or_default();
        let begun = PullsRecord {
            state: State::Live,
            since: if goes_on { since } else { self.now.max(since) },
            until: self.now,
            of: Some(self.of),
            stamp: Stamp::new(self.now),
        };
        // The latest of several that begin at once is later than each of them began. What goes on replaces none of them.
        let condition = match unchanged {
            Some(version) if goes_on => Condition::Matches(version),
            _ => Condition::Any,
        };
        write(records, &key, &begun, &[], condition).await?;
        Ok(!goes_on)
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
            until: self.0,
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
                if times
                    .get(digest)
                    .is_some_and(|time| is_forgotten(*time, self.now))
                {
                    times.remove(digest);
                }
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

/// Returns whether the pull of a manifest that is gone may be forgotten.
pub(super) fn is_forgotten(pulled: Timestamp, now: Timestamp) -> bool {
    now.since(pulled) >= GONE_FOR
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
