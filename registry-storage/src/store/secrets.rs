//! Secrets that all processes of a store share: each is one record, which one of them creates.

use bytes::Bytes;
use registry_core::{Error, ErrorCode};

use super::Store;
use super::edge::{read_cached, write};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{SecretRecord, Stamp};
use crate::secret::{Secret, SecretName};

impl<B: Backend> Store<B> {
    /// Reads a secret.
    pub(crate) async fn read_secret(&self, name: SecretName) -> Result<Option<Secret>, Error> {
        let found = read_cached::<SecretRecord>(&*self.backend, &Key::secret(name)).await?;
        let version = found.version().cloned();
        let read = found.record.zip(version);
        Ok(read.map(|((_, value), version)| Secret { value, version }))
    }

    /// Writes a secret, unless another process did so since `before` was read. Returns whether it was written.
    ///
    /// # Errors
    /// Those of the medium; [`Unsupported`](ErrorCode::Unsupported) if this process is to write nothing.
    pub(crate) async fn replace_secret(
        &self,
        name: SecretName,
        value: Bytes,
        before: Option<&Secret>,
    ) -> Result<bool, Error> {
        if self.only_reads() {
            return Err(Error::new(ErrorCode::Unsupported, "this server writes nothing"));
        }
        let write = WriteSecret {
            name,
            record: SecretRecord {
                stamp: Stamp::new(self.clock.now()),
            },
            value,
            condition: before.map_or(Condition::Absent, |before| {
                Condition::Matches(before.version.clone())
            }),
        };
        self.backend.transact(Durability::Synced, write).await
    }
}

struct WriteSecret {
    name: SecretName,
    record: SecretRecord,
    value: Bytes,
    condition: Condition,
}

impl Transaction for WriteSecret {
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let key = Key::secret(self.name);
        let written = write(records, &key, &self.record, &self.value, self.condition).await?;
        Ok(written.is_some())
    }
}
