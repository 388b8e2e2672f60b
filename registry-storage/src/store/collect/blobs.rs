//! Blobs that no repository has, on a backend whose transactions are not one step.
//!
//! Before a grant goes Dead, its blob is written down as a candidate. Each cycle
//! looks at the candidates, which stay until nothing is left to do. What was not written down is found by the pass over all
//! blobs.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use registry_core::{Digest, Error, Timestamp};

use super::cycle::{Cycle, Facts};
use super::pass::Pass;
use super::{CollectReport, Decided};
use crate::backend::{
    Again, Backend, Condition, Durability, RecordEntry, RecordTransaction, Transaction, Version,
    VersionedRecord,
};
use crate::chain::{Collect, State};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::{Pages, Values};
use crate::record::{BlobRecord, CandidatesRecord, Stamp, state_of_size};
use crate::store::Store;
use crate::store::edge::{Found, Stateful as _, condemn, rescue, write};
use crate::store::sweep::{Unnamed, write_unnamed};
use crate::unique::unique;

/// How many blobs are decided one after the other, and written down together if something is left to do.
const BLOBS_PER_RECORD: usize = 64;

/// How many of them are decided in one transaction. It writes down at its end whose bytes nothing names any more, so a cycle that is
/// cut off leaves as many at most for the next whole sweep, for each transaction that goes on.
const BLOBS_PER_TRANSACTION: usize = 8;

/// How long a candidate stays while a repository has it: longer than it takes to make its grant Dead.
const GRANTED_TIME: Duration = Duration::from_hours(1);

/// A blob, and whether a repository has it, or may soon.
type Candidate = (Digest, bool);

/// Writes down blobs as candidates. Cycles look at each until no repository has had it for some time, or until one has it
/// for good.
pub(in crate::store) async fn write_candidates(
    records: &mut dyn RecordTransaction,
    blobs: &[Digest],
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::candidates(unique());
    let candidates = CandidatesRecord {
        stamp: Stamp::new(now),
    };
    write(records, &key, &candidates, &lines(blobs), Condition::Absent).await?;
    Ok(())
}

