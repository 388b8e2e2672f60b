//! `registry-bin usage`: what repositories have, and how much of the quotas is used.

use std::collections::BTreeSet;

use clap::Args;
use indicatif::HumanBytes;
use registry_core::quota::{Amount, Quota};
use registry_core::{ErrorCode, RepositoryName, Timestamp};
use registry_storage::{
    Clock as _, CountedRepository, Maintenance, MaintenanceObserver as _, QuotaUsage, RepositoryUsage, Step,
    SystemClock,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::{NamedStore, StoreArguments};
use crate::config::load;
use crate::config::sections::quotas::quotas;
use crate::control::{Command, Outcome, Reporter, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::times::second;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin usage --storage /srv/registry                           every repository
  registry-bin usage team/app --config /etc/docker/registry/config.yml  one, and the quotas that match it

A blob counts in each repository that has it, so the sum may be more than the disk holds; --shared says how much of it other
repositories have too. Without a REPOSITORY, this is what the collector counted when it read each one, and when; what changed since
is marked. A REPOSITORY, --now and --shared count from the records, while pushes go on: in a bucket this takes a request for each
blob and manifest, and another one for each blob with --shared.")]
pub(crate) struct Usage {
    /// The repositories. [default: all]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    #[command(flatten)]
    store: StoreArguments,

    /// Count everything now, in place of what the collector counted.
    #[arg(long)]
    now: bool,

    /// Count everything now, and say how much other repositories have too.
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
    let mut repositories = usage.repositories.clone();
    // Each counts once, in the order in which they were named.
    let mut named = BTreeSet::new();
    repositories.retain(|repository| named.insert(repository.clone()));
    let request = ShowUsage {
        repositories,
        collects: configuration.collector.enabled,
        now: usage.now,
        shared: usage.shared,
        json: usage.json,
        quotas: quotas(&configuration.quotas)?,
        store: usage.store.named(),
    };
    execute(configuration, request)
}

/// The command as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "show-usage", deny_unknown_fields)]
pub(super) struct ShowUsage {
    /// Empty for all.
    repositories: Vec<RepositoryName>,
    /// The collector is enabled.
    collects: bool,
    now: bool,
    shared: bool,
    json: bool,
    quotas: Vec<Quota>,
    #[serde(default, skip_serializing_if = "NamedStore::is_empty")]
    store: NamedStore,
}

impl Command for ShowUsage {
    fn only_reads(&self) -> bool {
        true
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let (shown, remark) = if !self.repositories.is_empty() {
            (self.count_named(store, &reporter).await?, None)
        } else if self.now || self.shared {
            (self.count_all(store, &reporter).await?, None)
        } else if !self.collects {
            let remark =
                "All of them were counted now, because the collector, which would have, is disabled.";
            (self.count_all(store, &reporter).await?, Some(remark.to_owned()))
        } else if let Some(shown) = self.list_counted(store, &reporter).await? {
            let remark = (shown.changed > 0).then(|| shown.remark(&self.store));
            (shown, remark)
        } else {
            let remark = "All of them were counted now, because no cycle of the collector has done so yet.";
            (self.count_all(store, &reporter).await?, Some(remark.to_owned()))
        };
        let mut lines = Vec::new();
        if !self.json {
            let repositories = count(shown.repositories, "repository");
            lines.push(format!("{repositories}: {}.", describe(&shown.sum)));
            lines.extend(remark);
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

/// What was shown of repositories.
#[derive(Debug, Default)]
struct Shown {
    repositories: u64,
    /// How many of them changed since they were counted.
    changed: u64,
    sum: RepositoryUsage,
}

impl Shown {
    fn remark(&self, store: &NamedStore) -> String {
        let changed = count(self.changed, "repository");
        format!(
            "{changed} changed since: the next cycle of the collector counts what is there, and so does `usage --now{store}`."
        )
    }
}

impl ShowUsage {
    /// Shows what the collector counted; returns `None` if it did not yet.
    async fn list_counted(
        &self,
        store: &dyn Maintenance,
        reporter: &Reporter,
    ) -> Result<Option<Shown>, Failure> {
        let (mut shown, mut last) = (Shown::default(), None);
        loop {
            let page = store.counted_repositories(last.as_ref()).await.map_err(failed)?;
            let Some(page) = page else { return Ok(None) };
            for counted in page.repositories {
                shown.changed += u64::from(counted.is_changed);
                self.show(&mut shown, reporter, &counted.repository, &Row::of(&counted))
                    .await;
            }
            match page.next {
                Some(next) => last = Some(next),
                None => return Ok(Some(shown)),
            }
        }
    }

    async fn count_all(&self, store: &dyn Maintenance, reporter: &Reporter) -> Result<Shown, Failure> {
        let (mut shown, mut last) = (Shown::default(), None);
        while let Some(repository) = store.next_repository(last.as_ref()).await.map_err(failed)? {
            // What was deleted leaves records, and a repository that is empty stays in the catalog.
            let row = self.count_now(store, &repository).await?;
            if let Some(row) = row.filter(|row| !row.usage.is_nothing()) {
                self.show(&mut shown, reporter, &repository, &row).await;
            }
            last = Some(repository);
        }
        Ok(shown)
    }

    async fn count_named(&self, store: &dyn Maintenance, reporter: &Reporter) -> Result<Shown, Failure> {
        let mut shown = Shown::default();
        for repository in &self.repositories {
            let Some(row) = self.count_now(store, repository).await? else {
                return Err(Failure::new(format!("there is no repository {repository}")));
            };
            self.show(&mut shown, reporter, repository, &row).await;
        }
        Ok(shown)
    }

    /// Counts a repository; returns `None` if there is nothing.
    async fn count_now(
        &self,
        store: &dyn Maintenance,
        repository: &RepositoryName,
    ) -> Result<Option<Row>, Failure> {
        let counted = SystemClock.now();
        match store.repository_usage(repository, self.shared).await {
            Ok(usage) => Ok(Some(Row {
                usage,
                counted,
                shared_counted: usage.shared.map(|_| counted),
                is_now: true,
                is_changed: false,
            })),
            Err(error) if error.code() == ErrorCode::NameUnknown => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn show(&self, shown: &mut Shown, reporter: &Reporter, repository: &RepositoryName, row: &Row) {
        shown.repositories += 1;
        // What was shared was counted at other times, which have no sum.
        shown.sum = shown.sum.plus(&row.described());
        reporter.step(Step::Repositories, shown.repositories, None);
        reporter.say(self.line(repository, row)).await;
    }

    fn line(&self, repository: &RepositoryName, row: &Row) -> String {
        let usage = &row.usage;
        if !self.json {
            return format!("{repository}: {}{}", describe(&row.described()), row.when());
        }
        json!({
            "repository": repository, "bytes": usage.amount().bytes, "blobs": usage.blobs.blobs,
            "manifests": usage.manifests, "tags": usage.tags,
            "sharedBlobs": usage.shared.map(|shared| shared.blobs),
            "sharedBytes": usage.shared.map(|shared| shared.bytes),
            "sharedCounted": row.shared_counted.map(|counted| counted.to_string()),
            "counted": row.counted.to_string(), "isChanged": row.is_changed,
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
            Some(_) if !is_exact => "; not exact until it is counted again",
            Some(_) => "",
        };
        let used = parts(quota, used).join(", ");
        format!("quotas[{index}] for {}: {used}{hint}", patterns.join(", "))
    }
}

/// What is shown of a repository.
struct Row {
    usage: RepositoryUsage,
    counted: Timestamp,
    shared_counted: Option<Timestamp>,
    /// It was counted for this command.
    is_now: bool,
    is_changed: bool,
}

impl Row {
    const fn of(counted: &CountedRepository) -> Self {
        Self {
            usage: counted.usage,
            counted: counted.counted,
            shared_counted: counted.shared_counted,
            is_now: false,
            is_changed: counted.is_changed,
        }
    }

    /// Returns what is described in words: what is shared only if it was counted with the rest.
    fn described(&self) -> RepositoryUsage {
        let mut usage = self.usage;
        usage.shared = usage.shared.filter(|_| self.is_now);
        usage
    }

    fn when(&self) -> String {
        match (self.is_now, self.is_changed) {
            (true, _) => String::new(),
            (false, false) => format!("; counted {}", second(self.counted)),
            (false, true) => format!("; counted {}, changed since", second(self.counted)),
        }
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
