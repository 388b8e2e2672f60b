//! Checking the bytes that records name.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use registry_core::storage::BlobContent;
use registry_core::{Digest, Error, ErrorCode, Hasher};
use tokio::time::Instant;

use super::examine::{Read, other_content};
use super::finding::Problem;
use crate::backend::{Backend, Expect, Version, VersionedRecord};
use crate::key::Key;
use crate::observer::{MaintenanceObserver, Step};
use crate::record::{BlobBytes, BlobRecord, SessionRecord};
use crate::store::Store;
use crate::store::hash::hash;

/// Limits the overall rate of reading, and reports the progress.
pub(super) struct Pace<'p> {
    limit: Option<u64>,
    start: Instant,
    read: u64,
    /// Roughly how much there is to read, in bytes.
    pub(super) total: u64,
    observer: &'p dyn MaintenanceObserver,
}

impl<'p> Pace<'p> {
    /// Allows `limit` bytes a second.
    pub(super) fn new(limit: Option<u64>, observer: &'p dyn MaintenanceObserver) -> Self {
        Self {
            limit,
            start: Instant::now(),
            read: 0,
            total: 0,
            observer,
        }
    }

    pub(super) const fn read(&self) -> u64 {
        self.read
    }

    /// Counts `bytes` that were read, and waits until more may be read.
    async fn after(&mut self, bytes: u64) {
        self.read = self.read.saturating_add(bytes);
        self.observer
            .step(Step::Content, self.read, Some(self.total.max(self.read)));
        if let Some(limit) = self.limit {
            let millis = u128::from(self.read) * 1000 / u128::from(limit.max(1));
            let due = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            if let Some(due) = self.start.checked_add(due) {
                tokio::time::sleep_until(due).await;
            }
        }
    }
}

/// A blob whose bytes are wrong, in the version that was examined.
pub(super) struct Suspect {
    pub(super) problem: Problem,
    pub(super) version: Version,
}

impl<B: Backend> Store<B> {
    /// Checks the bytes of a blob; with `pace`, also their content.
    pub(super) async fn examine_blob(
        &self,
        digest: &Digest,
        pace: Option<&mut Pace<'_>>,
    ) -> Result<Option<Suspect>, Error> {
        let Some(stored) = self.backend.get(&Key::blob(digest)).await? else {
            return Ok(None);
        };
        let problem = self.blob_problem(digest, &stored, pace).await?;
        let version = stored.version;
        Ok(problem.map(|problem| Suspect { problem, version }))
    }

    async fn blob_problem(
        &self,
        digest: &Digest,
        stored: &VersionedRecord,
        pace: Option<&mut Pace<'_>>,
    ) -> Result<Option<Problem>, Error> {
        let Read::Visible(record, content) = Read::<BlobRecord>::new(Some(stored)) else {
            return Ok(None);
        };
        let (size, name) = match record.blob {
            Some(BlobBytes {
                size,
                bytes: Some(name),
            }) => (size, name),
            Some(BlobBytes { size, bytes: None }) => {
                return Ok(
                    other_length(size, content.len() as u64).or_else(|| other_content(digest, &content))
                );
            }
            None => return Ok(None),
        };
        match self.backend.bytes_size(&name).await? {
            None => return Ok(Some(Problem::MissingBytes)),
            Some(found) if found != size => return Ok(other_length(size, found)),
            Some(_) => {}
        }
        let Some(pace) = pace else { return Ok(None) };
        match self.backend.open_bytes(&name, Expect::Nothing).await? {
            Some(content) => verify(digest, content, size, pace).await,
            None => Ok(Some(Problem::MissingBytes)),
        }
    }

    /// Compares an upload with its bytes. A backend that cannot read unfinished bytes checks them when it completes them.
    pub(super) async fn examine_upload(&self, key: &Key) -> Result<Option<Problem>, Error> {
        if !self.backend.can_read_staged_bytes() {
            return Ok(None);
        }
        let stored = self.backend.get(key).await?;
        let Read::Visible(session, _) = Read::<SessionRecord>::new(stored.as_ref()) else {
            return Ok(None);
        };
        let expected = session.parts_size;
        let found = self.backend.bytes_size(&session.bytes.name).await?.unwrap_or(0);
        Ok((found < expected).then_some(Problem::ShortUpload { expected, found }))
    }
}

fn other_length(expected: u64, found: u64) -> Option<Problem> {
    (expected != found).then_some(Problem::OtherLength { expected, found })
}

/// Reads content and compares its digest. Content whose digest has an unknown algorithm is only read.
async fn verify(
    digest: &Digest,
    content: Arc<dyn BlobContent>,
    size: u64,
    pace: &mut Pace<'_>,
) -> Result<Option<Problem>, Error> {
    let mut hasher = digest.algorithm().map(Hasher::new);
    let mut stream = content.read(0..size);
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) if error.code() == ErrorCode::BlobUnknown => return Ok(Some(Problem::MissingBytes)),
            Err(error) => {
                let cause =
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                return Ok(Some(Problem::UnreadableBytes { cause }));
            }
        };
        let length = chunk.len() as u64;
        if let Some(state) = hasher.take() {
            hasher = Some(hash(state, chunk).await?);
        }
        pace.after(length).await;
    }
    let found = hasher.map(Hasher::finish).filter(|found| found != digest);
    Ok(found.map(|found| Problem::OtherContent { found }))
}
