//! Counting what a transaction changes.
//!
//! What becomes visible is added to the counts **before** it is written, and what is gone is subtracted **after** it: so a
//! process that dies in between leaves a count that is too high, never one that is too low, and the next
//! [count](super::count) corrects it. If transactions are one step, all of it is part of that step.
//!
//! A count takes a new epoch when it begins and when it ends. What was added in one epoch and written in another is added
//! once more, because the count may have missed it; what was deleted in one epoch is not subtracted in another, because the
//! count may not have seen it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::quota::Amount;
use registry_core::{Error, RepositoryName};
use tokio::time::sleep;
use uuid::Uuid;

use super::accounts::Accounts;
use crate::backend::{
    Condition, Part, RecordEntry, RecordTransaction, StagedBytes, Stat, Version, VersionedRecord,
};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::{QuotaRecord, Stamp, encode, size_of_blob, size_of_manifest, state_of_size};
use crate::store::edge::{Found, contended};
use crate::unique::unique;

/// How many times a count is written if others write it at the same time, before the push is told to try again.
const ATTEMPTS: u32 = 64;

/// The longest pause before the second attempt; it doubles with each, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// The records of a transaction, with the counts of the quotas.
pub(super) struct Ledger<'a> {
    records: &'a mut dyn RecordTransaction,
    accounts: &'a Accounts,
    /// What this transaction read, and wrote.
    seen: BTreeMap<Key, VersionedRecord>,
    /// The counts that this transaction changes, if it is one step, by the number of their account.
    open: BTreeMap<usize, Count>,
    aside: Option<Aside>,
}

/// What a transaction added to the counts of a repository before it writes anything of it.
struct Aside {
    repository: RepositoryName,
    /// What is left of it.
    amount: Amount,
    /// The epochs of the counts when the first of it was added.
    epochs: Vec<(usize, Uuid)>,
}

/// A count as it was read, or as it is to be written.
pub(super) struct Count {
    pub(super) record: QuotaRecord,
    unchanged: Condition,
}

impl Count {
    /// Reads a count. One that does not exist, or cannot be read, is still to be counted.
    pub(super) async fn read(records: &mut dyn RecordTransaction, key: &Key) -> Result<Self, Error> {
        let stored = records.get(key).await?;
        let unchanged = stored.as_ref().map_or(Condition::Absent, |stored| {
            Condition::Matches(stored.version.clone())
        });
        Ok(Self {
            record: record_of(stored.as_ref()),
            unchanged,
        })
    }

    /// Writes it; returns `false` if it was written since it was read.
    pub(super) async fn write(
        mut self,
        records: &mut dyn RecordTransaction,
        key: &Key,
        accounts: &Accounts,
    ) -> Result<bool, Error> {
        self.record.stamp = Stamp::new(accounts.clock.now());
        let value = encode(&self.record, &[])?;
        Ok(records.put(key, value, self.unchanged).await?.is_some())
    }
}

/// Returns what a record says of a count.
pub(super) fn record_of(stored: Option<&VersionedRecord>) -> QuotaRecord {
    let read = Found::<QuotaRecord>::new(stored).ok();
    let read = read.and_then(|found| found.record).map(|(record, _)| record);
    read.unwrap_or_else(|| QuotaRecord {
        used: Amount::NONE,
        added: Amount::NONE,
        epoch: if stored.is_some() { unique() } else { Uuid::nil() },
        counted: None,
        is_exact: false,
        stamp: Stamp::new(registry_core::Timestamp(0)),
    })
}

/// Returns the repository whose quotas count a record.
fn counted_in(key: &Key) -> Option<(RepositoryName, KeyKind)> {
    let kind = KeyKind::of(key)?;
    match &kind {
        KeyKind::Grant(repository, _) | KeyKind::Manifest(repository, _) | KeyKind::Tag(repository, _) => {
            Some((repository.clone(), kind))
        }
        _ => None,
    }
}

