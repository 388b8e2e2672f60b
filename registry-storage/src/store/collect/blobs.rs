//! Blobs that no repository has, on a backend whose transactions are not one step.

use registry_core::{Digest, Error, Timestamp};

use super::cycle::{Cycle, Facts};
use super::{CollectReport, Decided};
use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction};
use crate::chain::{Collect, State};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::Pages;
use crate::record::{BlobRecord, state_of_size};
use crate::store::Store;
use crate::store::edge::{Found, Stateful as _, rescue, write};

/// How many blobs are decided in one transaction.
const BLOBS_PER_TRANSACTION: usize = 64;

impl<B: Backend> Store<B> {
    /// Decides about all blobs. The listing shows the states, so only blobs that no repository has are read, and those
    /// that were condemned.
    pub(super) async fn collect_blobs(
        &self,
        cycle: &Cycle,
        report: &mut CollectReport,
        observer: &dyn MaintenanceObserver,
    ) -> Result<(), Error> {
        let mut listed = 0;
        let mut pages = Pages::of(Key::blobs());
        let mut granted: Option<Key> = None;
        let mut undecided = Vec::new();
        while let Some(page) = pages.next(&*self.backend).await? {
            listed += page.len() as u64;
            observer.step(Step::Records, listed, None);
            for entry in page {
                let state = state_of_size(entry.size);
                let Some(folder) = entry.key.as_str().strip_suffix("record") else {
                    // The grants of a blob come before its record. An unreadable record may be a grant.
                    if state != State::Dead {
                        granted = Some(entry.key);
                    }
                    continue;
                };
                let is_granted = granted
                    .as_ref()
                    .is_some_and(|grant| grant.as_str().starts_with(folder));
                if state != State::Dead
                    && (!is_granted || state == State::Condemned)
                    && let Some(KeyKind::Blob(digest)) = KeyKind::of(&entry.key)
                {
                    undecided.push((digest, is_granted));
                }
            }
            while undecided.len() >= BLOBS_PER_TRANSACTION {
                self.decide_blobs(cycle, undecided.drain(..BLOBS_PER_TRANSACTION).collect(), report)
                    .await?;
            }
        }
        self.decide_blobs(cycle, undecided, report).await
    }

    async fn decide_blobs(
        &self,
        cycle: &Cycle,
        blobs: Vec<(Digest, bool)>,
        report: &mut CollectReport,
    ) -> Result<(), Error> {
        if blobs.is_empty() {
            return Ok(());
        }
        let decide = DecideBlobs {
            blobs,
            cycle: cycle.clone(),
            now: self.clock.now(),
        };
        for decided in self.backend.transact(Durability::Synced, decide).await? {
            match decided {
                Decided::Removed(bytes) => report.removed_blobs.add(bytes),
                Decided::Condemned(_) | Decided::Waiting(_) | Decided::Young(_) => report.blobs_left += 1,
                Decided::Undecided => report.undecided += 1,
                Decided::Gone | Decided::Revived(_) => {}
            }
        }
        Ok(())
    }
}

/// Decides about some blobs, each by itself, and returns what was decided.
#[derive(Clone)]
struct DecideBlobs {
    /// The digests, and whether a repository has each, or may soon.
    blobs: Vec<(Digest, bool)>,
    cycle: Cycle,
    now: Timestamp,
}

impl Transaction for DecideBlobs {
    type Output = Vec<Decided>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Vec<Decided>, Error> {
        let mut decided = Vec::with_capacity(self.blobs.len());
        for (digest, is_granted) in &self.blobs {
            decided.push(self.decide(records, digest, *is_granted).await?);
        }
        Ok(decided)
    }
}

impl DecideBlobs {
    async fn decide(
        &self,
        records: &mut dyn RecordTransaction,
        digest: &Digest,
        is_granted: bool,
    ) -> Result<Decided, Error> {
        let key = Key::blob(digest);
        let Ok(blob) = Found::<BlobRecord>::new(records.get(&key).await?.as_ref()) else {
            return Ok(Decided::Undecided);
        };
        let Some((header, content)) = blob.record.clone() else {
            return Ok(Decided::Gone);
        };
        let size = header.blob.as_ref().map_or(0, |blob| blob.size);
        let facts = Facts {
            state: header.state,
            condemned_in: header.condemned_in,
            written: header.stamp.written,
            is_root: is_granted,
        };
        let decision = self.cycle.decide(facts, self.now);
        let is_done = match decision {
            _ if self.cycle.is_dry_run => true,
            Collect::Leave => true,
            Collect::Revive => rescue(records, &key, &blob, self.now).await?,
            Collect::Condemn => {
                let condemned = BlobRecord {
                    condemned_in: Some(self.cycle.number()),
                    ..header.in_state(State::Condemned, self.now)
                };
                write(records, &key, &condemned, &content, blob.unchanged())
                    .await?
                    .is_some()
            }
            Collect::Kill => {
                // Nothing names the bytes from here on, and no name is used again: they are the sweeper's.
                let dead = BlobRecord {
                    blob: None,
                    proposals: Vec::new(),
                    ..header.in_state(State::Dead, self.now)
                };
                match write(records, &key, &dead, &[], blob.unchanged()).await? {
                    Some(version) => {
                        records.purge_if(&key, &version).await?;
                        true
                    }
                    None => false,
                }
            }
        };
        Ok(Decided::of(decision, facts, size, is_done))
    }
}
