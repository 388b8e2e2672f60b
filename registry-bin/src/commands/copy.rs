//! `registry-bin copy`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use clap::Args;
use indicatif::HumanBytes;
use registry_core::RepositoryName;
use registry_core::policy::ImmutableTagRule;
use registry_storage::copy::{CopyError, CopyOptions, CopyReport, copy};
use registry_storage::{Finding, Maintenance, MaintenanceObserver, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::StoreArguments;
use crate::config::{Configuration, load_alone};
use crate::control::{
    Bounds, Command, NewFolder, Outcome, Reporter, Usage, absolute, execute, has_server, open_beside,
};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::{StorageLocation, close};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin copy --from /var/lib/registry --to s3://bucket/prefix
  registry-bin copy --from /var/lib/registry --to-config bucket.yml --repository team/app --repository team/tools
  registry-bin copy --from-config bucket.yml --to /var/lib/registry --json

Copies manifests with and without tags, what they name, and tags. What the target has is not sent again, so another copy sends only
what is new: copy while the registry serves, and once more after it serves pulls only. Nothing is deleted. Tags are moved, but for
those of `tags.immutable` of the target. Left behind are what was deleted or moved and can be restored, and when something was
pushed or pulled; docs/moving.md says more.

A server that has one of the folders does the work, without the environment of this command: name a bucket that needs an access key
with a file. Only one of two folders may have a server. A bucket may have any number. A file counts as it is written: variables
REGISTRY_…, which would mean both ends, do not.

What is damaged or missing in the source, or refused by the target, is printed and left out, and the exit code is then 1.")]
pub(crate) struct Copy {
    /// What to copy: a folder, or `s3://BUCKET/PREFIX`.
    #[arg(
        long,
        value_name = "WHERE",
        required_unless_present = "from_config",
        conflicts_with = "from_config"
    )]
    from: Option<String>,

    /// The configuration file of the registry to copy.
    #[arg(long, value_name = "FILE")]
    from_config: Option<PathBuf>,

    /// Where to copy: a folder, or `s3://BUCKET/PREFIX`.
    #[arg(
        long,
        value_name = "WHERE",
        required_unless_present = "to_config",
        conflicts_with = "to_config"
    )]
    to: Option<String>,

    /// The configuration file of the registry to copy to.
    #[arg(long, value_name = "FILE")]
    to_config: Option<PathBuf>,

    /// A repository to copy; may be repeated. [default: all]
    #[arg(long = "repository", value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    /// Print one line of JSON for each thing that was not copied, and one for the report.
    #[arg(long)]
    json: bool,
}

/// Copies repositories. Returns `false` if something was not copied.
pub(crate) fn run(arguments: &Copy) -> Result<bool, Failure> {
    let source = End::of(arguments.from.as_deref(), arguments.from_config.as_deref())?.open()?;
    let target = End::of(arguments.to.as_deref(), arguments.to_config.as_deref())?.open()?;
    let _log = Logging::of(&target.configuration).start();
    if source.location.place() == target.location.place() {
        return Err(Failure::new(format!(
            "both ends are {}; name two",
            source.location
        )));
    }
    if target.configuration.storage.maintenance.read_only.enabled {
        return Err(frozen(format!("the target {}", target.location)));
    }
    // The process that has a folder does the work, and opens the other end.
    let is_to_other = has_server(&source.location)? || !has_server(&target.location)?;
    let immutable = target.configuration.tags.immutable_rules()?;
    let (here, other) = if is_to_other {
        (source, target)
    } else {
        (target, source)
    };
    if has_server(&here.location)?
        && let StorageLocation::Bucket(bucket) = &other.location
        && bucket.needs_environment()
    {
        let flag = if is_to_other {
            "--to-config"
        } else {
            "--from-config"
        };
        return Err(Failure::new(format!(
            "the server that has {} does the work, and does not see AWS_ACCESS_KEY_ID of this command: write {bucket} with its \
             access key to a file that the server can read, and name it with {flag}",
            here.location
        )));
    }
    let request = CopyRequest {
        other: other.end,
        is_to_other,
        repositories: arguments.repositories.clone(),
        immutable,
        json: arguments.json,
    };
    execute(&here.configuration, request)
}

/// Whoever swaps the ends would change what was frozen to be copied.
fn frozen(target: impl Display) -> Failure {
    Failure::new(format!(
        "the configuration of {target} says `storage.maintenance.readonly.enabled`, so nothing is written there; are the two \
         ends swapped?"
    ))
}

/// One end of a copy, as another process can find it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    config: Option<PathBuf>,
    storage: Option<String>,
    /// The absolute path, if it is a folder.
    folder: Option<PathBuf>,
}

/// An end whose configuration was read.
struct OpenedEnd {
    end: End,
    configuration: Configuration,
    location: StorageLocation,
}

