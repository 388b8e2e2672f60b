//! Retention: which tags and manifests of a repository stay, and which are dropped and when.
//!
//! A [`Retention`] is data. [`Retention::evaluate`] looks at the facts of one repository and returns a verdict for each
//! tag and each manifest; explaining and dropping use the same function.

mod keep;
mod manifests;
mod pulls;
#[cfg(test)]
mod tests;
mod version;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::pulls::PULL_PRECISION;
use self::pulls::Pulls;

use crate::policy::{Glob, ImmutableTagRule};
use crate::{Digest, RepositoryName, Tag, Timestamp};

/// The policies of a registry, and the tags that no policy touches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The policies. The first one with a matching pattern decides about a repository; without one, everything stays.
    pub policies: Vec<RetentionPolicy>,
    /// Tags that are never dropped.
    pub immutable: Vec<ImmutableTagRule>,
}

/// What stays in some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionPolicy {
    /// The repositories; one of the patterns must match.
    pub repositories: Vec<Glob>,
    /// The tags that may be dropped. Tags that none of the patterns match stay.
    pub tags: Vec<Glob>,
    /// What keeps a tag: it stays if any of these rules keeps it, so another rule never drops more.
    pub keep: Vec<KeepRule>,
    /// How long after its push a manifest stays if it has no tag, index or subject; `None` for ever.
    pub untagged: Option<Duration>,
    /// What was pulled less than this long ago stays, tags and manifests without one; `None` if that does not matter.
    pub pulled_within: Option<Duration>,
}

impl RetentionPolicy {
    /// Returns whether it matters when something was pulled.
    #[must_use]
    pub fn uses_pulls(&self) -> bool {
        let uses = |rule: &KeepRule| rule.pulled_within.is_some() || rule.newest_pulled.is_some();
        self.pulled_within.is_some() || self.keep.iter().any(uses)
    }
}

/// Keeps the tags that meet all of its conditions. Without any condition it keeps every tag that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepRule {
    /// The tags, among those of the policy; if there are no patterns, all of them. The conditions count these tags only.
    pub tags: Vec<Glob>,
    /// It is among this many that were pushed last.
    pub newest: Option<NonZeroU32>,
    /// It was pushed less than this long ago.
    pub pushed_within: Option<Duration>,
    /// It was pulled, or pushed, less than this long ago.
    pub pulled_within: Option<Duration>,
    /// It is among this many that were pulled, or pushed, last. Of those of which that cannot be told, none is displaced.
    pub newest_pulled: Option<NonZeroU32>,
    /// It is a version, and among this many highest ones of its major version.
    pub versions_per_major: Option<NonZeroU32>,
    /// It is a version, and among this many highest ones of its minor version.
    pub versions_per_minor: Option<NonZeroU32>,
}

impl KeepRule {
    /// Returns whether the rule has no condition, so that it keeps every tag that it names.
    #[must_use]
    pub const fn is_unconditional(&self) -> bool {
        self.newest.is_none()
            && self.pushed_within.is_none()
            && self.pulled_within.is_none()
            && self.newest_pulled.is_none()
            && self.versions_per_major.is_none()
            && self.versions_per_minor.is_none()
    }
}

/// What there is in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The tags, each with a manifest that exists.
    pub tags: Vec<TagFacts>,
    /// The manifests.
    pub manifests: Vec<ManifestFacts>,
    /// Manifests that a push in progress needs.
    pub held: Vec<Digest>,
    /// Since when pulls are recorded; what has no recorded pull counts as pulled then. `None` if they are not, and then nothing is
    /// dropped because it was not pulled.
    pub pulls_since: Option<Timestamp>,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFacts {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it names.
    pub digest: Digest,
    /// When it was pushed last.
    pub pushed: Timestamp,
    /// When its manifest was pulled last, or in a verdict what that names, by the record of pulls; it may have been up to
    /// [`PULL_PRECISION`] later.
    pub pulled: Option<Timestamp>,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Its digest.
    pub digest: Digest,
    /// When it was pushed.
    pub pushed: Timestamp,
    /// When it was pulled last, by the record of pulls.
    pub pulled: Option<Timestamp>,
    /// From when the collector, which condemned it already, may remove it.
    pub condemned_until: Option<Timestamp>,
    /// The manifests that it names.
    pub children: Vec<Digest>,
    /// The manifest that it refers to, which need not exist.
    pub subject: Option<Digest>,
}

/// What becomes of a tag or a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Kept {
        /// Because of this.
        by: Keeper,
        /// Until this time, if nothing else changes; `None` without an end.
        until: Option<Timestamp>,
    },
    /// It is dropped now.
    Dropped,
}

impl Verdict {
    /// Returns whether it is dropped.
    #[must_use]
    pub const fn is_dropped(&self) -> bool {
        matches!(self, Self::Dropped)
    }
}

