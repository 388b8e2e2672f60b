//! Checking a store: every record, and the bytes that records name.
//!
//! A check runs alongside all other operations, with bounded memory: it goes through the records page by page. What
//! looks wrong may be an operation that is half done. So each suspect is examined once more, after a pause and as one
//! step if the backend has transactions. Only what is still wrong is reported, or repaired in the same step.

mod content;
mod examine;
pub(crate) mod finding;
pub(super) mod kept;
mod quarantine;
mod repair;
mod scrub;

use std::collections::HashSet;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::storage::EndReason;
use registry_core::{Digest, Error};

use self::content::{Pace, Suspect};
use self::examine::{Beside, Examined, examine};
pub use self::finding::{Problem, RecordFinding, Repair, Severity};
use self::kept::{kept, quarantined};
use self::repair::Recheck;
pub(super) use self::scrub::Scrubbed;
pub use self::scrub::{ScrubCounts, ScrubOptions, ScrubReport};
use super::Store;
use super::sweep::{ListedBytes, NAMES_PER_ROUND, Unreadable};
use crate::backend::{Backend, Durability};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::key_kind::{KeyKind, folders};
use crate::observer::{Finding, MaintenanceObserver, Step};
use crate::pages::{Pages, keys};

/// How many records are examined at once; a bucket takes some milliseconds for each.
const PARALLEL_EXAMINATIONS: usize = 16;

/// The maximum number of passes over the records, if something is repaired.
const MAXIMUM_PASSES: usize = 4;

/// How many unrepaired problems are remembered at most, some 200 bytes each. If there are more, later passes report only
/// what they repair.
const REMEMBERED_PROBLEMS: usize = 100_000;

/// How a check works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckOptions {
    /// Repair what is safe to repair, and put the rest into quarantine.
    pub repair: bool,
    /// Read all content and compare its digest.
    pub verify_content: bool,
    /// The maximum number of bytes of content read in a second; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// How long what looks wrong may take to become right, on a store whose pushes and deletes take several steps.
    pub settle: Duration,
}

impl Default for CheckOptions {
    /// Nothing is repaired, no content is read, and the time to settle is three seconds.
    fn default() -> Self {
        Self {
            repair: false,
            verify_content: false,
            bytes_per_second: None,
            settle: Duration::from_secs(3),
        }
    }
}

impl CheckOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`repair`](Self::repair).
    #[must_use]
    pub const fn repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Sets [`verify_content`](Self::verify_content).
    #[must_use]
    pub const fn verify_content(mut self, verify_content: bool) -> Self {
        self.verify_content = verify_content;
        self
    }

    /// Sets [`bytes_per_second`](Self::bytes_per_second).
    #[must_use]
    pub const fn bytes_per_second(mut self, bytes_per_second: Option<u64>) -> Self {
        self.bytes_per_second = bytes_per_second;
        self
    }

    /// Sets [`settle`](Self::settle).
    #[must_use]
    pub const fn settle(mut self, settle: Duration) -> Self {
        self.settle = settle;
        self
    }
}

/// The result of a check, in numbers. Each finding was reported when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Records that were examined.
    pub records: u64,
    /// Bytes of content that were read.
    pub content: u64,
    /// Broken things, repaired or not.
    pub broken: u64,
    /// Broken things that were repaired or put into quarantine.
    pub repaired: u64,
    /// Broken things that earlier checks, or the scrubber, put into quarantine, and that were not pushed since.
    pub missing: u64,
    /// Things that may be intended.
    pub notices: u64,
    /// Bytes that nothing names, left by pushes that did not end. The sweeper deletes them.
    pub unnamed_bytes: u64,
    /// Records in quarantine, put there by this check and by earlier ones.
    pub quarantined: u64,
}

impl CheckReport {
    /// Returns whether everything broken was repaired or put into quarantine, and nothing is missing that was put there
    /// before.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.broken == self.repaired
    }
}

/// Checks a whole store.
///
/// # Errors
/// Those of the medium.
pub(crate) async fn check<B: Backend>(
    store: &Store<B>,
    options: &CheckOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<CheckReport, Error> {
    let mut check = Check::new(store, options, observer);
    check.count().await?;
    // Before this check puts anything into quarantine, which it reports as what it is.
    check.missing().await?;
    check.all_records().await?;
    check.bytes().await?;
    check.quarantine().await?;
    Ok(check.report)
}

/// A check in progress.
struct Check<'a, B> {
    store: &'a Store<B>,
    options: &'a CheckOptions,
    observer: &'a dyn MaintenanceObserver,
    report: CheckReport,
    pace: Pace<'a>,
    verify_content: bool,
    /// The records were examined before.
    is_again: bool,
    /// What was reported and not repaired. It is found again in each round, and may be repaired there.
    unrepaired: HashSet<(Key, Discriminant<Problem>)>,
    /// Roughly how many records there are.
    total: u64,
    /// Content is being read, and the progress counts its bytes.
    is_reading: bool,
}

