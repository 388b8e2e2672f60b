//! `registry-bin collect`, and `garbage-collect`, which the cron jobs of registry:2 call.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use registry_core::retention::{Retention, RetentionPolicy};
use registry_storage::filesystem::is_root;
use registry_storage::{
    BlobCount, Clock as _, CollectOptions, Maintenance, MaintenanceObserver, RetainOptions, RetainReport,
    SweepOptions, SystemClock,
};
use serde::{Deserialize, Serialize};

use super::collected::Collected;
use crate::arguments::{ConfigArguments, NamedStore, StoreArguments};
use crate::config::sections::retention::retention;
use crate::config::{Configuration, load};
use crate::control::{Bounds, Command, Outcome, Reporter, execute, execute_quietly, show};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::cannot_look_into;
use crate::storage::StorageLocation;

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
