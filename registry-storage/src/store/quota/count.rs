//! Counting what repositories have, from their records.

use std::sync::Arc;
use std::time::Duration;

use registry_core::quota::Amount;
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Timestamp};
use uuid::Uuid;

use super::RepositoryUsage;
use super::accounts::Accounts;
use super::ledger::{Count, amount_of, record_of};
use crate::backend::{Again, Backend, Durability, RecordEntry, RecordTransaction, Transaction};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::{Pages, Values, keys};
use crate::record::{QuotaRecord, state_of_size};
use crate::store::edge::contended;
use crate::store::{BlobCount, Store, TRANSACTION_ATTEMPTS};

/// How many grants are read at once.
const GRANTS_PER_READ: usize = 256;

/// How many times everything is counted again at once because something was written meanwhile.
const COUNTS: usize = 3;

impl<B: Backend> Store<B> {
    /// Counts what the repositories of quotas have, if that is not known, or was counted longer ago than `after`.
    /// Returns for how many it did.
    pub(crate) async fn count_all(
        &self,
        after: Option<Duration>,
        observer: &dyn MaintenanceObserver,
    ) -> Result<usize, Error> {
        let Some(accounts) = self.backend.accounts() else {
            return Ok(0);
        };
        let mut counted = 0;
        for count in 0..COUNTS {
            let after = after.filter(|_| count == 0);
            let mut due = Vec::new();
            for (number, account) in accounts.all.iter().enumerate() {
                let record = record_of(self.backend.get(&account.key).await?.as_ref());
                let age = record.counted.map(|counted| self.clock.now().since(counted));
                let is_old = age.zip(after).is_some_and(|(age, after)| age >= after);
                if age.is_none() || is_old || !record.is_exact {
                    due.push(number);
                }
            }
            if due.is_empty() {
                break;
            }
            self.count_accounts(&accounts, &due, observer).await?;
            counted = counted.max(due.len());
        }
        Ok(counted)
    }

    async fn count_accounts(
        &self,
        accounts: &Arc<Accounts>,
        due: &[usize],
        observer: &dyn MaintenanceObserver,
    ) -> Result<(), Error> {
        let due = || due.iter().filter_map(|number| accounts.all.get(*number));
        let mut counted = Vec::new();
        for account in due() {
            let begun = self.change_count(accounts, &account.key, Change::Begin).await?;
            counted.push((account, begun, Amount::NONE));
        }
        let (mut last, mut done) = (None, 0);
        while let Some(repository) = self.repository_after(last.as_ref()).await? {
            let is_wanted = due().any(|account| account.matches(&repository));
            if is_wanted {
                let usage = self.count_repository(&repository, false).await?.amount();
                for (account, _, sum) in &mut counted {
                    if account.matches(&repository) {
                        *sum = sum.plus(usage);
                    }
                }
                done += 1;
                observer.step(Step::Repositories, done, None);
            }
            last = Some(repository);
        }
        for (account, begun, sum) in counted {
            let end = Change::End {
                begun: Box::new(begun),
                sum,
            };
            self.change_count(accounts, &account.key, end).await?;
        }
        Ok(())
    }

    async fn change_count(
        &self,
        accounts: &Arc<Accounts>,
        key: &Key,
        change: Change,
    ) -> Result<QuotaRecord, Error> {
        let change = ChangeCount {
            key: key.clone(),
            change,
            accounts: Arc::clone(accounts),
            now: self.clock.now(),
        };
        // Not through the accounted backend: the count itself is not counted.
        self.backend.inner.transact(Durability::Deferred, change).await
    }

