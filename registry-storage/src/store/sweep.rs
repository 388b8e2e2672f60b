//! Sweeping: idle sessions, and bytes that nothing names.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::chain::may_sweep;
use registry_core::Error;

use super::edge::Found;
use super::session::{Forget, Session};
use super::{Contents, Store};
use crate::backend::{Backend, Durability, RecordEntry, VersionedRecord};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::pages::Values;
use crate::record::{BlobRecord, Header, NoteRecord, QuarantineRecord, SessionRecord};

/// How many names of bytes are handled at once, some 90 bytes of memory each; each round reads all sessions and all blobs.
pub(super) const NAMES_PER_ROUND: usize = 200_000;

/// The age at which a delete or a push counts as interrupted.
const NOTE_AGE: Duration = Duration::from_hours(1);

/// How long an upload may be idle while the disk is full, if its limit is not shorter anyway. Refused clients return
/// within a minute, and then continue.
const FULL_DISK_IDLE_LIMIT: Duration = Duration::from_mins(5);

/// How many bytes in a row may fail to be deleted before the sweep fails.
const FAILURES_IN_A_ROW: u32 = 16;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Sessions that were idle for too long and were aborted.
    pub aborted_uploads: u64,
    /// Sessions that ended long ago and were forgotten.
    pub forgotten_uploads: u64,
    /// Blobs that no repository could read any more and that were dropped; on a bucket they stay.
    pub dropped_blobs: u64,
    /// Bytes that nothing named and were deleted.
    pub deleted_bytes: u64,
    /// Records that were in quarantine for 30 days and were dropped, so that their bytes are deleted.
    pub dropped_quarantine: u64,
    /// Bytes that nothing named and that could not be deleted; the log has the reasons.
    pub undeleted_bytes: u64,
    /// Records that could not be read and were skipped; at most a thousand are counted.
    pub unreadable_records: u64,
}

/// Unreadable records: nobody knows what they name, so whatever they may name stays.
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
pub(super) struct Listed {
    names: Vec<BytesName>,
    by_session: Vec<bool>,
    by_blob: Vec<bool>,
}

impl Listed {
    /// Takes a page of a listing of bytes.
    pub(super) fn new(names: Vec<BytesName>) -> Self {
        let unnamed = vec![false; names.len()];
        Self {
            names,
            by_session: unnamed.clone(),
            by_blob: unnamed,
        }
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

    fn mark_blob(&mut self, name: &BytesName) {
        mark(&self.names, &mut self.by_blob, name);
    }
}

fn mark(names: &[BytesName], marks: &mut [bool], name: &BytesName) {
    if let Ok(at) = names.binary_search(name)
        && let Some(mark) = marks.get_mut(at)
    {
        *mark = true;
    }
}

impl<B: Backend> Store<B> {
    /// Sweeps once, as [`Maintenance::sweep`](crate::Maintenance::sweep) says: the bytes are listed first, then the
    /// sessions, then the blobs, then the quarantine, and a name only ever moves in that direction.
    pub(crate) async fn sweep_once(&self) -> Result<SweepReport, Error> {
        self.room.begin_sweep(self.clock.now());
        let mut report = SweepReport::default();
        let mut unreadable = Unreadable::default();
        let records = self.sweep_records(&mut report, &mut unreadable).await;
        self.sweep_bytes(&mut report, &mut unreadable).await?;
        records?;
        report.unreadable_records = unreadable.keys.len() as u64;
        Ok(report)
    }

    async fn sweep_records(
        &self,
        report: &mut SweepReport,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        self.sweep_sessions(report, unreadable).await?;
        self.sweep_notes(Key::deletes(), unreadable).await?;
        self.sweep_notes(Key::pushes(), unreadable).await?;
        report.dropped_quarantine = self.drop_old_quarantine().await?;
        report.dropped_blobs = self.drop_ungranted_blobs().await?;
        Ok(())
    }

    /// Deletes bytes that nothing names.
    async fn sweep_bytes(&self, report: &mut SweepReport, unreadable: &mut Unreadable) -> Result<(), Error> {
        let mut after: Option<BytesName> = None;
        let mut contents: Option<Contents> = None;
        let mut failures = 0;
        loop {
            let page = self.backend.list_bytes(after.as_ref(), NAMES_PER_ROUND).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let mut listed = Listed::new(page);
            let mut counted = Contents::default();
            self.mark_named_bytes(&mut listed, unreadable, Some(&mut counted))
                .await?;
            contents.get_or_insert(counted);
            if unreadable.is_empty() {
                for name in listed.unnamed() {
                    match self.backend.delete_bytes(name).await {
                        Ok(()) => {
                            tracing::debug!(%name, "deleted bytes that nothing names");
                            report.deleted_bytes += 1;
                            failures = 0;
                        }
                        Err(error) if failures >= FAILURES_IN_A_ROW => return Err(error),
                        Err(error) => {
                            let cause = std::error::Error::source(&error);
                            tracing::error!(%name, %error, cause, "bytes that nothing names cannot be deleted");
                            report.undeleted_bytes += 1;
                            failures += 1;
                        }
                    }
                }
            }
        }
        // Without any bytes, all blobs are small and in their records.
        self.note_contents(match contents {
            Some(contents) => contents,
            None => self.contents().await?,
        });
        Ok(())
    }

