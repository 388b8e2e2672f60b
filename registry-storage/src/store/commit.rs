//! Making uploaded bytes a blob.

use std::sync::Arc;

use crate::chain::{Join, Offer, Recheck, State, complete, join, offer, recheck};
use bytes::Bytes;
use registry_core::storage::{BlobStorage as _, UploadKey};
use registry_core::upload::Commit;
use registry_core::{Algorithm, Digest, Error, ErrorCode, Timestamp};

use super::edge::{Found, contended, read_latest, rescue, write};
use super::hash::hash;
use super::looks::{Looked, Looks, Unseen};
use super::mount::{GrantKeys, enter_grant, point_grant, publish_grant, withdraw_grant};
use super::quota::is_over_quota;
use super::session::Session;
use super::session_lock::HeldSession;
use super::sweep::{Unnamed, write_left_of_blob, write_unnamed};
use super::uploads::send_again;
use super::{INLINE_BYTES, Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::{BlobBytes, BlobRecord, SessionRecord, Stamp};

impl<B: Backend> Store<B> {
    /// Makes an upload a blob. If a quota refuses that, the upload ends: its bytes would use space that is not counted.
    pub(super) async fn commit_session(
        &self,
        session: Session,
        held: Arc<HeldSession>,
        upload: &UploadKey,
        digest: &Digest,
    ) -> Result<(), Error> {
        let committed = self.try_commit(session, held, upload, digest).await;
        if committed.as_ref().is_err_and(is_over_quota) {
            // A session that is not cancelled here is ended by the sweeper.
            if let Err(error) = self.cancel_session(upload).await {
                tracing::debug!(%error, "an upload that a quota refused was not cancelled");
            }
        }
        committed
    }

    async fn try_commit(
        &self,
        mut session: Session,
        held: Arc<HeldSession>,
        upload: &UploadKey,
        digest: &Digest,
    ) -> Result<(), Error> {
        let mut _memory = None;
        if session.upload.finished_digest().is_none() {
            _memory = self.bring_back_tail(&mut session).await?;
        }
        if session.upload.finished_digest().is_none() {
            self.catch_up_hash(&mut session).await?;
            let hasher = hash(session.upload.hasher().clone(), session.tail.clone()).await?;
            session.upload = session
                .upload
                .clone()
                .with_progress(session.upload.length()?, hasher)?;
        }
        match session.upload.commit(digest)? {
            Commit::Matches => {}
            Commit::Rehash(algorithm) => {
                self.check_other_algorithm(&mut session, digest, algorithm)
                    .await?;
            }
            // The 201 was lost, and the client asks again: it gets the answer of a HEAD.
            Commit::AlreadyFinished => {
                let blob = self.stat_blob(&upload.repository, digest).await;
                return blob.map(|_| ()).map_err(|_| ErrorCode::BlobUploadUnknown.into());
            }
        }
        let size = session.upload.length()?;
        self.has_room_for_blob(&upload.repository, Some(digest), Some(size))
            .await?;
        if session.record.parts_size > 0 {
            let sealed = self.backend.seal_bytes(&session.record.bytes, size).await;
            if let Err(error) = sealed {
                if error.code() == ErrorCode::StorageFull {
                    self.end_if_lost(session).await?;
                }
                return Err(error);
            }
        }
        let mut looks = Looks::default();
        for _ in 0..TRANSACTION_ATTEMPTS {
            let commit = CommitUpload {
                keys: GrantKeys::new(&upload.repository, digest),
                digest: digest.clone(),
                size,
                session: session.clone(),
                looks: looks.clone(),
                now: self.clock.now(),
            };
            let committed = self.transact_held(Durability::Synced, commit, Some(Arc::clone(&held)));
            match committed.await? {
                Looked::Done(committed) => {
                    if committed?.has_healed {
                        self.point_grants(digest).await;
                    }
                    self.open_sessions.end(&upload.principal, upload.id);
                    return Ok(());
                }
                Looked::LookAt(unseen) => {
                    self.look(&mut looks, unseen, &upload.repository, digest).await?;
                }
            }
        }
        Err(contended())
    }

    /// Makes the grants of other repositories name the bytes that healed a blob. A grant that is not reached here costs
    /// its readers one read of the blob's record, and a check finds it.
    async fn point_grants(&self, digest: &Digest) {
        let mut after = None;
        loop {
            let point = PointGrants {
                digest: digest.clone(),
                after,
                now: self.clock.now(),
            };
            match self.backend.transact(Durability::Deferred, point).await {
                Ok(Some(last)) => after = Some(last),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, %digest, "other repositories still name bytes that were lost");
                    return;
                }
            }
        }
    }

    /// Hashes the bytes once more, because the digest has another algorithm than the hash that ran during the upload.
    async fn check_other_algorithm(
        &self,
        session: &mut Session,
        digest: &Digest,
        algorithm: Algorithm,
    ) -> Result<(), Error> {
        if session.record.parts_size > 0 && !self.backend.can_read_staged_bytes() && !session.record.completed
        {
            // The parts can be read only once they are complete, and then nothing can be appended. That is recorded before: an
            // object of the right size counts as completed, so another request, beside this one or after its process died,
            // must not complete the parts with another tail.
            session.record.sealed = true;
            session.standing = None;
            self.park_tail(session).await?;
            self.save_session(session).await?;
            let complete = CompleteBytes(session.record.clone(), session.tail.clone());
            self.transact_held(Durability::Synced, complete, session.held.clone())
                .await?;
            session.record.parts_size = session.upload.length()?;
            session.record.completed = true;
            session.tail = Bytes::new();
            let parked = session.parked_tail();
            session.record.parked_tail = None;
            self.save_session(session).await?;
            if let Some(parked) = parked {
                self.remove_tail(parked).await;
            }
        }
        let hasher = self.hash_otherwise(session, algorithm).await?;
        let hasher = hash(hasher, session.tail.clone()).await?;
        let checked = session
            .upload
            .clone()
            .with_progress(session.upload.length()?, hasher)?;
        match checked.commit(digest)? {
            Commit::Matches => Ok(()),
            Commit::AlreadyFinished | Commit::Rehash(_) => Err(send_again()),
        }
    }
}

