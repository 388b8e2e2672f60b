//! Deletes on condition, which a store need not have: without them, records that nothing needs stay.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::answer::Answer;
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

const FAILED: Found = Found::Undecided("a delete with a condition fails");

/// What the store did against its promise, or why nothing can be said.
#[derive(Clone, Copy, Debug)]
enum Found {
    Lie(&'static str),
    Undecided(&'static str),
}

impl Probe<'_> {
    /// Returns whether the store deletes an object only if it has the version that was read, also beside a writer; `None` if that
    /// cannot be said, and is to be tried again.
    ///
    /// # Errors
    /// [`ProbeError::Unanswered`] if a request fails that is no delete.
    pub(super) async fn keeps_condition_of_delete(&self) -> Result<Option<bool>, ProbeError> {
        if self.backend.deleter.is_none() {
            return Ok(None);
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
                let ended = ended.unwrap_or_else(|error| {
                    tracing::debug!(%error, cause = std::error::Error::source(&error), "a request of a race failed");
                    // rclone breaks off reads of what is being written.
                    Some(Found::Undecided("requests fail that meet at one object"))
                });
                // A lie says more.
                found = match found {
                    Some(Found::Lie(_)) => found,
                    _ => ended.or(found),
                };
            }
            if found.is_none() && round < ROUNDS && begun.elapsed() > RACES_LIMIT {
                found = Some(Found::Undecided("it takes too long to find out"));
            }
        }
        Ok(match found {
            None => Some(true),
            Some(Found::Lie(found)) => {
                tracing::info!(
                    found,
                    "the store does not keep the condition of a delete, so small records of what was deleted stay"
                );
                Some(false)
            }
            Some(Found::Undecided(found)) => {
                tracing::info!(
                    found,
                    "whether the store keeps the condition of a delete cannot be said yet, so small records of what was \
                     deleted stay; a start a day later tries again"
                );
                None
            }
        })
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
            Delete::Unknown => return Ok(Some(Found::Lie("it refuses deletes with a condition"))),
            Delete::Failed => return Ok(Some(FAILED)),
            Delete::Gone => {
                let found = "it deleted a newer version than the one that `If-Match` named";
                return Ok(Some(Found::Lie(found)));
            }
            Delete::Refused => {}
        }
        if self
            .read(PROMISE, &key)
            .await?
            .is_none_or(|read| read.version != current)
        {
            return Ok(Some(Found::Lie(
                "it refused a delete and deleted the object all the same",
            )));
        }
        let deleted = self.delete_if(&key, &current).await?;
        let is_gone = self.read(PROMISE, &key).await?.is_none();
        Ok(match deleted {
            Delete::Gone if is_gone => None,
            Delete::Failed => Some(FAILED),
            _ => Some(Found::Lie("it did not delete the version that `If-Match` named")),
        })
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
            (Write::Won(_), Delete::Gone) => Some(Found::Lie(
                "it replaced a version of an object and deleted it, at once, and said that both were done",
            )),
            (Write::Won(_), _) if read.as_ref().is_none_or(|read| read.value != value) => Some(Found::Lie(
                "an object is gone that was replaced beside a delete which was refused",
            )),
            (Write::Refused, Delete::Gone) if read.is_some() => Some(Found::Lie(
                "an object is there that was deleted beside a write which was refused",
            )),
            (_, Delete::Unknown) => Some(Found::Lie("it refuses some deletes with a condition")),
            (_, Delete::Failed) => Some(FAILED),
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
            Err(error) => {
                tracing::debug!(%error, "a delete with a condition failed");
                let status = Answer::of(&error).map(|answer| answer.status);
                Ok(match status {
                    Some(400 | 405 | 501) => Delete::Unknown,
                    _ => Delete::Failed,
                })
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
    /// Not at all, or with a failure that may pass.
    Failed,
}
