//! Records as objects: read, written on condition, listed.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectMeta, PutMode, UpdateVersion};
use registry_core::{Error, ErrorCode};

use super::answer::Answer;
use super::cache::recent_records::WriteMark;
use super::error::{convert, failure, is_absent, may_have_happened};
use super::{ObjectStoreBackend, is_timeout};
use crate::backend::{Condition, RecordEntry, Stat, Version, VersionedRecord};
use crate::key::Key;
use crate::unique::unique;

/// How long to wait, in milliseconds, before each attempt of a write whose condition still holds after it failed.
pub(super) const BACK_OFFS: [u64; 4] = [0, 20, 40, 80];

/// How long to wait, in milliseconds, before each attempt of a read that got no version, or not all of the value. rclone breaks
/// off two of three reads beside an overwrite, and some give `""` as the version.
const READ_BACK_OFFS: [u64; 6] = [0, 20, 40, 80, 160, 320];

/// Deletes objects of a store on condition of what they are.
#[async_trait]
pub(crate) trait DeleteIf: fmt::Debug + Send + Sync {
    /// Deletes an object if it has this version. Returns whether it is gone: one of another version stays.
    async fn delete_if(&self, location: &Path, version: &Version) -> object_store::Result<bool>;
}

impl ObjectStoreBackend {
    /// Reads a record, with a request that other readers may share.
    pub(super) async fn shared_record(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        let (backend, read) = (self.clone(), key.clone());
        let request = async move {
            let recent = backend.recent_records.as_ref();
            let mark = recent.map(|recent| recent.begin_read(&read));
            let record = backend.get_record(&read).await?;
            if let (Some(recent), Some(mark)) = (recent, mark) {
                recent.end_read(mark, &read, record.as_ref());
            }
            Ok(record)
        };
        if self.is_memory {
            return request.await;
        }
        self.record_reads.join(key, request).await
    }

    /// Tells those who remember records that one is written until the result is dropped.
    pub(super) fn begin_write(&self, key: &Key) -> Option<WriteMark> {
        let recent = self.recent_records.as_ref()?;
        Some(recent.begin_write(key))
    }

    pub(super) async fn get_record(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.settle(key).await;
        let path = self.path(key.as_str())?;
        let mut failure = no_version();
        let mut unlike_its_tag = None;
        for back_off in READ_BACK_OFFS {
            wait(back_off).await;
            let request = self.store.get_opts(&path, GetOptions::default());
            let result = match self.run(0, request).await {
                Ok(result) => result,
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(convert(error)),
            };
            let object = result.meta.clone();
            let size = usize::try_from(object.size).unwrap_or(usize::MAX);
            let value = self.run(size, result.bytes()).await;
            failure = match (value, to_version(object.e_tag, object.version)) {
                (Ok(value), Some(version)) => {
                    let may_match = self.body_tags.may_match(&value, names_of(&version).0);
                    let record = VersionedRecord::new(value, version);
                    if may_match {
                        return Ok(Some(record));
                    }
                    unlike_its_tag = Some(record);
                    continue;
                }
                (Ok(_), None) => no_version(),
                (Err(error), _) if is_timeout(&error) => return Err(convert(error)),
                (Err(error), _) => convert(error),
            };
            unlike_its_tag = None;
        }
        if unlike_its_tag.is_some() {
            self.body_tags.give_up();
            return Ok(unlike_its_tag);
        }
        Err(failure)
    }

    pub(super) async fn stat_record(&self, key: &Key) -> Result<Option<Stat>, Error> {
        self.settle(key).await;
        let path = self.path(key.as_str())?;
        for back_off in READ_BACK_OFFS {
            wait(back_off).await;
            let Some(object) = self.look(&path).await? else {
                return Ok(None);
            };
            if let Some(version) = to_version(object.e_tag, object.version) {
                let size = object.size;
                return Ok(Some(Stat { version, size }));
            }
        }
        Err(no_version())
    }

    /// Asks what an object is that is not empty, by reading its first byte. That costs as much as a `HEAD`, whose answer
    /// has no body, so that its 404 does not say whether the object, the bucket or the access key is not there.
    pub(super) async fn look(&self, path: &Path) -> Result<Option<ObjectMeta>, Error> {
        match self.run(0, self.first_byte(path)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(convert(error)),
        }
    }

