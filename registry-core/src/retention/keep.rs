//! Which tags the rules of a policy keep.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::num::NonZeroU32;

use super::pulls::{PULL_PRECISION, Protection, Pulls};
use super::version::Version;
use super::{KeepRule, Keeper, ManifestFacts, RetentionPolicy, TagFacts, Verdict, end_of, kept, kept_for};
use crate::policy::Glob;
use crate::{Digest, Tag, Timestamp};

/// Decides about each of `tags`, in their order.
pub(super) fn evaluate(
    policy: &RetentionPolicy,
    tags: &[&TagFacts],
    (manifests, pulls): (&[ManifestFacts], &Pulls<'_>),
    is_immutable: impl Fn(&Tag) -> bool,
    now: Timestamp,
) -> Vec<Verdict> {
    let subjects: BTreeMap<&str, &Digest> = manifests
        .iter()
        .map(|manifest| (manifest.digest.as_str(), &manifest.digest))
        .collect();
    // What is still open here is for the rules.
    let mut verdicts: Vec<Option<Verdict>> = tags
        .iter()
        .map(|tag| {
            if !matches_any(&policy.tags, &tag.tag) {
                return Some(kept(Keeper::NotNamed));
            }
            of_referrers(policy, tag, &subjects, now)
        })
        .collect();
    // A signature whose image is not here may be for one in another repository, so a rule that names it may keep it. Such
    // tags are counted by themselves, so that they displace no image.
    let orphans: BTreeSet<usize> = (0..tags.len())
        .filter(|index| matches!(verdicts.get(*index), Some(Some(verdict)) if ends(verdict)))
        .collect();
    let governed: Vec<usize> = (0..tags.len())
        .filter(|index| matches!(verdicts.get(*index), Some(None)))
        .collect();
    for (number, rule) in policy.keep.iter().enumerate() {
        let of_rule: Vec<(usize, &TagFacts)> = governed
            .iter()
            .filter_map(|index| tags.get(*index).map(|tag| (*index, *tag)))
            .filter(|(_, tag)| rule.tags.is_empty() || matches_any(&rule.tags, &tag.tag))
            .collect();
        let orphans_of_rule: Vec<(usize, &TagFacts)> = orphans
            .iter()
            .filter_map(|index| tags.get(*index).map(|tag| (*index, *tag)))
            .filter(|(_, tag)| matches_any(&rule.tags, &tag.tag))
            .collect();
        let kept = kept_by(rule, &of_rule, pulls, now).into_iter();
        for (index, until) in kept.chain(kept_by(rule, &orphans_of_rule, pulls, now)) {
            if let Some(verdict) = verdicts.get_mut(index)
                && is_longer(until, verdict.as_ref())
            {
                *verdict = Some(Verdict::Kept {
                    by: Keeper::Rule(number),
                    until,
                });
            }
        }
    }
    if let Some(within) = policy.pulled_within {
        for index in governed.into_iter().chain(orphans) {
            if let (Some(tag), Some(verdict)) = (tags.get(index), verdicts.get_mut(index))
                && let Some(protection) = Protection::of(pulls.last_use(tag), within, now)
                && verdict
                    .as_ref()
                    .is_none_or(|verdict| protection.outlasts(verdict))
            {
                *verdict = Some(Verdict::Kept {
                    by: Keeper::Pulled,
                    until: protection.until,
                });
            }
        }
    }
    tags.iter()
        .zip(verdicts)
        .map(|(tag, verdict)| {
            let verdict = verdict.unwrap_or(Verdict::Dropped);
            if ends(&verdict) && is_immutable(&tag.tag) {
                kept(Keeper::Immutable)
            } else {
                verdict
            }
        })
        .collect()
}

/// Returns whether a tag goes, now or at some time.
const fn ends(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Dropped | Verdict::Kept { until: Some(_), .. })
}

fn matches_any(globs: &[Glob], tag: &Tag) -> bool {
    globs.iter().any(|glob| glob.matches(tag.as_str()))
}

/// Returns whether a tag that stays until this time stays longer than by a verdict from before.
fn is_longer(until: Option<Timestamp>, before: Option<&Verdict>) -> bool {
    match (before, until) {
        (Some(Verdict::Kept { until: None, .. }), _) => false,
        (
            Some(Verdict::Kept {
                until: Some(before), ..
            }),
            Some(until),
        ) => until > *before,
        _ => true,
    }
}

/// Decides about a tag under which clients keep what refers to a manifest: it lives and dies with that manifest.
/// Returns `None` for any other tag.
fn of_referrers(
    policy: &RetentionPolicy,
    tag: &TagFacts,
    subjects: &BTreeMap<&str, &Digest>,
    now: Timestamp,
) -> Option<Verdict> {
    let prefix = subject_of(&tag.tag)?;
    let subject = subjects.range(prefix.as_str()..).next();
    if let Some((_, subject)) = subject.filter(|(text, _)| text.starts_with(&prefix)) {
        // An image may have its own digest as a tag.
        if **subject == tag.digest {
            return None;
        }
        return Some(kept(Keeper::Subject((*subject).clone())));
    }
    Some(
        policy
            .untagged
            .map_or(kept(Keeper::Untagged), |after| kept_for(after, tag.pushed, now)),
    )
}