/// How many grants are pointed at other bytes in one transaction.
const GRANTS_PER_TRANSACTION: usize = 100;

/// Makes some grants of a blob name its bytes, and returns the last of these grants.
struct PointGrants {
    digest: Digest,
    after: Option<Key>,
    now: Timestamp,
}

impl Transaction for PointGrants {
    type Output = Option<Key>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Option<Key>, Error> {
        let prefix = Key::grants(&self.digest);
        let page = records
            .list(&prefix, self.after.as_ref(), GRANTS_PER_TRANSACTION)
            .await?;
        for entry in &page {
            if let Some(KeyKind::Grant(repository, digest)) = KeyKind::of(&entry.key) {
                point_grant(records, &GrantKeys::new(&repository, &digest), self.now).await?;
            }
        }
        Ok(page.last().map(|entry| entry.key.clone()))
    }
}

struct CompleteBytes(SessionRecord, Bytes);

impl Transaction for CompleteBytes {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.complete_bytes(&self.0.bytes, &self.0.parts, self.1).await
    }
}

/// Makes the bytes of a session, whose digest was checked, a blob of a repository.
pub(super) struct CommitUpload {
    pub(super) keys: GrantKeys,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) session: Session,
    pub(super) looks: Looks,
    pub(super) now: Timestamp,
}

/// The result of a committed upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    /// The blob was visible and its content was lost.
    pub(super) has_healed: bool,
}

/// What became of a proposal.
enum Joined {
    /// It is stored: the Pending blob names the bytes.
    Proposed(Found<BlobRecord>),
    /// It was not needed.
    Offered(Offered),
}

