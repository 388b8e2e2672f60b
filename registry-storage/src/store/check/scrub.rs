//! Scrubbing: content that rotted is found before a client asks for it.
//!
//! A round goes over all blobs in the order of their keys, slowly, and compares their bytes with their digests. One
//! record says how far it is, so a restart goes on there, and of the processes that share a bucket one works and the
//! others wait. Nothing depends on that: two that work at once only read twice.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use registry_core::{Digest, Error, Timestamp};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::content::Pace;
use super::finding::{Problem, RecordFinding, Repair};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{Finding, MaintenanceObserver};
use crate::pages::{Pages, keys};
use crate::record::{ScrubRecord, Stamp};
use crate::store::edge::{Found, contended, write};
use crate::store::{Store, TRANSACTION_ATTEMPTS};
use crate::unique::unique;

/// What a blob costs of the budget in addition to its bytes: its record, and opening them.
const BLOB_COST: u64 = 16 * 1024;

/// After how many times [`ScrubOptions::save`] without a word from the process that scrubs another one goes on.
const PATIENCE_FACTOR: u32 = 5;

/// How many blobs in a row may fail to be read before the medium as a whole counts as failed. Those whose content is in
/// their records do not count.
const FAILURES_IN_A_ROW: u32 = 16;

#[derive(Debug, thiserror::Error)]
#[error("the bytes of a blob cannot be read, nor those of the {FAILURES_IN_A_ROW} before")]
struct Unreadable;

/// How a store is scrubbed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScrubOptions {
    /// The maximum number of bytes read in a second; each blob counts 16 KiB more than it has. 10 MiB by default.
    pub bytes_per_second: u64,
    /// The time from the beginning of a round to that of the next one. 30 days by default.
    pub every: Duration,
    /// How often the place of the round is written down, which is how much a restart repeats. A minute by default.
    pub save: Duration,
    /// How long what looks wrong may take to become right, before it is read again. Three seconds by default.
    pub settle: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: 10 * 1024 * 1024,
            every: Duration::from_hours(30 * 24),
            save: Duration::from_mins(1),
            settle: Duration::from_secs(3),
        }
    }
}

impl ScrubOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`bytes_per_second`](Self::bytes_per_second).
    #[must_use]
    pub const fn bytes_per_second(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = bytes_per_second;
        self
    }

    /// Sets [`every`](Self::every).
    #[must_use]
    pub const fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets [`save`](Self::save).
    #[must_use]
    pub const fn save(mut self, save: Duration) -> Self {
        self.save = save;
        self
    }

    /// Sets [`settle`](Self::settle).
    #[must_use]
    pub const fn settle(mut self, settle: Duration) -> Self {
        self.settle = settle;
        self
    }

    const fn patience(&self) -> Duration {
        self.save.saturating_mul(PATIENCE_FACTOR)
    }
}

/// What was scrubbed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubCounts {
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// Blobs whose content is lost or wrong, in quarantine or not.
    pub broken: u64,
    /// How many of them were put into quarantine.
    pub quarantined: u64,
    /// Blobs that could not be read, which says nothing about their content.
    pub unreadable: u64,
}

impl ScrubCounts {
    const fn add(&mut self, other: Self) {
        self.blobs = self.blobs.saturating_add(other.blobs);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.broken = self.broken.saturating_add(other.broken);
        self.quarantined = self.quarantined.saturating_add(other.quarantined);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
    }
}

/// What one call of [`Maintenance::scrub`](crate::Maintenance::scrub) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubReport {
    /// What was scrubbed.
    pub counts: ScrubCounts,
    /// The round ended: every blob was looked at since it began, by this process or others.
    pub is_finished: bool,
    /// How long there is nothing to do for this process: until the next round, or until another process that is at it
    /// might have ended.
    pub wait: Duration,
}

/// What a store knows of its scrubbing.
#[derive(Debug)]
pub(in crate::store) struct Scrubbed {
    /// Tells this process from others.
    owner: Uuid,
    counts: Mutex<ScrubCounts>,
}

impl Default for Scrubbed {
    fn default() -> Self {
        Self {
            owner: unique(),
            counts: Mutex::default(),
        }
    }
}

/// How long scrubbing waits if there is no space.
const FULL_DISK_PAUSE: Duration = Duration::from_mins(10);

