//! Listing referrers.

use registry_core::storage::{Page, ReferrersRequest};
use registry_core::{Descriptor, Digest, Error, RepositoryName};
use tokio::sync::SemaphorePermit;

use super::Store;
use crate::backend::{Backend, LIST_LIMIT, RecordEntry};
use crate::key::Key;
use crate::record::{ReferrerRecord, decode, state_of_size};

/// How many entries are read at once.
const ENTRIES_PER_READ: usize = 256;

/// The maximum number of entries read for one page, of which a filter may leave few.
const ENTRIES_PER_PAGE: usize = 10_000;

/// The maximum size in kibibytes of entries read at once for all lists together: two pages of the largest manifests.
pub(super) const READ_MEMORY_KIB: usize = 8 * 1024;

/// Entries that are smaller than this many kibibytes together are read without reserving memory: those of nearly every
/// list.
const UNRESERVED_KIB: u64 = 64;

/// The maximum number of bytes read for a page, as a multiple of the page's size.
const READ_FACTOR: usize = 4;

/// The size steps by which a list is ordered: larger entries come later, so that no large entry precedes one that would
/// still fit on the page. Most clients read only the first page. Within a step, entries are in the order of their
/// digests.
const SIZE_STEPS: u32 = 5;

/// How a place in a step begins; no digest begins so. A place without it is in the first step, as nearly all are.
const STEP_MARK: char = '~';

/// A place in a list: everything up to this key, of the entries of this step and of all steps before.
struct Place {
    step: u32,
    key: Option<Key>,
}

impl Place {
    /// Parses what [`spell`](Self::spell) wrote, and treats anything else as a place in the first step.
    fn read(text: Option<&str>, prefix: &Key) -> Self {
        let key = |place: &str| (!place.is_empty()).then(|| prefix.join(place));
        let marked = text
            .and_then(|text| text.strip_prefix(STEP_MARK)?.split_at_checked(1))
            .and_then(|(step, place)| Some((step.parse().ok().filter(|step| *step < SIZE_STEPS)?, place)));
        match marked {
            Some((step, place)) => Self {
                step,
                key: key(place),
            },
            None => Self {
                step: 0,
                key: text.and_then(key),
            },
        }
    }

    fn spell(&self, prefix: &Key) -> Option<String> {
        let place = self.key.as_ref().and_then(|key| key.after(prefix));
        match self.step {
            0 => place,
            step => Some(format!("{STEP_MARK}{step}{}", place.unwrap_or_default())),
        }
    }
}

impl<B: Backend> Store<B> {
    /// Reads entries, whose sizes are known from the listing, and never a manifest: it may be a thousand times as
    /// large.
    pub(super) async fn page_of_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error> {
        let prefix = Key::referrers(repository, subject);
        let mut place = Place::read(request.last.as_deref(), &prefix);
        let mut reading = Reading::new(request);
        // The steps that have entries, once the whole list was seen.
        let mut steps = None;
        while reading.request.limit > 0 && place.step < SIZE_STEPS {
            if steps.is_none_or(|steps| steps & (1 << place.step) != 0) {
                let is_whole = place.key.is_none();
                let Some(seen) = self
                    .read_step(repository, &prefix, &mut reading, &mut place)
                    .await?
                else {
                    let (items, next) = (reading.items, place.spell(&prefix));
                    return Ok(Page { items, next });
                };
                steps = steps.or_else(|| is_whole.then_some(seen));
            }
            let step = place.step.saturating_add(1);
            place = Place { step, key: None };
        }
        Ok(Page {
            items: reading.items,
            next: None,
        })
    }

    /// Reads the rest of a step. Returns the steps of the entries that it saw, including other steps; `None` if the
    /// page is full before the step ends.
    async fn read_step(
        &self,
        repository: &RepositoryName,
        prefix: &Key,
        reading: &mut Reading,
        place: &mut Place,
    ) -> Result<Option<u32>, Error> {
        let (mut listed_to, mut seen) = (place.key.clone(), 0);
        // Held until the page is complete, so that many lists at once have no more in memory than a few do.
        let mut held = None;
        loop {
            let listed = self.backend.list(prefix, listed_to.as_ref(), LIST_LIMIT).await?;
            let is_last = listed.len() < LIST_LIMIT;
            listed_to = listed.last().map(|entry| entry.key.clone());
            let of_step = |entry: &RecordEntry| {
                let step = reading.step_of(entry);
                seen |= 1 << step;
                step == place.step
            };
            let listed: Vec<RecordEntry> = listed.into_iter().filter(of_step).collect();
            let mut rest = &*listed;
            while !rest.is_empty() {
                let batch = reading.next_batch(rest);
                if batch.is_empty() {
                    return Ok(None);
                }
                // What was read before is in memory anyway; waiting for more while holding it would stop the other
                // lists.
                drop(held.take());
                held = self.reserve_for(reading, batch).await?;
                let taken = self
                    .read_referrers(repository, reading, batch, place.key.as_ref())
                    .await?;
                let last = taken.checked_sub(1).and_then(|last| batch.get(last));
                place.key = last.map(|last| last.key.clone());
                rest = rest.get(taken..).unwrap_or_default();
            }
            if is_last {
                return Ok(Some(seen));
            }
        }
    }

