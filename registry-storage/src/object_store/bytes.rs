//! Bytes as objects: written in parts, completed, listed, deleted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt as _, multipart::PartId};
use registry_core::storage::BlobContent;
use registry_core::{Error, ErrorCode};

use super::content::ObjectContent;
use super::error::{
    convert, failure, is_absent, is_absent_upload, names_bad_part, refuses_number, refuses_other_bytes,
};
use super::records::{is_empty_tag, no_version};
use super::{ObjectStoreBackend, Objects, tree};
use crate::backend::{BytesWriter, Part, StagedBytes, WriteGuard};
use crate::bytes_name::BytesName;

const FOLDER: &str = "bytes/";

impl ObjectStoreBackend {
    pub(super) async fn begin(&self, name: &BytesName) -> Result<String, Error> {
        let path = self.bytes_path(name)?;
        let request = self.store.create_multipart(&path);
        self.run(0, request).await.map_err(convert)
    }

    pub(super) fn writer(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        Ok(Box::new(PartWriter {
            backend: self.clone(),
            path: self.bytes_path(&bytes.name)?,
            upload: token(bytes)?.clone(),
            _guard: guard,
        }))
    }

    pub(super) async fn complete(
        &self,
        bytes: &StagedBytes,
        parts: &[Part],
        tail: Bytes,
    ) -> Result<(), Error> {
        let path = self.bytes_path(&bytes.name)?;
        if parts.is_empty() {
            self.put_whole(&path, tail).await?;
            // An upload exists if a first part was reserved and then lost.
            if let Err(error) = self.abort(bytes).await {
                tracing::warn!(%error, bytes = %bytes.name, "an upload that was not needed could not be aborted");
            }
            return Ok(());
        }
        let size = parts.iter().map(|part| part.size).sum::<u64>() + tail.len() as u64;
        match self.complete_parts(&path, token(bytes)?, parts, tail).await {
            Ok(()) => Ok(()),
            Err(CompleteError::NoTag) => Err(no_version()),
            Err(CompleteError::Refused(refusal)) => Err(refusal),
            Err(CompleteError::Store(error)) => self.check_completed(&path, size, error).await,
        }
    }

    /// Overwriting is harmless: a name belongs to one content, and a repetition writes the same content again.
    async fn put_whole(&self, path: &Path, content: Bytes) -> Result<(), Error> {
        self.put_once(path, content).await.map_err(convert)
    }

    pub(super) async fn put_once(&self, path: &Path, content: Bytes) -> object_store::Result<()> {
        let size = content.len();
        let request = self.store.put(path, content.into());
        self.run(size, request).await.map(drop)
    }

    async fn complete_parts(
        &self,
        path: &Path,
        upload: &String,
        parts: &[Part],
        tail: Bytes,
    ) -> Result<(), CompleteError> {
        let mut ids: Vec<PartId> = parts
            .iter()
            .map(|part| PartId {
                content_id: part.tag.clone(),
            })
            .collect();
        if !tail.is_empty() {
            let size = tail.len();
            let request = self.store.put_part(path, upload, parts.len(), tail.into());
            let part = match self.run(size, request).await {
                Err(error) if refuses_number(&error, parts.len()) => {
                    return Err(CompleteError::Refused(
                        self.takes_fewer_parts(parts.len(), &error),
                    ));
                }
                part => part?,
            };
            if is_empty_tag(&part.content_id) {
                return Err(CompleteError::NoTag);
            }
            ids.push(part);
        }
        let request = self.store.complete_multipart(path, upload, ids);
        self.run(0, request).await?;
        Ok(())
    }

