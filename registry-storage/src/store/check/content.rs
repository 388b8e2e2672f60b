//! Checking the bytes that records name.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use registry_core::storage::BlobContent;
use registry_core::{Digest, Error, ErrorCode, Hasher};
use tokio::time::Instant;

use super::examine::{Read, other_content};
use super::finding::{Problem, Repair};
use super::quarantine::SuspectBlob;
use super::repair::outcome;
use crate::backend::{Backend, Durability, Expect, Version, VersionedRecord};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::observer::{MaintenanceObserver, Step};
use crate::record::{BlobBytes, BlobRecord, SessionRecord};
use crate::store::Store;
use crate::store::hash::hash;

/// How much time in which less was read than allowed may be made up for.
const MAKE_UP: Duration = Duration::from_secs(1);

/// After how many bytes the memory that the operating system read them into is given back.
const FORGET_EVERY: u64 = 8 * 1024 * 1024;

/// Limits the rate of reading, and reports the progress.
pub(super) struct Pace<'p> {
    limit: Option<u64>,
    /// When more may be read.
    due: Instant,
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
            due: Instant::now(),
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
        self.spend(bytes).await;
    }

    /// Waits as long as reading `bytes` takes at the allowed rate. Time in which nothing was read is not made up for.
    pub(super) async fn spend(&mut self, bytes: u64) {
        let Some(limit) = self.limit else { return };
        let micros = u128::from(bytes) * 1_000_000 / u128::from(limit.max(1));
        let time = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let now = Instant::now();
        let earliest = now.checked_sub(MAKE_UP).unwrap_or(now);
        if let Some(due) = self.due.max(earliest).checked_add(time) {
            self.due = due;
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A blob whose bytes are wrong, in the version that was examined.
pub(super) struct Suspect {
    pub(super) problem: Problem,
    pub(super) version: Version,
    /// Clients are sent these bytes: they exist outside of the record, with the length that it says.
    pub(super) is_served: bool,
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
        Ok(problem.map(|(problem, is_served)| Suspect {
            problem,
            version,
            is_served,
        }))
    }

    /// Examines a blob again that looked wrong, and puts it into quarantine if `is_condemned` says so. Returns `None` if
    /// it is not wrong any more, or was written since.
    pub(super) async fn confirm_suspect(
        &self,
        digest: &Digest,
        first: Suspect,
        pace: Option<&mut Pace<'_>>,
        is_condemned: impl FnOnce(&Suspect) -> bool,
    ) -> Result<Option<(Problem, Repair)>, Error> {
        let second = self.examine_blob(digest, pace).await?;
        let Some(second) = second.filter(|second| second.version == first.version) else {
            return Ok(None);
        };
        let repair = match second.problem.is_repairable() {
            false => Repair::None,
            true if !is_condemned(&second) => Repair::Possible,
            true => {
                let suspect = SuspectBlob {
                    digest: digest.clone(),
                    version: second.version,
                    reason: second.problem.clone(),
                    now: self.clock.now(),
                };
                outcome(self.backend.transact(Durability::Synced, suspect).await?)
            }
        };
        Ok(Some((second.problem, repair)))
    }

    /// Returns what is wrong, and whether clients are sent these bytes.
    async fn blob_problem(
        &self,
        digest: &Digest,
        stored: &VersionedRecord,
        pace: Option<&mut Pace<'_>>,
    ) -> Result<Option<(Problem, bool)>, Error> {
        let Read::Visible(record, content) = Read::<BlobRecord>::new(Some(stored)) else {
            return Ok(None);
        };
        let (size, name) = match record.blob {
            Some(BlobBytes {
                size,
                bytes: Some(name),
            }) => (size, name),
            Some(BlobBytes { size, bytes: None }) => {
                let problem =
                    other_length(size, content.len() as u64).or_else(|| other_content(digest, &content));
                return Ok(problem.map(|problem| (problem, false)));
            }
            None => return Ok(None),
        };
        match self.backend.bytes_size(&name).await? {
            None => {
                let problem = self.missing_bytes(digest).await?;
                return Ok(problem.map(|problem| (problem, false)));
            }
            Some(found) => {
                if let Some(problem) = other_length(size, found) {
                    return Ok(Some((problem, false)));
                }
            }
        }
        let Some(pace) = pace else { return Ok(None) };
        match self.backend.open_bytes(&name, Expect::Nothing).await? {
            Some(content) => {
                let problem = self.verify(digest, &name, content, size, pace).await?;
                Ok(problem.map(|problem| {
                    let is_served = matches!(problem, Problem::OtherContent { .. });
                    (problem, is_served)
                }))
            }
            None => Ok(Some((Problem::MissingBytes, false))),
        }
    }

    /// Reads content from the medium and compares its digest. Content whose digest has an unknown algorithm is only
    /// read.
    ///
    /// What memory has of it would say what the medium had once, so it is dropped before. What was read is dropped too, as
    /// a round would otherwise displace what clients read.
    async fn verify(
        &self,
        digest: &Digest,
        name: &BytesName,
        content: Arc<dyn BlobContent>,
        size: u64,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Problem>, Error> {
        self.backend.forget_cached(name, 0..size).await?;
        let mut hasher = digest.algorithm().map(Hasher::new);
        let mut stream = content.read(0..size);
        let (mut read, mut forgotten) = (0_u64, 0_u64);
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if error.code() == ErrorCode::BlobUnknown => {
                    return Ok(Some(Problem::MissingBytes));
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error)
                        .map_or_else(|| error.to_string(), ToString::to_string);
                    return Ok(Some(Problem::UnreadableBytes { cause }));
                }
            };
            let length = chunk.len() as u64;
            if let Some(state) = hasher.take() {
                hasher = Some(hash(state, chunk).await?);
            }
            read = read.saturating_add(length);
            if read - forgotten >= FORGET_EVERY || read >= size {
                self.backend.forget_cached(name, forgotten..read).await?;
                forgotten = read;
            }
            pace.after(length).await;
        }
        let found = hasher.map(Hasher::finish).filter(|found| found != digest);
        Ok(found.map(|found| Problem::OtherContent { found }))
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