/// Returns what a record of this kind counts: nothing unless clients see it.
fn amount_of(kind: &KeyKind, value: &Bytes) -> Amount {
    if !state_of_size(value.len() as u64).is_visible() {
        return Amount::NONE;
    }
    match kind {
        KeyKind::Grant(..) => Amount {
            bytes: size_of_blob(value),
            ..Amount::NONE
        },
        KeyKind::Manifest(..) => Amount {
            bytes: size_of_manifest(value),
            manifests: 1,
            ..Amount::NONE
        },
        KeyKind::Tag(..) => Amount {
            tags: 1,
            ..Amount::NONE
        },
        _ => Amount::NONE,
    }
}

impl<'a> Ledger<'a> {
    pub(super) fn new(records: &'a mut dyn RecordTransaction, accounts: &'a Accounts) -> Self {
        Self {
            records,
            accounts,
            seen: BTreeMap::new(),
            open: BTreeMap::new(),
            aside: None,
        }
    }

    /// Gives back what was set aside and not used, and writes the counts if the transaction is one step.
    pub(super) async fn close(mut self) -> Result<(), Error> {
        self.give_back_aside().await?;
        let Self {
            records,
            accounts,
            open,
            ..
        } = self;
        for (number, count) in open {
            if let Some(account) = accounts.all.get(number)
                && !count.write(records, &account.key, accounts).await?
            {
                return Err(contended());
            }
        }
        Ok(())
    }

    /// Ends a transaction that failed: what one step did is undone, otherwise what was set aside is given back.
    pub(super) async fn abandon(mut self) {
        if !self.accounts.is_atomic
            && let Err(error) = self.give_back_aside().await
        {
            tracing::debug!(%error, "what a failed push set aside of a quota stays until the next count");
        }
    }

    async fn give_back_aside(&mut self) -> Result<(), Error> {
        match self.aside.take() {
            Some(aside) if aside.amount != Amount::NONE => self.give_back(&aside.epochs, aside.amount).await,
            _ => Ok(()),
        }
    }

    /// Takes what was set aside for a write, if that is enough. Returns the epochs.
    fn take_aside(&mut self, repository: &RepositoryName, more: Amount) -> Option<Vec<(usize, Uuid)>> {
        let aside = self
            .aside
            .as_mut()
            .filter(|aside| aside.repository == *repository)?;
        if more.minus(aside.amount) != Amount::NONE {
            return None;
        }
        aside.amount = aside.amount.minus(more);
        Some(aside.epochs.clone())
    }

    /// Returns what a record counts that has to meet a condition for a write; `None` if it does not meet it.
    async fn before(
        &mut self,
        key: &Key,
        kind: &KeyKind,
        condition: &Condition,
    ) -> Result<Option<Amount>, Error> {
        let version = match condition {
            Condition::Absent => return Ok(Some(Amount::NONE)),
            Condition::Matches(version) => Some(version),
            Condition::Any => None,
        };
        let is_known = |stored: &&VersionedRecord| Some(&stored.version) == version;
        if let Some(stored) = self.seen.get(key).filter(is_known) {
            return Ok(Some(amount_of(kind, &stored.value)));
        }
        let stored = self.records.get(key).await?;
        let amount = stored
            .as_ref()
            .map_or(Amount::NONE, |stored| amount_of(kind, &stored.value));
        let is_met = version.is_none() || stored.as_ref().map(|stored| &stored.version) == version;
        Ok(is_met.then_some(amount))
    }

    /// Changes a count, unless `change` returns `false`, and returns its epoch.
    async fn change(
        &mut self,
        number: usize,
        change: &(dyn Fn(&mut QuotaRecord) -> Result<bool, Error> + Sync),
    ) -> Result<Uuid, Error> {
        let accounts = self.accounts;
        let Some(account) = accounts.all.get(number) else {
            return Ok(Uuid::nil());
        };
        if accounts.is_atomic {
            if let Some(count) = self.open.get_mut(&number) {
                change(&mut count.record)?;
                return Ok(count.record.epoch);
            }
            let mut count = Count::read(self.records, &account.key).await?;
            let epoch = count.record.epoch;
            if change(&mut count.record)? {
                self.open.insert(number, count);
            }
            return Ok(epoch);
        }
        for attempt in 0..ATTEMPTS {
            let mut count = Count::read(self.records, &account.key).await?;
            let epoch = count.record.epoch;
            if !change(&mut count.record)? || count.write(self.records, &account.key, accounts).await? {
                return Ok(epoch);
            }
            sleep(pause(attempt)).await;
        }
        Err(contended())
    }

