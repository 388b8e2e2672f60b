//! Sessions: idle ones are aborted, and what ended ones left is deleted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry_core::{Error, Timestamp, UploadId};

use super::{Deleting, ListedBytes, SweepReport, Unnamed, Unreadable, found_of};
use crate::backend::{
    Again, Backend, Condition, Durability, RecordEntry, RecordTransaction, Transaction, VersionedRecord,
};
use crate::chain::State;
use crate::key::Key;
use crate::pages::Values;
use crate::record::{SessionRecord, Stamp, state_of_size};
use crate::store::Store;
use crate::store::session::{Session, encode_session};

/// How long an upload may be idle while the disk is full, if its limit is not shorter anyway. Refused clients return
/// within a minute, and then continue.
const FULL_DISK_IDLE_LIMIT: Duration = Duration::from_mins(5);

/// How many ended sessions are remembered, some 50 bytes each. Others are read in each sweep.
const REMEMBERED_SESSIONS: usize = 100_000;

/// When sessions ended of which nothing is left to do but to forget them. They are not read again until then: on a bucket each would
/// be a request in every sweep for a day.
#[derive(Debug, Default)]
pub(in crate::store) struct EndedSessions(Mutex<BTreeMap<UploadId, Timestamp>>);

impl EndedSessions {
    /// Returns whether a session of a listing has ended, and nothing is left to do.
    fn is_remembered(&self, entry: &RecordEntry) -> bool {
        let is_dead = state_of_size(entry.size) == State::Dead;
        is_dead
            && entry
                .key
                .upload_id()
                .is_some_and(|id| self.lock().contains_key(&id))
    }

    fn note(&self, key: &Key, ended: Timestamp) {
        let mut sessions = self.lock();
        if let Some(id) = key.upload_id()
            && sessions.len() < REMEMBERED_SESSIONS
        {
            sessions.insert(id, ended);
        }
    }

    /// Has sessions read again that ended longer ago than `memory`.
    fn forget_old(&self, now: Timestamp, memory: Duration) {
        self.lock().retain(|_, ended| now.since(*ended) <= memory);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UploadId, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Store<B> {
    /// Aborts idle sessions, deletes what ended ones left, and forgets old ones.
    pub(super) async fn sweep_sessions(
        &self,
        report: &mut SweepReport,
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        self.ended_sessions
            .forget_old(self.clock.now(), self.options.ended_upload_memory);
        let mut sessions = Values::of(Key::uploads(), |entry: &RecordEntry| {
            !self.ended_sessions.is_remembered(entry)
        });
        while let Some(read) = sessions.next(&*self.backend).await? {
            let (mut unnamed, mut ended) = (Vec::new(), Ended::default());
            for (key, stored) in read {
                let Some(mut session) = session_of(&key, stored.as_ref(), unreadable) else {
                    continue;
                };
                if let Some(id) = key.upload_id() {
                    self.note_session(id, &session);
                }
                if self.is_idle(&session) {
                    match self.abort_idle_session(&key, unreadable).await {
                        Ok(Some(aborted)) => {
                            deleting.failures_in_a_row = 0;
                            session = aborted;
                        }
                        Ok(None) => continue,
                        Err(error) => {
                            deleting.failed(&session.record.bytes.name, error)?;
                            continue;
                        }
                    }
                    report.aborted_uploads += 1;
                }
                if session.upload.length().is_err() {
                    let age = self.clock.now().since(session.record.stamp.written);
                    let is_old = age > self.options.ended_upload_memory;
                    if session.record.has_left_bytes {
                        // Unfinished bytes in a bucket are not listed. They are there if another push had stored the blob, or if
                        // the abort failed when the session ended.
                        match self.backend.abort_bytes(&session.record.bytes).await {
                            Ok(()) => deleting.failures_in_a_row = 0,
                            Err(error) => {
                                deleting.failed(&session.record.bytes.name, error)?;
                                // In the end a sweep of everything tries again.
                                if !is_old {
                                    continue;
                                }
                            }
                        }
                    }
                    unnamed.extend(Unnamed::of_session(&session.record));
                    if is_old {
                        report.forgotten_uploads += 1;
                        ended.forgotten.push(key);
                    } else if session.record.has_left_bytes {
                        ended.swept.push(session);
                    } else {
                        self.ended_sessions.note(&key, session.record.stamp.written);
                    }
                }
            }
            let listed = ListedBytes::of(&unnamed);
            if unnamed.is_empty()
                || self
                    .delete_unnamed(listed, &unnamed, deleting, unreadable)
                    .await?
            {
                self.end_sessions(ended).await?;
            }
        }
        Ok(())
    }

    async fn end_sessions(&self, ended: Ended) -> Result<(), Error> {
        if ended.forgotten.is_empty() && ended.swept.is_empty() {
            return Ok(());
        }
        self.backend.transact(Durability::Deferred, ended).await
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
    async fn abort_idle_session(
        &self,
        key: &Key,
        unreadable: &mut Unreadable,
    ) -> Result<Option<Session>, Error> {
        let Some(held) = key.upload_id().and_then(|id| self.sessions.try_take(id)) else {
            return Ok(None);
        };
        let stored = self.backend.get(key).await?;
        let Some(mut session) = session_of(key, stored.as_ref(), unreadable) else {
            return Ok(None);
        };
        if !self.is_idle(&session) {
            return Ok(None);
        }
        session.held = Some(held);
        self.abort_session(session).await
    }

    /// Marks what an open session names.
    pub(super) async fn mark_bytes_of_sessions(
        &self,
        listed: &mut ListedBytes,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        // An ended session names nothing, and never begins again.
        let is_open = |entry: &RecordEntry| state_of_size(entry.size) != State::Dead;
        let mut sessions = Values::of(Key::uploads(), is_open);
        while let Some(read) = sessions.next(&*self.backend).await? {
            for (key, stored) in read {
                if let Some(session) = session_of(&key, stored.as_ref(), unreadable)
                    && session.upload.length().is_ok()
                {
                    listed.mark_session(&session.record.bytes.name);
                }
            }
        }
        Ok(())
    }
}

/// Ended sessions whose bytes are dealt with.
#[derive(Clone, Default)]
struct Ended {
    /// Those that are to be removed.
    forgotten: Vec<Key>,
    /// Those that are remembered for a while, and have left no bytes any more.
    swept: Vec<Session>,
}

impl Transaction for Ended {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for key in &self.forgotten {
            records.remove(key).await?;
        }
        for session in self.swept {
            let is_aborted = session.upload.finished_digest().is_none();
            if is_aborted && !session.record.proposed {
                // No commit reads it again.
                records.remove(&session.key).await?;
                continue;
            }
            let swept = SessionRecord {
                has_left_bytes: false,
                // It is remembered since it ended.
                stamp: Stamp::new(session.record.stamp.written),
                ..session.record
            };
            let unchanged = Condition::Matches(session.version);
            records
                .put(&session.key, encode_session(&swept, &session.tail)?, unchanged)
                .await?;
        }
        Ok(())
    }
}

/// Parses a session that was read; returns `None` if it does not exist or that fails.
pub(super) fn session_of(
    key: &Key,
    stored: Option<&VersionedRecord>,
    unreadable: &mut Unreadable,
) -> Option<Session> {
    let found = found_of::<SessionRecord>(key, stored, unreadable)?;
    Session::from_found(key, found).unwrap_or_else(|_| {
        unreadable.note(key);
        None
    })
}
