//! Listing referrers.

use registry_core::storage::{Page, ReferrersRequest};
use registry_core::{Descriptor, Digest, Error, RepositoryName};
use tokio::sync::SemaphorePermit;

use super::Store;
use crate::backend::{Backend, Entry};
use crate::key::Key;
use crate::record::{ReferrerRecord, decode, state_of_size};

/// The most entries in a listing of the backend.
const BACKEND_PAGE: usize = 1000;

/// How many entries are read at once.
const BATCH: usize = 256;

/// The most entries that are read for one page, of which a filter may leave few.
const ENTRIES: usize = 10_000;

/// The most kibibytes of entries that are read at once for all lists together: two pages of the largest manifests.
pub(super) const MEMORY: usize = 8 * 1024;

/// Entries that together have fewer kibibytes are read at once: those of nearly every list.
const SMALL: u64 = 64;

/// How many times the size of a page is read for it at most.
const READ_FACTOR: usize = 4;

impl<B: Backend> Store<B> {
    /// Reads entries, whose sizes the listing tells before, and never a manifest: it may be a thousand times as large.
    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error> {
        let prefix = Key::referrers(repository, subject);
        let mut after = request.last.as_ref().map(|last| prefix.join(last));
        let mut reading = Reading::new(request);
        // Until the page is made, so that many lists at once have no more in memory than a few do.
        let mut held = None;
        while reading.request.limit > 0 {
            let listed = self.backend.list(&prefix, after.as_ref(), BACKEND_PAGE).await?;
            let is_last = listed.len() < BACKEND_PAGE;
            let mut rest = &*listed;
            while !rest.is_empty() {
                let batch = reading.next_batch(rest);
                if batch.is_empty() {
                    let next = after.and_then(|after| after.after(&prefix));
                    let items = reading.items;
                    return Ok(Page { items, next });
                }
                // What was read before is in memory nevertheless; whoever waited for more with it would stop the others.
                drop(held.take());
                held = self.reserve_for(&reading, batch).await?;
                let taken = self
                    .read_referrers(repository, &mut reading, batch, after.as_ref())
                    .await?;
                after = taken
                    .checked_sub(1)
                    .and_then(|last| batch.get(last))
                    .map(|last| last.key.clone());
                rest = rest.get(taken..).unwrap_or_default();
            }
            if is_last {
                break;
            }
        }
        Ok(Page {
            items: reading.items,
            next: None,
        })
    }

    /// Waits for the memory that a page takes with a batch, where it is large.
    async fn reserve_for(
        &self,
        reading: &Reading,
        batch: &[Entry],
    ) -> Result<Option<SemaphorePermit<'_>>, Error> {
        let size = batch
            .iter()
            .fold(reading.size as u64, |sum, entry| sum.saturating_add(entry.size));
        let kibibytes = size / 1024;
        if kibibytes < SMALL {
            return Ok(None);
        }
        let kibibytes = u32::try_from(kibibytes.min(MEMORY as u64)).unwrap_or(u32::MAX);
        let permit = self.referrer_memory.acquire_many(kibibytes).await;
        permit.map(Some).map_err(Error::internal)
    }

    /// Reads entries, and takes those that are wanted and whose manifests are there; a delete may have been ended before
    /// it came to the entry. Returns how many it looked at, fewer than all where the page is full.
    async fn read_referrers(
        &self,
        repository: &RepositoryName,
        reading: &mut Reading,
        batch: &[Entry],
        before: Option<&Key>,
    ) -> Result<usize, Error> {
        let keys: Vec<Key> = batch.iter().map(|entry| entry.key.clone()).collect();
        let values = self.backend.get_all(&keys).await?;
        let mut found = Vec::new();
        let mut before = before.and_then(manifest_part);
        for (at, (entry, value)) in batch.iter().zip(values).enumerate() {
            // Two incarnations of one manifest are entered where a delete was ended between them: it is listed once.
            let manifest = manifest_part(&entry.key);
            let is_again = std::mem::replace(&mut before, manifest) == manifest;
            let Some(value) = value.filter(|_| !is_again && state_of_size(entry.size).is_visible()) else {
                continue;
            };
            let (record, content) = decode::<ReferrerRecord>(&value.value)?;
            if reading.wants(&record) {
                found.push((at, entry.size, record.into_descriptor(content)));
            }
        }
        let manifests: Vec<Key> = found
            .iter()
            .map(|(_, _, descriptor)| Key::manifest(repository, &descriptor.digest))
            .collect();
        let sizes = if manifests.is_empty() {
            Vec::new()
        } else {
            self.backend.sizes(&manifests).await?
        };
        for ((at, size, descriptor), manifest) in found.into_iter().zip(sizes) {
            if manifest.is_some_and(|size| state_of_size(size).is_visible()) {
                reading.take(size, descriptor);
                if reading.items.len() >= reading.request.limit {
                    reading.count(batch.get(..=at).unwrap_or_default());
                    return Ok(at + 1);
                }
            }
        }
        reading.count(batch);
        Ok(batch.len())
    }
}

/// Returns the key of an entry without the incarnation of the manifest.
fn manifest_part(entry: &Key) -> Option<&str> {
    entry.as_str().rsplit_once('.').map(|(manifest, _)| manifest)
}

/// A page as it is read.
struct Reading {
    request: ReferrersRequest,
    items: Vec<Descriptor>,
    /// The bytes of the entries that are on the page. An entry is larger than its descriptor as JSON.
    size: usize,
    /// How many entries were read.
    entries: usize,
    /// The bytes of all of them.
    read: usize,
}

impl Reading {
    const fn new(request: ReferrersRequest) -> Self {
        Self {
            request,
            items: Vec::new(),
            size: 0,
            entries: 0,
            read: 0,
        }
    }

    /// Returns how many of `listed` may be read next; none where the page is full, or enough was read for it.
    fn next_batch<'a>(&self, listed: &'a [Entry]) -> &'a [Entry] {
        let ReferrersRequest {
            limit, size_limit, ..
        } = self.request;
        let missing = limit.saturating_sub(self.items.len());
        let is_over = self.entries >= ENTRIES || self.read >= size_limit.saturating_mul(READ_FACTOR);
        if missing == 0 || is_over && self.entries > 0 {
            return &[];
        }
        let count = match self.request.artifact_type {
            Some(_) => BATCH,
            None => BATCH.min(missing),
        };
        let mut room = size_limit.saturating_sub(self.size);
        let fitting = listed.iter().take(count).take_while(|entry| {
            let rest = room.checked_sub(size_of(entry));
            room = rest.unwrap_or_default();
            rest.is_some()
        });
        let fitting = fitting.count();
        // What alone is too large comes alone.
        let count = if fitting == 0 && self.items.is_empty() {
            1
        } else {
            fitting
        };
        listed.get(..count).unwrap_or_default()
    }

    fn wants(&self, record: &ReferrerRecord) -> bool {
        let wanted = self.request.artifact_type.as_deref();
        wanted.is_none() || wanted == record.descriptor.artifact_type.as_deref()
    }

    fn take(&mut self, size: u64, descriptor: Descriptor) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.size = self.size.saturating_add(size);
        self.items.push(descriptor);
    }

    fn count(&mut self, entries: &[Entry]) {
        self.entries = self.entries.saturating_add(entries.len());
        let sizes = entries.iter().map(size_of);
        self.read = sizes.fold(self.read, usize::saturating_add);
    }
}

fn size_of(entry: &Entry) -> usize {
    usize::try_from(entry.size).unwrap_or(usize::MAX)
}