impl End {
    fn of(storage: Option<&str>, config: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self {
            config: config.map(absolute).transpose()?,
            storage: storage.map(ToOwned::to_owned),
            folder: None,
        })
    }

    /// Reads its configuration.
    fn open(mut self) -> Result<OpenedEnd, Failure> {
        let configuration = load_alone(&StoreArguments {
            config: self.config.clone(),
            storage: self.storage.clone(),
        })?;
        let location = match (&self.folder, StorageLocation::of(&configuration.storage)?) {
            (Some(folder), StorageLocation::Folder(_)) => StorageLocation::Folder(folder.clone()),
            (_, StorageLocation::Memory) => {
                return Err(Failure::new(
                    "what is kept in memory is gone with the server that has it; name folders and buckets",
                ));
            }
            (_, other) => other,
        };
        if let StorageLocation::Folder(folder) = &location {
            self.folder = Some(absolute(folder)?);
        }
        Ok(OpenedEnd {
            end: self,
            configuration,
            location,
        })
    }
}

/// A copy as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "copy", deny_unknown_fields)]
pub(super) struct CopyRequest {
    /// The end that the process that runs this does not have.
    other: End,
    is_to_other: bool,
    repositories: Vec<RepositoryName>,
    /// The rules of the target.
    immutable: Vec<ImmutableTagRule>,
    json: bool,
}

impl Command for CopyRequest {
    fn only_reads(&self) -> bool {
        self.is_to_other
    }

    fn changes_content(&self) -> bool {
        !self.is_to_other
    }

    fn new_folder(&self) -> NewFolder {
        new_folder(!self.is_to_other)
    }

    fn bound_by(mut self, server: &Bounds) -> Self {
        if !self.is_to_other {
            self.immutable.extend_from_slice(&server.immutable);
        }
        self
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let other_end = self.other.open()?;
        let usage = Usage {
            only_reads: !self.is_to_other,
            new_folder: new_folder(self.is_to_other),
        };
        let other = open_beside(&other_end.location, &other_end.configuration, usage).await?;
        let (source, target) = if self.is_to_other {
            (store, &*other)
        } else {
            (&*other, store)
        };
        let options = CopyOptions::new()
            .repositories(self.repositories)
            .immutable(self.immutable);
        let observer = Observer {
            reporter,
            json: self.json,
        };
        let copied = copy(source, target, &options, &observer).await;
        let closed = close(&*other).await;
        let report = copied.map_err(|cause| match cause {
            CopyError::NoRepository(_) => Failure::new(cause.to_string()),
            cause => {
                let failed =
                    "the copy did not reach its end; it can be started again, and sends what is missing";
                Failure::new(failed).because(cause)
            }
        })?;
        closed?;
        let text = if self.json {
            serde_json::to_string(&report)
                .map_err(|cause| Failure::new("the report cannot be written").because(cause))?
        } else {
            describe(&report)
        };
        Ok(Outcome {
            text,
            is_success: report.faults == 0,
        })
    }
}

/// Returns what becomes of a folder without a registry: a target is filled, a source was probably named by mistake.
const fn new_folder(is_target: bool) -> NewFolder {
    if is_target {
        NewFolder::Created
    } else {
        NewFolder::Refused
    }
}

/// Passes on the progress, and what was not copied in the form that was asked for.
struct Observer {
    reporter: Reporter,
    json: bool,
}

#[async_trait]
impl MaintenanceObserver for Observer {
    fn step(&self, step: Step, done: u64, total: Option<u64>) {
        self.reporter.step(step, done, total);
    }

    async fn found(&self, finding: Finding) {
        match finding {
            Finding::NotCopied(not_copied) if self.json => {
                let line = json!({
                    "repository": not_copied.repository,
                    "notCopied": not_copied.what,
                    "reason": not_copied.reason.to_string(),
                });
                self.reporter.say(line.to_string()).await;
            }
            other => self.reporter.found(other).await,
        }
    }
}

fn describe(report: &CopyReport) -> String {
    let mut lines = vec![format!(
        "Copied {}: {}, {} and {} ({}).",
        count(report.repositories, "repository"),
        count(report.tags, "tag"),
        count(report.manifests, "manifest"),
        count(report.blobs_sent, "blob"),
        HumanBytes(report.bytes_sent),
    )];
    if report.blobs_mounted > 0 {
        lines.push(format!(
            "Not sent, because another repository of the target has them: {} ({}).",
            count(report.blobs_mounted, "blob"),
            HumanBytes(report.bytes_mounted),
        ));
    }
    if report.tags_there + report.manifests_there + report.blobs_there > 0 {
        lines.push(format!(
            "There already: {}, {} and {} ({}).",
            count(report.tags_there, "tag"),
            count(report.manifests_there, "manifest"),
            count(report.blobs_there, "blob"),
            HumanBytes(report.bytes_there),
        ));
    }
    let tags = |number, what: &str| format!("{} {what}.", count(number, "tag"));
    if report.tags_moved > 0 {
        lines.push(tags(
            report.tags_moved,
            "moved, because the source has something else",
        ));
    }
    if report.tags_only_in_target > 0 {
        lines.push(tags(
            report.tags_only_in_target,
            "of these repositories only in the target; nothing is deleted there",
        ));
    }
    if report.missing > 0 {
        lines.push(format!(
            "{} of indexes not there in the source either, each named above.",
            count(report.missing, "manifest")
        ));
    }
    if report.faults > 0 {
        lines.push(format!(
            "{} not copied, each named above.",
            count(report.faults, "thing")
        ));
    }
    lines.join("\n")
}
