//! `retention`: which tags and manifests stay.

use std::num::NonZeroU32;
use std::time::Duration;

use registry_core::policy::Glob;
use registry_core::retention::{Facts, KeepRule, Retention, RetentionPolicy, TagFacts, Verdict};
use registry_core::{Algorithm, Digest, RepositoryName, Tag, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{InvalidValue, parse_all};
use super::lists::Tags;
use super::patterns::patterns_of_none;
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

/// Returns what is surprising about policies: the key, and a sentence of which it is the subject.
pub(in crate::config) fn remarks(policies: &[Policy], tags: &Tags) -> Vec<(String, String)> {
    let mut remarks = Vec::new();
    // The values are checked elsewhere.
    let Ok(all) = retention(policies, tags) else {
        return remarks;
    };
    for (index, policy) in all.policies.iter().enumerate() {
        let path = format!("retention[{index}]");
        let of_none = patterns_of_none(&path, &policy.repositories);
        let matches_none = of_none.len() == policy.repositories.len();
        remarks.extend(of_none);
        if matches_none {
            continue;
        }
        let earlier = all.policies.get(..index).unwrap_or_default();
        if let Some(earlier) = covering(earlier, policy) {
            let message =
                format!("is never reached: retention[{earlier}] decides about all its repositories");
            remarks.push((path, message));
            continue;
        }
        let is_last = index + 1 == all.policies.len();
        let retention = Retention {
            policies: vec![policy.clone()],
            immutable: all.immutable.clone(),
        };
        remarks.extend(
            of_policy(&retention, is_last)
                .into_iter()
                .map(|remark| (path.clone(), remark)),
        );
    }
    remarks
}

/// Returns the policy that decides about every repository that another one names.
fn covering(earlier: &[RetentionPolicy], policy: &RetentionPolicy) -> Option<usize> {
    let is_covered = |by: &RetentionPolicy, glob: &Glob| by.repositories.iter().any(|wide| wide.covers(glob));
    let mut earlier = earlier.iter();
    earlier.position(|by| policy.repositories.iter().all(|glob| is_covered(by, glob)))
}

/// Returns what is surprising about the only policy, each a sentence of which it is the subject.
fn of_policy(retention: &Retention, is_last: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    for policy in &retention.policies {
        let drops_tags = !policy.tags.is_empty() && may_drop(retention);
        match (drops_tags, policy.untagged) {
            (true, None) => remarks.push(
                "drops tags and frees nothing, because manifests without a tag stay; `untagged: 168h` lets them go"
                    .to_owned(),
            ),
            // Before others, it is an exception from them.
            (false, None) if is_last || policy.pulled_within.is_some() => {
                let why = if policy.tags.is_empty() {
                    "without `tags` and `untagged` everything stays"
                } else {
                    "`keep` or `tags.immutable` keeps every tag that it names, and without `untagged` all manifests stay"
                };
                remarks.push(format!("drops nothing: {why}"));
            }
            _ => {}
        }
        if let Some(tag) = dropped_at_once(retention) {
            let why = if is_dropped_as_no_version(retention, &tag) {
                "that are no version"
            } else {
                "that no entry of `keep` names"
            };
            remarks.push(format!(
                "drops tags {why}, such as `{tag}`, even if they were just pushed; another entry of `keep`, such as \
                 `newest: 10`, prevents that"
            ));
        }
        let verdicts: Vec<Verdict> = examples(retention, EXAMPLE)
            .iter()
            .filter_map(|tag| verdict_alone(retention, tag))
            .collect();
        let is_timed = |verdict: &Verdict| matches!(verdict, Verdict::Kept { until: Some(_), .. });
        if verdicts.iter().any(is_timed)
            && verdicts
                .iter()
                .all(|verdict| is_timed(verdict) || verdict.is_dropped())
        {
            remarks.push(
                "drops every tag that it names once nothing is pushed or pulled for long enough; another entry of `keep`, such as \
                 `newest: 1`, prevents that"
                    .to_owned(),
            );
        }
    }
    remarks
}

/// Returns whether the only policy may ever drop a tag: one that is not immutable, and that no entry keeps without a condition.
fn may_drop(retention: &Retention) -> bool {
    let mut at_last = retention.clone();
    for policy in &mut at_last.policies {
        policy.keep.retain(KeepRule::is_unconditional);
        policy.pulled_within = None;
    }
    // `v1*` keeps the usual example of `v*`, and not all that `v*` names.
    let examples = [EXAMPLE, "other"].map(|star| examples(retention, star)).concat();
    examples.is_empty() || examples.iter().any(|tag| is_dropped(&at_last, tag))
}

fn is_dropped(retention: &Retention, tag: &Tag) -> bool {
    verdict_alone(retention, tag).is_some_and(|verdict| verdict.is_dropped())
}

/// Returns a tag that the only policy drops although it was pushed just now and is alone in its repository.
fn dropped_at_once(retention: &Retention) -> Option<Tag> {
    let mut examples = examples(retention, EXAMPLE).into_iter();
    examples.find(|tag| is_dropped(retention, tag))
}

/// Returns whether a tag that is dropped would stay if entries for versions were for all tags.
fn is_dropped_as_no_version(retention: &Retention, tag: &Tag) -> bool {
    let mut of_all = retention.clone();
    for keep in of_all.policies.iter_mut().flat_map(|policy| &mut policy.keep) {
        keep.versions_per_major = None;
        keep.versions_per_minor = None;
    }
    verdict_alone(&of_all, tag).is_some_and(|verdict| !verdict.is_dropped())
}

/// Returns examples of the tags that the only policy may drop: common ones, and one of each pattern, with `star` for what it leaves
/// open.
fn examples(retention: &Retention, star: &str) -> Vec<Tag> {
    let policies = retention.policies.iter();
    let patterns = policies.flat_map(|policy| {
        let of_entries = policy.keep.iter().flat_map(|keep| &keep.tags);
        let globs = policy.tags.iter().chain(of_entries);
        globs.map(|glob| example_of(glob, star))
    });
    let common = ["latest", "main", "1.2.3"].map(str::to_owned);
    let texts = common.into_iter().chain(patterns);
    let mut examples: Vec<Tag> = texts.filter_map(|text| text.parse().ok()).collect();
    let is_named = |tag: &Tag| {
        let mut globs = retention.policies.iter().flat_map(|policy| &policy.tags);
        globs.any(|glob| glob.matches(tag.as_str()))
    };
    examples.retain(is_named);
    examples
}

/// The usual example of what a pattern leaves open.
const EXAMPLE: &str = "1";

/// Returns a name that a pattern matches.
fn example_of(glob: &Glob, star: &str) -> String {
    glob.as_str().replace("**", "*").replace('*', star)
}

/// Returns what the only policy decides about a tag that was pushed just now and is alone in its repository; `None` if its
/// patterns of repositories match none.
fn verdict_alone(retention: &Retention, tag: &Tag) -> Option<Verdict> {
    let repositories = retention.policies.first()?.repositories.iter();
    let repository: RepositoryName = repositories
        .map(|glob| example_of(glob, EXAMPLE))
        .find_map(|name| name.parse().ok())?;
    let now = Timestamp::default();
    let facts = Facts {
        tags: vec![TagFacts {
            tag: tag.clone(),
            digest: Digest::of(Algorithm::Sha256, &[]),
            pushed: now,
            pulled: None,
        }],
        pulls_since: Some(now),
        ..Facts::default()
    };
    let verdicts = retention.evaluate_tags(&repository, &facts, now);
    Some(verdicts.into_iter().next()?.1)
}
