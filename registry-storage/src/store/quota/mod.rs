//! Quotas: what repositories may have together, and what they have.
//!
//! [`accounts`] has the quotas and the backend through which all transactions run, [`ledger`] counts what a transaction
//! changes and refuses what is too much, and [`count`] counts everything from the records.

mod accounts;
mod count;
mod ledger;

use registry_core::quota::{Amount, Quota};
use registry_core::storage::NewManifest;
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Timestamp};

pub(super) use self::accounts::Accounted;
pub(crate) use self::accounts::have_one_count;
use self::accounts::{Account, Accounts, key_of};
use self::ledger::record_of;
use super::Store;
use super::edge::read_cached;
use crate::backend::Backend;
use crate::key::Key;
use crate::record::{GrantRecord, ManifestRecord, TagRecord};

/// A quota, and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaUsage {
    /// The quota.
    pub quota: Quota,
    /// What its repositories have; before the first count, what was added.
    pub used: Amount,
    /// When that was counted from the records; changes were added since. `None` before the first count.
    pub counted: Option<Timestamp>,
    /// Nothing was written while it was counted, and no two writers met since. Otherwise it may be more than there is, or, after such a
    /// meeting, less, until it is counted again.
    pub is_exact: bool,
}

/// Returns whether a quota refused something, which nothing else in a store does with this code.
pub(super) fn is_over_quota(error: &Error) -> bool {
    error.code() == ErrorCode::Denied
}

/// How many bytes are left in a quota.
#[derive(Debug)]
pub(super) struct SpareBytes {
    account: Account,
    pub(super) bytes: u64,
}

impl SpareBytes {
    /// Returns whether the quota is one of this repository's.
    pub(super) fn matches(&self, repository: &RepositoryName) -> bool {
        self.account.matches(repository)
    }
}

impl<B: Backend> Store<B> {
    pub(crate) fn replace_quotas(&self, quotas: Vec<Quota>) {
        self.backend.set(Accounts::new(
            quotas,
            &*self.backend.inner,
            &self.clock,
            #[cfg(all(feature = "filesystem", unix))]
            &self.adopting,
        ));
    }

    pub(crate) async fn used_quotas(&self, quotas: &[Quota]) -> Result<Vec<QuotaUsage>, Error> {
        let mut usages = Vec::with_capacity(quotas.len());
        for quota in quotas {
            let record = record_of(self.backend.get(&key_of(quota)).await?.as_ref());
            usages.push(QuotaUsage {
                quota: quota.clone(),
                used: record.used,
                counted: record.counted,
                is_exact: record.is_exact,
            });
        }
        Ok(usages)
    }

    /// Refuses what does not fit now. Whether it fits is decided when it is written.
    pub(super) async fn require_room(&self, repository: &RepositoryName, more: Amount) -> Result<(), Error> {
        let Some(accounts) = self.backend.accounts().filter(|accounts| accounts.may_refuse()) else {
            return Ok(());
        };
        for (_, account) in accounts.of(repository) {
            let count = record_of(self.backend.get(&account.key).await?.as_ref());
            account.require_room(repository, count.used, more)?;
        }
        Ok(())
    }

    /// Returns the quotas that limit bytes, of one repository or of all, with how many are left in each. One that was not
    /// counted yet is left out.
    pub(super) async fn spare_bytes(
        &self,
        repository: Option<&RepositoryName>,
    ) -> Result<Vec<SpareBytes>, Error> {
        let mut spare = Vec::new();
        let Some(accounts) = self.backend.accounts() else {
            return Ok(spare);
        };
        for account in &accounts.all {
            let limit = account.quotas.iter().filter_map(|quota| quota.bytes).min();
            let is_wanted = repository.is_none_or(|repository| account.matches(repository));
            let Some(limit) = limit.filter(|_| is_wanted) else {
                continue;
            };
            let count = record_of(self.backend.get(&account.key).await?.as_ref());
            if count.counted.is_some() {
                spare.push(SpareBytes {
                    account: account.clone(),
                    bytes: limit.saturating_sub(count.used.bytes),
                });
            }
        }
        Ok(spare)
    }

    fn has_quota(&self, repository: &RepositoryName) -> bool {
        let accounts = self.backend.accounts();
        accounts.is_some_and(|accounts| accounts.concern(repository))
    }

    /// Refuses a blob that does not fit now, unless the repository has it. A blob of unknown size is refused if not a byte
    /// is left.
    pub(crate) async fn has_room_for_blob(
        &self,
        repository: &RepositoryName,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<(), Error> {
        if !self.has_quota(repository) {
            return Ok(());
        }
        let more = Amount {
            bytes: size.unwrap_or(1),
            ..Amount::NONE
        };
        let refused = self.require_room(repository, more).await;
        if let (Err(_), Some(digest)) = (&refused, digest) {
            // After the count: another push may have published it, which counts it.
            let key = Key::grant(digest, repository);
            let grant = read_cached::<GrantRecord>(&*self.backend, &key).await?;
            if grant.state().is_visible() {
                return Ok(());
            }
        }
        refused
    }

    /// Refuses a manifest that does not fit now with its tags, before anything of it is written.
    pub(super) async fn require_room_for_manifest(
        &self,
        repository: &RepositoryName,
        new: &NewManifest,
    ) -> Result<(), Error> {
        if !self.has_quota(repository) {
            return Ok(());
        }
        let more = self.more_of(repository, new).await?;
        let refused = self.require_room(repository, more).await;
        if refused.is_err() {
            // Another push may have published it before the count.
            let now = self.more_of(repository, new).await?;
            if now != more {
                return self.require_room(repository, now).await;
            }
        }
        refused
    }

    /// Returns what a push of a manifest adds.
    async fn more_of(&self, repository: &RepositoryName, new: &NewManifest) -> Result<Amount, Error> {
        let mut more = Amount::NONE;
        let key = Key::manifest(repository, &new.manifest.digest);
        let manifest = read_cached::<ManifestRecord>(&*self.backend, &key).await?;
        if !manifest.state().is_visible() {
            more.manifests = 1;
            more.bytes = new.manifest.bytes.len() as u64;
        }
        for tag in &new.tags {
            let tag = read_cached::<TagRecord>(&*self.backend, &Key::tag(repository, tag)).await?;
            more.tags += u64::from(!tag.state().is_visible());
        }
        Ok(more)
    }
}