    /// Waits for the memory that a page needs for a batch, if it is large.
    async fn reserve_for(
        &self,
        reading: &Reading,
        batch: &[RecordEntry],
    ) -> Result<Option<SemaphorePermit<'_>>, Error> {
        let size = batch
            .iter()
            .fold(reading.size as u64, |sum, entry| sum.saturating_add(entry.size));
        let kibibytes = size / 1024;
        if kibibytes < UNRESERVED_KIB {
            return Ok(None);
        }
        let kibibytes = u32::try_from(kibibytes.min(READ_MEMORY_KIB as u64)).unwrap_or(u32::MAX);
        let permit = self.referrer_memory.acquire_many(kibibytes).await;
        permit.map(Some).map_err(Error::internal)
    }

    /// Reads entries, and takes those that are wanted and whose manifests exist; a delete may have been interrupted
    /// before it reached the entry. Returns how many it processed: fewer than all if the page is full.
    async fn read_referrers(
        &self,
        repository: &RepositoryName,
        reading: &mut Reading,
        batch: &[RecordEntry],
        before: Option<&Key>,
    ) -> Result<usize, Error> {
        let keys: Vec<Key> = batch.iter().map(|entry| entry.key.clone()).collect();
        let values = self.backend.get_all(&keys).await?;
        let mut found = Vec::new();
        let mut before = before.and_then(manifest_part);
        for (at, (entry, value)) in batch.iter().zip(values).enumerate() {
            // Two incarnations of one manifest are entered if a delete was interrupted between them: it is listed once.
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

/// A page while it is read.
struct Reading {
    request: ReferrersRequest,
    items: Vec<Descriptor>,
    /// The bytes of the entries that are on the page. An entry is larger than its descriptor as JSON.
    size: usize,
    /// How many entries were read.
    entries: usize,
    /// The bytes of all entries that were read.
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

    /// Returns the step of an entry: the first has entries of up to a sixteenth of a page, each other step entries of
    /// up to twice the size of the previous one, and the last everything larger.
    fn step_of(&self, entry: &RecordEntry) -> u32 {
        let most = |step: &u32| self.request.size_limit >> (SIZE_STEPS - 1 - step);
        (0..SIZE_STEPS - 1)
            .find(|step| size_of(entry) <= most(step))
            .unwrap_or(SIZE_STEPS - 1)
    }

    /// Returns the entries of `listed` that may be read next; none if the page is full, or enough was read for it.
    fn next_batch<'a>(&self, listed: &'a [RecordEntry]) -> &'a [RecordEntry] {
        let ReferrersRequest {
            limit, size_limit, ..
        } = self.request;
        let missing = limit.saturating_sub(self.items.len());
        let is_over = self.entries >= ENTRIES_PER_PAGE || self.read >= size_limit.saturating_mul(READ_FACTOR);
        if missing == 0 || is_over && self.entries > 0 {
            return &[];
        }
        let count = match self.request.artifact_type {
            Some(_) => ENTRIES_PER_READ,
            None => ENTRIES_PER_READ.min(missing),
        };
        let mut room = size_limit.saturating_sub(self.size);
        let fitting = listed.iter().take(count).take_while(|entry| {
            let rest = room.checked_sub(size_of(entry));
            room = rest.unwrap_or_default();
            rest.is_some()
        });
        let fitting = fitting.count();
        // An entry that is too large for a page is returned alone.
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

    fn count(&mut self, entries: &[RecordEntry]) {
        self.entries = self.entries.saturating_add(entries.len());
        let sizes = entries.iter().map(size_of);
        self.read = sizes.fold(self.read, usize::saturating_add);
    }
}

fn size_of(entry: &RecordEntry) -> usize {
    usize::try_from(entry.size).unwrap_or(usize::MAX)
}
