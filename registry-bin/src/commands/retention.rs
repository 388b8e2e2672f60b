//! `registry-bin retention`: what the policies keep and drop.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use registry_core::retention::{Keeper, Retention, Verdict, Verdicts};
use registry_core::storage::PageRequest;
use registry_core::{ErrorCode, RepositoryName, Timestamp};
use registry_storage::{CollectOptions, Maintenance, MaintenanceObserver as _, RetainOptions, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::collect::grace;
use crate::arguments::{NamedStore, StoreArguments};
use crate::config::load;
use crate::config::sections::retention::retention;
use crate::control::{Bounds, Command, Outcome, Reporter, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::times::second;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show for each tag, and each manifest without one, what keeps it or that it is dropped, and when.
    Explain(Explain),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin retention explain --config /etc/docker/registry/config.yml            every repository that a policy is for
  registry-bin retention explain team/app --config /etc/docker/registry/config.yml   one repository

It changes nothing. The server applies the policies before each cycle of its collector, and drops only what this command says is
dropped now. `collect` does the same at once.")]
pub(crate) struct Explain {
    /// The repositories. [default: all]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    #[command(flatten)]
    store: StoreArguments,

    /// Print one line of JSON for each tag and manifest.
    #[arg(long)]
    json: bool,
}

/// Explains. Returns `false` if something cannot be read.
pub(crate) fn run(command: &RetentionCommand) -> Result<bool, Failure> {
    let RetentionCommand::Explain(explain) = command;
    let loaded = load(&explain.store, &[])?;
    let configuration = &loaded.configuration;
    let _log = Logging::of(configuration).start();
    let retention = retention(&configuration.retention, &configuration.tags)?;
    if retention.policies.is_empty() {
        return Err(Failure::new(
            "there is no policy, so everything stays; name the configuration that has `retention` with --config",
        ));
    }
    let request = ExplainRetention {
        repositories: explain.repositories.clone(),
        grace: grace(configuration),
        json: explain.json,
        retention,
        store: explain.store.named(),
    };
    execute(configuration, request)
}

/// The command as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "explain-retention", deny_unknown_fields)]
pub(super) struct ExplainRetention {
    /// Empty for all.
    repositories: Vec<RepositoryName>,
    /// In milliseconds.
    grace: u64,
    json: bool,
    retention: Retention,
    #[serde(default, skip_serializing_if = "NamedStore::is_empty")]
    store: NamedStore,
}

/// How many repositories are listed at once.
const REPOSITORIES_PER_PAGE: usize = 1000;

impl Command for ExplainRetention {
    fn bound_by(mut self, server: &Bounds) -> Self {
        self.retention.immutable.extend_from_slice(&server.immutable);
        self
    }

    fn only_reads(&self) -> bool {
        true
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let options = CollectOptions::new().grace(Duration::from_millis(self.grace));
        let options = RetainOptions::new(Arc::new(self.retention), &options);
        let mut explained = Explained {
            options,
            json: self.json,
            sums: Sums::default(),
            reporter,
            named: self.store,
        };
        for repository in &self.repositories {
            explained.explain(store, repository).await?;
        }
        let mut last = None;
        while self.repositories.is_empty() {
            let request = PageRequest {
                limit: REPOSITORIES_PER_PAGE,
                last: last.take(),
            };
            let page = store.list_repositories(request).await.map_err(failed)?;
            for repository in &page.items {
                if explained.options.retention.policy_of(repository).is_some() {
                    explained.explain(store, repository).await?;
                }
            }
            match page.next {
                Some(next) => last = Some(next),
                None => break,
            }
        }
        Ok(explained.outcome())
    }
}

fn failed(cause: registry_core::Error) -> Failure {
    Failure::new("it cannot be said what is kept").because(cause)
}

/// What was found so far.
#[derive(Default)]
struct Sums {
    repositories: u64,
    unreadable: u64,
    dropped_tags: u64,
    dropped_manifests: u64,
    kept_tags: u64,
    kept_manifests: u64,
}

struct Explained {
    options: RetainOptions,
    json: bool,
    sums: Sums,
    reporter: Reporter,
    named: NamedStore,
}

impl Explained {
    async fn explain(&mut self, store: &dyn Maintenance, repository: &RepositoryName) -> Result<(), Failure> {
        let judged = match store.judge_retention(repository, &self.options).await {
            Ok(judged) => judged,
            Err(error) if error.code() == ErrorCode::NameUnknown => {
                return Err(Failure::new(format!("there is no repository {repository}")));
            }
            Err(error) => return Err(failed(error)),
        };
        self.sums.repositories += 1;
        self.reporter
            .step(Step::Repositories, self.sums.repositories, None);
        let Some(verdicts) = judged else {
            self.sums.unreadable += 1;
            let named = &self.named;
            let line =
                format!("{repository}: a record cannot be read, so nothing is dropped; see `check{named}`");
            self.say(line, json!({ "repository": repository, "unreadable": true }))
                .await;
            return Ok(());
        };
        self.say_verdicts(repository, verdicts).await;
        Ok(())
    }

    async fn say_verdicts(&mut self, repository: &RepositoryName, verdicts: Verdicts) {
        let policy = self
            .options
            .retention
            .policy_of(repository)
            .map(|(index, _)| index);
        let uses_pulls = self.options.retention.uses_pulls_of(repository);
        let pulls_since = verdicts.pulls_since;
        for (tag, verdict) in verdicts.tags {
            let sum = if verdict.is_dropped() {
                &mut self.sums.dropped_tags
            } else {
                &mut self.sums.kept_tags
            };
            *sum += 1;
            let mut line = format!("{repository}:{} {}", tag.tag, describe(&verdict, policy, true));
            if uses_pulls {
                line += &last_pull(tag.pulled, pulls_since);
            }
            let values = json!({
                "repository": repository, "tag": tag.tag, "digest": tag.digest, "pushed": tag.pushed.to_string(),
                "pulled": tag.pulled.map(|at| at.to_string()), "pullsSince": pulls_since.map(|since| since.to_string()),
                "dropped": verdict.is_dropped(), "because": reason(&verdict, policy), "until": until(&verdict),
            });
            self.say(line, values).await;
        }
        for (digest, verdict) in verdicts.manifests {
            let sum = if verdict.is_dropped() {
                &mut self.sums.dropped_manifests
            } else {
                &mut self.sums.kept_manifests
            };
            *sum += 1;
            let line = format!("{repository}@{digest} {}", describe(&verdict, policy, false));
            let values = json!({
                "repository": repository, "digest": digest,
                "dropped": verdict.is_dropped(), "because": reason(&verdict, policy), "until": until(&verdict),
            });
            self.say(line, values).await;
        }
    }

    async fn say(&self, line: String, values: serde_json::Value) {
        let line = if self.json { values.to_string() } else { line };
        self.reporter.say(line).await;
    }

    fn outcome(&self) -> Outcome {
        let sums = &self.sums;
        let is_success = sums.unreadable == 0;
        let text = if self.json {
            json!({
                "repositories": sums.repositories, "unreadableRepositories": sums.unreadable,
                "droppedTags": sums.dropped_tags, "keptTags": sums.kept_tags,
                "droppedManifests": sums.dropped_manifests, "keptManifests": sums.kept_manifests,
            })
            .to_string()
        } else {
            format!(
                "{}: {} and {} without a tag are dropped by the next cycle; {} and {} without a tag stay for now.",
                count(sums.repositories, "repository"),
                count(sums.dropped_tags, "tag"),
                count(sums.dropped_manifests, "manifest"),
                count(sums.kept_tags, "tag"),
                count(sums.kept_manifests, "manifest"),
            )
        };
        Outcome { text, is_success }
    }
}

fn until(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Kept { until, .. } => until.map(second),
        Verdict::Dropped => None,
    }
}

/// Describes when a tag was pulled last.
fn last_pull(pulled: Option<Timestamp>, since: Option<Timestamp>) -> String {
    match (pulled, since) {
        (_, None) => "; no pulls are recorded".to_owned(),
        (Some(pulled), Some(_)) => format!("; pulled last at {}", second(pulled)),
        (None, Some(since)) => format!("; not pulled since {}", second(since)),
    }
}

/// Describes what becomes of something.
fn describe(verdict: &Verdict, policy: Option<usize>, is_tag: bool) -> String {
    let reason = reason(verdict, policy);
    match (verdict, until(verdict)) {
        (Verdict::Dropped, _) if is_tag => format!("is dropped: {reason}"),
        (Verdict::Dropped, _) => {
            format!(
                "is dropped: {reason}; it is condemned first, and removed once `collector.grace` has passed"
            )
        }
        (Verdict::Kept { .. }, Some(until)) => format!("stays until {until}: {reason}"),
        (Verdict::Kept { .. }, None) => format!("stays: {reason}"),
    }
}

/// Describes why, with the key of the configuration that says so.
fn reason(verdict: &Verdict, policy: Option<usize>) -> String {
    let policy = policy.map_or_else(String::new, |index| format!("retention[{index}]"));
    match verdict {
        Verdict::Dropped => format!("nothing in {policy} keeps it"),
        Verdict::Kept { by, .. } => match by {
            Keeper::NoPolicy => "no policy is for this repository".to_owned(),
            Keeper::NotNamed => format!("{policy}.tags does not name it"),
            Keeper::Immutable => "the tag is immutable".to_owned(),
            Keeper::Rule(rule) => format!("{policy}.keep[{rule}]"),
            Keeper::Subject(subject) => format!("its subject {subject} is there"),
            Keeper::Parent(parent) => format!("the index {parent} names it"),
            Keeper::Push => "a push in progress needs it".to_owned(),
            Keeper::Age => format!("{policy}.untagged, or it was condemned less than `collector.grace` ago"),
            Keeper::Untagged => format!("{policy} has no `untagged`"),
            Keeper::Pulled => format!("{policy}.pulledwithin"),
        },
    }
}
