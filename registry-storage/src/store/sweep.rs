//! Sweeping: idle sessions, and bytes that nothing names.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::chain::may_sweep;
use registry_core::Error;

use super::edge::Found;
use super::session::{Forget, Session};
use super::{Contents, Store};
use crate::backend::{Backend, Durability};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::pages::{Pages, keys};
use crate::record::{BlobRecord, Header, NoteRecord, QuarantineRecord, SessionRecord};

/// How many names of bytes are handled at once; each round reads all sessions and all blobs.
pub(super) const NAMES_PER_ROUND: usize = 50_000;

/// The age at which a delete or a push counts as interrupted.
const NOTE_AGE: Duration = Duration::from_hours(1);

/// How long an upload may be idle while the disk is full, if its limit is not shorter anyway. Refused clients return
/// within a minute, and then continue.
const FULL_DISK_IDLE_LIMIT: Duration = Duration::from_mins(5);

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
        report.dropped_blobs = self.drop_ungranted_blobs().await?;
        Ok(())
    }

    /// Deletes bytes that nothing names.
    async fn sweep_bytes(&self, report: &mut SweepReport, unreadable: &mut Unreadable) -> Result<(), Error> {
        let mut after: Option<BytesName> = None;
        let mut contents: Option<Contents> = None;
        loop {
            let page = self.backend.list_bytes(after.as_ref(), NAMES_PER_ROUND).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let listed: BTreeSet<BytesName> = page.into_iter().collect();
            let by_sessions = self.named_by_sessions(&listed, unreadable).await?;
            let mut counted = Contents::default();
            let by_blobs = self
                .named_by_blobs(&listed, unreadable, Some(&mut counted))
                .await?;
            contents.get_or_insert(counted);
            let by_quarantine = self.named_by_quarantine(&listed, unreadable).await?;
            for name in &listed {
                let by_blob = by_blobs.contains(name) || by_quarantine.contains(name);
                if unreadable.is_empty() && may_sweep(by_sessions.contains(name), by_blob) {
                    self.backend.delete_bytes(name).await?;
                    tracing::debug!(%name, "deleted bytes that nothing names");
                    report.deleted_bytes += 1;
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
        let mut pages = Pages::of(Key::uploads());
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page) {
                let Some(session) = self.read_session(&key, unreadable).await? else {
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
        let Some(mut session) = self.read_session(key, unreadable).await? else {
            return Ok(false);
        };
        if !self.is_idle(&session) {
            return Ok(false);
        }
        session.held = Some(held);
        self.abort_session(session).await
    }

    /// Reads a session; returns `None` if it does not exist or cannot be read.
    async fn read_session(&self, key: &Key, unreadable: &mut Unreadable) -> Result<Option<Session>, Error> {
        let Some(found) = self.read_readable::<SessionRecord>(key, unreadable).await? else {
            return Ok(None);
        };
        Ok(Session::from_found(key, found).unwrap_or_else(|_| {
            unreadable.note(key);
            None
        }))
    }

    /// Reads a record; returns `None` if it cannot be read.
    async fn read_readable<H: Header>(
        &self,
        key: &Key,
        unreadable: &mut Unreadable,
    ) -> Result<Option<Found<H>>, Error> {
        let stored = self.backend.get(key).await?;
        let found = Found::new(stored.as_ref());
        Ok(found.inspect_err(|_| unreadable.note(key)).ok())
    }

    /// Ends the interrupted deletes and pushes of notes. An operation that is still in progress is not harmed: it
    /// begins again.
    async fn sweep_notes(&self, notes: Key, unreadable: &mut Unreadable) -> Result<(), Error> {
        let now = self.clock.now();
        let mut pages = Pages::of(notes);
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page) {
                let note = self.read_readable::<NoteRecord>(&key, unreadable).await?;
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

    /// Returns which of `listed` an open session names.
    pub(super) async fn named_by_sessions(
        &self,
        listed: &BTreeSet<BytesName>,
        unreadable: &mut Unreadable,
    ) -> Result<BTreeSet<BytesName>, Error> {
        let mut named = BTreeSet::new();
        let mut pages = Pages::of(Key::uploads());
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page) {
                let Some(session) = self.read_session(&key, unreadable).await? else {
                    continue;
                };
                if session.upload.length().is_ok() && listed.contains(&session.record.bytes.name) {
                    named.insert(session.record.bytes.name);
                }
            }
        }
        Ok(named)
    }

    /// Returns which of `listed` a blob names: as its content, as a proposal, or as dropped and not yet deleted. Also
    /// counts the blobs if that is requested.
    pub(super) async fn named_by_blobs(
        &self,
        listed: &BTreeSet<BytesName>,
        unreadable: &mut Unreadable,
        mut contents: Option<&mut Contents>,
    ) -> Result<BTreeSet<BytesName>, Error> {
        let mut named = BTreeSet::new();
        let mut pages = Pages::of(Key::blobs());
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page).filter(|key| key.as_str().ends_with("/record")) {
                let found = self.read_readable::<BlobRecord>(&key, unreadable).await?;
                let Some((blob, _)) = found.and_then(|found| found.record) else {
                    continue;
                };
                if let Some(contents) = &mut contents {
                    contents.add(&blob);
                }
                let content = blob.blob.and_then(|blob| blob.bytes);
                let names = blob.proposals.into_iter().chain(blob.dropped).chain(content);
                named.extend(names.filter(|name| listed.contains(name)));
            }
        }
        Ok(named)
    }

    /// Returns which of `listed` are kept with a record in quarantine.
    pub(super) async fn named_by_quarantine(
        &self,
        listed: &BTreeSet<BytesName>,
        unreadable: &mut Unreadable,
    ) -> Result<BTreeSet<BytesName>, Error> {
        let mut named = BTreeSet::new();
        let mut pages = Pages::of(Key::quarantine());
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page) {
                let found = self.read_readable::<QuarantineRecord>(&key, unreadable).await?;
                let record = found.and_then(|found| found.record);
                let names = record.map(|(record, _)| record.bytes).unwrap_or_default();
                named.extend(names.into_iter().filter(|name| listed.contains(name)));
            }
        }
        Ok(named)
    }
}
