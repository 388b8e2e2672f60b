//! Sweeping: idle sessions, and bytes that nothing names: those that were written down ([`unnamed`]), and rarely all there
//! are ([`full`]), with the unfinished ones of a bucket ([`abandoned`]).

mod abandoned;
mod full;
mod parked;
mod sessions;
mod tree;
mod unnamed;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use crate::chain::may_sweep;
use futures_util::{StreamExt as _, stream};
use registry_core::{Error, ErrorCode};

pub(super) use self::sessions::EndedSessions;
pub(super) use self::unnamed::{Unnamed, write_left_of_blob, write_unnamed};
use super::Store;
use super::edge::Found;
use crate::backend::{
    Again, Backend, Durability, RecordEntry, RecordTransaction, Transaction, VersionedRecord,
};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::pages::Values;
use crate::record::{BlobRecord, Header, NoteRecord, QuarantineRecord};

/// How many names of bytes are handled at once, some 90 bytes of memory each; each round reads all sessions and all blobs.
pub(super) const NAMES_PER_ROUND: usize = 200_000;

/// The age at which a delete or a push counts as interrupted.
const NOTE_AGE: Duration = Duration::from_hours(1);

/// How many bytes are deleted at once.
const PARALLEL_DELETES: usize = 8;

/// How many bytes in a row may fail to be deleted before the sweep fails.
const FAILURES_IN_A_ROW: u32 = 16;

/// How a store is swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepOptions {
    /// Looks at all bytes and reads the record of every blob, not only at the bytes that were written down because they may
    /// have lost what named them. The first sweep of a store does so in any case, then one each day, or each week on a
    /// bucket, where reading a record is a request. `false` by default.
    pub is_full: bool,
}

impl SweepOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the sweep looks at [everything](Self::is_full).
    #[must_use]
    pub const fn full(mut self, is_full: bool) -> Self {
        self.is_full = is_full;
        self
    }
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// It looked at all bytes, not only at those that were written down.
    pub is_full: bool,
    /// Sessions that were idle for too long and were aborted.
    pub aborted_uploads: u64,
    /// Uploads in parts that a bucket kept, that were begun long ago and that no session names, and that were aborted. Only a full
    /// sweep looks for them.
    pub abandoned_uploads: u64,
    /// Sessions that ended long ago and were forgotten.
    pub forgotten_uploads: u64,
    /// Blobs that no repository could read any more and that were dropped; on a bucket they stay.
    pub dropped_blobs: u64,
    /// Bytes that nothing named and were deleted.
    pub deleted_bytes: u64,
    /// Records that were in quarantine for 30 days and were dropped, so that their bytes are deleted.
    pub dropped_quarantine: u64,
    /// Bytes that nothing named and that could not be deleted, uploads that could not be aborted included; the log has the reasons.
    pub undeleted_bytes: u64,
    /// Records that could not be read and were skipped; at most a thousand are counted.
    pub unreadable_records: u64,
}

/// Unreadable records: what they name is not known, so whatever they may name stays.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    keys: BTreeSet<Key>,
    is_silent: bool,
}

impl Unreadable {
    /// How many are remembered and logged.
    const LIMIT: usize = 1000;

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Creates a set that logs nothing, for callers that report unreadable records themselves.
    pub(super) fn silent() -> Self {
        Self {
            is_silent: true,
            ..Self::default()
        }
    }

    fn note(&mut self, key: &Key) {
        let is_new = self.keys.len() < Self::LIMIT && self.keys.insert(key.clone());
        if is_new && !self.is_silent {
            tracing::error!(
                %key,
                "a record cannot be read, so no bytes are swept, as it may name them; a check with repair puts it aside"
            );
        }
    }
}

/// Names of bytes in order, and what names each.
#[derive(Debug, Default)]
pub(super) struct ListedBytes {
    names: Vec<BytesName>,
    by_session: Vec<bool>,
    by_blob: Vec<bool>,
}