    async fn sweep_sessions(
        &self,
        report: &mut SweepReport,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        let mut sessions = Values::of(Key::uploads(), |_: &RecordEntry| true);
        while let Some(read) = sessions.next(&*self.backend).await? {
            for (key, stored) in read {
                let Some(session) = session_of(&key, stored.as_ref(), unreadable) else {
                    continue;
                };
                if let Some(id) = key.upload_id() {
                    self.note_session(id, &session);
                }
                let age = self.clock.now().since(session.record.stamp.written);
                if session.upload.length().is_err() {
                    if age > self.options.ended_upload_memory {
                        self.backend.transact(Durability::Deferred, Forget(key)).await?;
                        report.forgotten_uploads += 1;
                    }
                } else if self.is_idle(&session) {
                    report.aborted_uploads += u64::from(self.abort_idle_session(&key, unreadable).await?);
                }
            }
        }
        Ok(())
    }

    /// Returns whether a session is open and was not written to for longer than its limit.
    fn is_idle(&self, session: &Session) -> bool {
        let idle = self.clock.now().since(session.record.stamp.written);
        let limit = match session.upload.length() {
            Ok(0) => self.options.empty_upload_idle_limit,
            Ok(_) => self.options.upload_idle_limit,
            Err(_) => return false,
        };
        // An operator who keeps uploads for ever wants them kept on a full disk, too.
        let is_kept = self.options.upload_idle_limit == Duration::MAX;
        let limit = if self.is_short_of_space() && !is_kept {
            limit.min(FULL_DISK_IDLE_LIMIT)
        } else {
            limit
        };
        idle > limit.min(self.options.upload_idle_limit)
    }

    /// Aborts a session that is still idle, unless a request holds it: bytes may arrive that its record does not count
    /// yet. If another process writes to it at the same time, it is left alone too.
    async fn abort_idle_session(&self, key: &Key, unreadable: &mut Unreadable) -> Result<bool, Error> {
        let Some(held) = key.upload_id().and_then(|id| self.sessions.try_take(id)) else {
            return Ok(false);
        };
        let stored = self.backend.get(key).await?;
        let Some(mut session) = session_of(key, stored.as_ref(), unreadable) else {
            return Ok(false);
        };
        if !self.is_idle(&session) {
            return Ok(false);
        }
        session.held = Some(held);
        self.abort_session(session).await
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
                    self.end(&key, note).await?;
                }
            }
        }
        Ok(())
    }

    /// Marks what an open session names, then what a blob names, then what is kept with a record in quarantine. Also counts
    /// the blobs if that is requested.
    pub(super) async fn mark_named_bytes(
        &self,
        listed: &mut Listed,
        unreadable: &mut Unreadable,
        contents: Option<&mut Contents>,
    ) -> Result<(), Error> {
        let mut sessions = Values::of(Key::uploads(), |_: &RecordEntry| true);
        while let Some(read) = sessions.next(&*self.backend).await? {
            for (key, stored) in read {
                if let Some(session) = session_of(&key, stored.as_ref(), unreadable)
                    && session.upload.length().is_ok()
                {
                    listed.mark_session(&session.record.bytes.name);
                }
            }
        }
        self.mark_bytes_of_blobs(listed, unreadable, contents).await?;
        let mut quarantine = Values::of(Key::quarantine(), |_: &RecordEntry| true);
        while let Some(read) = quarantine.next(&*self.backend).await? {
            for (key, stored) in read {
                let found = found_of::<QuarantineRecord>(&key, stored.as_ref(), unreadable);
                let record = found.and_then(|found| found.record);
                for name in record.iter().flat_map(|(record, _)| &record.bytes) {
                    listed.mark_blob(name);
                }
            }
        }
        Ok(())
    }

    /// Marks what a blob names: as its content, as a proposal, or as dropped and not yet deleted.
    pub(super) async fn mark_bytes_of_blobs(
        &self,
        listed: &mut Listed,
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
                let content = blob.blob.as_ref().and_then(|blob| blob.bytes.as_ref());
                for name in blob.proposals.iter().chain(&blob.dropped).chain(content) {
                    listed.mark_blob(name);
                }
            }
        }
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

/// Parses a session that was read; returns `None` if it does not exist or that fails.
fn session_of(key: &Key, stored: Option<&VersionedRecord>, unreadable: &mut Unreadable) -> Option<Session> {
    let found = found_of::<SessionRecord>(key, stored, unreadable)?;
    Session::from_found(key, found).unwrap_or_else(|_| {
        unreadable.note(key);
        None
    })
}
