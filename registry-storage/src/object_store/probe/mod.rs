//! Tries what the storage protocol needs of a store, before a server trusts it.
//!
//! Some servers that speak S3 let several writers win, or ignore conditions altogether. Pushes and pulls look right on
//! them, and immutable tags are moved: nothing but a probe shows it. Two of them keep every condition as long as one
//! request comes after the other, so the probe has two writers at once.

mod deletes;
mod listings;
mod parts;
mod promise;
mod races;
mod sequence;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use object_store::{Error as StoreError, PutMode};
use registry_core::{Error, Timestamp};

pub use self::promise::{ProbeError, Promise};
use super::error::convert;
use super::records::{BACK_OFFS, put_mode, to_version, wait};
use super::{ObjectStoreBackend, PARALLEL_READS, timed_out};
use crate::backend::{Condition, Version, VersionedRecord};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::record::{ProbedRecord, Stamp, decode, encode};
use crate::unique::unique;

/// Grows with each change of what is tried, so that stores are tried again.
const PROBES: u32 = 2;

/// The folder of the objects that probes write. None of them is a record.
const FOLDER: &str = "probe/";

/// How long all of it may take. A store that needs longer for some 200 small requests is no store for a registry.
const LIMIT: Duration = Duration::from_mins(2);

/// For how long the objects of another probe are left alone.
const LEFTOVER_AGE_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// How many leftovers one start removes.
const LEFTOVERS_AT_ONCE: usize = 1000;

impl ObjectStoreBackend {
    /// Returns whether a probe was passed with this address and these settings, which takes one read. Removes what
    /// killed probes left a day ago or longer, if the record says that there is something, and tries deletes on condition again if
    /// they were undecided a day ago.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn was_probed(&self, now: Timestamp) -> Result<bool, Error> {
        let Some(stored) = self.get_record(&Key::probed()).await? else {
            return Ok(false);
        };
        let Ok((record, _)) = decode::<ProbedRecord>(&stored.value) else {
            return Ok(false);
        };
        let keeps_all = *record.store == *self.address;
        let keeps_enough = self.single_writer.is_some() && record.store == self.address_of_single_writer();
        if record.probes != PROBES || !(keeps_all || keeps_enough) {
            return Ok(false);
        }
        self.set_decides_conditions(!keeps_all);
        self.set_deletes_on_condition(record.deletes_on_condition == Some(true));
        let mut deletes_on_condition = record.deletes_on_condition;
        let is_old = now.0.saturating_sub(record.stamp.written.0) > LEFTOVER_AGE_MILLIS;
        let is_undecided = keeps_all && self.deleter.is_some() && deletes_on_condition.is_none();
        if is_undecided && is_old {
            let probe = Probe::new(self, now);
            let tried = probe.try_within_limit(probe.keeps_condition_of_delete()).await;
            // It is of use, and not needed.
            deletes_on_condition = tried.unwrap_or_default();
            self.set_deletes_on_condition(deletes_on_condition == Some(true));
        }
        if is_old && (record.has_leftovers || is_undecided) {
            self.note_probed(deletes_on_condition, now).await?;
        }
        Ok(true)
    }

    /// Returns whether a registry ever prepared to write here, which takes one read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn has_registry(&self) -> Result<bool, Error> {
        Ok(self.stat_record(&Key::probed()).await?.is_some())
    }

    /// Tries what the storage protocol needs of the store, on objects of its own that it removes, and writes down that
    /// all of it was kept: see [`was_probed`](Self::was_probed). Some 200 small requests.
    ///
    /// With [`with_single_writer`](Self::with_single_writer) it need not keep conditional writes. If it does not, the rest is
    /// tried without them, and this process [decides conditions](Self::decides_conditions) from then on.
    ///
    /// Cancel safety: after the future is dropped, up to some 40 small objects stay. A start removes them a day later.
    ///
    /// # Errors
    /// Those of [`ProbeError`].
    pub async fn probe_promises(&self, now: Timestamp) -> Result<(), ProbeError> {
        self.set_decides_conditions(false);
        self.set_deletes_on_condition(false);
        let mut deletes_on_condition = None;
        let probe = Probe::new(self, now);
        match probe.try_within_limit(probe.run()).await {
            Ok(kept) => {
                deletes_on_condition = kept;
                self.set_deletes_on_condition(kept == Some(true));
            }
            Err(ProbeError::Broken { promise, found })
                if self.single_writer.is_some() && promise.is_about_conditions() =>
            {
                tracing::info!(
                    probe = promise.name(),
                    found,
                    "the store does not keep conditional writes; this process decides them, as the only one that writes"
                );
                let probe = Probe::without_conditions(self, now);
                probe.try_within_limit(probe.run_without_conditions()).await?;
                self.set_decides_conditions(true);
            }
            Err(error) => return Err(error),
        }
        let noted = self.note_probed(deletes_on_condition, now).await;
        noted.map_err(|error| ProbeError::Unanswered(Promise::Create, error))
    }

    /// Returns what a store is noted as that was found to be good for a single writer only. Servers of any version that are not
    /// one take it for another store, and try it themselves.
    fn address_of_single_writer(&self) -> String {
        format!("{}, for a single writer", self.address)
    }

    /// Returns whether the store was found to delete an object only if it has the version that was read. If not, small records of what
    /// was deleted stay there.
    #[must_use]
    pub fn deletes_on_condition(&self) -> bool {
        self.deletes_on_condition.load(Ordering::Relaxed)
    }

    fn set_deletes_on_condition(&self, deletes: bool) {
        self.deletes_on_condition.store(deletes, Ordering::Relaxed);
    }

    fn set_decides_conditions(&self, decides: bool) {
        if let Some(writer) = &self.single_writer {
            writer.set_decides(decides);
        }
    }

    /// Removes old leftovers, and writes the record.
    async fn note_probed(&self, deletes_on_condition: Option<bool>, now: Timestamp) -> Result<(), Error> {
        let record = ProbedRecord {
            probes: PROBES,
            store: match self.decides_conditions() {
                true => self.address_of_single_writer(),
                false => self.address.to_string(),
            },
            deletes_on_condition,
            has_leftovers: self.remove_leftovers(now).await?,
            stamp: Stamp::new(now),
        };
        self.put_record(&Key::probed(), encode(&record, &[])?, Condition::Any)
            .await?;
        Ok(())
    }

    /// Removes objects of probes of the day before yesterday and earlier. Returns whether any are left.
    async fn remove_leftovers(&self, now: Timestamp) -> Result<bool, Error> {
        let objects = self.list_objects(FOLDER, None, LEFTOVERS_AT_ONCE).await?;
        let mut has_more = objects.len() == LEFTOVERS_AT_ONCE;
        let yesterday = BytesName::random(Timestamp(now.0.saturating_sub(LEFTOVER_AGE_MILLIS)));
        for (key, _) in objects {
            if probe_of(&key).is_some_and(|probe| probe.day() < yesterday.day()) {
                self.delete_object(&self.path(&key)?).await?;
            } else {
                has_more = true;
            }
        }
        Ok(has_more)
    }
}

