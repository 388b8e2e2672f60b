//! `registry-bin usage`: what repositories have, and how much of the quotas is used.

use clap::Args;
use indicatif::HumanBytes;
use registry_core::quota::{Amount, Quota};
use registry_core::{ErrorCode, RepositoryName};
use registry_storage::{Maintenance, MaintenanceObserver as _, QuotaUsage, RepositoryUsage, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::StoreArguments;
use crate::config::load;
use crate::config::sections::quotas::quotas;
use crate::control::{Command, Outcome, Reporter, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin usage --storage /srv/registry                           every repository
  registry-bin usage team/app --config /etc/docker/registry/config.yml  one, and the quotas that match it

A blob counts in each repository that has it, so the sum may be more than the disk holds; --shared says how much of it other
repositories have too. Everything is counted now, from the records, while pushes go on. In a bucket this takes a request for each
blob and manifest, and another one for each blob with --shared.")]
pub(crate) struct Usage {
    /// The repositories. [default: all]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    #[command(flatten)]
    store: StoreArguments,

    /// Say how much other repositories have too.
    #[arg(long)]
    shared: bool,

    /// Print one line of JSON for each repository and each quota.
    #[arg(long)]
    json: bool,
}

/// Shows what repositories have.
pub(crate) fn run(usage: &Usage) -> Result<bool, Failure> {
    let loaded = load(&usage.store, &[])?;
    let configuration = &loaded.configuration;
    let _log = Logging::of(configuration).start();
    let request = ShowUsage {
        repositories: usage.repositories.clone(),
        shared: usage.shared,
        json: usage.json,
        quotas: quotas(&configuration.quotas)?,
    };
    execute(configuration, request)
}

/// The command as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "show-usage", deny_unknown_fields)]
pub(super) struct ShowUsage {
    /// Empty for all.
    repositories: Vec<RepositoryName>,
    shared: bool,
    json: bool,
    quotas: Vec<Quota>,
}

impl Command for ShowUsage {
    fn only_reads(&self) -> bool {
        true
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let (mut repositories, mut sum) = (0, RepositoryUsage::default());
        let mut named = self.repositories.iter();
        let mut last: Option<RepositoryName> = None;
        loop {
            let next = if self.repositories.is_empty() {
                store.next_repository(last.as_ref()).await.map_err(failed)?
            } else {
                named.next().cloned()
            };
            let Some(repository) = next else { break };
            match store.repository_usage(&repository, self.shared).await {
                Ok(usage) => {
                    repositories += 1;
                    sum = sum.plus(&usage);
                    reporter.step(Step::Repositories, repositories, None);
                    reporter.say(self.line(&repository, &usage)).await;
                }
                // What was deleted leaves records.
                Err(error) if error.code() == ErrorCode::NameUnknown => {
                    if !self.repositories.is_empty() {
                        return Err(Failure::new(format!("there is no repository {repository}")));
                    }
                }
                Err(error) => return Err(failed(error)),
            }
            last = Some(repository);
        }
        let mut lines = Vec::new();
        if !self.json {
            let repositories = count(repositories, "repository");
            lines.push(format!("{repositories}: {}.", describe(&sum)));
        }
        for (index, usage) in store
            .quota_usage(&self.quotas)
            .await
            .map_err(failed)?
            .iter()
            .enumerate()
        {
            let matches = |repository: &RepositoryName| usage.quota.pattern_of(repository).is_some();
            if self.repositories.is_empty() || self.repositories.iter().any(matches) {
                lines.push(self.quota_line(index, usage));
            }
        }
        Ok(Outcome {
            text: lines.join("\n"),
            is_success: true,
        })
    }
}

impl ShowUsage {
    fn line(&self, repository: &RepositoryName, usage: &RepositoryUsage) -> String {
        if !self.json {
            return format!("{repository}: {}", describe(usage));
        }
        json!({
            "repository": repository, "bytes": usage.amount().bytes, "blobs": usage.blobs.blobs,
            "manifests": usage.manifests, "tags": usage.tags,
            "sharedBlobs": usage.shared.map(|shared| shared.blobs),
            "sharedBytes": usage.shared.map(|shared| shared.bytes),
        })
        .to_string()
    }

    fn quota_line(&self, index: usize, usage: &QuotaUsage) -> String {
        let QuotaUsage {
            quota,
            used,
            counted,
            is_exact,
            ..
        } = usage;
        let patterns: Vec<&str> = quota.repositories.iter().map(|glob| glob.as_str()).collect();
        if self.json {
            let limit = json!({ "bytes": quota.bytes, "manifests": quota.manifests, "tags": quota.tags });
            return json!({
                "quota": index, "repositories": patterns, "used": used, "limit": limit,
                "counted": counted.map(|counted| counted.to_string()), "isExact": is_exact,
            })
            .to_string();
        }
        let hint = match counted {
            None => "; a server with this quota is still to count it",
            Some(_) if !is_exact => "; at most, until it is counted again within an hour or two",
            Some(_) => "",
        };
        let used = parts(quota, used).join(", ");
        format!("quotas[{index}] for {}: {used}{hint}", patterns.join(", "))
    }
}

/// Describes what is used of each limit of a quota.
fn parts(quota: &Quota, used: &Amount) -> Vec<String> {
    let bytes = quota.bytes.map(|limit| {
        let used = used.bytes;
        format!("{} of {}", HumanBytes(used), HumanBytes(limit))
    });
    let number = |limit: Option<u64>, used: u64, what: &str| {
        limit.map(|limit| format!("{used} of {}", count(limit, what)))
    };
    let manifests = number(quota.manifests, used.manifests, "manifest");
    let tags = number(quota.tags, used.tags, "tag");
    [bytes, manifests, tags].into_iter().flatten().collect()
}

fn describe(usage: &RepositoryUsage) -> String {
    let mut text = format!(
        "{} in {} and {}, {}",
        HumanBytes(usage.amount().bytes),
        count(usage.blobs.blobs, "blob"),
        count(usage.manifests, "manifest"),
        count(usage.tags, "tag")
    );
    if let Some(shared) = &usage.shared {
        let (blobs, bytes) = (count(shared.blobs, "blob"), HumanBytes(shared.bytes));
        text += &format!("; {bytes} in {blobs} also in other repositories");
    }
    text
}

fn failed(cause: registry_core::Error) -> Failure {
    Failure::new("it cannot be said what is used").because(cause)
}
