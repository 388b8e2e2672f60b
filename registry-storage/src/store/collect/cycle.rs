//! Cycles: their numbers, and which of them are sealed.

use std::sync::Arc;
use std::time::Duration;

use registry_core::{Error, Timestamp};

use super::CollectOptions;
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::chain::{Candidate, Collect, State, collect};
use crate::key::Key;
use crate::record::{CyclesRecord, Stamp};
use crate::store::edge::{Found, contended, read_cached, write};
use crate::store::{Store, TRANSACTION_ATTEMPTS};

/// How many ranges of sealed cycles are remembered. A cycle that is cut off begins a new range. What a forgotten cycle
/// condemned is condemned once more.
const REMEMBERED_RANGES: usize = 256;

/// How much longer than uploads may be idle a record may be Pending before it counts as left behind: longer than any
/// commit takes.
const COMMIT_MARGIN: Duration = Duration::from_hours(24);

/// How long a cycle goes on at most before what it has condemned so far is sealed. Otherwise a process that is killed time and again
/// before its cycles end would never free anything.
const SEALED_AFTER: Duration = Duration::from_secs(2);

/// A cycle in progress.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    number: u64,
    /// When it began, or went on with this number.
    begun: Timestamp,
    /// The cycles that were sealed when this one began.
    sealed: Arc<[(u64, u64)]>,
    grace: Duration,
    pending_limit: Duration,
    /// What is old enough; `None` if ages decide.
    written: Option<WrittenBefore>,
    /// What nothing names goes in this cycle, if that is certain: it need not stay for anybody.
    kills_at_once: bool,
    pub(super) is_dry_run: bool,
}

/// What was written before the delete of a repository began.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct WrittenBefore {
    /// When the delete began.
    pub(in crate::store) begun: Timestamp,
    /// The newest time that a record had by then. It may be in the future: the clock of another server is ahead.
    pub(in crate::store) newest: Timestamp,
}

impl WrittenBefore {
    /// Returns whether that includes what was `written` at a time. One in the future says nothing about when that was, but only
    /// that server writes such times.
    pub(in crate::store) fn includes(self, written: Timestamp, now: Timestamp) -> bool {
        written <= self.begun || written > now && written <= self.newest
    }
}

/// What is known of a record that a cycle decides about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) state: State,
    pub(super) condemned_in: Option<u64>,
    pub(super) written: Timestamp,
    /// Something names it.
    pub(super) is_root: bool,
    /// That is [certain](Candidate::is_certain).
    pub(super) is_certain: bool,
}

impl Cycle {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Decides what to do with a record.
    pub(super) fn decide(&self, facts: Facts, now: Timestamp) -> Collect {
        let age = now.since(facts.written);
        let is_old = match (self.written, facts.state) {
            (Some(written), State::Live | State::Pending) => written.includes(facts.written, now),
            (None, State::Pending) => age > self.pending_limit,
            _ => age >= self.grace,
        };
        collect(Candidate {
            state: facts.state,
            is_root: facts.is_root,
            is_sealed: facts.condemned_in.is_some_and(|cycle| self.is_sealed(cycle)),
            is_old,
            is_certain: facts.is_certain,
        })
    }

    /// Returns whether what nothing names goes in this cycle, if that is certain.
    pub(super) const fn kills_at_once(&self) -> bool {
        self.kills_at_once
    }

    /// Returns until when a record that was written then may be Pending; `None` for ever.
    pub(super) fn pending_until(&self, written: Timestamp) -> Option<Timestamp> {
        let limit = u64::try_from(self.pending_limit.as_millis()).ok()?;
        written.0.checked_add(limit).map(Timestamp)
    }

    /// Returns a cycle that is for what was written before, without a grace: the cycle of a repository's delete. Uploads and
    /// pushes that were in progress at that time begin again.
    pub(super) const fn for_what_was_written(mut self, written: WrittenBefore) -> Self {
        (self.written, self.grace) = (Some(written), Duration::ZERO);
        self
    }

    pub(super) fn is_sealed(&self, cycle: u64) -> bool {
        self.sealed
            .iter()
            .any(|&(first, last)| (first..=last).contains(&cycle))
    }
}

