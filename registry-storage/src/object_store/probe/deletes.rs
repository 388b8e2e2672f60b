//! Deletes on condition, which a store need not have: without them, records that nothing needs stay.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::error::{convert, may_have_happened};
use super::{Probe, ProbeError, Promise, Write, value};
use crate::backend::{Condition, Version};
use crate::key::Key;

const PROMISE: Promise = Promise::ConditionalDelete;

/// How many objects are raced for, and how many of them at once. A server that looks and then deletes (versitygw) gets one of ten
/// rounds wrong, so one of a hundred thousand probes misses it.
const ROUNDS: usize = 120;
const ROUNDS_AT_ONCE: usize = 20;

/// How long the races may take. A store that has writers wait for each other is not tried for longer.
const RACES_LIMIT: Duration = Duration::from_secs(3);

/// What the store did against its promise.
type Found = &'static str;

impl Probe<'_> {
    /// Returns whether the store deletes an object only if it has the version that was read, also beside a writer.
    ///
    /// # Errors
    /// [`ProbeError::Unanswered`] if that cannot be said: the store may be down.
    pub(super) async fn keeps_condition_of_delete(&self) -> Result<bool, ProbeError> {
        if self.backend.deleter.is_none() {
            return Ok(false);
        }
        let mut found = self.delete_in_sequence().await?;
        let begun = Instant::now();
        let mut round = 0;
        while found.is_none() && round < ROUNDS {
            let some = round..round + ROUNDS_AT_ONCE;
            round = some.end;
            // Each goes on to its end: what came late would stay.
            let rounds = join_all(some.map(|round| self.race_of_delete(round))).await;
            for ended in rounds {
                let lie = ended.unwrap_or_else(|error| {
                    tracing::debug!(%error, cause = std::error::Error::source(&error), "a request of a race failed");
                    // rclone breaks off reads of what is being written.
                    Some("requests fail that meet at one object")
                });
                found = found.or(lie);
            }
            if round < ROUNDS && begun.elapsed() > RACES_LIMIT {
                found = found.or(Some(
                    "it takes too long to find out whether it keeps the condition of a delete",
                ));
            }
        }
        if let Some(found) = found {
            tracing::info!(
                found,
                "the store does not keep the condition of a delete; some small objects stay that are deleted elsewhere"
            );
        }
        Ok(found.is_none())
    }

    async fn delete_in_sequence(&self) -> Result<Option<Found>, ProbeError> {
        let key = self.key("delete");
        let stale = self
            .must_write(PROMISE, &key, &value(), &Condition::Absent)
            .await?;
        let current = self
            .must_write(PROMISE, &key, &value(), &Condition::Matches(stale.clone()))
            .await?;
        match self.delete_if(&key, &stale).await? {
            Delete::Unknown => return Ok(Some("it refuses deletes with a condition")),
            Delete::Gone => {
                return Ok(Some(
                    "it deleted a newer version than the one that `If-Match` named",
                ));
            }
            Delete::Refused => {}
        }
        if self
            .read(PROMISE, &key)
            .await?
            .is_none_or(|read| read.version != current)
        {
            return Ok(Some("it refused a delete and deleted the object all the same"));
        }
        let is_gone = self.delete_if(&key, &current).await? == Delete::Gone;
        match is_gone && self.read(PROMISE, &key).await?.is_none() {
            true => Ok(None),
            false => Ok(Some("it did not delete the version that `If-Match` named")),
        }
    }

    /// Replaces a version of an object and deletes it at once.
    async fn race_of_delete(&self, round: usize) -> Result<Option<Found>, ProbeError> {
        let key = self.key(&format!("delete/{round}"));
        let version = self
            .must_write(PROMISE, &key, &value(), &Condition::Absent)
            .await?;
        let value = value();
        let condition = Condition::Matches(version.clone());
        let writing = self.write(PROMISE, &key, &value, &condition);
        let deleting = self.delete_if(&key, &version);
        let (written, deleted) = if round.is_multiple_of(2) {
            tokio::join!(writing, deleting)
        } else {
            let (deleted, written) = tokio::join!(deleting, writing);
            (written, deleted)
        };
        let read = self.read(PROMISE, &key).await?;
        Ok(match (written?, deleted?) {
            (Write::Won(_), Delete::Gone) => Some(
                "it replaced a version of an object and deleted it, at once, and said that both were done",
            ),
            (Write::Won(_), _) if read.as_ref().is_none_or(|read| read.value != value) => {
                Some("an object is gone that was replaced beside a delete which was refused")
            }
            (Write::Refused, Delete::Gone) if read.is_some() => {
                Some("an object is there that was deleted beside a write which was refused")
            }
            (_, Delete::Unknown) => Some("it refuses some deletes with a condition"),
            _ => None,
        })
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Delete, ProbeError> {
        let unanswered = |error| ProbeError::Unanswered(PROMISE, error);
        let Some(deleter) = &self.backend.deleter else {
            return Ok(Delete::Unknown);
        };
        let path = self.backend.path(key.as_str()).map_err(unanswered)?;
        let deleting = deleter.delete_if(&path, version);
        match self.backend.run(0, deleting).await {
            Ok(true) => Ok(Delete::Gone),
            Ok(false) => Ok(Delete::Refused),
            Err(error) if may_have_happened(&error) => Err(unanswered(convert(error))),
            Err(error) => {
                tracing::debug!(%error, "the store does not know deletes with a condition");
                Ok(Delete::Unknown)
            }
        }
    }
}

/// How a delete was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delete {
    Gone,
    /// The object has another version.
    Refused,
    /// The store does not know such a delete.
    Unknown,
}
