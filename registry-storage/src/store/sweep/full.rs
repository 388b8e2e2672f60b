//! Sweeping everything: what was not written down, because a process died or a medium lost it.

use std::time::Duration;

use registry_core::{Error, ErrorCode, Timestamp};

use super::{Deleting, ListedBytes, NAMES_PER_ROUND, Unreadable, found_of};
use crate::backend::{Backend, Condition, Durability, RecordEntry, RecordTransaction, Transaction};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::pages::Values;
use crate::record::{BlobRecord, CountedBlobs, FullSweepRecord, Stamp};
use crate::store::edge::{read_cached, write};
use crate::store::{Contents, Store};

/// How much time is between the begins of two sweeps of everything, where a record costs nothing to read, and where each is
/// a request.
const EVERY_ON_A_DISK: Duration = Duration::from_hours(24);
const EVERY_ON_A_BUCKET: Duration = Duration::from_hours(7 * 24);

/// After how long without progress a sweep of everything counts as cut off, and another process continues it.
const PROGRESS_TIME: Duration = Duration::from_hours(6);

/// A sweep of everything.
pub(super) struct FullSweep {
    begun: Timestamp,
    after: Option<BytesName>,
    /// What the one before counted.
    counted: Option<CountedBlobs>,
}

/// Returns whether a sweep of everything is due, and whether it is the one before, which was cut off.
fn due(before: Option<&FullSweepRecord>, every: Duration, now: Timestamp) -> Option<bool> {
    let Some(before) = before else {
        return Some(false);
    };
    // A clock that was ahead once must not put it off until that time comes.
    let is_past = |then: Timestamp, time: Duration| then > now || now.since(then) >= time;
    if before.is_finished {
        is_past(before.begun, every).then_some(false)
    } else {
        is_past(before.stamp.written, PROGRESS_TIME).then_some(true)
    }
}

impl<B: Backend> Store<B> {
    /// Begins a sweep of everything if that is wanted, or due; otherwise notes what the last one counted.
    pub(super) async fn begin_full_sweep(&self, is_wanted: bool) -> Result<Option<FullSweep>, Error> {
        let now = self.clock.now();
        let every = if self.backend.is_atomic() {
            EVERY_ON_A_DISK
        } else {
            EVERY_ON_A_BUCKET
        };
        // A record that cannot be read is as good as none.
        let before = read_cached::<FullSweepRecord>(&*self.backend, &Key::full_sweep())
            .await
            .ok();
        let before = before.and_then(|before| before.record).map(|(before, _)| before);
        let counted = before.as_ref().and_then(|before| before.counted);
        if let Some(counted) = counted {
            self.note_counted(counted);
        }
        let full = match due(before.as_ref(), every, now) {
            Some(true) if !is_wanted => before.map(|before| FullSweep {
                begun: before.begun,
                after: before.after,
                counted,
            }),
            None if !is_wanted => None,
            _ => Some(FullSweep {
                begun: now,
                after: None,
                counted,
            }),
        };
        Ok(full)
    }

    /// Deletes all bytes that nothing names, and counts the blobs.
    pub(super) async fn sweep_everything(
        &self,
        mut full: FullSweep,
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        let mut contents: Option<Contents> = None;
        let mut written = self.write_full_sweep(&full, false).await;
        loop {
            let page = self
                .backend
                .list_bytes(full.after.as_ref(), NAMES_PER_ROUND)
                .await?;
            let Some(last) = page.last() else { break };
            full.after = Some(last.clone());
            let mut listed = ListedBytes::new(page);
            let mut counted = Contents::default();
            self.mark_named_bytes(&mut listed, unreadable, Some(&mut counted))
                .await?;
            contents.get_or_insert(counted);
            if unreadable.is_empty() {
                self.delete_all(listed.unnamed(), deleting).await?;
            }
            written = written.and(self.write_full_sweep(&full, false).await);
        }
        // Without any bytes, all blobs are small and in their records.
        let contents = match contents {
            Some(contents) => contents,
            None => self.contents().await?,
        };
        let counted = contents.counted(self.clock.now());
        self.note_counted(counted);
        (full.counted, full.after) = (Some(counted), None);
        written.and(self.write_full_sweep(&full, true).await)
    }

    /// Records how far it is, which only saves work: the space that is kept for deletes is not for that.
    async fn write_full_sweep(&self, full: &FullSweep, is_finished: bool) -> Result<(), Error> {
        let record = FullSweepRecord {
            begun: full.begun,
            after: full.after.clone(),
            is_finished,
            counted: full.counted,
            stamp: Stamp::new(self.clock.now()),
        };
        match self.backend.transact(Durability::Deferred, Write(record)).await {
            Err(error) if error.code() == ErrorCode::StorageFull => Ok(()),
            written => written,
        }
    }

    /// Marks what an open session names, then what a blob names, then what is kept with a record in quarantine. Also counts
    /// the blobs if that is requested.
    pub(in crate::store) async fn mark_named_bytes(
        &self,
        listed: &mut ListedBytes,
        unreadable: &mut Unreadable,
        contents: Option<&mut Contents>,
    ) -> Result<(), Error> {
        self.mark_bytes_of_sessions(listed, unreadable).await?;
        self.mark_bytes_of_blobs(listed, unreadable, contents).await?;
        self.mark_bytes_in_quarantine(listed, unreadable).await
    }

    /// Marks what a blob names.
    pub(in crate::store) async fn mark_bytes_of_blobs(
        &self,
        listed: &mut ListedBytes,
        unreadable: &mut Unreadable,
        mut contents: Option<&mut Contents>,
    ) -> Result<(), Error> {
        let is_record = |entry: &RecordEntry| entry.key.as_str().ends_with("/record");
        let mut blobs = Values::of(Key::blobs(), is_record);
        while let Some(read) = blobs.next(&*self.backend).await? {
            for (key, stored) in read {
                let found = found_of::<BlobRecord>(&key, stored.as_ref(), unreadable);
                let Some((blob, _)) = found.and_then(|found| found.record) else {
                    continue;
                };
                if let Some(contents) = &mut contents {
                    contents.add(&blob);
                }
                listed.mark_blob(&blob);
            }
        }
        Ok(())
    }
}

struct Write(FullSweepRecord);

impl Transaction for Write {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        // The last writer wins.
        write(records, &Key::full_sweep(), &self.0, &[], Condition::Any).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_swept_at_first_then_rarely_and_again_if_it_was_cut_off() {
        let at = |hours: u64| Timestamp(hours * 3_600_000);
        let record = |begun: u64, written: u64, is_finished| FullSweepRecord {
            begun: at(begun),
            after: None,
            is_finished,
            counted: None,
            stamp: Stamp::new(at(written)),
        };
        let due =
            |before: Option<FullSweepRecord>, hour| due(before.as_ref(), Duration::from_hours(24), at(hour));
        assert_eq!(due(None, 0), Some(false));
        assert_eq!(due(Some(record(0, 5, true)), 23), None);
        assert_eq!(due(Some(record(0, 5, true)), 24), Some(false));
        assert_eq!(due(Some(record(0, 5, false)), 10), None);
        assert_eq!(due(Some(record(0, 5, false)), 11), Some(true));
        // The clock was ahead.
        assert_eq!(due(Some(record(1000, 1001, true)), 10), Some(false));
        assert_eq!(due(Some(record(1000, 1001, false)), 10), Some(true));
    }
}
