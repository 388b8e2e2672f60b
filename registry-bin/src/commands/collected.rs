//! What a collection did, in words and as JSON.

use indicatif::HumanBytes;
use registry_core::Timestamp;
use registry_storage::{BlobCount, CollectOptions, CollectReport, RetainReport, SweepReport};
use serde_json::json;

use crate::arguments::NamedStore;
use crate::control::Outcome;
use crate::count::count;
use crate::times::second;

/// What was collected.
pub(super) struct Collected {
    pub(super) options: CollectOptions,
    /// What retention did; `None` without a policy.
    pub(super) retained: Option<RetainReport>,
    /// What the last cycle found, and what all of them removed.
    pub(super) report: CollectReport,
    /// What was swept, unless nothing may be changed.
    pub(super) swept: Option<SweepReport>,
    pub(super) now: Timestamp,
}

impl Collected {
    /// Returns the result as text, or as a line of JSON.
    pub(super) fn outcome(&self, json: bool, store: &NamedStore) -> Outcome {
        Outcome {
            text: if json { self.json() } else { self.text(store) },
            is_success: self.report.unreadable_repositories == 0
                && self.swept.is_none_or(|swept| swept.undeleted_bytes == 0)
                && self
                    .retained
                    .is_none_or(|retained| retained.unreadable_repositories == 0),
        }
    }

    fn text(&self, store: &NamedStore) -> String {
        let report = &self.report;
        let mut parts = Vec::new();
        let later = self.later();
        parts.extend(
            self.retained
                .map(|retained| self.retention_text(&retained, store)),
        );
        if self.options.is_dry_run {
            parts.push(format!(
                "A cycle now would remove {}, and condemn {}, for a cycle from {later} on to remove.",
                blobs(report.removed),
                blobs(report.condemned)
            ));
        } else {
            parts.push(format!("Removed {}.", blobs(report.removed)));
            if report.removed_blobs.blobs > 0 {
                let removed = blobs(report.removed_blobs);
                parts.push(format!("Removed {removed} that no repository had any more."));
            }
            if let Some(swept) = &self.swept {
                parts.push(format!("Deleted {}.", count(swept.deleted_bytes, "byte string")));
                if swept.abandoned_uploads > 0 {
                    let abandoned = count(swept.abandoned_uploads, "upload");
                    parts.push(format!(
                        "Aborted {abandoned} in the bucket that no record told of any more."
                    ));
                }
                if swept.undeleted_bytes > 0 {
                    let undeleted = count(swept.undeleted_bytes, "byte string");
                    parts.push(format!(
                        "Could not delete {undeleted}: the log of the process that did the work says why."
                    ));
                }
            }
            if report.condemned.blobs > 0 {
                let condemned = blobs(report.condemned);
                parts.push(format!(
                    "Condemned {condemned}: a cycle from {later} on removes what is not pushed again."
                ));
            }
        }
        if report.waiting.blobs > 0 {
            let waiting = blobs(report.waiting);
            parts.push(format!(
                "Condemned before: {waiting}, for a cycle from {later} on at the latest."
            ));
        }
        if report.young.blobs > 0 {
            let young = blobs(report.young);
            parts.push(format!(
                "No manifest names {young}, which were pushed or asked for within the grace."
            ));
        }
        if report.blobs_left > 0 {
            parts.push(format!(
                "{} of no repository: later cycles remove them.",
                count(report.blobs_left, "blob")
            ));
        }
        parts.extend(self.deleted_text(store));
        if report.empty_repositories > 0 {
            let empty = count(report.empty_repositories, "empty repository");
            parts.push(if self.options.is_dry_run {
                format!("From the catalog it would remove {empty}.")
            } else {
                format!("Removed {empty} from the catalog.")
            });
        }
        if report.pending > 0 {
            let pending = count(report.pending, "blob");
            let until = report.pending_until.map_or_else(
                || "for as long as `uploadpurging` is off".to_owned(),
                |until| format!("until {} at the latest", second(until)),
            );
            parts.push(format!(
                "Left alone: {pending} of pushes in progress, or that were cut off; they stay {until}."
            ));
        }
        if report.undecided > 0 {
            parts.push(format!(
                "{} in use: a later cycle looks again.",
                count(report.undecided, "record")
            ));
        }
        if report.unreadable_repositories > 0 {
            let repositories = count(report.unreadable_repositories, "repository");
            parts.push(format!(
                "Left alone: {repositories} with a manifest that cannot be read; see `check{store}`."
            ));
        }
        parts.join("\n")
    }