/// Returns the name of the probe that wrote an object.
fn probe_of(key: &str) -> Option<BytesName> {
    let (end, _) = key.strip_prefix(FOLDER)?.match_indices('/').nth(1)?;
    BytesName::parse(key.get(FOLDER.len()..FOLDER.len() + end)?)
}

/// One probe, and the objects that it wrote.
struct Probe<'a> {
    backend: &'a ObjectStoreBackend,
    /// Whether the store decides conditions. If not, each write is one without.
    uses_conditions: bool,
    /// Its folder, with the day and a random name, and a slash at the end.
    folder: String,
    /// The keys that it wrote. Never locked over an await.
    written: Mutex<BTreeSet<Key>>,
}

/// The outcome of a conditional write that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Write {
    Won(Version),
    Refused,
}

impl<'a> Probe<'a> {
    fn new(backend: &'a ObjectStoreBackend, now: Timestamp) -> Self {
        Self {
            backend,
            uses_conditions: true,
            folder: format!("{FOLDER}{}/", BytesName::random(now)),
            written: Mutex::default(),
        }
    }

    fn without_conditions(backend: &'a ObjectStoreBackend, now: Timestamp) -> Self {
        Self {
            uses_conditions: false,
            ..Self::new(backend, now)
        }
    }

    /// Tries something, and removes what was written for it.
    async fn try_within_limit<T>(
        &self,
        trial: impl Future<Output = Result<T, ProbeError>>,
    ) -> Result<T, ProbeError> {
        let tried = match self.backend.patience {
            None => trial.await,
            Some(_) => tokio::time::timeout(LIMIT, trial)
                .await
                .unwrap_or_else(|elapsed| {
                    let error = convert(timed_out(elapsed));
                    Err(ProbeError::Unanswered(Promise::Answers, error))
                }),
        };
        self.clean_up().await;
        tried
    }