impl ListedBytes {
    /// Takes a page of a listing of bytes.
    pub(super) fn new(names: Vec<BytesName>) -> Self {
        let unnamed = vec![false; names.len()];
        Self {
            names,
            by_session: unnamed.clone(),
            by_blob: unnamed,
        }
    }

    /// Takes bytes that were written down.
    fn of(unnamed: &[Unnamed]) -> Self {
        let names: BTreeSet<&BytesName> = unnamed.iter().map(|unnamed| &unnamed.name).collect();
        Self::new(names.into_iter().cloned().collect())
    }

    /// Returns those that nothing names.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = &BytesName> {
        let named = self.by_session.iter().zip(&self.by_blob);
        let names = self.names.iter().zip(named);
        names.filter_map(|(name, (by_session, by_blob))| may_sweep(*by_session, *by_blob).then_some(name))
    }

    fn mark_session(&mut self, name: &BytesName) {
        mark(&self.names, &mut self.by_session, name);
    }

    fn mark_blob(&mut self, blob: &BlobRecord) {
        for name in blob.names() {
            mark(&self.names, &mut self.by_blob, name);
        }
    }

    fn mark_quarantine(&mut self, record: &QuarantineRecord) {
        for name in &record.bytes {
            mark(&self.names, &mut self.by_blob, name);
        }
    }
}

fn mark(names: &[BytesName], marks: &mut [bool], name: &BytesName) {
    if let Ok(at) = names.binary_search(name)
        && let Some(mark) = marks.get_mut(at)
    {
        *mark = true;
    }
}

/// How many bytes were deleted, and how many could not be.
#[derive(Debug, Default)]
struct Deleting {
    deleted: u64,
    undeleted: u64,
    failures_in_a_row: u32,
}

impl Deleting {
    /// Goes on after bytes that cannot be deleted, or an upload that cannot be ended: the next may be.
    ///
    /// # Errors
    /// The error itself, if many failed in a row.
    fn failed(&mut self, name: &BytesName, error: Error) -> Result<(), Error> {
        if self.failures_in_a_row >= FAILURES_IN_A_ROW {
            return Err(error);
        }
        let cause = std::error::Error::source(&error);
        tracing::error!(%name, %error, cause, "bytes of an upload, or that nothing names, cannot be deleted");
        self.undeleted += 1;
        self.failures_in_a_row += 1;
        Ok(())
    }
}

impl<B: Backend> Store<B> {
    /// Sweeps once, as [`Maintenance::sweep`](crate::Maintenance::sweep) says: bytes are found first, then the sessions are
    /// read, then the blobs, then the quarantine, and a name only ever moves in that direction.
    pub(crate) async fn sweep_once(&self, options: &SweepOptions) -> Result<SweepReport, Error> {
        self.room.begin_sweep(self.clock.now());
        let mut report = SweepReport::default();
        let mut unreadable = Unreadable::default();
        let mut deleting = Deleting::default();
        let full = self.begin_full_sweep(options.is_full).await?;
        report.is_full = full.is_some();
        // An error of writing records does not keep bytes from being deleted.
        let records = self
            .sweep_records(&mut report, &mut deleting, &mut unreadable)
            .await;
        let unnamed = self.sweep_unnamed(&mut deleting, &mut unreadable).await;
        let mut abandoned = Ok(());
        if let Some(full) = full {
            abandoned = self
                .abort_abandoned(&mut report, &mut deleting, &mut unreadable)
                .await;
            self.sweep_everything(full, &mut deleting, &mut unreadable)
                .await?;
        }
        records.and(unnamed).and(abandoned)?;
        (report.deleted_bytes, report.undeleted_bytes) = (deleting.deleted, deleting.undeleted);
        report.unreadable_records = unreadable.keys.len() as u64;
        Ok(report)
    }

