//! When something was pulled last, as far as that is known.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::{Facts, TagFacts, Verdict, end_of};
use crate::{Digest, Timestamp};

/// How much later than its recorded pull something may have been pulled: a pull that comes sooner after the recorded one is
/// not recorded.
pub const PULL_PRECISION: Duration = Duration::from_hours(1);

/// The pulls of a repository.
pub(super) struct Pulls<'a> {
    since: Option<Timestamp>,
    times: BTreeMap<&'a Digest, Timestamp>,
}

impl<'a> Pulls<'a> {
    /// Collects them. A pull of what an index names is a pull of the index, even if only the former is recorded.
    pub(super) fn of(facts: &'a Facts) -> Self {
        let pulled = facts.manifests.iter();
        let mut times: BTreeMap<&Digest, Timestamp> = pulled
            .filter_map(|manifest| Some((&manifest.digest, manifest.pulled?)))
            .collect();
        // As many turns as indexes are nested.
        let mut has_changed = !times.is_empty();
        while has_changed {
            has_changed = false;
            for manifest in &facts.manifests {
                let newest = manifest
                    .children
                    .iter()
                    .filter_map(|child| times.get(child))
                    .max();
                if let Some(newest) = newest.copied()
                    && times.get(&manifest.digest).is_none_or(|own| *own < newest)
                {
                    times.insert(&manifest.digest, newest);
                    has_changed = true;
                }
            }
        }
        Self {
            since: facts.pulls_since,
            times,
        }
    }

    /// Returns when a manifest was pulled last, if that is recorded.
    pub(super) fn of_manifest(&self, digest: &Digest) -> Option<Timestamp> {
        self.times.get(digest).copied()
    }

    /// Returns when a tag was used last: pushed, or its manifest pulled. What is not known to have been pulled counts as
    /// pulled when recording began. `None` if pulls are not recorded.
    pub(super) fn last_use(&self, tag: &TagFacts) -> Option<Timestamp> {
        let pulled = self.of_manifest(&tag.digest).or(tag.pulled);
        Some(self.since?.max(tag.pushed).max(pulled.unwrap_or_default()))
    }

    /// Returns what becomes of a manifest without a tag, if what was pulled within this time stays.
    pub(super) fn protect(&self, digest: &Digest, within: Duration, now: Timestamp) -> Option<Protection> {
        let pulled = self.of_manifest(digest).unwrap_or_default();
        Protection::of(self.since.map(|since| since.max(pulled)), within, now)
    }
}

/// That something was pulled lately.
#[derive(Clone, Copy)]
pub(super) struct Protection {
    /// Until when that holds, if it is not pulled again; `None` without an end.
    pub(super) until: Option<Timestamp>,
}

impl Protection {
    /// Returns whether something that was pulled last at a time, `None` if that is not known, was pulled within a duration.
    pub(super) fn of(last: Option<Timestamp>, within: Duration, now: Timestamp) -> Option<Self> {
        let until = last.map(|last| end_of(within.saturating_add(PULL_PRECISION), last));
        until.is_none_or(|until| now < until).then_some(Self { until })
    }

    /// Returns whether this holds longer than a verdict.
    pub(super) fn outlasts(self, verdict: &Verdict) -> bool {
        match (verdict, self.until) {
            (Verdict::Dropped, _) => true,
            (Verdict::Kept { until: None, .. }, _) => false,
            (Verdict::Kept { until: Some(_), .. }, None) => true,
            (
                Verdict::Kept {
                    until: Some(before), ..
                },
                Some(until),
            ) => until > *before,
        }
    }
}
