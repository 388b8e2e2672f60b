//! Bytes of an upload that are parked in the store while memory is scarce, until their part is whole.
//!
//! No session names them, and what a process that dies leaves is removed with the session: they count only once they are in a
//! part, or in the session's tail.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Error, ErrorCode, UploadId};

use super::Store;
use super::edge::{read_latest, write};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{ParkedRecord, Stamp};
use crate::unique::unique;

/// The most bytes in one record.
const RECORD_BYTES: usize = 512 * 1024;

/// How many bytes of one upload are written or read at once, and in how many records at most: so much memory it takes besides.
const BYTES_AT_ONCE: usize = 1024 * 1024;
const RECORDS_AT_ONCE: usize = 16;

/// Some bytes of an upload that are parked.
pub(super) struct Parked {
    key: Key,
    pub(super) size: usize,
}

impl<B: Backend> Store<B> {
    /// Parks bytes of an upload. If that fails, the sweeper removes what was parked.
    pub(super) async fn park(&self, upload: UploadId, mut bytes: Bytes) -> Result<Vec<Parked>, Error> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            pieces.push(bytes.split_to(bytes.len().min(RECORD_BYTES)));
        }
        let writes = stream::iter(pieces).map(|content| async move {
            let key = Key::parked(upload, unique());
            let size = content.len();
            let park = Park {
                key: key.clone(),
                record: ParkedRecord {
                    stamp: Stamp::new(self.clock.now()),
                },
                content,
            };
            self.backend.transact(Durability::Deferred, park).await?;
            Ok(Parked { key, size })
        });
        writes.buffered(BYTES_AT_ONCE / RECORD_BYTES).try_collect().await
    }

    /// Fills `bytes` with what was parked.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](ErrorCode::BlobUploadUnknown) if it is gone, as it is once its session has ended.
    pub(super) async fn bring_back(&self, parked: Vec<Parked>, mut bytes: &mut [u8]) -> Result<(), Error> {
        let largest = parked.iter().map(|parked| parked.size).max().unwrap_or(1);
        let at_once = (BYTES_AT_ONCE / largest).clamp(1, RECORDS_AT_ONCE);
        let reads = stream::iter(parked).map(|parked| async move {
            let bring_back = BringBack(parked.key);
            self.backend.transact(Durability::Deferred, bring_back).await
        });
        let mut reads = reads.buffered(at_once);
        while let Some(content) = reads.next().await {
            let content = content?;
            let (front, rest) = bytes
                .split_at_mut_checked(content.len())
                .ok_or_else(|| Error::from(ErrorCode::BlobUploadUnknown))?;
            front.copy_from_slice(&content);
            bytes = rest;
        }
        match bytes.is_empty() {
            true => Ok(()),
            false => Err(ErrorCode::BlobUploadUnknown.into()),
        }
    }
}

struct Park {
    key: Key,
    record: ParkedRecord,
    content: Bytes,
}

impl Transaction for Park {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        // No other record has its key.
        write(records, &self.key, &self.record, &self.content, Condition::Any).await?;
        Ok(())
    }
}

/// Reads a record and removes it.
struct BringBack(Key);

impl Transaction for BringBack {
    type Output = Bytes;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Bytes, Error> {
        let found = read_latest::<ParkedRecord>(records, &self.0).await?;
        let (_, content) = found.record.ok_or(ErrorCode::BlobUploadUnknown)?;
        records.remove(&self.0).await?;
        Ok(content)
    }
}