    /// Says what was moved or deleted and is kept, or was given up.
    fn deleted_text(&self, store: &NamedStore) -> Option<String> {
        let deleted = &self.report.deleted;
        let of = |manifests, tags| {
            let (manifests, tags) = (count(manifests, "deleted manifest"), count(tags, "past value"));
            format!("{manifests} and {tags} of tags")
        };
        if self.options.forgets_deleted {
            let (manifests, tags) = (deleted.forgotten_manifests, deleted.forgotten_tags);
            return (manifests + tags > 0).then(|| {
                format!(
                    "Gave up {}: they cannot be restored any more.",
                    of(manifests, tags)
                )
            });
        }
        let until = second(deleted.until?);
        let mut text = format!(
            "Kept for `tags restore`, the last until {until}: {}.",
            of(deleted.manifests, deleted.tags)
        );
        if deleted.manifests > 0 {
            text += &format!(
                " What only they name is freed after that; `collect --now{store}` frees it now, and nothing can be restored then."
            );
        }
        Some(text)
    }

    fn retention_text(&self, retained: &RetainReport, store: &NamedStore) -> String {
        let later = self.later();
        let tags = count(retained.dropped_tags, "tag");
        let removed = count(retained.removed_manifests, "manifest");
        let condemned = count(retained.condemned_manifests, "manifest");
        let mut text = if self.options.is_dry_run {
            format!(
                "Retention would drop {tags}, remove {removed} without a tag, and condemn {condemned}, for {later} on. \
                 `retention explain{store}` says which."
            )
        } else {
            format!("Retention dropped {tags} and removed {removed} without a tag.")
        };
        if !self.options.is_dry_run && retained.condemned_manifests > 0 {
            text += &format!(
                " Condemned {condemned} without a tag: from {later} on what nothing needs is removed."
            );
        }
        if retained.unreadable_repositories > 0 {
            let repositories = count(retained.unreadable_repositories, "repository");
            text += &format!(
                " It left alone {repositories} with a record that cannot be read; see `check{store}`."
            );
        }
        text
    }

    /// Returns when what is condemned now is removed.
    fn later(&self) -> String {
        let grace = u64::try_from(self.options.grace.as_millis()).unwrap_or(u64::MAX);
        second(Timestamp(self.now.0.saturating_add(grace)))
    }

    fn json(&self) -> String {
        let report = &self.report;
        let of = |count: BlobCount| json!({ "blobs": count.blobs, "bytes": count.bytes });
        json!({
            "dryRun": self.options.is_dry_run,
            "repositories": report.repositories,
            "unreadableRepositories": report.unreadable_repositories,
            "manifests": report.manifests,
            "removed": of(report.removed),
            "condemned": of(report.condemned),
            "waiting": of(report.waiting),
            "young": of(report.young),
            "revived": of(report.revived),
            "removedWithoutRepository": of(report.removed_blobs),
            "leftWithoutRepository": report.blobs_left,
            "emptyRepositories": report.empty_repositories,
            "undecided": report.undecided,
            "pending": report.pending,
            "pendingUntil": report.pending_until.map(second),
            "deletedManifests": report.deleted.manifests,
            "pastTags": report.deleted.tags,
            "keptUntil": report.deleted.until.map(second),
            "forgottenManifests": report.deleted.forgotten_manifests,
            "forgottenTags": report.deleted.forgotten_tags,
            "deletedByteStrings": self.swept.map_or(0, |swept| swept.deleted_bytes),
            "abandonedUploads": self.swept.map_or(0, |swept| swept.abandoned_uploads),
            "undeletedByteStrings": self.swept.map_or(0, |swept| swept.undeleted_bytes),
            "condemnedGoFrom": self.later(),
            "droppedTags": self.retained.map_or(0, |retained| retained.dropped_tags),
            "condemnedManifests": self.retained.map_or(0, |retained| retained.condemned_manifests),
            "waitingManifests": self.retained.map_or(0, |retained| retained.waiting_manifests),
            "removedManifests": self.retained.map_or(0, |retained| retained.removed_manifests),
        })
        .to_string()
    }
}

/// Describes blobs.
fn blobs(of: BlobCount) -> String {
    format!("{} ({})", count(of.blobs, "blob"), HumanBytes(of.bytes))
}