    /// The error of a blob that has more parts than the store takes. The log says it once: each such blob is refused.
    fn takes_fewer_parts(&self, number: usize, error: &StoreError) -> Error {
        let refused = number + 1;
        if !self.told_of_few_parts.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                cause = %failure(error),
                "the store takes no part {refused} of an upload, so larger blobs are refused; raise `storage.s3.chunksize`, the \
                 size of a part"
            );
        }
        let message = format!(
            "a blob has too many parts for this store, which takes no part {refused}; who runs this registry can raise \
             `chunksize`, the size of a part"
        );
        Error::new(ErrorCode::BlobUploadInvalid, message).with_cause(failure(error))
    }

    /// An upload that is gone was completed, by a repetition or by a request whose answer was lost, or it was aborted.
    /// Stores answer such a repetition with 404 (`LocalStack`), 403 (s3s-fs), 500, or that its parts are bad (Azure), so
    /// only the object shows which.
    async fn check_completed(&self, path: &Path, size: u64, error: StoreError) -> Result<(), Error> {
        match self.look(path).await {
            Ok(Some(object)) if object.size == size => Ok(()),
            Ok(_) if is_absent_upload(&error) || names_bad_part(&error) || refuses_other_bytes(&error) => {
                Err(send_again().with_cause(failure(&error)))
            }
            _ => Err(convert(error)),
        }
    }

    /// Returns content whose streams begin with an error if the object does not exist, or does not have `size`.
    pub(super) fn content(&self, name: &BytesName, size: Option<u64>) -> Result<Arc<dyn BlobContent>, Error> {
        Ok(Arc::new(ObjectContent {
            backend: self.clone(),
            path: self.bytes_path(name)?,
            name: name.clone(),
            size,
        }))
    }

    /// Asks the store whether the bytes exist and have their size.
    pub(super) async fn open_of_size(
        &self,
        name: &BytesName,
        size: u64,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        if self.shared_size(name).await? != Some(size) {
            self.seen.remove(name);
            return Ok(None);
        }
        self.seen.insert(name);
        self.content(name, Some(size)).map(Some)
    }

    /// Asks for the size of bytes, with a request that other readers may share.
    async fn shared_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        if self.is_memory {
            return self.size(name).await;
        }
        let (backend, asked) = (self.clone(), name.clone());
        let request = async move { backend.size(&asked).await };
        self.size_reads.join(name, request).await
    }

    pub(super) async fn size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        let path = self.bytes_path(name)?;
        match self.run(0, self.store.head(&path)).await {
            Ok(object) => Ok(Some(object.size)),
            // Bytes that are lost are healed by the next push, and are 404 until then: the bucket itself may be what is
            // not there.
            Err(StoreError::NotFound { .. }) => Ok(self.look(&path).await?.map(|object| object.size)),
            Err(error) => Err(convert(error)),
        }
    }

    pub(super) async fn abort(&self, bytes: &StagedBytes) -> Result<(), Error> {
        let Some(upload) = &bytes.token else {
            return Ok(());
        };
        let path = self.bytes_path(&bytes.name)?;
        let request = self.store.abort_multipart(&path, upload);
        match self.run(0, request).await {
            Err(error) if !is_absent_upload(&error) => Err(convert(error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn delete(&self, name: &BytesName) -> Result<(), Error> {
        self.delete_object(&self.bytes_path(name)?).await
    }

    pub(super) async fn delete_object(&self, path: &Path) -> Result<(), Error> {
        match self.run(0, self.store.delete(path)).await {
            Err(error) if !is_absent(&error) => Err(convert(error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn list_names(
        &self,
        after: Option<&BytesName>,
        limit: usize,
    ) -> Result<Vec<BytesName>, Error> {
        let mut names = Vec::new();
        let mut after = after.map(|name| format!("{FOLDER}{name}"));
        while names.len() < limit {
            let wanted = limit - names.len();
            let objects = self.list_objects(FOLDER, after.as_deref(), wanted).await?;
            let is_last = objects.len() < wanted;
            for (key, _) in objects {
                match key.strip_prefix(FOLDER).and_then(BytesName::parse) {
                    Some(name) => names.push(name),
                    None => tracing::warn!(key, "an object that is not of this store lies among its bytes"),
                }
                after = Some(key);
            }
            if is_last {
                break;
            }
        }
        Ok(names)
    }

    pub(super) fn bytes_path(&self, name: &BytesName) -> Result<Path, Error> {
        match name.digest_in_tree() {
            Some(digest) => self.path(&tree::data(&digest)),
            None => self.path(&format!("{FOLDER}{name}")),
        }
    }
}

/// Why an upload was not completed.
enum CompleteError {
    /// The last part got no entity tag.
    NoTag,
    /// The store takes no part of the last one's number.
    Refused(Error),
    Store(StoreError),
}

impl From<StoreError> for CompleteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Writes the parts of an upload. A part is durable once its write has returned.
struct PartWriter {
    backend: ObjectStoreBackend,
    path: Path,
    upload: String,
    _guard: WriteGuard,
}

#[async_trait]
impl BytesWriter for PartWriter {
    async fn write(&mut self, number: usize, _offset: u64, content: Bytes) -> Result<Option<String>, Error> {
        self.backend.require_writer()?;
        let store: &dyn Objects = &*self.backend.store;
        let size = content.len();
        let request = store.put_part(&self.path, &self.upload, number, content.into());
        match self.backend.run(size, request).await {
            // No list of parts could name it, so the upload could never be completed.
            Ok(part) if is_empty_tag(&part.content_id) => Err(no_version()),
            Ok(part) => Ok(Some(part.content_id)),
            // Aborted, or ended by the bucket's rule for incomplete uploads.
            Err(error) if is_absent_upload(&error) => {
                Err(Error::from(ErrorCode::BlobUploadUnknown).with_cause(failure(&error)))
            }
            // Other bytes were sent under this number before.
            Err(error) if refuses_other_bytes(&error) => Err(send_again().with_cause(failure(&error))),
            Err(error) if refuses_number(&error, number) => {
                Err(self.backend.takes_fewer_parts(number, &error))
            }
            Err(error) => Err(convert(error)),
        }
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// An upload whose parts were recorded without its identifier, which happens only in a damaged session.
#[derive(Debug, thiserror::Error)]
#[error("the session names parts but no upload that they belong to")]
struct NoUpload;

fn token(bytes: &StagedBytes) -> Result<&String, Error> {
    bytes.token.as_ref().ok_or_else(|| Error::internal(NoUpload))
}

fn send_again() -> Error {
    Error::new(
        ErrorCode::BlobUploadInvalid,
        "Parts of this upload were lost; start a new one and send the blob again.",
    )
}