impl<'a, B: Backend> Check<'a, B> {
    fn new(store: &'a Store<B>, options: &'a CheckOptions, observer: &'a dyn MaintenanceObserver) -> Self {
        Self {
            store,
            options,
            observer,
            report: CheckReport::default(),
            pace: Pace::new(options.bytes_per_second, observer),
            verify_content: options.verify_content,
            is_again: false,
            unrepaired: HashSet::new(),
            total: 0,
            is_reading: false,
        }
    }

    /// Counts what there is to do. Listing keys is quick. Sizes need a read of each blob's record, so they are counted
    /// only if all content is read, which takes far longer.
    async fn count(&mut self) -> Result<(), Error> {
        for prefix in folders() {
            let mut pages = Pages::of(prefix);
            while let Some(page) = pages.next(&*self.store.backend).await? {
                self.total = self.total.saturating_add(page.len() as u64);
            }
        }
        if self.verify_content {
            self.pace.total = self.store.contents().await?.outside;
        }
        Ok(())
    }

    /// Reports how many records were examined; records that are created meanwhile are included.
    fn tell_records(&self) {
        let done = self.report.records;
        if !self.is_reading {
            self.observer
                .step(Step::Records, done, Some(self.total.max(done)));
        }
    }

    /// Goes through the records, and again if something was repaired, because what named it may have lost what it
    /// named.
    async fn all_records(&mut self) -> Result<(), Error> {
        for _ in 0..MAXIMUM_PASSES {
            let repaired = self.report.repaired;
            // Blobs come before the records that name them.
            for prefix in folders() {
                self.is_reading = self.verify_content && prefix == Key::blobs();
                self.records(prefix).await?;
            }
            if self.report.repaired == repaired {
                break;
            }
            // Content that cannot be repaired was reported, and content does not change.
            self.verify_content = false;
            self.is_again = true;
        }
        Ok(())
    }

    async fn records(&mut self, prefix: Key) -> Result<(), Error> {
        let mut pages = Pages::of(prefix);
        while let Some(page) = pages.next(&*self.store.backend).await? {
            let keys: Vec<Key> = keys(page).collect();
            let backend = &*self.store.backend;
            let looks = stream::iter(keys.clone()).map(|key| async move {
                let examined = examine(&mut Beside(backend), &key).await?;
                let suspected = examined.filter(|examined| !examined.problems.is_empty());
                Ok::<_, Error>(suspected.map(|suspected| (key, suspected)))
            });
            let suspects: Vec<_> = looks
                .buffered(PARALLEL_EXAMINATIONS)
                .try_filter_map(|suspect| std::future::ready(Ok(suspect)))
                .try_collect()
                .await?;
            if !suspects.is_empty() {
                self.settle().await;
            }
            for (key, suspected) in suspects {
                self.recheck(&key, suspected).await?;
            }
            self.bytes_of(&keys).await?;
            if !self.is_again {
                self.report.records = self.report.records.saturating_add(keys.len() as u64);
            }
            self.tell_records();
        }
        Ok(())
    }

    fn settle(&self) -> tokio::time::Sleep {
        tokio::time::sleep(self.options.settle)
    }

    async fn recheck(&mut self, key: &Key, suspected: Examined) -> Result<(), Error> {
        let is_missing = |problem: &Problem| matches!(problem, Problem::MissingChildren { .. });
        if suspected.problems.iter().any(is_missing) {
            let again = examine(&mut Beside(&*self.store.backend), key).await?;
            let again = again.filter(|again| again.version == suspected.version);
            for problem in again
                .into_iter()
                .flat_map(|again| again.problems)
                .filter(is_missing)
            {
                self.report(key.clone(), problem, Repair::None).await;
            }
        }
        if suspected.problems.iter().all(is_missing) {
            return Ok(());
        }
        let recheck = Recheck {
            key: key.clone(),
            suspected,
            repair: self.options.repair,
            keep: self.store.keep(EndReason::ManifestDeleted),
            now: self.store.clock.now(),
        };
        let found = self.store.backend.transact(self.durability(), recheck).await?;
        for (problem, repair) in found {
            self.report(key.clone(), problem, repair).await;
        }
        Ok(())
    }

    /// Nothing needs to be durable if nothing is written.
    const fn durability(&self) -> Durability {
        if self.options.repair {
            Durability::Synced
        } else {
            Durability::Deferred
        }
    }