impl<B: Backend> Store<B> {
    /// Returns what this process scrubbed.
    pub(crate) fn scrub_counts(&self) -> ScrubCounts {
        *self
            .scrubbed
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Scrubs to the end of the round, if there is something to do.
    pub(crate) async fn scrub_round(
        &self,
        options: &ScrubOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<ScrubReport, Error> {
        let claim = Claim {
            owner: self.scrubbed.owner,
            every: options.every,
            // A disk has one owner, so another process is gone.
            patience: if self.backend.is_atomic() {
                Duration::ZERO
            } else {
                options.patience()
            },
            now: self.clock.now(),
        };
        let mut report = ScrubReport::default();
        if self.is_short_of_space() {
            // It frees nothing, so the space that is kept for deletes is not for its record.
            report.wait = FULL_DISK_PAUSE;
            return Ok(report);
        }
        let (record, version) = match self.backend.transact(Durability::Deferred, claim).await? {
            Claimed::Wait(wait) => {
                report.wait = wait;
                return Ok(report);
            }
            Claimed::Round(record, version) => (record, version),
        };
        let mut place = Place {
            store: self,
            record,
            version,
            saved: Instant::now(),
        };
        let is_finished = self
            .scrub_from(&mut place, options, observer, &mut report.counts)
            .await?;
        if !is_finished {
            report.wait = options.patience();
            return Ok(report);
        }
        place.record.finished = Some(self.clock.now());
        report.is_finished = place.save().await?;
        report.wait = options
            .every
            .saturating_sub(self.clock.now().since(place.record.begun));
        Ok(report)
    }

    /// Scrubs what follows `place`; returns `false` if another process took over.
    async fn scrub_from(
        &self,
        place: &mut Place<'_, B>,
        options: &ScrubOptions,
        observer: &dyn MaintenanceObserver,
        counts: &mut ScrubCounts,
    ) -> Result<bool, Error> {
        let mut pace = Pace::new(Some(options.bytes_per_second), observer);
        let mut failures = 0;
        let mut pages = Pages::after(Key::blobs(), place.record.after.as_ref().map(Key::blob));
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page).filter(|key| key.as_str().ends_with("/record")) {
                let Some(KeyKind::Blob(digest)) = KeyKind::of(&key) else {
                    continue;
                };
                let before = pace.read();
                let scrubbed = self.scrub_blob(&digest, options, &mut pace);
                let Some(scrubbed) = place.while_saved(options.save, scrubbed).await? else {
                    return Ok(false);
                };
                let mut found = ScrubCounts {
                    blobs: 1,
                    bytes: pace.read() - before,
                    ..ScrubCounts::default()
                };
                let mut failure = None;
                match scrubbed {
                    Ok(None) => {}
                    Ok(Some((problem, repair))) => {
                        match problem {
                            Problem::UnreadableBytes { .. } => failure = Some(Error::internal(Unreadable)),
                            _ => found.broken = 1,
                        }
                        found.quarantined = u64::from(repair == Repair::Done);
                        let finding = RecordFinding { key, problem, repair };
                        observer.found(Finding::Record(finding)).await;
                    }
                    Err(error) => {
                        let cause = std::error::Error::source(&error);
                        tracing::warn!(%digest, %error, cause, "a blob could not be scrubbed; the next round tries again");
                        failure = Some(error);
                    }
                }
                found.unreadable = u64::from(failure.is_some());
                counts.add(found);
                self.scrubbed
                    .counts
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(found);
                match failure {
                    Some(error) if failures >= FAILURES_IN_A_ROW => return Err(error),
                    Some(_) => failures += 1,
                    // Content that is in its record says nothing about the medium of bytes.
                    None if found.bytes > 0 => failures = 0,
                    None => {}
                }
                place.record.after = Some(digest);
            }
        }
        Ok(true)
    }

    /// Compares a blob with its digest. What looks wrong is read again. Bytes that are wrong although they have their
    /// length go into quarantine, because clients would be sent them; anything else that is lost is answered with 404
    /// without that, and a push of it brings it back to every repository.
    async fn scrub_blob(
        &self,
        digest: &Digest,
        options: &ScrubOptions,
        pace: &mut Pace<'_>,
    ) -> Result<Option<(Problem, Repair)>, Error> {
        pace.spend(BLOB_COST).await;
        let Some(suspect) = self.examine_blob(digest, Some(&mut *pace)).await? else {
            return Ok(None);
        };
        sleep(options.settle).await;
        self.confirm_suspect(digest, suspect, Some(pace), |suspect| suspect.is_served)
            .await
    }
}