/// What happened to the blob.
enum Offered {
    /// It is Live, with this content. The session was read before that, if it was.
    Live(BlobBytes, Option<Box<Session>>),
    /// It is visible, and its bytes have to be checked.
    LookAt(Unseen),
    /// This session's bytes may not be used: the client has to send them again.
    Refused(Error),
}

impl Transaction for CommitUpload {
    /// The inner error is a refusal; the records written before it are kept.
    type Output = Looked<Result<Committed, Error>>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let Some(entered) = enter_grant(records, &self.keys, self.now).await? else {
                continue;
            };
            let (bytes, session) = match self.offer(records).await? {
                Offered::Live(bytes, session) => (bytes, session),
                Offered::LookAt(unseen) => return Ok(Looked::LookAt(unseen)),
                Offered::Refused(error) => {
                    withdraw_grant(records, &self.keys, &entered, self.now).await?;
                    self.leave_bytes(records).await?;
                    return Ok(Looked::Done(Err(error)));
                }
            };
            let is_used = bytes.bytes.as_ref() == Some(&self.session.record.bytes.name);
            if publish_grant(records, &self.keys, &entered, bytes, self.now).await? {
                self.finish(records, session, is_used).await?;
                let has_healed = self.looks.has_lost();
                return Ok(Looked::Done(Ok(Committed { has_healed })));
            }
        }
        Err(contended())
    }
}

impl CommitUpload {
    /// Makes the blob Live, with this session's bytes unless it has bytes already.
    async fn offer(&self, records: &mut dyn RecordTransaction) -> Result<Offered, Error> {
        let mut proposed = None;
        for _ in 0..TRANSACTION_ATTEMPTS {
            let blob = match proposed.take() {
                Some(pending) => pending,
                None => read_latest::<BlobRecord>(records, &self.keys.blob).await?,
            };
            let Some(session) = self.read_session(records).await? else {
                return Ok(Offered::Refused(ErrorCode::BlobUploadUnknown.into()));
            };
            let state = match self.looks.counted(&self.digest, &blob) {
                Ok(state) => state,
                Err(unseen) => return Ok(Offered::LookAt(unseen)),
            };
            let open = session.upload.length().is_ok();
            let named = names(&blob, &self.session.record.bytes.name);
            match offer(state, named, open, session.record.proposed) {
                Offer::Use => return live(blob),
                Offer::Rescue if rescue(records, &self.keys.blob, &blob, self.now).await? => {
                    return live(blob);
                }
                Offer::Rescue => {}
                Offer::SendAgain => return Ok(Offered::Refused(refusal(open))),
                Offer::Propose if self.is_inline() => {
                    // Content that comes with its record needs no proposal: no bytes have to be finished.
                    if let Some(bytes) = self.publish(records, &blob).await? {
                        return Ok(Offered::Live(bytes, Some(Box::new(session))));
                    }
                }
                Offer::Propose => {
                    if self.mark_proposed(records, session).await? {
                        match self.join(records, blob).await? {
                            Joined::Offered(offered) => return Ok(offered),
                            Joined::Proposed(pending) => proposed = Some(pending),
                        }
                    }
                }
                Offer::Finish => match recheck(open) {
                    Recheck::Withdraw => {
                        self.withdraw(records, &blob).await?;
                        return Ok(Offered::Refused(refusal(open)));
                    }
                    Recheck::Finish => {
                        self.complete_bytes(records).await?;
                        if complete(blob.state(), named)
                            && let Some(bytes) = self.publish(records, &blob).await?
                        {
                            return Ok(Offered::Live(bytes, Some(Box::new(session))));
                        }
                    }
                },
            }
        }
        Err(contended())
    }