/// Why something stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// No policy is for the repository.
    NoPolicy,
    /// The policy does not name the tag.
    NotNamed,
    /// The tag is immutable.
    Immutable,
    /// A rule of the policy, by its index in [`RetentionPolicy::keep`].
    Rule(usize),
    /// The manifest that it refers to exists: signatures and attestations live and die with their subject.
    Subject(Digest),
    /// An index names it.
    Parent(Digest),
    /// A push in progress needs it.
    Push,
    /// It was pushed, or condemned, too short a time ago to be dropped.
    Age,
    /// The policy keeps what has no tag.
    Untagged,
    /// It was pulled lately, or it is not known whether it was.
    Pulled,
}

/// The verdicts about a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// About each tag, in the order of their names.
    pub tags: Vec<(TagFacts, Verdict)>,
    /// About each manifest that no kept tag names, in the order of their digests.
    pub manifests: Vec<(Digest, Verdict)>,
    /// Since when pulls are recorded, if they are.
    pub pulls_since: Option<Timestamp>,
}

impl Retention {
    /// Returns the policy for a repository, and its index.
    #[must_use]
    pub fn policy_of(&self, repository: &RepositoryName) -> Option<(usize, &RetentionPolicy)> {
        let matches = |glob: &Glob| glob.matches(repository.as_str());
        let mut policies = self.policies.iter().enumerate();
        policies.find(|(_, policy)| policy.repositories.iter().any(matches))
    }

    /// Returns whether it matters when something in a repository was pulled.
    #[must_use]
    pub fn uses_pulls_of(&self, repository: &RepositoryName) -> bool {
        self.policy_of(repository)
            .is_some_and(|(_, policy)| policy.uses_pulls())
    }

    /// Returns whether it matters for any repository when something was pulled.
    #[must_use]
    pub fn uses_pulls(&self) -> bool {
        self.policies.iter().any(RetentionPolicy::uses_pulls)
    }

    /// Decides about everything in a repository. The order of the facts does not matter.
    #[must_use]
    pub fn evaluate(&self, repository: &RepositoryName, facts: &Facts, now: Timestamp) -> Verdicts {
        let tags = self.evaluate_tags(repository, facts, now);
        let kept = tags.iter().filter(|(_, verdict)| !verdict.is_dropped());
        let tagged = kept.map(|(tag, _)| &tag.digest).collect();
        let manifests = self.evaluate_manifests(repository, facts, &tagged, now);
        Verdicts {
            tags,
            manifests,
            pulls_since: facts.pulls_since,
        }
    }

    /// Decides about the tags of a repository, in the order of their names.
    #[must_use]
    pub fn evaluate_tags(
        &self,
        repository: &RepositoryName,
        facts: &Facts,
        now: Timestamp,
    ) -> Vec<(TagFacts, Verdict)> {
        let mut tags: Vec<&TagFacts> = facts.tags.iter().collect();
        tags.sort_by(|a, b| a.tag.cmp(&b.tag));
        let pulls = Pulls::of(facts);
        let verdicts = match self.policy_of(repository) {
            Some((_, policy)) => {
                let is_immutable = |tag: &Tag| self.immutable.iter().any(|rule| rule.covers(repository, tag));
                keep::evaluate(policy, &tags, (&facts.manifests, &pulls), is_immutable, now)
            }
            None => tags.iter().map(|_| kept(Keeper::NoPolicy)).collect(),
        };
        let tags = tags.into_iter().map(|tag| TagFacts {
            pulled: pulls.of_manifest(&tag.digest).or(tag.pulled),
            ..tag.clone()
        });
        tags.zip(verdicts).collect()
    }

    /// Decides about the manifests of a repository except those that tags name (`tagged`), in the order of their digests.
    #[must_use]
    pub fn evaluate_manifests(
        &self,
        repository: &RepositoryName,
        facts: &Facts,
        tagged: &BTreeSet<&Digest>,
        now: Timestamp,
    ) -> Vec<(Digest, Verdict)> {
        let policy = self.policy_of(repository).map(|(_, policy)| policy);
        manifests::evaluate(policy, facts, tagged, now)
    }
}

/// Returns the verdict of what stays without an end.
const fn kept(by: Keeper) -> Verdict {
    Verdict::Kept { by, until: None }
}

/// Returns the verdict of what goes this long after a time.
fn kept_for(after: Duration, since: Timestamp, now: Timestamp) -> Verdict {
    let until = end_of(after, since);
    if now < until {
        Verdict::Kept {
            by: Keeper::Age,
            until: Some(until),
        }
    } else {
        Verdict::Dropped
    }
}

/// Returns the time this long after another.
fn end_of(after: Duration, since: Timestamp) -> Timestamp {
    let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    Timestamp(since.0.saturating_add(after))
}