    /// Tries everything. What one writer needs comes first: its errors are the clearest. Returns whether deletes keep conditions.
    async fn run(&self) -> Result<Option<bool>, ProbeError> {
        self.create().await?;
        self.update().await?;
        self.versions().await?;
        let (races, reads, parts) = tokio::join!(self.races(), self.reads(), self.parts());
        races.and(reads).and(parts)?;
        let keeps_condition_of_delete = self.keeps_condition_of_delete().await?;
        // Emulators (moto) fail to list beside writes, which is no lie.
        self.listings().await?;
        Ok(keeps_condition_of_delete)
    }

    /// Tries what a process needs that decides conditions itself.
    async fn run_without_conditions(&self) -> Result<(), ProbeError> {
        self.versions().await?;
        let (reads, parts) = tokio::join!(self.reads(), self.parts());
        reads.and(parts)?;
        self.listings().await
    }

    /// Notes a key whose object is to be removed at the end.
    fn note(&self, key: &Key) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(key.clone());
    }

    fn key(&self, name: &str) -> Key {
        Key::from_stored(&format!("{}{name}", self.folder))
    }

    /// Writes once: [`put_record`](ObjectStoreBackend::put_record) would hide a lie, because it tries again and looks for its own
    /// value. A conflict that let nobody win (409) is a refusal.
    async fn write(
        &self,
        promise: Promise,
        key: &Key,
        value: &Bytes,
        condition: &Condition,
    ) -> Result<Write, ProbeError> {
        let unanswered = |error| ProbeError::Unanswered(promise, error);
        let path = self.backend.path(key.as_str()).map_err(unanswered)?;
        self.note(key);
        let mode = match self.uses_conditions {
            true => put_mode(condition),
            false => PutMode::Overwrite,
        };
        let request = self
            .backend
            .store
            .put_opts(&path, value.clone().into(), mode.into());
        match self.backend.run(value.len(), request).await {
            Ok(result) => match to_version(result.e_tag, result.version) {
                Some(version) => Ok(Write::Won(version)),
                None => Err(ProbeError::broken(
                    promise,
                    "it gave an object no entity tag, so nothing can be compared",
                )),
            },
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(Write::Refused),
            Err(error) => Err(ProbeError::of(promise, error)),
        }
    }

    /// Writes what must be accepted. It may be refused because an answer was lost and the client repeated the request, and a store
    /// may refuse it for no reason (409) a few times.
    async fn must_write(
        &self,
        promise: Promise,
        key: &Key,
        value: &Bytes,
        condition: &Condition,
    ) -> Result<Version, ProbeError> {
        for back_off in BACK_OFFS {
            wait(back_off).await;
            if let Write::Won(version) = self.write(promise, key, value, condition).await? {
                return Ok(version);
            }
            match self.read(promise, key).await? {
                Some(stored) if stored.value == *value => return Ok(stored.version),
                _ => {}
            }
        }
        let found = "it refused a write whose condition held, while nobody else was writing";
        Err(ProbeError::broken(promise, found))
    }

    /// Tries a write that must be refused, and leave the object as it was.
    async fn must_refuse(
        &self,
        promise: Promise,
        key: &Key,
        condition: &Condition,
        lie: &str,
    ) -> Result<(), ProbeError> {
        let before = self.read(promise, key).await?;
        let value = value();
        if let Write::Won(_) = self.write(promise, key, &value, condition).await? {
            return Err(ProbeError::broken(promise, lie));
        }
        if self.read(promise, key).await? != before {
            return Err(ProbeError::broken(
                promise,
                "it refused a write and stored it all the same",
            ));
        }
        Ok(())
    }

    async fn read(&self, promise: Promise, key: &Key) -> Result<Option<VersionedRecord>, ProbeError> {
        let read = self.backend.get_record(key).await;
        read.map_err(|error| ProbeError::Unanswered(promise, error))
    }

    async fn delete(&self, promise: Promise, key: &Key) -> Result<(), ProbeError> {
        let path = self.backend.path(key.as_str());
        let deleted = match path {
            Ok(path) => self.backend.delete_object(&path).await,
            Err(error) => Err(error),
        };
        deleted.map_err(|error| ProbeError::Unanswered(promise, error))
    }

    /// Removes what was written. What fails is left to a later start.
    async fn clean_up(&self) {
        let keys = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        stream::iter(keys)
            .map(|key| async move { self.delete(Promise::Reads, &key).await })
            .buffer_unordered(PARALLEL_READS)
            .for_each(async |deleted| {
                if let Err(error) = deleted {
                    tracing::debug!(%error, "an object of the probe stays");
                }
            })
            .await;
    }
}

/// A small value that nobody wrote before, as each record is.
fn value() -> Bytes {
    Bytes::from(format!("{{\"nonce\":\"{}\"}}\n", unique()))
}