    async fn sweep_records(
        &self,
        report: &mut SweepReport,
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        self.sweep_sessions(report, deleting, unreadable).await?;
        self.sweep_notes(Key::deletes(), unreadable).await?;
        self.sweep_notes(Key::pushes(), unreadable).await?;
        self.sweep_parked(unreadable).await?;
        report.dropped_quarantine = self.drop_old_quarantine().await?;
        report.dropped_blobs = self.drop_ungranted_blobs(report.is_full).await?;
        Ok(())
    }

    /// Deletes bytes, if they are there. Returns whether all of them are gone.
    async fn delete_all(
        &self,
        names: impl Iterator<Item = &BytesName>,
        deleting: &mut Deleting,
    ) -> Result<bool, Error> {
        let undeleted = deleting.undeleted;
        let names: Vec<BytesName> = names.cloned().collect();
        if !names.is_empty() {
            // A record that reappears after a power loss would name bytes that are gone.
            self.backend.transact(Durability::Synced, MakeDurable).await?;
        }
        let deletes = stream::iter(names).map(|name| async move {
            let is_deleted = self.delete_if_there(&name).await;
            (name, is_deleted)
        });
        let mut deletes = pin!(deletes.buffered(PARALLEL_DELETES));
        while let Some((name, result)) = deletes.next().await {
            match result {
                Ok(false) => {}
                Ok(true) => {
                    tracing::debug!(%name, "deleted bytes that nothing names");
                    deleting.deleted += 1;
                    deleting.failures_in_a_row = 0;
                }
                Err(error) => deleting.failed(&name, error)?,
            }
        }
        Ok(deleting.undeleted == undeleted)
    }

    /// Deletes bytes, and returns whether they were there: many that are written down never came to be.
    async fn delete_if_there(&self, name: &BytesName) -> Result<bool, Error> {
        if self.backend.bytes_size(name).await?.is_none() {
            return Ok(false);
        }
        self.backend.delete_bytes(name).await.map(|()| true)
    }

    /// Ends the interrupted deletes and pushes of notes. An operation that is still in progress is not harmed: it
    /// begins again.
    async fn sweep_notes(&self, notes: Key, unreadable: &mut Unreadable) -> Result<(), Error> {
        let now = self.clock.now();
        let mut notes = Values::of(notes, |_: &RecordEntry| true);
        while let Some(read) = notes.next(&*self.backend).await? {
            for (key, stored) in read {
                let note = found_of::<NoteRecord>(&key, stored.as_ref(), unreadable);
                let Some((note, _)) = note.and_then(Found::visible) else {
                    continue;
                };
                if now.since(note.stamp.written) > NOTE_AGE {
                    match self.end(&key, note).await {
                        Err(error) if error.code() == ErrorCode::Internal => {
                            let cause = std::error::Error::source(&error);
                            tracing::error!(
                                %key,
                                cause,
                                "a delete or push that was cut off cannot be ended, because a record that it is about cannot be \
                                 read; a check with repair puts that aside"
                            );
                        }
                        ended => ended?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks what is kept with a record in quarantine.
    async fn mark_bytes_in_quarantine(
        &self,
        listed: &mut ListedBytes,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        let mut quarantine = Values::of(Key::quarantine(), |_: &RecordEntry| true);
        while let Some(read) = quarantine.next(&*self.backend).await? {
            for (key, stored) in read {
                let found = found_of::<QuarantineRecord>(&key, stored.as_ref(), unreadable);
                if let Some((record, _)) = found.and_then(|found| found.record) {
                    listed.mark_quarantine(&record);
                }
            }
        }
        Ok(())
    }
}

/// Changes nothing; with it, everything before becomes durable.
#[derive(Clone)]
struct MakeDurable;

impl Transaction for MakeDurable {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, _: &mut dyn RecordTransaction) -> Result<(), Error> {
        Ok(())
    }
}

/// Parses a record that was read; returns `None` if that fails.
fn found_of<H: Header>(
    key: &Key,
    stored: Option<&VersionedRecord>,
    unreadable: &mut Unreadable,
) -> Option<Found<H>> {
    Found::new(stored).inspect_err(|_| unreadable.note(key)).ok()
}