    async fn add(
        &mut self,
        number: usize,
        repository: &RepositoryName,
        more: Amount,
        is_limited: bool,
    ) -> Result<Uuid, Error> {
        let accounts = self.accounts;
        let account = accounts.all.get(number);
        self.change(number, &|count| {
            if let Some(account) = account.filter(|_| is_limited) {
                account.require_room(repository, count.used, more)?;
            }
            count.used = count.used.plus(more);
            count.added = count.added.plus(more);
            Ok(true)
        })
        .await
    }

    /// Subtracts from a count if it is still in this epoch. Otherwise it may be too high now, so it is to be counted again.
    async fn subtract(&mut self, number: usize, epoch: Uuid, less: Amount) -> Result<(), Error> {
        let subtract = |count: &mut QuotaRecord| {
            if count.epoch == epoch {
                count.used = count.used.minus(less);
            } else {
                count.is_exact = false;
            }
            Ok(true)
        };
        self.change(number, &subtract).await.map(drop)
    }

    /// Adds to all counts of a repository, or to none, and returns the epochs.
    async fn reserve(
        &mut self,
        repository: &RepositoryName,
        more: Amount,
        is_limited: bool,
    ) -> Result<Vec<(usize, Uuid)>, Error> {
        let accounts = self.accounts;
        let mut reserved = Vec::new();
        for (number, _) in accounts.of(repository) {
            match self.add(number, repository, more, is_limited).await {
                Ok(epoch) => reserved.push((number, epoch)),
                Err(refusal) => {
                    self.give_back(&reserved, more).await?;
                    return Err(refusal);
                }
            }
        }
        Ok(reserved)
    }

    async fn give_back(&mut self, reserved: &[(usize, Uuid)], more: Amount) -> Result<(), Error> {
        for (number, epoch) in reserved {
            self.subtract(*number, *epoch, more).await?;
        }
        Ok(())
    }

    /// Has counts counted again from which something is given back because its write failed on its condition. It may have been
    /// written all the same: if the answer is lost, and others write it once more before the store's client repeats the request,
    /// then that fails. Nothing shows which it was.
    async fn doubt(&mut self, reserved: &[(usize, Uuid)]) -> Result<(), Error> {
        if self.accounts.is_atomic {
            return Ok(());
        }
        for (number, _) in reserved {
            let doubt = |count: &mut QuotaRecord| Ok(std::mem::take(&mut count.is_exact));
            self.change(*number, &doubt).await?;
        }
        Ok(())
    }

    /// Returns the epochs of all counts of a repository.
    async fn epochs(&mut self, repository: &RepositoryName) -> Result<Vec<(usize, Uuid)>, Error> {
        let accounts = self.accounts;
        let mut epochs = Vec::new();
        for (number, _) in accounts.of(repository) {
            epochs.push((number, self.change(number, &|_| Ok(false)).await?));
        }
        Ok(epochs)
    }

    /// Adds once more what was added before a count began or ended, and written after.
    async fn confirm(&mut self, reserved: &[(usize, Uuid)], more: Amount) -> Result<(), Error> {
        if self.accounts.is_atomic {
            return Ok(());
        }
        for (number, epoch) in reserved {
            let add = |count: &mut QuotaRecord| {
                let is_missed = count.epoch != *epoch;
                if is_missed {
                    count.used = count.used.plus(more);
                    count.added = count.added.plus(more);
                    count.is_exact = false;
                }
                Ok(is_missed)
            };
            self.change(*number, &add).await?;
        }
        Ok(())
    }