    /// Records in the session that its bytes are offered; returns `false` if the session was written by another
    /// request.
    async fn mark_proposed(
        &self,
        records: &mut dyn RecordTransaction,
        mut session: Session,
    ) -> Result<bool, Error> {
        session.record.proposed = true;
        session.record.proposed_to = Some(self.digest.clone());
        let condition = Condition::Matches(session.version.clone());
        let value = session.encode(self.now)?;
        Ok(records.put(&session.key, value, condition).await?.is_some())
    }

    /// Adds the bytes to the proposals of the Pending blob, which was read before the session was marked.
    async fn join(
        &self,
        records: &mut dyn RecordTransaction,
        mut blob: Found<BlobRecord>,
    ) -> Result<Joined, Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let state = match self.looks.counted(&self.digest, &blob) {
                Ok(state) => state,
                Err(unseen) => return Ok(Joined::Offered(Offered::LookAt(unseen))),
            };
            match join(state) {
                Join::Use => return live(blob).map(Joined::Offered),
                Join::Rescue => {
                    if rescue(records, &self.keys.blob, &blob, self.now).await? {
                        return live(blob).map(Joined::Offered);
                    }
                }
                Join::Write => {
                    let mut proposals = proposals(&blob);
                    proposals.push(self.session.record.bytes.name.clone());
                    if let Some(pending) = self.write_pending(records, &blob, proposals).await? {
                        return Ok(Joined::Proposed(pending));
                    }
                }
            }
            blob = read_latest(records, &self.keys.blob).await?;
        }
        Err(contended())
    }

    /// Takes the proposal of an aborted session back, so that the sweeper may delete the bytes.
    async fn withdraw(
        &self,
        records: &mut dyn RecordTransaction,
        blob: &Found<BlobRecord>,
    ) -> Result<(), Error> {
        let mut proposals = proposals(blob);
        proposals.retain(|name| *name != self.session.record.bytes.name);
        self.write_pending(records, blob, proposals).await.map(|_| ())
    }

    async fn write_pending(
        &self,
        records: &mut dyn RecordTransaction,
        blob: &Found<BlobRecord>,
        proposals: Vec<BytesName>,
    ) -> Result<Option<Found<BlobRecord>>, Error> {
        let pending = self.record(State::Pending, None, proposals);
        let written = self.write_blob(records, blob, &pending, &[]).await?;
        Ok(written.map(|version| Found::written(pending, version)))
    }

    /// Makes the blob Live with this session's bytes; returns `None` if the blob was written by another request.
    async fn publish(
        &self,
        records: &mut dyn RecordTransaction,
        blob: &Found<BlobRecord>,
    ) -> Result<Option<BlobBytes>, Error> {
        let inline = self.is_inline();
        let name = (!inline).then(|| self.session.record.bytes.name.clone());
        let bytes = BlobBytes {
            size: self.size,
            bytes: name,
        };
        let live = self.record(State::Live, Some(bytes.clone()), Vec::new());
        let content = if inline {
            self.session.tail.clone()
        } else {
            Bytes::new()
        };
        let written = self.write_blob(records, blob, &live, &content).await?;
        Ok(written.map(|_| bytes))
    }

    /// Writes the blob's record on the version that was read, and writes down the bytes that it names no more: those that
    /// the medium lost, or that lost against others.
    async fn write_blob(
        &self,
        records: &mut dyn RecordTransaction,
        before: &Found<BlobRecord>,
        after: &BlobRecord,
        content: &[u8],
    ) -> Result<Option<Version>, Error> {
        let written = write(records, &self.keys.blob, after, content, before.unchanged()).await?;
        if written.is_some() {
            write_left_of_blob(records, &self.digest, before.header(), after, self.now).await?;
        }
        Ok(written)
    }

    async fn complete_bytes(&self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let session = &self.session;
        if session.record.completed {
            return Ok(());
        }
        records
            .complete_bytes(&session.record.bytes, &session.record.parts, session.tail.clone())
            .await
    }

    /// Ends the session, which keeps its digest: the client may ask again. If this write is lost, the session is still
    /// open, but its bytes were proposed and are not used a second time.
    async fn finish(
        &self,
        records: &mut dyn RecordTransaction,
        mut had: Option<Box<Session>>,
        is_used: bool,
    ) -> Result<(), Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let session = match had.take() {
                Some(session) => Some(*session),
                None => self.read_session(records).await?,
            };
            let open = session.and_then(|session| {
                let finished = session.upload.clone().finished(self.digest.clone()).ok()?;
                Some((session, finished))
            });
            let Some((mut session, finished)) = open else {
                return if is_used {
                    Ok(())
                } else {
                    self.leave_bytes(records).await
                };
            };
            session.upload = finished;
            // A body that came to nothing may have begun an upload of which the bytes that are used need nothing.
            let has_unused_upload = session.record.bytes.token.is_some() && session.record.parts_size == 0;
            session.record.has_left_bytes = !is_used && !self.is_inline() || has_unused_upload;
            session.tail = Bytes::new();
            let parked = session.parked_tail();
            session.record.parked_tail = None;
            let value = session.encode(self.now)?;
            let condition = Condition::Matches(session.version.clone());
            if records.put(&session.key, value, condition).await?.is_some() {
                // Nobody needs it any more, not even a commit that is tried again.
                if let Some(parked) = parked
                    && let Err(error) = records.remove(&parked.key).await
                {
                    tracing::debug!(%error, "the end of an upload that is a blob goes with its session");
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes down bytes that this commit may have completed after their session had ended: the sweep that looked at the session
    /// found none. It has completed none that were not offered to its blob. What was offered to another one must not be written down with
    /// its digest, because the sweep asks no blob but that one.
    async fn leave_bytes(&self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        if self.is_inline() {
            return Ok(());
        }
        let session = self.read_session(records).await?;
        let proposed_to = session.and_then(|session| session.record.proposed_to);
        if proposed_to.as_ref() != Some(&self.digest) {
            return Ok(());
        }
        let left = Unnamed {
            name: self.session.record.bytes.name.clone(),
            blob: Some(self.digest.clone()),
        };
        write_unnamed(records, &[left], self.now).await
    }

    async fn read_session(&self, records: &mut dyn RecordTransaction) -> Result<Option<Session>, Error> {
        let key: &Key = &self.session.key;
        Session::from_found(key, read_latest::<SessionRecord>(records, key).await?)
    }

    /// Small blobs are kept in their record, unless some of their bytes are in parts already.
    fn is_inline(&self) -> bool {
        self.session.record.parts_size == 0 && self.session.tail.len() <= INLINE_BYTES
    }

    fn record(&self, state: State, blob: Option<BlobBytes>, proposals: Vec<BytesName>) -> BlobRecord {
        BlobRecord {
            state,
            blob,
            proposals,
            condemned_in: None,
            stamp: Stamp::new(self.now),
        }
    }
}

/// Returns whether a Pending blob names `bytes`.
fn names(blob: &Found<BlobRecord>, bytes: &BytesName) -> bool {
    blob.header().is_some_and(|blob| blob.proposals.contains(bytes))
}

/// Returns what a Pending blob names.
fn proposals(blob: &Found<BlobRecord>) -> Vec<BytesName> {
    blob.header()
        .map(|blob| blob.proposals.clone())
        .unwrap_or_default()
}

fn live(blob: Found<BlobRecord>) -> Result<Offered, Error> {
    let bytes = blob.record.and_then(|(blob, _)| blob.blob);
    bytes
        .map(|bytes| Offered::Live(bytes, None))
        .ok_or_else(|| Error::internal(NoContent))
}

#[derive(Debug, thiserror::Error)]
#[error("the record of a live blob names no content; a check with repair puts it aside")]
struct NoContent;

fn refusal(open: bool) -> Error {
    if open {
        send_again()
    } else {
        ErrorCode::BlobUploadUnknown.into()
    }
}