    /// Reads the first byte of an object.
    pub(super) async fn first_byte(&self, path: &Path) -> object_store::Result<ObjectMeta> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..1)),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(path, options).await?;
        let object = result.meta.clone();
        // What is not read closes the connection. The header said all already.
        result.bytes().await.ok();
        Ok(object)
    }

    /// Writes a record. An answer may be lost, and the store's client repeats requests by itself, so a refusal may be
    /// due to a write of our own. Only the stored value shows that: it holds the nonce of its writer.
    ///
    /// A write that won and was replaced since is indistinguishable from one that lost, and reported as such.
    pub(super) async fn put_record(
        &self,
        key: &Key,
        value: Bytes,
        condition: Condition,
    ) -> Result<Option<Version>, Error> {
        match &self.single_writer {
            Some(writer) => self.put_alone(writer, key, value, condition).await,
            None => self.put_on_condition(key, value, condition).await,
        }
    }

    /// Has the store decide whether the condition holds.
    pub(super) async fn put_on_condition(
        &self,
        key: &Key,
        value: Bytes,
        condition: Condition,
    ) -> Result<Option<Version>, Error> {
        let path = self.path(key.as_str())?;
        let mode = put_mode(&condition);
        let mut error = no_version();
        for back_off in BACK_OFFS {
            wait(back_off).await;
            let request = self
                .store
                .put_opts(&path, value.clone().into(), mode.clone().into());
            let (was_refused, is_conflict);
            (error, was_refused, is_conflict) = match self.run(value.len(), request).await {
                Ok(result) => match to_version(result.e_tag, result.version) {
                    Some(version) => {
                        self.body_tags.learn(&value, names_of(&version).0);
                        return Ok(Some(version));
                    }
                    // It was written, and the store's answer to a read has a version.
                    None => (no_version(), false, false),
                },
                Err(error @ StoreError::AlreadyExists { .. }) if condition == Condition::Absent => {
                    (collision(&error), true, is_conflict_of_writers(&error))
                }
                Err(error @ StoreError::Precondition { .. }) => (collision(&error), true, false),
                Err(error) if may_have_happened(&error) => {
                    let is_conflict = is_conflict_of_writers(&error);
                    (convert(error), false, is_conflict)
                }
                Err(error) => return Err(convert(error)),
            };
            let stored = self.get_record(key).await?;
            match &stored {
                Some(stored) if stored.value == value => return Ok(Some(stored.version.clone())),
                // It may be done still, or have been done, and removed or replaced since. If it was refused, there was a record, and the
                // caller begins again with another nonce.
                _ if !is_conflict
                    && holds(&condition, stored.as_ref())
                    && self.brings_back(key, &condition) =>
                {
                    return if was_refused { Ok(None) } else { Err(error) };
                }
                // Two writers collided, and the store refused one of them without letting the other win.
                _ if holds(&condition, stored.as_ref()) => {}
                _ if was_refused => return Ok(None),
                _ => return Err(error),
            }
        }
        Err(error)
    }

    /// Returns whether processes may remove records of this store. Another one may have found that the store keeps the condition of a
    /// delete, and this one not; or have a key that signs deletes, where this one's does not.
    pub(super) fn may_purge(&self) -> bool {
        self.deleter.is_some() || self.deletes_on_condition() || self.decides_conditions()
    }

    /// Returns whether this process removes records on condition.
    pub(super) fn purges(&self) -> bool {
        self.deleter.is_some() && self.deletes_on_condition() || self.decides_conditions()
    }

    /// Returns whether a write of the same value, after one whose outcome is not known, may bring back a version that others have read
    /// and compare with, because the record was removed since.
    fn brings_back(&self, key: &Key, condition: &Condition) -> bool {
        let key = key.as_str();
        let is_repeated = match condition {
            // Grants, blobs, manifests and tags.
            Condition::Absent => {
                key.starts_with("blobs/") || key.contains("/!/manifests/") || key.contains("/!/tags/")
            }
            // Back references.
            Condition::Any => key.contains("/!/blobs/") || key.contains("/!/tagged/"),
            Condition::Matches(_) => false,
        };
        self.versions_are_hashes && self.may_purge() && is_repeated
    }

    /// Removes a record if it has this version, and returns whether it is gone. It is no harm if it stays, so a request that fails
    /// is no failure.
    pub(super) async fn purge_record(&self, key: &Key, version: &Version) -> Result<bool, Error> {
        let purged = match &self.single_writer {
            _ if self.require_writer().is_err() => return Ok(false),
            Some(writer) if writer.decides() => self.purge_alone(writer, key, version).await,
            _ => self.purge_on_condition(key, version).await,
        };
        Ok(purged.unwrap_or_else(|error| {
            let cause = std::error::Error::source(&error);
            tracing::debug!(%key, %error, cause, "a record that nothing needs stays, as it cannot be deleted");
            false
        }))
    }

    async fn purge_on_condition(&self, key: &Key, version: &Version) -> Result<bool, Error> {
        let Some(deleter) = self.deleter.as_ref().filter(|_| self.deletes_on_condition()) else {
            return Ok(false);
        };
        let path = self.path(key.as_str())?;
        let deleting = deleter.delete_if(&path, version);
        self.run(0, deleting).await.map_err(convert)
    }

    pub(super) async fn list_records(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        let objects = self
            .list_objects(prefix.as_str(), after.map(Key::as_str), limit)
            .await?;
        objects
            .into_iter()
            .map(|(key, object)| {
                Ok(RecordEntry {
                    key: Key::from_stored(&key),
                    size: object.size,
                })
            })
            .collect()
    }

    /// Lists at most `limit` objects below the root in the order of their keys, which are returned without the root.
    ///
    /// Stores that never have them in order are refused by the probe. One may lose it for a moment: rclone lists an object that is
    /// just written twice, with different sizes.
    pub(super) async fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, ObjectMeta)>, Error> {
        for back_off in READ_BACK_OFFS {
            wait(back_off).await;
            if let Some(objects) = self.list_in_order(prefix, after, limit).await? {
                return Ok(objects);
            }
        }
        Err(Error::internal(NotInOrder))
    }

    /// Lists objects once; returns `None` if they are not in order.
    async fn list_in_order(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<(String, ObjectMeta)>>, Error> {
        let mut objects: Vec<(String, ObjectMeta)> = Vec::new();
        // It is left out as if it were a folder.
        if self.is_azure
            && !prefix.ends_with('/')
            && after.is_none_or(|after| after < prefix)
            && !prefix.is_empty()
        {
            let object = self.look(&self.path(prefix)?).await?;
            objects.extend(object.map(|object| (prefix.to_owned(), object)));
            if objects.len() >= limit {
                return Ok(Some(objects));
            }
        }
        let prefix = format!("{}{prefix}", self.root);
        let mut page_token = None;
        loop {
            let options = PaginatedListOptions {
                offset: after.map(|key| format!("{}{key}", self.root)),
                max_keys: Some(limit - objects.len()),
                page_token,
                ..PaginatedListOptions::default()
            };
            let request = self
                .store
                .list_paginated((!prefix.is_empty()).then_some(&*prefix), options);
            let page = self.run(0, request).await.map_err(convert)?;
            for object in page.result.objects {
                let key = object
                    .location
                    .as_ref()
                    .strip_prefix(&*self.root)
                    .unwrap_or_default()
                    .to_owned();
                let last = objects
                    .last()
                    .map(|(key, _)| key.as_str())
                    .or(after)
                    .unwrap_or("");
                if *key <= *last {
                    return Ok(None);
                }
                objects.push((key, object));
            }
            page_token = page.page_token;
            if page_token.is_none() || objects.len() >= limit {
                objects.truncate(limit);
                return Ok(Some(objects));
            }
        }
    }
}

