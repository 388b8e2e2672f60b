//! What one writer needs, one request after the other.

use super::{Probe, ProbeError, Promise, value};
use crate::backend::Condition;

impl Probe<'_> {
    /// An object is created, once.
    pub(super) async fn create(&self) -> Result<(), ProbeError> {
        let key = self.key("create");
        self.must_write(Promise::Create, &key, &value(), &Condition::Absent)
            .await?;
        let lie = "it overwrote an object that a request with `If-None-Match: *` was to create";
        self.must_refuse(Promise::Create, &key, &Condition::Absent, lie)
            .await
    }

    /// An object is replaced if it is as it was read, and not if it is another version, or none.
    pub(super) async fn update(&self) -> Result<(), ProbeError> {
        const PROMISE: Promise = Promise::Update;
        let key = self.key("update");
        let first = self
            .must_write(PROMISE, &key, &value(), &Condition::Absent)
            .await?;
        let stale = Condition::Matches(first);
        let second = self.must_write(PROMISE, &key, &value(), &stale).await?;
        let lie = "it overwrote a newer version of an object than the one that `If-Match` named";
        self.must_refuse(PROMISE, &key, &stale, lie).await?;
        let absent = self.key("absent");
        let lie = "it created an object that a request with `If-Match` was to replace";
        self.must_refuse(PROMISE, &absent, &Condition::Matches(second), lie)
            .await
    }

    /// What comes back with a fresh nonce, as records do, has a version of its own, and reads tell the same version as
    /// the write.
    pub(super) async fn versions(&self) -> Result<(), ProbeError> {
        const PROMISE: Promise = Promise::Versions;
        let key = self.key("versions");
        let mut versions = Vec::new();
        let mut condition = Condition::Absent;
        for _ in 0..3 {
            let value = value();
            let version = self.must_write(PROMISE, &key, &value, &condition).await?;
            let read = self.read(PROMISE, &key).await?;
            if read.is_none_or(|read| read.version != version) {
                let found = "a read gave an object another entity tag than the write";
                return Err(ProbeError::broken(PROMISE, found));
            }
            if versions.contains(&version) {
                let found = "it gave the same entity tag to two contents";
                return Err(ProbeError::broken(PROMISE, found));
            }
            condition = Condition::Matches(version.clone());
            versions.push(version);
        }
        Ok(())
    }

    /// Reads see what was done just before.
    pub(super) async fn reads(&self) -> Result<(), ProbeError> {
        const PROMISE: Promise = Promise::Reads;
        let key = self.key("reads");
        // A store may remember that there was none.
        let mut condition = match self.read(PROMISE, &key).await? {
            None => Condition::Absent,
            Some(_) => {
                let found = "it has an object that nobody wrote";
                return Err(ProbeError::broken(PROMISE, found));
            }
        };
        for _ in 0..3 {
            let value = value();
            let version = self.must_write(PROMISE, &key, &value, &condition).await?;
            let read = self.read(PROMISE, &key).await?;
            let stat = self.backend.stat_record(&key).await;
            let stat = stat.map_err(|error| ProbeError::Unanswered(PROMISE, error))?;
            let is_new = read.is_some_and(|read| read.value == value)
                && stat.is_some_and(|stat| stat.size == value.len() as u64 && stat.version == version);
            if !is_new {
                let found = "a read right after a write did not see it";
                return Err(ProbeError::broken(PROMISE, found));
            }
            condition = Condition::Matches(version);
        }
        self.delete(PROMISE, &key).await?;
        let stat = self.backend.stat_record(&key).await;
        let stat = stat.map_err(|error| ProbeError::Unanswered(PROMISE, error))?;
        if self.read(PROMISE, &key).await?.is_some() || stat.is_some() {
            let found = "a read right after a delete still saw the object";
            return Err(ProbeError::broken(PROMISE, found));
        }
        Ok(())
    }
}