/// Returns the digests in the content of a record of candidates.
pub(in crate::store) fn digests(content: &[u8]) -> Vec<Digest> {
    let text = String::from_utf8_lossy(content);
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The content of a record of candidates.
fn lines(blobs: &[Digest]) -> Vec<u8> {
    blobs
        .iter()
        .flat_map(|digest| format!("{digest}\n").into_bytes())
        .collect()
}

impl<B: Backend> Store<B> {
    /// Decides about the candidates, and about the blobs that the pass over all of them comes to.
    pub(super) async fn collect_blobs(
        &self,
        cycle: &mut Cycle,
        is_full: bool,
        report: &mut CollectReport,
        observer: &dyn MaintenanceObserver,
    ) -> Result<(), Error> {
        let mut candidates = Values::of(Key::all_candidates(), |_: &RecordEntry| true);
        while !cycle.is_dry_run
            && let Some(read) = candidates.next(&*self.backend).await?
        {
            let deciding: Vec<_> = read
                .into_iter()
                .filter_map(|(key, stored)| Some(self.decide_candidates(cycle, key, stored?)))
                .collect();
            self.add_decided(deciding, report).await?;
            self.seal_on_the_way(cycle).await?;
        }
        let pass = self.begin_pass(cycle, Key::pass_over_blobs(), is_full).await?;
        if pass.is_whole() {
            // It counts them too.
            report.blobs_left = 0;
        }
        self.pass_over_blobs(cycle, pass, report, observer).await
    }

    /// Decides about the candidates of a record, keeps those in it about which something is left to do, and returns what was decided.
    async fn decide_candidates(
        &self,
        cycle: &Cycle,
        key: Key,
        stored: VersionedRecord,
    ) -> Result<Vec<Decided>, Error> {
        // A record that cannot be read is the check's. The pass finds what it had.
        let Ok(found) = Found::<CandidatesRecord>::new(Some(&stored)) else {
            return Ok(Vec::new());
        };
        let Some((record, content)) = found.record else {
            return Ok(Vec::new());
        };
        let is_new = self.clock.now().since(record.stamp.written) < GRANTED_TIME;
        let mut candidates = Vec::new();
        for digest in digests(&content) {
            let is_granted = self.is_granted(&digest).await?;
            candidates.push((digest, is_granted));
        }
        let all = self.decide_blobs(cycle, &candidates).await?;
        let is_left = |is_granted, decided: &Decided| !decided.is_final() || is_granted && is_new;
        let left: Vec<Digest> = candidates
            .iter()
            .zip(&all)
            .filter(|((_, is_granted), decided)| is_left(*is_granted, decided))
            .map(|((digest, _), _)| digest.clone())
            .collect();
        if left.len() == candidates.len() {
            return Ok(all);
        }
        let keep = KeepCandidates {
            key,
            version: stored.version,
            left,
            written: record.stamp.written,
        };
        self.backend.transact(Durability::Deferred, keep).await?;
        Ok(all)
    }

    /// Returns whether a repository has a blob, or may soon. An unreadable record may be a grant.
    async fn is_granted(&self, digest: &Digest) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::grants(digest));
        while let Some(page) = pages.next(&*self.backend).await? {
            if page.iter().any(|entry| state_of_size(entry.size) != State::Dead) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on with the pass. The listing shows the states, so only blobs that no repository has are read, and those that
    /// were condemned.
    async fn pass_over_blobs(
        &self,
        cycle: &mut Cycle,
        mut pass: Pass,
        report: &mut CollectReport,
        observer: &dyn MaintenanceObserver,
    ) -> Result<(), Error> {
        if pass
            .after()
            .is_some_and(|after| after.after(&Key::blobs()).is_none())
        {
            return self.pass_over_tombstones(cycle, pass, observer).await;
        }
        let mut pages = Pages::after(Key::blobs(), pass.after().cloned());
        let mut granted: Option<Key> = None;
        let mut listed = 0;
        while pass.is_due() {
            let Some(page) = pages.next(&*self.backend).await? else {
                return self.pass_over_tombstones(cycle, pass, observer).await;
            };
            listed += page.len() as u64;
            observer.step(Step::Records, listed, None);
            self.purge_tombstones(cycle, &page).await?;
            self.refer_to_pending(cycle, &page).await?;
            let mut undecided = Vec::new();
            for entry in page {
                let state = state_of_size(entry.size);
                let Some(folder) = entry.key.as_str().strip_suffix("record") else {
                    // The grants of a blob come before its record. An unreadable record may be a grant.
                    if state != State::Dead {
                        granted = Some(entry.key);
                    }
                    continue;
                };
                let is_granted = granted
                    .as_ref()
                    .is_some_and(|grant| grant.as_str().starts_with(folder));
                if state != State::Dead
                    && (!is_granted || state == State::Condemned)
                    && let Some(KeyKind::Blob(digest)) = KeyKind::of(&entry.key)
                {
                    undecided.push((digest, is_granted));
                }
                pass.advance(entry.key, 1);
            }
            let deciding: Vec<_> = undecided
                .chunks(BLOBS_PER_RECORD)
                .map(|some| self.decide_unwritten(cycle, some.to_vec()))
                .collect();
            self.add_decided(deciding, report).await?;
            self.seal_on_the_way(cycle).await?;
            self.keep_pass(&mut pass).await?;
        }
        self.suspend_pass(pass).await
    }

    /// Decides about blobs that were not written down, and writes down those about which something is left to do.
    async fn decide_unwritten(&self, cycle: &Cycle, blobs: Vec<Candidate>) -> Result<Vec<Decided>, Error> {
        let decided = self.decide_blobs(cycle, &blobs).await?;
        let left = blobs.into_iter().zip(&decided);
        let left = left.filter(|(_, decided)| !decided.is_final());
        let left: Vec<Digest> = left.map(|((digest, _), _)| digest).collect();
        if !left.is_empty() && !cycle.is_dry_run {
            let write = WriteCandidates(left, self.clock.now());
            self.backend.transact(Durability::Deferred, write).await?;
        }
        Ok(decided)
    }

    /// Lets decisions go on at once, each to its end even if another one fails, and counts them.
    async fn add_decided(
        &self,
        deciding: Vec<impl Future<Output = Result<Vec<Decided>, Error>>>,
        report: &mut CollectReport,
    ) -> Result<(), Error> {
        let mut failed = Ok(());
        let mut deciding = stream::iter(deciding).buffer_unordered(self.parallel_transactions());
        while let Some(decided) = deciding.next().await {
            match decided {
                Ok(decided) => report.add_blobs(&decided),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn decide_blobs(&self, cycle: &Cycle, blobs: &[Candidate]) -> Result<Vec<Decided>, Error> {
        let mut decided = Vec::with_capacity(blobs.len());
        for some in blobs.chunks(BLOBS_PER_TRANSACTION) {
            let decide = DecideBlobs {
                blobs: some.to_vec(),
                cycle: cycle.clone(),
                left: Vec::new(),
                now: self.clock.now(),
            };
            decided.extend(self.backend.transact(Durability::Synced, decide).await?);
        }
        Ok(decided)
    }
}

impl CollectReport {
    fn add_blobs(&mut self, decided: &[Decided]) {
        for decided in decided {
            match decided {
                Decided::Removed(bytes) => self.removed_blobs.add(*bytes),
                Decided::Condemned(_) | Decided::Waiting(_) | Decided::Young(_) => self.blobs_left += 1,
                Decided::Pending(_) | Decided::Undecided => self.undecided += 1,
                Decided::Gone | Decided::Revived(_) => {}
            }
        }
    }
}

#[derive(Clone)]
struct WriteCandidates(Vec<Digest>, Timestamp);

impl Transaction for WriteCandidates {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        write_candidates(records, &self.0, self.1).await
    }
}

/// Keeps the candidates of a record about which something is left to do. Another cycle may have written it meanwhile.
#[derive(Clone)]
struct KeepCandidates {
    key: Key,
    version: Version,
    left: Vec<Digest>,
    written: Timestamp,
}

impl Transaction for KeepCandidates {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        if self.left.is_empty() {
            return records.remove(&self.key).await;
        }
        let candidates = CandidatesRecord {
            stamp: Stamp::new(self.written),
        };
        let condition = Condition::Matches(self.version);
        write(records, &self.key, &candidates, &lines(&self.left), condition).await?;
        Ok(())
    }
}

/// Decides about some blobs, each by itself, and returns what was decided.
#[derive(Clone)]
struct DecideBlobs {
    blobs: Vec<Candidate>,
    cycle: Cycle,
    /// The bytes of those that went Dead.
    left: Vec<Unnamed>,
    now: Timestamp,
}

impl Transaction for DecideBlobs {
    type Output = Vec<Decided>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Vec<Decided>, Error> {
        let mut read = Vec::with_capacity(self.blobs.len());
        for (digest, is_granted) in std::mem::take(&mut self.blobs) {
            let stored = records.get(&Key::blob(&digest)).await?;
            read.push((digest, is_granted, stored));
        }
        // A process that dies between the blobs and their bytes at the end leaves this. A sweep in between drops it, as the blobs still
        // name them.
        let doomed: Vec<Unnamed> = read.iter().flat_map(|blob| self.doomed(blob)).collect();
        write_unnamed(records, &doomed, self.now).await?;
        let mut decided = Vec::with_capacity(read.len());
        for (digest, is_granted, stored) in read {
            let mut one = self.decide(records, &digest, is_granted, stored).await?;
            if one == Decided::Undecided {
                // Another record of candidates may have the same blob, and be decided about at the same time.
                let stored = records.get(&Key::blob(&digest)).await?;
                one = self.decide(records, &digest, is_granted, stored).await?;
            }
            decided.push(one);
        }
        write_unnamed(records, &self.left, self.now).await?;
        Ok(decided)
    }
}

/// A blob, whether a repository has it, or may soon, and its record.
type ReadCandidate = (Digest, bool, Option<VersionedRecord>);

impl DecideBlobs {
    /// Returns the bytes of a blob that this transaction will make Dead.
    fn doomed(&self, (digest, is_granted, stored): &ReadCandidate) -> Vec<Unnamed> {
        let found = Found::<BlobRecord>::new(stored.as_ref()).ok();
        let Some((header, _)) = found.and_then(|found| found.record) else {
            return Vec::new();
        };
        let decision = self.cycle.decide(facts_of(&header, *is_granted), self.now);
        if decision != Collect::Kill || self.cycle.is_dry_run {
            return Vec::new();
        }
        Unnamed::of_blob(digest, header.names().cloned()).collect()
    }

    async fn decide(
        &mut self,
        records: &mut dyn RecordTransaction,
        digest: &Digest,
        is_granted: bool,
        stored: Option<VersionedRecord>,
    ) -> Result<Decided, Error> {
        let key = Key::blob(digest);
        let Ok(blob) = Found::<BlobRecord>::new(stored.as_ref()) else {
            return Ok(Decided::Undecided);
        };
        let Some(header) = blob.header().cloned() else {
            return Ok(Decided::Gone);
        };
        let size = header.blob.as_ref().map_or(0, |blob| blob.size);
        let facts = facts_of(&header, is_granted);
        let decision = self.cycle.decide(facts, self.now);
        let is_done = match decision {
            _ if self.cycle.is_dry_run => true,
            Collect::Leave => true,
            Collect::Revive => rescue(records, &key, &blob, self.now).await?,
            Collect::Condemn => condemn(records, &key, &blob, self.cycle.number(), self.now).await?,
            Collect::Kill => {
                // Nothing names the bytes from here on, and no name is used again: they are the sweeper's.
                let dead = BlobRecord {
                    blob: None,
                    proposals: Vec::new(),
                    ..header.clone().in_state(State::Dead, self.now)
                };
                match write(records, &key, &dead, &[], blob.unchanged()).await? {
                    Some(version) => {
                        records.purge_if(&key, &version).await?;
                        self.left
                            .extend(Unnamed::of_blob(digest, header.names().cloned()));
                        true
                    }
                    None => false,
                }
            }
        };
        Ok(Decided::of(&self.cycle, decision, facts, size, is_done))
    }
}

fn facts_of(blob: &BlobRecord, is_granted: bool) -> Facts {
    Facts {
        state: blob.state,
        condemned_in: blob.condemned_in,
        written: blob.stamp.written,
        is_root: is_granted,
        is_certain: false,
    }
}
