//! Bytes that were written down because they may have lost what named them.
//!
//! Who takes a name from a blob's record writes it down, and a session that ended says itself that it left bytes behind. So
//! a sweep looks at these bytes alone. Bytes are named by their session, and then by the one blob that they were offered to.

use std::collections::BTreeSet;

use registry_core::{Digest, Error, Timestamp};

use super::{Deleting, ListedBytes, Unreadable};
use crate::backend::{
    Again, Backend, Condition, Durability, RecordTransaction, Transaction, VersionedRecord,
};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::pages::Values;
use crate::record::{BlobRecord, SessionRecord, Stamp, UnnamedRecord};
use crate::store::Store;
use crate::store::edge::{Found, write};
use crate::store::session::RemoveAll;
use crate::unique::unique;

/// How many blobs are read in one transaction.
const BLOBS_PER_TRANSACTION: usize = 100;

/// Bytes that may have lost what named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Unnamed {
    pub(in crate::store) name: BytesName,
    /// The only blob that may name them; `None` if they were never offered to one.
    pub(in crate::store) blob: Option<Digest>,
}

impl Unnamed {
    /// Returns the bytes that a session which ended left behind; `None` if there are none, or if it is not known which blob
    /// they were offered to.
    pub(in crate::store) fn of_session(session: &SessionRecord) -> Option<Self> {
        let is_known = !session.proposed || session.proposed_to.is_some();
        (session.has_left_bytes && is_known).then(|| Self {
            name: session.bytes.name.clone(),
            blob: session.proposed_to.clone(),
        })
    }

    /// Returns bytes that a blob's record named.
    pub(in crate::store) fn of_blob(
        digest: &Digest,
        names: impl Iterator<Item = BytesName>,
    ) -> impl Iterator<Item = Self> {
        names.map(|name| Self {
            name,
            blob: Some(digest.clone()),
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, blob) = match line.split_once(' ') {
            Some((name, blob)) => (name, Some(blob.parse().ok()?)),
            None => (line, None),
        };
        Some(Self {
            name: BytesName::parse(name)?,
            blob,
        })
    }

    fn line(&self) -> String {
        match &self.blob {
            Some(blob) => format!("{} {blob}\n", self.name.as_str()),
            None => format!("{}\n", self.name.as_str()),
        }
    }
}

/// Writes down the bytes that a blob's record named and its next version does not.
pub(in crate::store) async fn write_left_of_blob(
    records: &mut dyn RecordTransaction,
    digest: &Digest,
    before: Option<&BlobRecord>,
    after: &BlobRecord,
    now: Timestamp,
) -> Result<(), Error> {
    let before = before.into_iter().flat_map(BlobRecord::names);
    let left = before.filter(|name| !after.names().any(|kept| kept == *name));
    let unnamed: Vec<Unnamed> = Unnamed::of_blob(digest, left.cloned()).collect();
    write_unnamed(records, &unnamed, now).await
}

/// Writes bytes down for the next sweep, if there are any. This comes **after** the write that took their name away: a sweep
/// that finds them named would not look again.
pub(in crate::store) async fn write_unnamed(
    records: &mut dyn RecordTransaction,
    unnamed: &[Unnamed],
    now: Timestamp,
) -> Result<(), Error> {
    if unnamed.is_empty() {
        return Ok(());
    }
    let record = UnnamedRecord {
        stamp: Stamp::new(now),
    };
    let lines: String = unnamed.iter().map(Unnamed::line).collect();
    let key = Key::unnamed(unique());
    write(records, &key, &record, lines.as_bytes(), Condition::Absent).await?;
    Ok(())
}

impl<B: Backend> Store<B> {
    /// Deletes the bytes that were written down, unless something names them.
    pub(super) async fn sweep_unnamed(
        &self,
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        let mut records = Values::of(Key::all_unnamed(), |_| true);
        while let Some(read) = records.next(&*self.backend).await? {
            let (mut keys, mut unnamed) = (Vec::new(), Vec::new());
            for (key, stored) in read {
                // One that cannot be read is the check's. A sweep of everything finds what it had.
                let found = Found::<UnnamedRecord>::new(stored.as_ref()).ok();
                if let Some((_, content)) = found.and_then(|found| found.record) {
                    let content = String::from_utf8_lossy(&content);
                    unnamed.extend(content.lines().filter_map(Unnamed::parse));
                    keys.push(key);
                }
            }
            let mut listed = ListedBytes::of(&unnamed);
            self.mark_bytes_of_sessions(&mut listed, unreadable).await?;
            if self
                .delete_unnamed(listed, &unnamed, deleting, unreadable)
                .await?
            {
                self.backend
                    .transact(Durability::Deferred, RemoveAll(keys))
                    .await?;
            }
        }
        Ok(())
    }

    /// Deletes bytes that no session names, unless a blob does, or they are kept with a record in quarantine. Returns
    /// whether that is done: the note of them is then no longer needed.
    pub(super) async fn delete_unnamed(
        &self,
        mut listed: ListedBytes,
        unnamed: &[Unnamed],
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<bool, Error> {
        self.keep_tree(&mut listed).await?;
        let blobs: BTreeSet<&Digest> = unnamed
            .iter()
            .filter_map(|unnamed| unnamed.blob.as_ref())
            .collect();
        let keys: Vec<Key> = blobs.into_iter().map(Key::blob).collect();
        for keys in keys.chunks(BLOBS_PER_TRANSACTION) {
            let read = Read(keys.to_vec());
            let values = self.backend.transact(Durability::Deferred, read).await?;
            for (key, stored) in keys.iter().zip(values) {
                if let Some(found) = super::found_of::<BlobRecord>(key, stored.as_ref(), unreadable)
                    && let Some((blob, _)) = found.record
                {
                    listed.mark_blob(&blob);
                }
            }
        }
        self.mark_bytes_in_quarantine(&mut listed, unreadable).await?;
        if !unreadable.is_empty() {
            return Ok(false);
        }
        self.delete_all(listed.unnamed(), deleting).await
    }
}

/// Reads records from the medium.
#[derive(Clone)]
struct Read(Vec<Key>);

impl Transaction for Read {
    type Output = Vec<Option<VersionedRecord>>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Reading(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let mut values = Vec::with_capacity(self.0.len());
        for key in &self.0 {
            values.push(records.get(key).await?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_is_what_it_was_written_for(day in 0_u64..4_000_000_000_000, hex in proptest::option::of("[0-9a-f]{64}")) {
            let unnamed = Unnamed {
                name: BytesName::random(Timestamp(day)),
                blob: hex.map(|hex| format!("sha256:{hex}").parse().unwrap()),
            };
            let line = unnamed.line();
            prop_assert_eq!(line.strip_suffix('\n').and_then(Unnamed::parse), Some(unnamed));
        }
    }
}
