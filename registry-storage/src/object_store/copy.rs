//! Copying bytes within a bucket.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use object_store::CopyOptions;
use object_store::path::Path;
use registry_core::storage::BlobContent;
use registry_core::{Error, ErrorCode};

use super::ObjectStoreBackend;
use super::error::{convert, has_no_byte, is_absent, is_other_type};
use super::records::wait;
use crate::backend::{Backend as _, Expect, Part, StagedBytes};
use crate::bytes_name::BytesName;

/// The largest object that `CopyObject` of S3 copies, in bytes.
const COPY_BYTES: u64 = 5 << 30;

/// How long to wait, in milliseconds, before each look whether a copy is done. The last one is repeated.
const LOOKS: [u64; 6] = [20, 50, 100, 200, 500, 1000];

impl ObjectStoreBackend {
    /// Returns whether `to` has the bytes of `from`, by its size and by when it was written: what is older may be what was damaged,
    /// and what `from` replaced. If `from` is gone, the size alone counts.
    pub(crate) async fn is_copy(&self, from: &BytesName, to: &BytesName, size: u64) -> Result<bool, Error> {
        let Some(there) = self.look(&self.bytes_path(to)?).await? else {
            return Ok(false);
        };
        if from == to || there.size != size {
            return Ok(there.size == size);
        }
        let source = self.look(&self.bytes_path(from)?).await?;
        Ok(source.is_none_or(|source| there.last_modified >= source.last_modified))
    }

    /// Copies bytes of a known size to another name, and returns `false` if they are not there with that size. No blob may name what is
    /// there under the other name.
    ///
    /// The store copies them. Those that are too large for that are read and sent in parts, of which one is in memory.
    pub(crate) async fn copy_bytes(
        &self,
        from: &BytesName,
        to: &BytesName,
        size: u64,
    ) -> Result<bool, Error> {
        self.require_writer()?;
        if self.size(from).await? != Some(size) {
            return Ok(false);
        }
        if size > COPY_BYTES && !self.is_azure {
            return self.copy_in_parts(from, to, size).await;
        }
        let (source, target) = (self.bytes_path(from)?, self.bytes_path(to)?);
        let mut copied = self.copy_once(&source, &target, size).await;
        // The distribution registry writes layers to Azure as append blobs, which Azure replaces by no other.
        if copied.as_ref().is_err_and(is_other_type) {
            self.delete_object(&target).await?;
            copied = self.copy_once(&source, &target, size).await;
        }
        match copied {
            Ok(()) => self.is_copied(&target, size).await,
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(convert(error)),
        }
    }

    async fn copy_once(&self, source: &Path, target: &Path, size: u64) -> object_store::Result<()> {
        let request = self.store.copy_opts(source, target, CopyOptions::default());
        self.run(time_of(size), request).await
    }

    /// Returns whether what was copied has its size. Azure may still be copying when it answers, and the object is empty until that is done.
    async fn is_copied(&self, target: &Path, size: u64) -> Result<bool, Error> {
        let looking = async {
            let mut waits = LOOKS.into_iter();
            let mut last = 0;
            loop {
                match self.first_byte(target).await {
                    Ok(object) if object.size > 0 || size == 0 => return Ok(object.size == size),
                    Err(error) if !has_no_byte(&error) => return Err(error),
                    // Azurite answers a read of an empty object with nothing.
                    Ok(_) | Err(_) => {}
                }
                last = waits.next().unwrap_or(last);
                wait(last).await;
            }
        };
        match self.run(time_of(size), looking).await {
            Err(error) if is_absent(&error) => Ok(false),
            copied => copied.map_err(convert),
        }
    }

    /// Copies bytes through this process.
    async fn copy_in_parts(&self, from: &BytesName, to: &BytesName, size: u64) -> Result<bool, Error> {
        let Some(content) = self.open_bytes(from, Expect::SizeNow(size)).await? else {
            return Ok(false);
        };
        let staged = StagedBytes {
            name: to.clone(),
            token: Some(self.begin(to).await?),
        };
        let sent = self.send_parts(&staged, &*content, size).await;
        if sent.is_err() {
            // Nothing continues it. What cannot be aborted is left to a sweep of everything.
            drop(self.abort(&staged).await);
        }
        match sent {
            Err(error) if error.code() == ErrorCode::BlobUnknown => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    async fn send_parts(
        &self,
        staged: &StagedBytes,
        content: &dyn BlobContent,
        size: u64,
    ) -> Result<(), Error> {
        let mut writer = self.writer(staged, Arc::new(()))?;
        let mut parts = Vec::new();
        let mut at = 0;
        while at < size {
            let end = size.min(at + self.part_size(at) as u64);
            let length = usize::try_from(end - at).map_err(Error::internal)?;
            let _memory = self.reserve_memory(length).await;
            let part = read(content, at..end, length).await?;
            let tag = writer.write(parts.len(), at, part).await?;
            parts.push(Part {
                size: end - at,
                tag: tag.unwrap_or_default(),
            });
            at = end;
        }
        self.complete(staged, &parts, Bytes::new()).await
    }
}

/// Returns the size of what is copied, by which a request is given its time.
fn time_of(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Reads a range as a whole.
async fn read(content: &dyn BlobContent, range: Range<u64>, length: usize) -> Result<Bytes, Error> {
    let mut part = BytesMut::with_capacity(length);
    let mut chunks = content.read(range);
    while let Some(chunk) = chunks.next().await {
        part.extend_from_slice(&chunk?);
    }
    Ok(part.freeze())
}

#[cfg(all(test, feature = "testing", feature = "s3"))]
mod tests {
    use registry_core::{Algorithm, Digest, Timestamp};

    use super::*;
    use crate::testing::S3Double;

    /// More than two parts.
    const SIZE: usize = 11 << 20;

    fn content() -> Bytes {
        (0..SIZE).map(|at| (at >> 7) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_are_copied_by_the_store_or_in_parts() {
        let double = S3Double::start().await.unwrap();
        let backend = double.backend("root").unwrap();
        let from = BytesName::random(Timestamp(0));
        double.put(&format!("root/bytes/{from}"), content());
        let size = SIZE as u64;
        for seed in ["one", "two"] {
            let digest = Digest::of(Algorithm::Sha256, seed.as_bytes());
            let to = BytesName::in_tree(&digest).unwrap();
            drop(double.faults().take_seen());
            let copied = match seed {
                "one" => backend.copy_bytes(&from, &to, size).await,
                _ => backend.copy_in_parts(&from, &to, size).await,
            };
            assert!(copied.unwrap());
            let key = backend.bytes_path(&to).unwrap();
            assert!(double.objects()[key.as_ref()] == content(), "{seed}");
            let seen = double.faults().take_seen();
            let parts = seen.iter().filter(|request| request.contains("partNumber"));
            assert_eq!(parts.count(), if seed == "one" { 0 } else { 3 }, "{seen:?}");
        }
        assert_eq!(double.open_uploads(), 0);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_copied() {
        let double = S3Double::start().await.unwrap();
        let backend = double.backend("root").unwrap();
        let (from, to) = (BytesName::random(Timestamp(0)), BytesName::random(Timestamp(0)));
        assert!(!backend.copy_bytes(&from, &to, 7).await.unwrap());
        assert!(!backend.copy_in_parts(&from, &to, 7).await.unwrap());
        // Nor what has another size.
        double.put(&format!("root/bytes/{from}"), content());
        assert!(!backend.copy_bytes(&from, &to, 7).await.unwrap());
        assert!(!backend.copy_in_parts(&from, &to, 7).await.unwrap());
        assert_eq!(double.open_uploads(), 0);
    }
}