/// A store whose listings cannot be paged, such as a directory bucket.
#[derive(Debug, thiserror::Error)]
#[error("the object store lists its keys out of order")]
struct NotInOrder;

/// A store without versions, so that nothing can be compared.
#[derive(Debug, thiserror::Error)]
#[error(
    "the object store gave an object or a part no entity tag, so nothing can be compared; use another store"
)]
struct NoVersion;

/// Some stores give no entity tag beside an overwrite, so it may pass.
pub(super) fn no_version() -> Error {
    Error::from(ErrorCode::Unavailable).with_cause(NoVersion)
}

/// Returns whether two writers met, and the store let neither of them win.
fn is_conflict_of_writers(error: &StoreError) -> bool {
    Answer::of(error).is_some_and(|answer| answer.status == 409)
}

/// A write that the store refused because of another one, which cannot be seen.
fn collision(error: &StoreError) -> Error {
    Error::from(ErrorCode::Unavailable).with_cause(failure(error))
}

/// Waits for some milliseconds, between half as many and half as many more: two writers that met do not meet again. A store that
/// never fails needs no runtime with a timer.
pub(super) async fn wait(milliseconds: u64) {
    if milliseconds > 0 {
        let random = unique().as_u64_pair().0 % (milliseconds + 1);
        tokio::time::sleep(Duration::from_millis(milliseconds / 2 + random)).await;
    }
}

pub(super) fn put_mode(condition: &Condition) -> PutMode {
    match condition {
        Condition::Absent => PutMode::Create,
        Condition::Matches(version) => PutMode::Update(to_update_version(version)),
        Condition::Any => PutMode::Overwrite,
    }
}

pub(super) fn holds(condition: &Condition, stored: Option<&VersionedRecord>) -> bool {
    match condition {
        Condition::Absent => stored.is_none(),
        Condition::Matches(version) => stored.is_some_and(|stored| stored.version == *version),
        Condition::Any => true,
    }
}

/// Encodes both names of a version as one text, because stores differ in which of the two they compare: the entity tag
/// (S3, Azure), and after a line break the generation (GCS).
///
/// An empty entity tag is none: rclone gives `""` beside an overwrite, and versitygw overwrites whatever there is if a
/// write is on condition of it.
pub(super) fn to_version(e_tag: Option<String>, version: Option<String>) -> Option<Version> {
    let e_tag = e_tag.filter(|tag| !is_empty_tag(tag))?;
    Some(Version(match version {
        None => e_tag.into(),
        Some(version) => format!("{e_tag}\n{version}").into(),
    }))
}

/// Returns whether an entity tag is none.
pub(super) fn is_empty_tag(tag: &str) -> bool {
    tag.trim_start_matches("W/").trim_matches('"').is_empty()
}

/// Returns both names of a version.
pub(super) fn names_of(version: &Version) -> (&str, Option<&str>) {
    match version.0.split_once('\n') {
        Some((e_tag, version)) => (e_tag, Some(version)),
        None => (&*version.0, None),
    }
}

fn to_update_version(version: &Version) -> UpdateVersion {
    let (e_tag, version) = names_of(version);
    UpdateVersion {
        e_tag: Some(e_tag.to_owned()),
        version: version.map(str::to_owned),
    }
}