impl<B: Backend> Store<B> {
    /// Takes a number. What is sealed is read in the same step: a cycle that is sealed later may still be writing.
    pub(super) async fn begin_cycle(&self, options: &CollectOptions) -> Result<Cycle, Error> {
        let (number, sealed) = if options.is_dry_run {
            let cycles = read_cached::<CyclesRecord>(&*self.backend, &Key::cycles())
                .await
                .ok();
            let cycles = cycles.and_then(|cycles| cycles.record);
            cycles.map_or_else(Default::default, |(cycles, _)| (cycles.newest, cycles.sealed))
        } else {
            let now = self.clock.now();
            let change = ChangeCycles {
                seals: None,
                begins: true,
                now,
            };
            let cycles = self.backend.transact(Durability::Deferred, change).await?;
            (cycles.newest, cycles.sealed)
        };
        Ok(Cycle {
            number,
            begun: self.clock.now(),
            sealed: sealed.into(),
            grace: options.grace,
            pending_limit: self.options.upload_idle_limit.saturating_add(COMMIT_MARGIN),
            written: None,
            kills_at_once: options.grace.is_zero() && self.backend.is_atomic(),
            is_dry_run: options.is_dry_run,
        })
    }

    /// Records that the cycle has ended: everything that it condemned is written.
    pub(super) async fn seal_cycle(&self, cycle: &Cycle) -> Result<(), Error> {
        let change = ChangeCycles {
            seals: Some(cycle.number),
            begins: false,
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Deferred, change).await?;
        Ok(())
    }

    /// Seals what a cycle has condemned so far, if it has gone on for a while, and gives it another number for the rest. No decision
    /// may be in progress. What counts as sealed for this cycle is what was when it began: it has listed some parents since.
    pub(super) async fn seal_on_the_way(&self, cycle: &mut Cycle) -> Result<(), Error> {
        let now = self.clock.now();
        if cycle.is_dry_run || now.since(cycle.begun) < SEALED_AFTER {
            return Ok(());
        }
        let change = ChangeCycles {
            seals: Some(cycle.number),
            begins: true,
            now,
        };
        let cycles = self.backend.transact(Durability::Deferred, change).await?;
        (cycle.number, cycle.begun) = (cycles.newest, now);
        Ok(())
    }
}

/// Seals a cycle, begins one, or both.
#[derive(Clone)]
struct ChangeCycles {
    seals: Option<u64>,
    begins: bool,
    now: Timestamp,
}

impl Transaction for ChangeCycles {
    type Output = CyclesRecord;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<CyclesRecord, Error> {
        let key = Key::cycles();
        for _ in 0..TRANSACTION_ATTEMPTS {
            let stored = records.get(&key).await?;
            let condition = stored.as_ref().map_or(Condition::Absent, |stored| {
                Condition::Matches(stored.version.clone())
            });
            // If the record cannot be read, what was condemned is condemned once more.
            let found = Found::<CyclesRecord>::new(stored.as_ref()).ok();
            let before = found.and_then(|found| found.record).map(|(cycles, _)| cycles);
            let mut cycles = before.unwrap_or_else(|| CyclesRecord {
                // No number may be used twice.
                newest: if stored.is_some() { self.now.0 } else { 0 },
                sealed: Vec::new(),
                stamp: Stamp::new(self.now),
            });
            cycles.stamp = Stamp::new(self.now);
            if let Some(cycle) = self.seals {
                insert(&mut cycles.sealed, cycle);
            }
            cycles.newest += u64::from(self.begins);
            if write(records, &key, &cycles, &[], condition).await?.is_some() {
                return Ok(cycles);
            }
        }
        Err(contended())
    }
}

/// Adds a cycle to ranges.
fn insert(sealed: &mut Vec<(u64, u64)>, cycle: u64) {
    sealed.push((cycle, cycle));
    sealed.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(sealed.len());
    for &(first, last) in &*sealed {
        match merged.last_mut() {
            Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let forgotten = merged.len().saturating_sub(REMEMBERED_RANGES);
    merged.drain(..forgotten);
    *sealed = merged;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_ranges_are_the_sealed_cycles(cycles in proptest::collection::vec(0_u64..60, 0..60)) {
            let mut ranges = Vec::new();
            for &cycle in &cycles {
                insert(&mut ranges, cycle);
            }
            let sealed: BTreeSet<u64> = ranges.iter().flat_map(|&(first, last)| first..=last).collect();
            prop_assert_eq!(sealed, cycles.into_iter().collect::<BTreeSet<_>>());
            // Neighbours are one range.
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn the_oldest_ranges_are_forgotten() {
        let mut ranges = Vec::new();
        for cycle in 0..1000 {
            insert(&mut ranges, 2 * cycle);
        }
        assert_eq!(
            (ranges.len(), ranges[REMEMBERED_RANGES - 1]),
            (REMEMBERED_RANGES, (1998, 1998))
        );
    }
}
