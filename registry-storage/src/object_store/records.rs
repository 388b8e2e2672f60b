//! Records as objects: read, written on condition, listed.

use std::time::Duration;

use bytes::Bytes;
use object_store::list::PaginatedListOptions;
use object_store::{
    Error as StoreError, GetOptions, ObjectMeta, ObjectStoreExt as _, PutMode, UpdateVersion,
};
use registry_core::{Error, ErrorCode};

use super::ObjectStoreBackend;
use super::error::{convert, may_have_happened};
use crate::backend::{Condition, RecordEntry, Stat, Version, VersionedRecord};
use crate::key::Key;

/// How many times a write is tried if its condition still holds after it failed.
const WRITE_ATTEMPTS: u32 = 4;

/// How long the second attempt waits; each further one waits twice as long as the one before.
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);

impl ObjectStoreBackend {
    pub(super) async fn get_record(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        let path = self.path(key.as_str())?;
        let request = async {
            let result = self.store.get_opts(&path, GetOptions::default()).await?;
            let version = (result.meta.e_tag.clone(), result.meta.version.clone());
            Ok((result.bytes().await?, version))
        };
        match self.run(0, request).await {
            Ok((value, (e_tag, version))) => {
                Ok(Some(VersionedRecord::new(value, to_version(e_tag, version)?)))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(convert(error)),
        }
    }

    pub(super) async fn stat_record(&self, key: &Key) -> Result<Option<Stat>, Error> {
        let path = self.path(key.as_str())?;
        match self.run(0, self.store.head(&path)).await {
            Ok(object) => Ok(Some(Stat {
                version: to_version(object.e_tag, object.version)?,
                size: object.size,
            })),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(convert(error)),
        }
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
        let path = self.path(key.as_str())?;
        let mode = put_mode(&condition);
        let mut attempt = 0;
        loop {
            let request = self
                .store
                .put_opts(&path, value.clone().into(), mode.clone().into());
            let (error, was_refused) = match self.run(value.len(), request).await {
                Ok(result) => return to_version(result.e_tag, result.version).map(Some),
                Err(error @ StoreError::AlreadyExists { .. }) if condition == Condition::Absent => {
                    (error, true)
                }
                Err(error @ StoreError::Precondition { .. }) => (error, true),
                Err(error) if may_have_happened(&error) => (error, false),
                Err(error) => return Err(convert(error)),
            };
            let stored = self.get_record(key).await?;
            match &stored {
                Some(stored) if stored.value == value => return Ok(Some(stored.version.clone())),
                _ if holds(&condition, stored.as_ref()) => {}
                _ if was_refused => return Ok(None),
                _ => return Err(convert(error)),
            }
            // Two writers collided, and the store refused one of them without letting the other win.
            attempt += 1;
            if attempt == WRITE_ATTEMPTS {
                return Err(Error::from(ErrorCode::Unavailable).with_cause(error));
            }
            tokio::time::sleep(FIRST_BACK_OFF * 2_u32.pow(attempt - 1)).await;
        }
    }

    /// The client offers no conditional delete for buckets, so only memory removes the record.
    pub(super) fn forget_record(&self, key: &Key, version: &Version) -> Result<(), Error> {
        if let Some(memory) = &self.memory {
            memory.delete_if(&self.path(key.as_str())?, &version.0);
        }
        Ok(())
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
    pub(super) async fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, ObjectMeta)>, Error> {
        let prefix = format!("{}{prefix}", self.root);
        let mut objects: Vec<(String, ObjectMeta)> = Vec::new();
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
                    return Err(Error::internal(NotInOrder));
                }
                objects.push((key, object));
            }
            page_token = page.page_token;
            if page_token.is_none() || objects.len() >= limit {
                objects.truncate(limit);
                return Ok(objects);
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
#[error("the object store gave an object no entity tag")]
struct NoVersion;

fn put_mode(condition: &Condition) -> PutMode {
    match condition {
        Condition::Absent => PutMode::Create,
        Condition::Matches(version) => PutMode::Update(to_update_version(version)),
        Condition::Any => PutMode::Overwrite,
    }
}

fn holds(condition: &Condition, stored: Option<&VersionedRecord>) -> bool {
    match condition {
        Condition::Absent => stored.is_none(),
        Condition::Matches(version) => stored.is_some_and(|stored| stored.version == *version),
        Condition::Any => true,
    }
}

/// Encodes both names of a version as one text, because stores differ in which of the two they compare: the entity tag
/// (S3, Azure), and after a line break the generation (GCS).
fn to_version(e_tag: Option<String>, version: Option<String>) -> Result<Version, Error> {
    match (e_tag, version) {
        (None, None) => Err(Error::internal(NoVersion)),
        (Some(e_tag), None) => Ok(Version(e_tag.into())),
        (e_tag, Some(version)) => Ok(Version(
            format!("{}\n{version}", e_tag.unwrap_or_default()).into(),
        )),
    }
}

fn to_update_version(version: &Version) -> UpdateVersion {
    let (e_tag, version) = match version.0.split_once('\n') {
        Some((e_tag, version)) => (e_tag, Some(version.to_owned())),
        None => (&*version.0, None),
    };
    UpdateVersion {
        e_tag: (!e_tag.is_empty()).then(|| e_tag.to_owned()),
        version,
    }
}
