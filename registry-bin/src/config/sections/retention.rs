//! `retention`: which tags and manifests stay.

use std::num::NonZeroU32;
use std::time::Duration;

use registry_core::retention::{KeepRule, Retention, RetentionPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{InvalidValue, parse_all};
use super::lists::Tags;
use crate::config::problems::Problems;
use crate::config::values::GoDuration;

/// What stays in some repositories. The first policy with a matching pattern decides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// Patterns of repositories: `*` is any text without a slash, `**` any text.
    pub(crate) repositories: Vec<String>,
    /// Patterns of the tags that may be dropped. All other tags stay.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// What keeps a tag: it stays if any of these entries keeps it.
    #[serde(default)]
    pub(crate) keep: Vec<Keep>,
    /// How long after its push a manifest stays that has no tag, no index and no subject. By default for ever: dropping tags then frees nothing.
    #[serde(default)]
    pub(crate) untagged: Option<GoDuration>,
    /// What was pulled less than this long ago stays: tags, and manifests without one. A tag that was pushed counts as pulled.
    #[serde(rename = "pulledwithin", default)]
    pub(crate) pulled_within: Option<GoDuration>,
}

/// Keeps the tags that meet all of its conditions; without any, all that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keep {
    /// Patterns of tags. By default, all that the policy names. The conditions count these tags only.
    pub(crate) tags: Vec<String>,
    /// This many that were pushed last.
    pub(crate) newest: Option<NonZeroU32>,
    /// Those that were pushed less than this long ago.
    #[serde(rename = "pushedwithin")]
    pub(crate) pushed_within: Option<GoDuration>,
    /// Those that were pulled, or pushed, less than this long ago.
    #[serde(rename = "pulledwithin")]
    pub(crate) pulled_within: Option<GoDuration>,
    /// This many that were pulled, or pushed, last.
    #[serde(rename = "newestpulled")]
    pub(crate) newest_pulled: Option<NonZeroU32>,
    /// This many highest versions of each major version, of tags such as `1.2.3` or `v1.2.3-rc1`. Suffixes of different kinds are counted apart.
    #[serde(rename = "versionspermajor")]
    pub(crate) versions_per_major: Option<NonZeroU32>,
    /// The same for each minor version.
    #[serde(rename = "versionsperminor")]
    pub(crate) versions_per_minor: Option<NonZeroU32>,
}

/// Returns the policies in the form that the registry uses, with the immutable tags, which they do not touch.
///
/// # Errors
/// The first key with an invalid value.
pub(crate) fn retention(policies: &[Policy], tags: &Tags) -> Result<Retention, InvalidValue> {
    let policy = |(index, policy): (usize, &Policy)| {
        let path = |key: &str| format!("retention[{index}].{key}");
        let keep = policy.keep.iter().enumerate().map(|(position, keep)| {
            Ok(KeepRule {
                tags: parse_all(&path(&format!("keep[{position}].tags")), &keep.tags)?,
                newest: keep.newest,
                pushed_within: keep.pushed_within.map(|within| within.0),
                pulled_within: keep.pulled_within.map(|within| within.0),
                newest_pulled: keep.newest_pulled,
                versions_per_major: keep.versions_per_major,
                versions_per_minor: keep.versions_per_minor,
            })
        });
        Ok(RetentionPolicy {
            repositories: parse_all(&path("repositories"), &policy.repositories)?,
            tags: parse_all(&path("tags"), &policy.tags)?,
            keep: keep.collect::<Result<_, InvalidValue>>()?,
            untagged: policy.untagged.map(|after| after.0),
            pulled_within: policy.pulled_within.map(|within| within.0),
        })
    };
    Ok(Retention {
        policies: policies
            .iter()
            .enumerate()
            .map(policy)
            .collect::<Result<_, InvalidValue>>()?,
        immutable: tags.immutable_rules()?,
    })
}

/// Checks the values.
pub(in crate::config) fn check(policies: &[Policy], problems: &mut Problems<'_>) {
    if let Err(InvalidValue { path, message }) = retention(policies, &Tags::default()) {
        problems.add(&path, message);
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = format!("retention[{index}]");
        problems.required(
            &format!("{path}.repositories"),
            policy.repositories.is_empty(),
            "write `[\"**\"]` for all",
        );
        let has_tags = !policy.tags.is_empty();
        problems.required(
            &format!("{path}.keep"),
            has_tags && policy.keep.is_empty(),
            "without it every tag would go at once; write for example `[{newest: 10}]`",
        );
        problems.required(
            &format!("{path}.tags"),
            !has_tags && !policy.keep.is_empty(),
            "write `[\"*\"]` for all: tags that no pattern names stay",
        );
        for (key, time) in [
            ("untagged", policy.untagged),
            ("pulledwithin", policy.pulled_within),
        ] {
            if time.is_some_and(|time| time.0 < SHORTEST_TIME) {
                problems.add(&format!("{path}.{key}"), TOO_SHORT);
            }
        }
        for (position, keep) in policy.keep.iter().enumerate() {
            let path = format!("{path}.keep[{position}]");
            for (key, within) in [
                ("pushedwithin", keep.pushed_within),
                ("pulledwithin", keep.pulled_within),
            ] {
                if within.is_some_and(|within| within.0 < SHORTEST_TIME) {
                    problems.add(&format!("{path}.{key}"), TOO_SHORT);
                }
            }
            if *keep == Keep::default() {
                problems.add(
                    &path,
                    "says nothing, and would keep every tag; name `tags`, or a condition such as `newest: 10`",
                );
            }
        }
    }
}

/// The shortest time that something stays. A number without a unit is nanoseconds.
const SHORTEST_TIME: Duration = Duration::from_secs(1);

const TOO_SHORT: &str = "must be a second at least; write for example 168h";

/// Returns what is surprising about policies: the index of the policy, and a sentence of which it is the subject.
pub(in crate::config) fn remarks(policies: &[Policy]) -> Vec<(usize, &'static str)> {
    let mut remarks = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        if !policy.tags.is_empty() && policy.untagged.is_none() {
            remarks.push((
                index,
                "drops tags and frees nothing, because manifests without a tag stay; `untagged: 168h` lets them go",
            ));
        }
        let is_timed = |keep: &Keep| keep.pushed_within.is_some() || keep.pulled_within.is_some();
        if !policy.keep.is_empty() && policy.keep.iter().all(is_timed) {
            remarks.push((
                index,
                "drops every tag that it names once nothing is pushed or pulled for long enough; another entry of `keep`, such as \
                 `newest: 1`, prevents that",
            ));
        }
    }
    remarks
}
