//! Counting what the repositories of quotas have, from their records.

use std::sync::Arc;
use std::time::Duration;

use registry_core::quota::Amount;
use registry_core::{Error, Timestamp};

use super::accounts::Accounts;
use super::ledger::{Count, record_of};
use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::observer::{MaintenanceObserver, Step};
use crate::record::QuotaRecord;
use crate::store::edge::contended;
use crate::store::{Store, TRANSACTION_ATTEMPTS};
use crate::unique::unique;

impl<B: Backend> Store<B> {
    /// Counts what the repositories of quotas have, if that is not known, or was counted longer ago than `after`; than
    /// `inexact_after` if that was not exact. Returns for how many it did.
    pub(crate) async fn count_all(
        &self,
        after: Duration,
        inexact_after: Duration,
        observer: &dyn MaintenanceObserver,
    ) -> Result<usize, Error> {
        let Some(accounts) = self.backend.accounts() else {
            return Ok(0);
        };
        let now = self.clock.now();
        let mut due = Vec::new();
        for (number, account) in accounts.all.iter().enumerate() {
            let record = record_of(self.backend.get(&account.key).await?.as_ref());
            let after = if record.is_exact { after } else { inexact_after };
            // What a clock wrote that was ahead says nothing.
            let counted = record.counted.filter(|counted| *counted <= now);
            if counted.is_none_or(|counted| now.since(counted) >= after) {
                due.push(number);
            }
        }
        if !due.is_empty() {
            self.count_accounts(&accounts, &due, observer).await?;
        }
        Ok(due.len())
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
            record.epoch = unique();
            // Until it ends: the count before it may miss what was written while nobody counted.
            record.is_exact = false;
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
