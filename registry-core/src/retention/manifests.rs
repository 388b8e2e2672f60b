//! Which manifests without a tag stay.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::pulls::Pulls;
use super::{Facts, Keeper, ManifestFacts, RetentionPolicy, Verdict, kept, kept_for};
use crate::{Digest, Timestamp};

/// Decides about the manifests that no tag names, in the order of their digests. Without a policy all of them stay.
///
/// An index keeps what it names for as long as it is there, and a subject what refers to it, even if they go themselves:
/// what depends on them follows later.
pub(super) fn evaluate(
    policy: Option<&RetentionPolicy>,
    facts: &Facts,
    tagged: &BTreeSet<&Digest>,
    now: Timestamp,
) -> Vec<(Digest, Verdict)> {
    let after = policy.map_or(Err(Keeper::NoPolicy), |policy| {
        policy.untagged.ok_or(Keeper::Untagged)
    });
    let pulled_within = policy.and_then(|policy| policy.pulled_within);
    let pulls = Pulls::of(facts);
    let held: BTreeSet<&Digest> = facts.held.iter().collect();
    let there: BTreeSet<&Digest> = facts.manifests.iter().map(|manifest| &manifest.digest).collect();
    let mut parents: BTreeMap<&Digest, &Digest> = BTreeMap::new();
    for manifest in &facts.manifests {
        for child in &manifest.children {
            // The lowest of several, so that the order of the facts does not matter.
            let parent = parents.entry(child).or_insert(&manifest.digest);
            *parent = (*parent).min(&manifest.digest);
        }
    }
    let verdict = |manifest: &ManifestFacts| {
        let subject = manifest
            .subject
            .as_ref()
            .filter(|subject| there.contains(subject));
        match (&after, parents.get(&manifest.digest), subject) {
            (_, Some(parent), _) => kept(Keeper::Parent((*parent).clone())),
            (_, None, Some(subject)) => kept(Keeper::Subject(subject.clone())),
            _ if held.contains(&manifest.digest) => kept(Keeper::Push),
            (Err(keeper), None, None) => kept(keeper.clone()),
            (Ok(after), None, None) => {
                let verdict = match manifest.condemned_until {
                    Some(until) => kept_for(Duration::ZERO, until, now),
                    None => kept_for(*after, manifest.pushed, now),
                };
                let protection =
                    pulled_within.and_then(|within| pulls.protect(&manifest.digest, within, now));
                match protection.filter(|protection| protection.outlasts(&verdict)) {
                    Some(protection) => Verdict::Kept {
                        by: Keeper::Pulled,
                        until: protection.until,
                    },
                    None => verdict,
                }
            }
        }
    };
    let mut verdicts: Vec<(Digest, Verdict)> = facts
        .manifests
        .iter()
        .filter(|manifest| !tagged.contains(&manifest.digest))
        .map(|manifest| (manifest.digest.clone(), verdict(manifest)))
        .collect();
    verdicts.sort_by(|a, b| a.0.cmp(&b.0));
    verdicts
}