    /// Checks the bytes that these records name.
    async fn bytes_of(&mut self, keys: &[Key]) -> Result<(), Error> {
        let mut suspects = Vec::new();
        for key in keys {
            match KeyKind::of(key) {
                Some(KeyKind::Blob(digest)) => {
                    if let Some(suspect) = self.look_at_blob(&digest).await? {
                        suspects.push((key, Some((digest, suspect))));
                    }
                }
                Some(KeyKind::Upload(_)) if self.store.examine_upload(key).await?.is_some() => {
                    suspects.push((key, None));
                }
                _ => {}
            }
        }
        if !suspects.is_empty() {
            self.settle().await;
        }
        for (key, suspect) in suspects {
            match suspect {
                Some((digest, first)) => self.recheck_blob(key, digest, first).await?,
                None => {
                    if let Some(problem) = self.store.examine_upload(key).await? {
                        self.report(key.clone(), problem, Repair::None).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn look_at_blob(&mut self, digest: &Digest) -> Result<Option<Suspect>, Error> {
        let pace = self.verify_content.then_some(&mut self.pace);
        let suspect = self.store.examine_blob(digest, pace).await?;
        self.report.content = self.pace.read();
        Ok(suspect)
    }

    async fn recheck_blob(&mut self, key: &Key, digest: Digest, first: Suspect) -> Result<(), Error> {
        let pace = self.verify_content.then_some(&mut self.pace);
        let repair = self.options.repair;
        let confirmed = self
            .store
            .confirm_suspect(&digest, first, pace, |_| repair)
            .await?;
        self.report.content = self.pace.read();
        // What is in quarantine was reported at first, unless this check put it there.
        let is_new = |problem: &Problem| !matches!(problem, Problem::InQuarantine { .. });
        if let Some((problem, repair)) = confirmed.filter(|(problem, _)| is_new(problem)) {
            self.report(key.clone(), problem, repair).await;
        }
        Ok(())
    }

    async fn report(&mut self, key: Key, problem: Problem, repair: Repair) {
        let found = (key.clone(), discriminant(&problem));
        let is_known = if repair == Repair::Done {
            self.report.repaired = self.report.repaired.saturating_add(1);
            self.unrepaired.remove(&found)
        } else if self.unrepaired.len() < REMEMBERED_PROBLEMS {
            !self.unrepaired.insert(found)
        } else {
            self.is_again || self.unrepaired.contains(&found)
        };
        if is_known && repair != Repair::Done {
            return;
        }
        if !is_known {
            let count = match problem.severity() {
                Severity::Notice => &mut self.report.notices,
                Severity::Broken => &mut self.report.broken,
            };
            *count = count.saturating_add(1);
        }
        let finding = RecordFinding { key, problem, repair };
        self.observer.found(Finding::Record(finding)).await;
    }

    /// Counts the bytes that nothing names, in the order of the sweeper: bytes, sessions, blobs, quarantine.
    async fn bytes(&mut self) -> Result<(), Error> {
        let (mut after, mut total): (Option<BytesName>, u64) = (None, 0);
        loop {
            let page = self
                .store
                .backend
                .list_bytes(after.as_ref(), NAMES_PER_ROUND)
                .await?;
            let Some(last) = page.last() else { break };
            total = total.saturating_add(page.len() as u64);
            after = Some(last.clone());
        }
        let mut after: Option<BytesName> = None;
        let mut done = 0_u64;
        loop {
            let page = self
                .store
                .backend
                .list_bytes(after.as_ref(), NAMES_PER_ROUND)
                .await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            done = done.saturating_add(page.len() as u64);
            let mut listed = ListedBytes::new(page);
            let mut unreadable = Unreadable::default();
            self.store
                .mark_named_bytes(&mut listed, &mut unreadable, None)
                .await?;
            if !unreadable.is_empty() {
                // That was reported, and nobody knows what the record names.
                return Ok(());
            }
            let unnamed = listed.unnamed().count() as u64;
            self.report.unnamed_bytes = self.report.unnamed_bytes.saturating_add(unnamed);
            self.observer.step(Step::Bytes, done, Some(total.max(done)));
        }
    }

    /// Reports what was put into quarantine and is not back.
    async fn missing(&mut self) -> Result<(), Error> {
        let mut quarantined = quarantined();
        while let Some(read) = quarantined.next(&*self.store.backend).await? {
            let mut suspects = Vec::new();
            for (key, stored) in read {
                if let Some((key, kept)) = kept(&key, stored.as_ref())
                    && self.store.missing(&key, &kept).await?.is_some()
                {
                    suspects.push((key, kept));
                }
            }
            if !suspects.is_empty() {
                self.settle().await;
            }
            for (key, kept) in suspects {
                if let Some(problem) = self.store.missing(&key, &kept).await? {
                    self.report.missing = self.report.missing.saturating_add(1);
                    self.report(key, problem, Repair::None).await;
                }
            }
        }
        Ok(())
    }

    async fn quarantine(&mut self) -> Result<(), Error> {
        let mut pages = Pages::of(Key::quarantine());
        while let Some(page) = pages.next(&*self.store.backend).await? {
            self.report.quarantined = self.report.quarantined.saturating_add(page.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::ObjectStoreBackend;

    #[tokio::test]
    async fn each_problem_counts_once_in_whatever_round_it_is_found_or_repaired() {
        let store = Store::new(ObjectStoreBackend::memory());
        let options = CheckOptions::new().repair(true);
        let mut check = Check::new(&store, &options, &());
        let (first, second) = (Key::from_stored("first"), Key::from_stored("second"));
        let dead = || Problem::DeadReferrer;
        check.report(first.clone(), dead(), Repair::Failed).await;
        check.is_again = true;
        check.report(first, dead(), Repair::Done).await;
        assert_eq!((check.report.broken, check.report.repaired), (1, 1));
        for _ in 0..2 {
            check.report(second.clone(), dead(), Repair::Failed).await;
            assert_eq!((check.report.broken, check.report.repaired), (2, 1));
        }
        assert!(!check.report.is_sound());
    }
}
