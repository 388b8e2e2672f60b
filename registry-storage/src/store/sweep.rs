//! Sweeping: idle sessions, and bytes that nothing names.

use std::collections::BTreeSet;

use registry_core::Error;
use registry_core::chain::may_sweep;

use super::Store;
use super::edge::{Found, peek};
use super::session::{Forget, Session};
use crate::backend::{Backend, Durability};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::record::{BlobRecord, QuarantineRecord, SessionRecord};

/// How many names of bytes are looked at in one go; each go reads all sessions and all blobs.
pub(super) const NAMES: usize = 50_000;

/// How many records are listed at once.
const PAGE: usize = 1000;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Sessions that were idle for too long and were aborted.
    pub aborted_uploads: u64,
    /// Sessions that ended long ago and were forgotten.
    pub forgotten_uploads: u64,
    /// Bytes that nothing named and were deleted.
    pub deleted_bytes: u64,
}

impl<B: Backend> Store<B> {
    /// Aborts idle upload sessions, forgets old ended ones, and deletes bytes that nothing names.
    ///
    /// Safe beside everything else, at any time and any number of times at once: the bytes are listed first, then the
    /// sessions, then the blobs, then what is in quarantine, and a name only ever moves in that direction. Nothing
    /// depends on a clock but how long a session may be idle. Cancel safe.
    ///
    /// # Errors
    /// Those of the medium; what was swept stays swept.
    pub async fn sweep(&self) -> Result<SweepReport, Error> {
        let mut report = SweepReport::default();
        self.sweep_sessions(&mut report).await?;
        let mut after: Option<BytesName> = None;
        loop {
            let page = self.backend.list_bytes(after.as_ref(), NAMES).await?;
            let Some(last) = page.last() else {
                return Ok(report);
            };
            after = Some(last.clone());
            let listed: BTreeSet<BytesName> = page.into_iter().collect();
            let by_sessions = self.named_by_sessions(&listed).await?;
            let by_blobs = self.named_by_blobs(&listed).await?;
            let by_quarantine = self.named_by_quarantine(&listed).await?;
            for name in &listed {
                let by_blob = by_blobs.contains(name) || by_quarantine.contains(name);
                if may_sweep(by_sessions.contains(name), by_blob) {
                    self.backend.delete_bytes(name).await?;
                    tracing::debug!(%name, "deleted bytes that nothing names");
                    report.deleted_bytes += 1;
                }
            }
        }
    }

    async fn sweep_sessions(&self, report: &mut SweepReport) -> Result<(), Error> {
        let now = self.clock.now();
        let mut after = None;
        while let Some((keys, last)) = self.page(&Key::uploads(), after.as_ref()).await? {
            after = Some(last);
            for key in keys {
                let found: Found<SessionRecord> = peek(&*self.backend, &key).await?;
                let Some(session) = Session::from_found(&key, found)? else {
                    continue;
                };
                if let Some(id) = key.upload_id() {
                    self.note_session(id, &session);
                }
                let idle = now.since(session.record.stamp.written);
                let length = session.upload.length();
                let limit = match length {
                    Ok(0) => self.options.empty_upload_idle_limit,
                    _ => self.options.upload_idle_limit,
                };
                if length.is_err() {
                    if idle > self.options.ended_upload_memory {
                        self.backend.transact(Durability::Deferred, Forget(key)).await?;
                        report.forgotten_uploads += 1;
                    }
                } else if idle > limit.min(self.options.upload_idle_limit) {
                    // Nothing happens where somebody writes to it just now.
                    report.aborted_uploads += u64::from(self.abort_session(session).await?);
                }
            }
        }
        Ok(())
    }

    /// Returns which of `listed` an open session names.
    pub(super) async fn named_by_sessions(
        &self,
        listed: &BTreeSet<BytesName>,
    ) -> Result<BTreeSet<BytesName>, Error> {
        let mut named = BTreeSet::new();
        let mut after = None;
        while let Some((keys, last)) = self.page(&Key::uploads(), after.as_ref()).await? {
            after = Some(last);
            for key in keys {
                let found: Found<SessionRecord> = peek(&*self.backend, &key).await?;
                let Some(session) = Session::from_found(&key, found)? else {
                    continue;
                };
                if session.upload.length().is_ok() && listed.contains(&session.record.bytes.name) {
                    named.insert(session.record.bytes.name);
                }
            }
        }
        Ok(named)
    }

    /// Returns which of `listed` a blob names: as its content, as a proposal, or as dropped and not yet deleted.
    pub(super) async fn named_by_blobs(
        &self,
        listed: &BTreeSet<BytesName>,
    ) -> Result<BTreeSet<BytesName>, Error> {
        let mut named = BTreeSet::new();
        let mut after = None;
        while let Some((keys, last)) = self.page(&Key::blobs(), after.as_ref()).await? {
            after = Some(last);
            for key in keys.into_iter().filter(|key| key.as_str().ends_with("/record")) {
                let found: Found<BlobRecord> = peek(&*self.backend, &key).await?;
                let Some((blob, _)) = found.record else { continue };
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
    ) -> Result<BTreeSet<BytesName>, Error> {
        let mut named = BTreeSet::new();
        let mut after = None;
        while let Some((keys, last)) = self.page(&Key::quarantine(), after.as_ref()).await? {
            after = Some(last);
            for key in keys {
                let found: Found<QuarantineRecord> = peek(&*self.backend, &key).await?;
                let names = found.record.map(|(record, _)| record.bytes).unwrap_or_default();
                named.extend(names.into_iter().filter(|name| listed.contains(name)));
            }
        }
        Ok(named)
    }

    /// Lists a page of keys and the last of them; nothing at the end.
    pub(super) async fn page(
        &self,
        prefix: &Key,
        after: Option<&Key>,
    ) -> Result<Option<(Vec<Key>, Key)>, Error> {
        let page = self.backend.list(prefix, after, PAGE).await?;
        let keys: Vec<Key> = page.into_iter().map(|entry| entry.key).collect();
        Ok(keys.last().cloned().map(|last| (keys, last)))
    }
}
