//! The last change that was acknowledged, by which reopened records are known to be whole.

use rusqlite::Connection;

use super::queries;
use crate::backend::{Version, VersionedRecord};
use crate::key::Key;

/// The last change of the last commit, to find it again.
#[derive(Clone, Debug)]
pub(super) struct LastChange {
    key: Key,
    /// The version that was written, `None` if the record was removed; then the version of a commit that failed after
    /// it, and that may be found nevertheless.
    versions: Vec<Option<Version>>,
}

impl LastChange {
    /// Notes a commit that was acknowledged.
    pub(super) fn committed(change: &(Key, Option<VersionedRecord>)) -> Self {
        Self {
            key: change.0.clone(),
            versions: vec![version_of(change)],
        }
    }

    /// Notes a commit that failed.
    pub(super) fn failed(&mut self, changes: &[(Key, Option<VersionedRecord>)]) {
        let same = changes.iter().find(|(key, _)| *key == self.key);
        self.versions.extend(same.map(version_of));
    }

    pub(super) fn is_in(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let found = queries::get(connection, &self.key)?.map(|stored| stored.version);
        Ok(self.versions.contains(&found))
    }
}

fn version_of(change: &(Key, Option<VersionedRecord>)) -> Option<Version> {
    change.1.as_ref().map(|stored| stored.version.clone())
}