    /// Returns the first repository with a record after another one, also one that the catalog does not have yet.
    pub(crate) async fn repository_after(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<Option<RepositoryName>, Error> {
        let mut after = after.map(Key::end_of_repository);
        loop {
            let page = self
                .backend
                .list(&Key::all_repositories(), after.as_ref(), 1)
                .await?;
            let Some(entry) = page.into_iter().next() else {
                return Ok(None);
            };
            let kind = KeyKind::of(&entry.key);
            if let Some(repository) = kind.as_ref().and_then(KeyKind::repository) {
                return Ok(Some(repository.clone()));
            }
            after = Some(entry.key);
        }
    }

    /// Returns what a repository has, or [`NameUnknown`](ErrorCode::NameUnknown).
    pub(crate) async fn usage_of(
        &self,
        repository: &RepositoryName,
        is_shared: bool,
    ) -> Result<RepositoryUsage, Error> {
        let usage = self.count_repository(repository, is_shared).await?;
        if usage.amount() == Amount::NONE && usage.blobs.blobs == 0 && !self.is_known(repository).await? {
            return Err(ErrorCode::NameUnknown.into());
        }
        Ok(usage)
    }

    async fn count_repository(
        &self,
        repository: &RepositoryName,
        is_shared: bool,
    ) -> Result<RepositoryUsage, Error> {
        let mut usage = RepositoryUsage::default();
        let is_visible = |entry: &RecordEntry| state_of_size(entry.size).is_visible();
        let mut tags = Pages::of(Key::tags(repository));
        while let Some(page) = tags.next(&*self.backend).await? {
            usage.tags += page.iter().filter(|entry| is_visible(entry)).count() as u64;
        }
        let mut manifests = Values::of(Key::manifests(repository), is_visible);
        while let Some(read) = manifests.next(&*self.backend).await? {
            for (key, stored) in read {
                if let Some((kind, stored)) = KeyKind::of(&key).zip(stored) {
                    let amount = amount_of(&kind, &stored.value);
                    usage.manifests += amount.manifests;
                    usage.manifest_bytes = usage.manifest_bytes.saturating_add(amount.bytes);
                }
            }
        }
        let mut shared = BlobCount::default();
        let mut blobs = Pages::of(Key::repository_blobs(repository));
        while let Some(page) = blobs.next(&*self.backend).await? {
            let digests = keys(page).filter_map(|key| match KeyKind::of(&key) {
                Some(KeyKind::RepositoryBlob(_, digest)) => Some(digest),
                _ => None,
            });
            let digests: Vec<Digest> = digests.collect();
            for some in digests.chunks(GRANTS_PER_READ) {
                let grants: Vec<Key> = some.iter().map(|digest| Key::grant(digest, repository)).collect();
                let values = self.backend.get_all(&grants).await?;
                for ((digest, key), stored) in some.iter().zip(&grants).zip(values) {
                    let Some((kind, stored)) = KeyKind::of(key).zip(stored) else {
                        continue;
                    };
                    if !state_of_size(stored.value.len() as u64).is_visible() {
                        continue;
                    }
                    let bytes = amount_of(&kind, &stored.value).bytes;
                    usage.blobs.add(bytes);
                    if is_shared && self.is_shared(digest, key).await? {
                        shared.add(bytes);
                    }
                }
            }
        }
        usage.shared = is_shared.then_some(shared);
        Ok(usage)
    }

    /// Returns whether another repository than that of the grant `own` has a blob.
    async fn is_shared(&self, digest: &Digest, own: &Key) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::grants(digest));
        while let Some(page) = pages.next(&*self.backend).await? {
            let mut others = page.iter().filter(|entry| entry.key != *own);
            if others.any(|entry| state_of_size(entry.size).is_visible()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How a count changes when everything is counted.
#[derive(Clone)]
enum Change {
    Begin,
    End {
        /// The count when this began.
        begun: Box<QuotaRecord>,
        /// What was found.
        sum: Amount,
    },
}

/// Begins or ends a count, and returns it.
#[derive(Clone)]
struct ChangeCount {
    key: Key,
    change: Change,
    accounts: Arc<Accounts>,
    now: Timestamp,
}

impl Transaction for ChangeCount {
    type Output = QuotaRecord;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<QuotaRecord, Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let mut count = Count::read(records, &self.key).await?;
            let record = &mut count.record;
            record.epoch = Uuid::new_v4();
            if let Change::End { begun, sum } = &self.change {
                // Some of what was added meanwhile was found too: it counts twice rather than not at all.
                let added = record.added.minus(begun.added);
                record.is_exact = record.used == begun.used && added == Amount::NONE;
                record.used = sum.plus(added);
                record.counted = Some(self.now);
            }
            let record = record.clone();
            if count.write(records, &self.key, &self.accounts).await? {
                return Ok(record);
            }
        }
        Err(contended())
    }
}
