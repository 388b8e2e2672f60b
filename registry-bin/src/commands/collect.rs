//! `registry-bin collect`, and `garbage-collect`, which the cron jobs of registry:2 call.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::HumanBytes;
use registry_core::Timestamp;
use registry_core::retention::{Retention, RetentionPolicy};
use registry_storage::filesystem::is_root;
use registry_storage::{
    BlobCount, Clock as _, CollectOptions, CollectReport, Maintenance, MaintenanceObserver, RetainOptions,
    RetainReport, SweepOptions, SweepReport, SystemClock,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::{ConfigArguments, NamedStore, StoreArguments};
use crate::config::sections::retention::retention;
use crate::config::{Configuration, load};
use crate::control::{Bounds, Command, Outcome, Reporter, execute, execute_quietly, show};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::cannot_look_into;
use crate::storage::StorageLocation;
use crate::times::second;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin collect --dry-run --storage /srv/registry      what goes, and when
  registry-bin collect /etc/docker/registry/config.yml        what the server does by itself every hour
  registry-bin collect --now --storage /srv/registry          free everything at once; nothing can be restored then

A blob that no manifest of its repository names is condemned by one cycle, once it is older than `collector.grace` (24h), and
removed by the first cycle that begins after that time has passed again. Before each cycle the policies of `retention` are applied. Pushes and pulls go on meanwhile; a push or a HEAD keeps a
condemned blob. A running server does the work itself. The exit code is 1 if a repository was left alone because a manifest
of it cannot be read.")]
pub(crate) struct Collect {
    #[command(flatten)]
    configuration: ConfigArguments,

    /// Only say what would be removed; change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Without a grace, and with as many cycles as it takes. What was moved or deleted cannot be restored any more. A push in progress may be refused once with 404 or 400, because a
    /// blob that it has sent is gone before its manifest comes; clients then push again.
    #[arg(long, conflicts_with = "dry_run")]
    now: bool,

    /// Look at everything, not only at what changed since the cycle before. The server does that by itself in the cycles of a week, and
    /// its sweeps once a day (in a bucket, once a week): it finds what a process that was killed left behind.
    #[arg(long)]
    full: bool,

    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Collects. Returns `false` if something cannot be read.
pub(crate) fn run(collect: &Collect) -> Result<bool, Failure> {
    let arguments = collect.configuration.store();
    let loaded = load(&arguments, &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let request = CollectRequest {
        grace: if collect.now {
            0
        } else {
            grace(&loaded.configuration)
        },
        dry_run: collect.dry_run,
        repeat: collect.now,
        full: collect.full,
        json: collect.json,
        empty_repositories: removes_empty(&loaded.configuration),
        retention: retention(&loaded.configuration.retention, &loaded.configuration.tags)?,
        store: arguments.named(),
    };
    execute(&loaded.configuration, request)
}

pub(super) fn grace(configuration: &Configuration) -> u64 {
    u64::try_from(configuration.collector.grace.0.as_millis()).unwrap_or(u64::MAX)
}

fn removes_empty(configuration: &Configuration) -> bool {
    configuration.collector.options().removes_empty_repositories
}

/// The arguments of registry:2's command, whose flags take `=true` and `=false`.
#[derive(Debug, Args)]
#[command(after_help = "\
The same as `collect`, with the arguments of registry:2. It may run beside the server. What no manifest names any more is removed by
the first run that begins `collector.grace` (24h) after another one found it; `collect --now` does not wait.")]
pub(crate) struct GarbageCollect {
    /// The configuration of the registry.
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,

    /// Only say what would be removed; change nothing.
    #[arg(short = 'd', long = "dry-run", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, overrides_with = "dry_run")]
    dry_run: Option<bool>,

    /// Remove manifests, too, that are older than the grace and that nothing needs: no tag, no index, no subject in the repository.
    #[arg(short = 'm', long = "delete-untagged", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, overrides_with = "delete_untagged")]
    delete_untagged: Option<bool>,

    /// Print nothing but errors.
    #[arg(short = 'q', long = "quiet", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, overrides_with = "quiet")]
    quiet: Option<bool>,
}

/// Parses a boolean as registry:2 does, with Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

/// Collects as a job of registry:2 expects. If there is nothing yet, that is no error: the usual job stops the registry,
/// collects and starts it again, and one that ends at the first error would leave it stopped.
pub(crate) fn run_as_registry2(collect: &GarbageCollect) -> Result<bool, Failure> {
    let store = StoreArguments {
        config: collect.file.clone(),
        storage: None,
    };
    let loaded = load(&store, &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let is_quiet = collect.quiet == Some(true);
    let say = |line: &str| if is_quiet { Ok(()) } else { show::print(line) };
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let is_empty = match &location {
        StorageLocation::Memory => true,
        StorageLocation::Folder(root) => !is_root(root).map_err(|cause| cannot_look_into(root, &cause))?,
        StorageLocation::Bucket(_) => false,
    };
    if is_empty {
        say("Nothing was collected: there is no registry yet that was served from here.")?;
        return Ok(true);
    }
    let mut retention = retention(&loaded.configuration.retention, &loaded.configuration.tags)?;
    if collect.delete_untagged == Some(true) {
        retention = without_untagged(retention, loaded.configuration.collector.grace.0);
    }
    let request = CollectRequest {
        grace: grace(&loaded.configuration),
        dry_run: collect.dry_run == Some(true),
        repeat: false,
        full: false,
        json: false,
        empty_repositories: removes_empty(&loaded.configuration),
        retention,
        store: store.named(),
    };
    if is_quiet {
        execute_quietly(&loaded.configuration, request)
    } else {
        execute(&loaded.configuration, request)
    }
}

/// Lets manifests go that nothing needs and that were pushed longer ago than the grace, unless a policy keeps them for longer.
fn without_untagged(mut retention: Retention, grace: Duration) -> Retention {
    for policy in &mut retention.policies {
        policy.untagged.get_or_insert(grace);
    }
    retention.policies.push(RetentionPolicy {
        repositories: "**".parse().into_iter().collect(),
        tags: Vec::new(),
        keep: Vec::new(),
        untagged: Some(grace),
        pulled_within: None,
    });
    retention
}

/// A collection as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "collect", deny_unknown_fields)]
pub(super) struct CollectRequest {
    /// In milliseconds.
    grace: u64,
    dry_run: bool,
    /// Gives up what was deleted and is still kept, and runs as many cycles as there is something to do for.
    repeat: bool,
    /// Looks at everything.
    #[serde(default)]
    full: bool,
    json: bool,
    /// Whether empty repositories leave the catalog.
    #[serde(default)]
    empty_repositories: bool,
    /// What is applied before each cycle.
    #[serde(default, skip_serializing_if = "has_no_policy")]
    retention: Retention,
    #[serde(default, skip_serializing_if = "NamedStore::is_empty")]
    store: NamedStore,
}

const fn has_no_policy(retention: &Retention) -> bool {
    retention.policies.is_empty()
}

impl Command for CollectRequest {
    fn bound_by(mut self, server: &Bounds) -> Self {
        self.retention.immutable.extend_from_slice(&server.immutable);
        self
    }

    fn only_reads(&self) -> bool {
        self.dry_run
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let options = CollectOptions::new()
            .grace(Duration::from_millis(self.grace))
            .dry_run(self.dry_run)
            .full(self.full)
            .remove_empty_repositories(self.empty_repositories)
            .forget_deleted(self.repeat);
        let retain = RetainOptions::new(Arc::new(self.retention), &options);
        let collected = collect_and_sweep(&options, &retain, self.repeat, store, &reporter).await?;
        Ok(collected.outcome(self.json, &self.store))
    }
}

/// How many cycles one command runs at most. More than four are needed only if others push and delete meanwhile.
const CYCLES: usize = 8;

/// What was collected.
struct Collected {
    options: CollectOptions,
    /// What retention did; `None` without a policy.
    retained: Option<RetainReport>,
    /// What the last cycle found, and what all of them removed.
    report: CollectReport,
    /// What was swept, unless nothing may be changed.
    swept: Option<SweepReport>,
    now: Timestamp,
}

/// Runs a cycle, or with `repeat` as many as it takes, and sweeps.
async fn collect_and_sweep(
    options: &CollectOptions,
    retain: &RetainOptions,
    repeat: bool,
    store: &dyn Maintenance,
    observer: &dyn MaintenanceObserver,
) -> Result<Collected, Failure> {
    let failed = |cause| Failure::new("the collection ended early; it can be started again").because(cause);
    let (mut removed, mut removed_blobs) = (BlobCount::default(), BlobCount::default());
    let (mut cycles, mut empty, mut retained, mut forgotten) = (0, 0, RetainReport::default(), (0, 0));
    let mut report = loop {
        let retention = store.retain(retain, observer).await.map_err(failed)?;
        retained = total(retained, retention);
        // What the first cycle has begun is known to the next ones.
        let options = options.full(options.is_full && cycles == 0);
        let report = store.collect(&options, observer).await.map_err(failed)?;
        add(&mut removed, report.removed);
        add(&mut removed_blobs, report.removed_blobs);
        empty += report.empty_repositories;
        forgotten.0 += report.deleted.forgotten_manifests;
        forgotten.1 += report.deleted.forgotten_tags;
        cycles += 1;
        let has_more = report.has_more() || retention.has_more();
        if options.is_dry_run || !(repeat && has_more) || cycles == CYCLES {
            break report;
        }
    };
    (report.removed, report.removed_blobs, report.empty_repositories) = (removed, removed_blobs, empty);
    (report.deleted.forgotten_manifests, report.deleted.forgotten_tags) = forgotten;
    let swept = if options.is_dry_run {
        None
    } else {
        Some(
            store
                .sweep(&SweepOptions::new().full(options.is_full))
                .await
                .map_err(failed)?,
        )
    };
    Ok(Collected {
        options: *options,
        retained: (!has_no_policy(&retain.retention)).then_some(retained),
        report,
        swept,
        now: SystemClock.now(),
    })
}

/// Combines what retention did before with what the last call did and found.
fn total(before: RetainReport, mut last: RetainReport) -> RetainReport {
    last.dropped_tags = last.dropped_tags.saturating_add(before.dropped_tags);
    last.removed_manifests = last.removed_manifests.saturating_add(before.removed_manifests);
    last
}

const fn add(count: &mut BlobCount, other: BlobCount) {
    count.blobs = count.blobs.saturating_add(other.blobs);
    count.bytes = count.bytes.saturating_add(other.bytes);
}

impl Collected {
    /// Returns the result as text, or as a line of JSON.
    fn outcome(&self, json: bool, store: &NamedStore) -> Outcome {
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
            if let Some(swept) = &self.swept {
                parts.push(format!("Deleted {}.", count(swept.deleted_bytes, "byte string")));
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
