//! Two writers at once, of which one at most may win.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{Probe, ProbeError, Promise, Write, value};
use crate::backend::{Condition, VersionedRecord};
use crate::key::Key;

/// How many objects are raced for.
pub(super) const ROUNDS: usize = 20;

/// How many of them at once. Servers that lie do it more often under load; one that is honest may wait for whole seconds where
/// writers meet (SeaweedFS), and these waits overlap.
pub(super) const ROUNDS_AT_ONCE: usize = 10;

/// How a round ended.
enum Round {
    Won,
    /// Both were refused, which a store may do.
    NobodyWon,
    /// A request failed, so nothing can be said.
    Failed(ProbeError),
}

impl Probe<'_> {
    /// For each of several objects, two writers create it, and then two replace it.
    pub(super) async fn races(&self) -> Result<(), ProbeError> {
        let rounds = stream::iter(0..ROUNDS).map(async |round| {
            let key = self.key(&format!("race/{round}"));
            let created = self.race(Promise::OneCreator, &key, Condition::Absent).await?;
            let Some(stored) = self.read(Promise::OneUpdater, &key).await? else {
                return Ok([created, Round::NobodyWon]);
            };
            let updated = Condition::Matches(stored.version);
            Ok([created, self.race(Promise::OneUpdater, &key, updated).await?])
        });
        let rounds: Vec<Result<[Round; 2], ProbeError>> =
            rounds.buffer_unordered(ROUNDS_AT_ONCE).collect().await;
        let mut created = Vec::with_capacity(ROUNDS);
        let mut updated = Vec::with_capacity(ROUNDS);
        for round in rounds {
            let [create, update] = round?;
            created.push(create);
            updated.push(update);
        }
        judge(Promise::OneCreator, created)?;
        judge(Promise::OneUpdater, updated)
    }

    async fn race(&self, promise: Promise, key: &Key, condition: Condition) -> Result<Round, ProbeError> {
        let values = [value(), value()];
        let [one, other] = &values;
        let both = tokio::join!(
            self.write(promise, key, one, &condition),
            self.write(promise, key, other, &condition)
        );
        let (won, value) = match both {
            (Err(error @ ProbeError::Broken { .. }), _) | (_, Err(error @ ProbeError::Broken { .. })) => {
                return Err(error);
            }
            (Err(error), _) | (_, Err(error)) => return Ok(Round::Failed(error)),
            (Ok(Write::Won(_)), Ok(Write::Won(_))) => {
                let found = match promise {
                    Promise::OneCreator => {
                        "two writers created one object at once, and both were told that they did"
                    }
                    _ => {
                        "two writers replaced one version of an object at once, and both were told that they did"
                    }
                };
                return Err(ProbeError::broken(promise, found));
            }
            (Ok(Write::Refused), Ok(Write::Refused)) => return Ok(Round::NobodyWon),
            (Ok(Write::Won(version)), Ok(Write::Refused)) => (version, one),
            (Ok(Write::Refused), Ok(Write::Won(version))) => (version, other),
        };
        let expected = VersionedRecord::new(Bytes::clone(value), won);
        if self.read(promise, key).await? != Some(expected) {
            let found = "of two writers at once, the one that was refused is the one whose object was stored";
            return Err(ProbeError::broken(promise, found));
        }
        Ok(Round::Won)
    }
}

/// A store may refuse both writers of some rounds, but not of all.
fn judge(promise: Promise, rounds: Vec<Round>) -> Result<(), ProbeError> {
    if rounds.iter().any(|round| matches!(round, Round::Won)) {
        return Ok(());
    }
    let failed = rounds.into_iter().find_map(|round| match round {
        Round::Failed(error) => Some(error),
        Round::Won | Round::NobodyWon => None,
    });
    let nobody = "it refused both of two writers at once, whenever that was tried";
    Err(failed.unwrap_or_else(|| ProbeError::broken(promise, nobody)))
}
