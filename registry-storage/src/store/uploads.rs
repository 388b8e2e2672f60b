//! The facet of uploads.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use registry_core::hash::Hasher;
use registry_core::storage::{Body, UploadKey, UploadStorage};
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, UploadId};
use tokio::time::timeout;

use super::Store;
use super::append::{Append, CHECKPOINT_BYTES};
use super::hash::hash;
use super::session::Session;
use super::session_lock::{Wanted, is_superseded};
use crate::backend::{Backend, Expect};

/// How long a closing request waits for the request that took its session. A proxy waits as long for an answer.
const OTHER_REQUEST_TIMEOUT: Duration = Duration::from_secs(50);

#[async_trait]
impl<B: Backend> UploadStorage for Store<B> {
    async fn create_upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.note_room(self.create_session(repository, principal, algorithm).await)
    }

    async fn append_upload(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        let append = async {
            let (append, ending) = self.append(upload, offset, body, false).await?;
            ending?;
            append.session.upload.length()
        };
        self.note_room(append.await)
    }

    async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error> {
        self.load_session(upload).await?.upload.length()
    }

    async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error> {
        let commit = async {
            let (session, held) = self.take_session(upload, Wanted::default()).await?;
            self.commit_session(session, held, upload, digest).await
        };
        self.note_room(commit.await)
    }

    async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        let finish = async {
            let (append, ending) = self.append(upload, offset, body, true).await?;
            ending?;
            let Append { session, held, .. } = append;
            let size = session.upload.length()?;
            self.commit_session(session, held, upload, digest).await?;
            Ok(size)
        };
        match self.note_room(finish.await) {
            Err(error) if is_superseded(&error) => Err(self.what_became_of(upload, error).await),
            finished => finished,
        }
    }

    async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error> {
        self.note_room(self.cancel_session(upload).await)
    }
}

impl<B: Backend> Store<B> {
    /// Appends a body, and returns the state of the append and how the body ended. If it `is_last`, its bytes are not
    /// recorded as the session's.
    async fn append(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
        is_last: bool,
    ) -> Result<(Append<'_, B>, Result<(), Error>), Error> {
        let (mut session, held) = self.take_session(upload, Wanted::GoOn(offset)).await?;
        let began_at = session.upload.append_at(offset)?;
        if session.record.sealed || session.record.completed {
            return Err(send_again());
        }
        self.catch_up_hash(&mut session).await?;
        let (began, had) = (session.snapshot(), session.parked_tail());
        if is_last {
            session.standing = Some(Box::new(began.clone()));
        }
        let mut append = Append::new(self, session, held);
        let mut ending = append.run(body).await;
        if let Ok(ended) = &ending
            && !is_last
        {
            let is_sent_again = append.held.newest() == Wanted::GoOn(Some(began_at));
            let saved = match ended {
                Err(error) if is_superseded(error) && is_sent_again => append.go_back(began.clone()).await,
                _ => append.save().await,
            };
            ending = saved.and(ending);
        }
        if let Err(error) = &ending
            && error.code() == ErrorCode::StorageFull
            && let Err(error) = append.give_back(began).await
        {
            tracing::debug!(%error, "an upload keeps what the full disk had room for");
        }
        let recorded = append.recorded_tail.clone();
        self.remove_tail_unless(had, recorded).await;
        Ok((append, ending?))
    }

    /// Waits for the request that took a session from a closing request, and returns the closing request's error: that
    /// the session is unknown if the other request finished it, as when a client sends one request several times at
    /// once; otherwise that it was stopped, so that its client sends it again.
    async fn what_became_of(&self, upload: &UploadKey, stopped: Error) -> Error {
        let free = self.sessions.free(upload.id);
        if timeout(OTHER_REQUEST_TIMEOUT, free).await.is_err() {
            return stopped;
        }
        match self.load_session(upload).await {
            Ok(session) if session.upload.finished_digest().is_none() => stopped,
            _ => ErrorCode::BlobUploadUnknown.into(),
        }
    }

    /// Hashes the parts again if the state of the hash cannot be trusted or read.
    pub(super) async fn catch_up_hash(&self, session: &mut Session) -> Result<(), Error> {
        let epoch = self.backend.epoch();
        let trusted = epoch.is_some() && session.record.epoch.as_deref() == epoch;
        let size = session.record.parts_size;
        if size == 0 || trusted && session.upload.hasher().length() == size {
            return Ok(());
        }
        let hasher = Hasher::new(session.upload.hasher().algorithm());
        let hasher = self.hash_parts(session, hasher, size).await?;
        session.record.other_hash = None;
        session.upload = session
            .upload
            .clone()
            .with_progress(session.upload.length()?, hasher)?;
        session.record.epoch = epoch.map(str::to_owned);
        Ok(())
    }

    /// Hashes the parts of a session with another algorithm than the one that ran during the upload. The progress is
    /// recorded, so that no part is read a second time when a commit is tried again.
    pub(super) async fn hash_otherwise(
        &self,
        session: &mut Session,
        algorithm: Algorithm,
    ) -> Result<Hasher, Error> {
        let size = session.record.parts_size;
        let begun = session.record.other_hash.as_ref();
        let begun = begun.and_then(|begun| Hasher::resume(begun).ok());
        let mut hasher = begun
            .filter(|begun| begun.algorithm() == algorithm && begun.length() <= size)
            .unwrap_or_else(|| Hasher::new(algorithm));
        while hasher.length() < size {
            let end = size.min(hasher.length().saturating_add(CHECKPOINT_BYTES));
            hasher = self.hash_parts(session, hasher, end).await?;
            session.note_other_hash(&hasher);
            self.save_session(session).await?;
        }
        Ok(hasher)
    }

    /// Continues hashing the parts of a session, up to `size` bytes of them.
    async fn hash_parts(&self, session: &Session, mut hasher: Hasher, size: u64) -> Result<Hasher, Error> {
        if size > hasher.length() {
            let unknown = || Error::from(ErrorCode::BlobUploadUnknown);
            let content = self
                .backend
                .open_bytes(&session.record.bytes.name, Expect::Nothing)
                .await?
                .ok_or_else(unknown)?;
            let mut stream = content.read(hasher.length()..size);
            while let Some(chunk) = stream.next().await {
                hasher = hash(hasher, chunk?).await?;
            }
            if hasher.length() != size {
                return Err(unknown());
            }
        }
        Ok(hasher)
    }
}

/// Returns the error for a session whose bytes are no longer usable.
pub(super) fn send_again() -> Error {
    Error::new(
        ErrorCode::BlobUploadInvalid,
        "the bytes of this upload cannot be used; start a new upload",
    )
}
