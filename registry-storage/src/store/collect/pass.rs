//! A pass over everything, which finds what no mark told: the first cycle of a store makes a whole one, and the cycles of
//! each week after it make one together.

use std::time::Duration;

use registry_core::{Error, Timestamp};

use super::cycle::Cycle;
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{PassRecord, Stamp};
use crate::store::Store;
use crate::store::edge::{read_cached, write};

/// How long a pass takes, unless it is the first one.
const PASS_TIME: Duration = Duration::from_hours(7 * 24);

/// How far ahead the clock of another server may be that began a pass. A time that is further away is that of a clock that was
/// wrong, and nothing would be due until then.
const CLOCK_DIFFERENCE: Duration = Duration::from_hours(1);

/// After how many repositories or blobs the position is kept: as many are looked at again after a crash.
const KEPT_AFTER: u64 = 4096;

/// The part of a pass that a cycle makes.
pub(super) struct Pass {
    key: Key,
    begun: Timestamp,
    after: Option<Key>,
    /// How many repositories or blobs were looked at, and how many are to be by the end of this cycle.
    done: u64,
    due: u64,
    expected: Option<u64>,
    /// How many were when the position was last kept; `None` if it is never kept.
    kept: Option<u64>,
}

impl Pass {
    /// Returns whether this cycle has to go on.
    pub(super) const fn is_due(&self) -> bool {
        self.done < self.due
    }

    /// Returns whether this cycle makes all of it.
    pub(super) const fn is_whole(&self) -> bool {
        self.after.is_none() && self.due == u64::MAX
    }

    pub(super) const fn after(&self) -> Option<&Key> {
        self.after.as_ref()
    }

    /// Goes on to what is after a key, past some repositories or blobs.
    pub(super) fn advance(&mut self, to: Key, count: u64) {
        self.after = Some(to);
        self.done = self.done.saturating_add(count);
    }
}

/// Returns how many are to be done by now, in a pass that began some time ago and has `expected` of them; all there are, if
/// its time is over.
fn due(expected: u64, age: Duration) -> u64 {
    if age >= PASS_TIME {
        return u64::MAX;
    }
    let due = u128::from(expected) * age.as_millis() / PASS_TIME.as_millis();
    u64::try_from(due).unwrap_or(u64::MAX)
}

impl<B: Backend> Store<B> {
    /// Begins the part of a pass that is this cycle's: all of it if `is_full`, if there never was one, or if its record
    /// cannot be used.
    pub(super) async fn begin_pass(&self, cycle: &Cycle, key: Key, is_full: bool) -> Result<Pass, Error> {
        let now = self.clock.now();
        let before = read_cached::<PassRecord>(&*self.backend, &key).await.ok();
        let before = before.and_then(|before| before.record).map(|(before, _)| before);
        let before = before.filter(|before| before.begun.since(now) <= CLOCK_DIFFERENCE);
        let mut pass = Pass {
            key,
            begun: now,
            after: None,
            done: 0,
            due: u64::MAX,
            expected: None,
            kept: (!cycle.is_dry_run).then_some(0),
        };
        if let Some(before) = before.filter(|before| before.counts_usage && !is_full) {
            pass.begun = before.begun;
            pass.after = before.after.as_deref().map(Key::from_stored);
            pass.done = before.done;
            pass.kept = pass.kept.map(|_| before.done);
            pass.expected = before.expected;
            if let Some(expected) = before.expected {
                pass.due = due(expected, now.since(before.begun));
            }
        }
        Ok(pass)
    }

    /// Keeps the position of a pass from time to time.
    pub(super) async fn keep_pass(&self, pass: &mut Pass) -> Result<(), Error> {
        if pass.kept.is_some_and(|kept| pass.done - kept >= KEPT_AFTER) {
            self.write_pass(pass).await?;
            pass.kept = Some(pass.done);
        }
        Ok(())
    }

    /// Keeps the position of a pass that a later cycle continues.
    pub(super) async fn suspend_pass(&self, pass: Pass) -> Result<(), Error> {
        if pass.kept.is_some_and(|kept| pass.done > kept) {
            self.write_pass(&pass).await?;
        }
        Ok(())
    }

    /// Ends a pass; the next one begins.
    pub(super) async fn end_pass(&self, mut pass: Pass) -> Result<(), Error> {
        if pass.kept.is_none() {
            return Ok(());
        }
        pass.expected = Some(pass.done);
        pass.begun = self.clock.now();
        (pass.after, pass.done) = (None, 0);
        self.write_pass(&pass).await
    }

    async fn write_pass(&self, pass: &Pass) -> Result<(), Error> {
        let record = PassRecord {
            begun: pass.begun,
            after: pass.after.as_ref().map(|after| after.as_str().to_owned()),
            done: pass.done,
            expected: pass.expected,
            counts_usage: true,
            stamp: Stamp::new(self.clock.now()),
        };
        let write = WritePass {
            key: pass.key.clone(),
            record,
        };
        self.backend.transact(Durability::Deferred, write).await
    }
}

#[derive(Clone)]
struct WritePass {
    key: Key,
    record: PassRecord,
}

impl Transaction for WritePass {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        // It only saves work, so the last writer wins.
        write(records, &self.key, &self.record, &[], Condition::Any).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_due_within_a_week() {
        let hours = Duration::from_hours;
        assert_eq!(due(1000, Duration::ZERO), 0);
        assert_eq!(due(1000, hours(84)), 500);
        assert_eq!((due(1, hours(167)), due(u64::MAX, hours(84))), (0, u64::MAX / 2));
        // There may be more than expected.
        assert_eq!(
            (due(0, hours(168)), due(1000, Duration::MAX)),
            (u64::MAX, u64::MAX)
        );
    }
}