/// How far a round is, as this process wrote it.
struct Place<'s, B> {
    store: &'s Store<B>,
    record: ScrubRecord,
    version: Version,
    saved: Instant,
}

impl<B: Backend> Place<'_, B> {
    /// Waits for `work`, and writes the place meanwhile, so that other processes see that this one is at it. Returns
    /// `None` if another process wrote it.
    async fn while_saved<T>(
        &mut self,
        every: Duration,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Error> {
        let mut work = std::pin::pin!(work);
        let every = every.max(Duration::from_millis(1));
        loop {
            if self.saved.elapsed() >= every && !self.save().await? {
                return Ok(None);
            }
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = sleep_until(self.saved + every) => {}
            }
        }
    }

    /// Writes the place; returns `false` if another process wrote it.
    async fn save(&mut self) -> Result<bool, Error> {
        self.record.stamp = Stamp::new(self.store.clock.now());
        let save = Save {
            record: self.record.clone(),
            version: self.version.clone(),
        };
        let saved = self.store.backend.transact(Durability::Deferred, save).await?;
        self.saved = Instant::now();
        let is_ours = saved.is_some();
        if let Some(version) = saved {
            self.version = version;
        }
        Ok(is_ours)
    }
}

#[derive(Clone)]
struct Save {
    record: ScrubRecord,
    version: Version,
}

impl Transaction for Save {
    type Output = Option<Version>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Option<Version>, Error> {
        let unchanged = Condition::Matches(self.version);
        write(records, &Key::scrub(), &self.record, &[], unchanged).await
    }
}

/// Begins a round, or goes on with the one that is not finished.
#[derive(Clone)]
struct Claim {
    owner: Uuid,
    every: Duration,
    /// How old the record of another process must be.
    patience: Duration,
    now: Timestamp,
}

enum Claimed {
    /// There is nothing to do for so long.
    Wait(Duration),
    Round(ScrubRecord, Version),
}

impl Claim {
    /// Returns the record to write, or how long to wait.
    fn decide(&self, before: Option<ScrubRecord>) -> Result<ScrubRecord, Duration> {
        let stamp = Stamp::new(self.now);
        let round = ScrubRecord {
            owner: self.owner,
            begun: self.now,
            after: None,
            finished: None,
            stamp: stamp.clone(),
        };
        match before {
            None => Ok(round),
            Some(before) if before.finished.is_some() => match self.left(self.every, before.begun) {
                Some(left) => Err(left),
                None => Ok(round),
            },
            Some(before) => match self.left(self.patience, before.stamp.written) {
                Some(left) if before.owner != self.owner => Err(left),
                _ => Ok(ScrubRecord {
                    owner: self.owner,
                    stamp,
                    ..before
                }),
            },
        }
    }

    /// Returns how much of `time` since `then` is left; `None` if it has passed, or a clock that was wrong wrote `then`.
    fn left(&self, time: Duration, then: Timestamp) -> Option<Duration> {
        let is_credible = then.since(self.now) <= time;
        let left = time.saturating_sub(self.now.since(then));
        (is_credible && !left.is_zero()).then_some(left)
    }
}

impl Transaction for Claim {
    type Output = Claimed;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Claimed, Error> {
        let key = Key::scrub();
        for _ in 0..TRANSACTION_ATTEMPTS {
            let stored = records.get(&key).await?;
            let unchanged = stored.as_ref().map_or(Condition::Absent, |stored| {
                Condition::Matches(stored.version.clone())
            });
            // If the record cannot be read, a round begins anew.
            let found = Found::<ScrubRecord>::new(stored.as_ref()).ok();
            let before = found.and_then(|found| found.record).map(|(record, _)| record);
            let record = match self.decide(before) {
                Ok(record) => record,
                Err(left) => return Ok(Claimed::Wait(left)),
            };
            if let Some(version) = write(records, &key, &record, &[], unchanged).await? {
                return Ok(Claimed::Round(record, version));
            }
        }
        Err(contended())
    }
}