/// Returns the beginning of the digest that a tag such as `sha256-<hex>` (distribution-spec 1.1, "Referrers Tag Schema")
/// or `sha256-<hex>.sig` (cosign) is about.
fn subject_of(tag: &Tag) -> Option<String> {
    let name = tag.as_str().split('.').next()?;
    let is_about = name.parse::<Tag>().is_ok_and(|tag| tag.lists_referrers());
    let (algorithm, encoded) = name.split_once('-')?;
    is_about.then(|| format!("{algorithm}:{encoded}"))
}

/// Returns which tags meet all conditions of a rule, by their index, and until when.
fn kept_by(
    rule: &KeepRule,
    tags: &[(usize, &TagFacts)],
    pulls: &Pulls<'_>,
    now: Timestamp,
) -> Vec<(usize, Option<Timestamp>)> {
    let mut is_kept = vec![true; tags.len()];
    let mut require = |kept: &BTreeSet<usize>| {
        for (at, is_kept) in is_kept.iter_mut().enumerate() {
            *is_kept &= kept.contains(&at);
        }
    };
    if let Some(newest) = rule.newest {
        let mut order: Vec<(Reverse<Timestamp>, &Tag, usize)> = tags
            .iter()
            .enumerate()
            .map(|(at, (_, tag))| (Reverse(tag.pushed), &tag.tag, at))
            .collect();
        order.sort();
        // If the clock was set back, what was pushed since seems older than what was pushed before: neither displaces the
        // other.
        let is_ahead = |(pushed, _, _): &(Reverse<Timestamp>, _, _)| pushed.0 > now;
        let (ahead, order): (Vec<_>, Vec<_>) = order.into_iter().partition(is_ahead);
        let kept = ahead.into_iter().chain(order.into_iter().take(count(newest)));
        require(&kept.map(|(_, _, at)| at).collect());
    }
    if let Some(newest) = rule.newest_pulled {
        require(&last_used(tags, newest, pulls, now));
    }
    for (number, is_minor) in [(rule.versions_per_major, false), (rule.versions_per_minor, true)] {
        if let Some(number) = number {
            require(&highest_versions(tags, number, is_minor));
        }
    }
    let kept = tags.iter().zip(is_kept).filter(|(_, is_kept)| *is_kept);
    kept.filter_map(|((index, tag), _)| {
        let pushed = rule.pushed_within.map(|within| end_of(within, tag.pushed));
        let pulled = match rule.pulled_within {
            Some(within) => Protection::of(pulls.last_use(tag), within, now)?.until,
            None => None,
        };
        let until = pushed.into_iter().chain(pulled).min();
        until.is_none_or(|until| now < until).then_some((*index, until))
    })
    .collect()
}

/// Returns the positions of the tags that were used last, and of those of which that cannot be told: they may have been
/// used as late as the last one that is kept.
fn last_used(
    tags: &[(usize, &TagFacts)],
    number: NonZeroU32,
    pulls: &Pulls<'_>,
    now: Timestamp,
) -> BTreeSet<usize> {
    let used = |tag: &TagFacts| pulls.last_use(tag);
    // As for pushes, what seems to be used later than now displaces nothing.
    let mut times: Vec<Timestamp> = tags
        .iter()
        .filter_map(|(_, tag)| used(tag).filter(|used| *used <= now))
        .collect();
    times.sort_unstable_by_key(|used| Reverse(*used));
    let threshold = times.get(count(number).saturating_sub(1)).copied();
    let is_kept = |tag: &TagFacts| match (used(tag), threshold) {
        (Some(used), Some(threshold)) => end_of(PULL_PRECISION, used) >= threshold,
        _ => true,
    };
    let positions = tags.iter().enumerate();
    positions
        .filter(|(_, (_, tag))| is_kept(tag))
        .map(|(at, _)| at)
        .collect()
}

/// Returns the positions of the highest versions in each series.
fn highest_versions(tags: &[(usize, &TagFacts)], number: NonZeroU32, is_minor: bool) -> BTreeSet<usize> {
    let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at, (_, tag)) in tags.iter().enumerate() {
        if let Some(version) = Version::parse(tag.tag.as_str()) {
            let versions = series.entry(version.series(is_minor)).or_default();
            // `v1.0.0` and `1.0.0` are one version, which counts once.
            versions.push((version.precedence(), at));
        }
    }
    let mut kept = BTreeSet::new();
    for mut versions in series.into_values() {
        versions.sort_by(|a, b| b.0.cmp(&a.0));
        let mut counted = 0;
        let mut last = None;
        for (precedence, at) in versions {
            if last.as_ref() != Some(&precedence) {
                counted += 1;
                last = Some(precedence);
            }
            if counted > count(number) {
                break;
            }
            kept.insert(at);
        }
    }
    kept
}

fn count(number: NonZeroU32) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}