    /// Writes a record that quotas count.
    async fn put_counted(
        &mut self,
        key: &Key,
        (repository, kind): (&RepositoryName, &KeyKind),
        value: Bytes,
        condition: Condition,
    ) -> Result<Option<Version>, Error> {
        let Some(before) = self.before(key, kind, &condition).await? else {
            return self.records.put(key, value, condition).await;
        };
        let after = amount_of(kind, &value);
        let (more, less) = (after.minus(before), before.minus(after));
        let aside = self.take_aside(repository, more);
        let is_aside = aside.is_some();
        let reserved = if let Some(aside) = aside {
            aside
        } else if more == Amount::NONE {
            Vec::new()
        } else {
            // What was visible may always stay so.
            let is_limited = before == Amount::NONE && self.accounts.may_refuse();
            self.reserve(repository, more, is_limited).await?
        };
        let epochs = if less == Amount::NONE {
            Vec::new()
        } else {
            self.epochs(repository).await?
        };
        // If the answer is lost, nobody knows whether it was written, so it counts.
        let written = self.records.put(key, value.clone(), condition).await?;
        match &written {
            Some(version) => {
                self.seen
                    .insert(key.clone(), VersionedRecord::new(value, version.clone()));
                self.confirm(&reserved, more).await?;
                for (number, epoch) in epochs {
                    self.subtract(number, epoch, less).await?;
                }
            }
            None => {
                self.doubt(&reserved).await?;
                match &mut self.aside {
                    Some(aside) if is_aside => aside.amount = aside.amount.plus(more),
                    _ => self.give_back(&reserved, more).await?,
                }
            }
        }
        Ok(written)
    }
}

/// Returns a random pause before another attempt.
fn pause(attempt: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(8)).min(LAST_PAUSE);
    let random = u32::from(unique().as_bytes()[0]);
    longest * random / 255
}

/// Removing a record changes no count: only what is Dead already is removed.
#[async_trait]
impl RecordTransaction for Ledger<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        let found = self.records.get(key).await?;
        if let Some(stored) = &found {
            self.seen.insert(key.clone(), stored.clone());
        }
        Ok(found)
    }

    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error> {
        self.records.stat(key).await
    }

    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error> {
        match counted_in(key).filter(|(repository, _)| self.accounts.concern(repository)) {
            Some((repository, kind)) => {
                self.put_counted(key, (&repository, &kind), value, condition)
                    .await
            }
            None => self.records.put(key, value, condition).await,
        }
    }

    fn others_purge(&self) -> bool {
        self.records.others_purge()
    }

    fn purges(&self) -> bool {
        self.records.purges()
    }

    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error> {
        self.records.purge_if(key, version).await
    }

    async fn remove(&mut self, key: &Key) -> Result<(), Error> {
        self.records.remove(key).await
    }

    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        self.records.list(prefix, after, limit).await
    }

    async fn complete_bytes(
        &mut self,
        bytes: &StagedBytes,
        parts: &[Part],
        tail: Bytes,
    ) -> Result<(), Error> {
        self.records.complete_bytes(bytes, parts, tail).await
    }

    async fn set_aside(&mut self, repository: &RepositoryName, more: Amount) -> Result<bool, Error> {
        if !self.accounts.concern(repository) {
            return Ok(false);
        }
        let aside = self
            .aside
            .as_ref()
            .filter(|aside| aside.repository == *repository);
        let lacking = more.minus(aside.map_or(Amount::NONE, |aside| aside.amount));
        if lacking == Amount::NONE {
            return Ok(true);
        }
        let epochs = self
            .reserve(repository, lacking, self.accounts.may_refuse())
            .await?;
        match self
            .aside
            .as_mut()
            .filter(|aside| aside.repository == *repository)
        {
            // A count since its epochs makes the sum too high at most.
            Some(aside) => aside.amount = aside.amount.plus(lacking),
            None => {
                self.give_back_aside().await?;
                self.aside = Some(Aside {
                    repository: repository.clone(),
                    amount: lacking,
                    epochs,
                });
            }
        }
        Ok(true)
    }
}
