//! Retention: tags and manifests that no policy keeps go.
//!
//! The decisions are those of [`Retention::evaluate`]. A tag is dropped on the version that was judged, so one that was
//! pushed meanwhile stays. A manifest without a tag is collected as any content is: it is condemned by one cycle and
//! removed by a later one, so that a push which needs it meanwhile rescues it.

mod drop;
mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use registry_core::retention::{Keeper, Retention, Verdict, Verdicts};
use registry_core::storage::EndReason;
use registry_core::{Digest, Error, ErrorCode, RepositoryName};

use self::drop::{Change, ChangeManifests, DropTags};
use self::facts::Repository;
use super::CollectOptions;
use super::cycle::Cycle;
use crate::backend::{Backend, Durability};
use crate::chain::{Candidate, Collect, State, collect};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::Pages;
use crate::record::state_of_size;
use crate::store::Store;
use crate::store::steps::transact_all;

/// How many tags are dropped in one transaction: some hundred calls.
const TAGS_PER_TRANSACTION: usize = 64;

/// How retention is applied.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RetainOptions {
    /// The policies. By default there are none, and nothing is dropped.
    pub retention: Arc<Retention>,
    /// How long a manifest stays at least after it was condemned; the [grace](CollectOptions::grace) of the collector.
    /// Zero by default.
    pub grace: Duration,
    /// Changes nothing, and only counts. `false` by default.
    pub is_dry_run: bool,
}

impl RetainOptions {
    /// Returns the options that apply `retention` within the grace of `options`, as a dry run if they are for one.
    #[must_use]
    pub const fn new(retention: Arc<Retention>, options: &CollectOptions) -> Self {
        Self {
            retention,
            grace: options.grace,
            is_dry_run: options.is_dry_run,
        }
    }
}

/// What retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetainReport {
    /// Repositories that a policy is for.
    pub repositories: u64,
    /// How many of them were left as they are, because a tag or manifest cannot be read.
    pub unreadable_repositories: u64,
    /// Tags that were dropped.
    pub dropped_tags: u64,
    /// Manifests without a tag that were condemned: a later call removes them.
    pub condemned_manifests: u64,
    /// Manifests that an earlier call condemned less than the grace ago.
    pub waiting_manifests: u64,
    /// Manifests that were removed.
    pub removed_manifests: u64,
    /// Tags and manifests that were written at the same time; a later call looks at them again.
    pub undecided: u64,
}

impl RetainReport {
    /// Returns whether another call, at the same time and with a grace of zero, would have something to do.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.dropped_tags
            + self.condemned_manifests
            + self.waiting_manifests
            + self.removed_manifests
            + self.undecided
            > 0
    }
}

impl<B: Backend> Store<B> {
    /// Returns what a policy says about a repository now; `None` if something in it cannot be read.
    pub(crate) async fn judge(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
    ) -> Result<Option<Verdicts>, Error> {
        if !self.is_known(repository).await? {
            return Err(ErrorCode::NameUnknown.into());
        }
        let found = self.read_facts(repository, options).await?;
        let now = self.clock.now();
        Ok(found.map(|found| options.retention.evaluate(repository, &found.facts, now)))
    }

    /// Applies the policies to every repository.
    pub(crate) async fn run_retention(
        &self,
        options: &RetainOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RetainReport, Error> {
        if options.retention.policies.is_empty() || self.is_adopting().await? {
            return Ok(RetainReport::default());
        }
        if self.is_short_of_space() && !options.is_dry_run {
            // As for a cycle of the collector: with nothing to drop, nothing is written.
            let dry_run = RetainOptions {
                is_dry_run: true,
                ..options.clone()
            };
            let report = self.retain_in_cycle(&dry_run, observer).await?;
            if !report.has_more() {
                return Ok(report);
            }
        }
        self.retain_in_cycle(options, observer).await
    }

    async fn retain_in_cycle(
        &self,
        options: &RetainOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RetainReport, Error> {
        let mut report = RetainReport::default();
        let cycle = CollectOptions::new()
            .grace(options.grace)
            .dry_run(options.is_dry_run);
        let mut cycle = self.begin_cycle(&cycle).await?;
        let mut pages = Pages::of(Key::repositories());
        while let Some(page) = pages.next(&*self.backend).await? {
            for entry in page {
                if let Some(KeyKind::Repository(repository)) = KeyKind::of(&entry.key)
                    && state_of_size(entry.size).is_visible()
                    && options.retention.policy_of(&repository).is_some()
                {
                    self.retain_in(&repository, options, &cycle, &mut report).await?;
                    report.repositories += 1;
                    observer.step(Step::Repositories, report.repositories, None);
                    self.seal_on_the_way(&mut cycle).await?;
                }
            }
        }
        if !options.is_dry_run {
            self.seal_cycle(&cycle).await?;
        }
        Ok(report)
    }

    async fn retain_in(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
        cycle: &Cycle,
        report: &mut RetainReport,
    ) -> Result<(), Error> {
        let Some(found) = self.read_facts(repository, options).await? else {
            report.unreadable_repositories += 1;
            return Ok(());
        };
        if !options.is_dry_run {
            self.forget_pulls_of_what_is_gone(repository, &found).await?;
        }
        let tagged = self.drop_tags(repository, options, &found, report).await?;
        self.collect_untagged(repository, options, cycle, &found, &tagged, report)
            .await
    }

    /// Drops the tags that no rule keeps. Returns the manifests that the other tags name.
    async fn drop_tags(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
        found: &Repository,
        report: &mut RetainReport,
    ) -> Result<BTreeSet<Digest>, Error> {
        let retention = &options.retention;
        let policy = retention.policy_of(repository).map(|(index, _)| index);
        let verdicts = retention.evaluate_tags(repository, &found.facts, self.clock.now());
        let (mut doomed, mut tagged) = (Vec::new(), BTreeSet::new());
        for (tag, verdict) in verdicts {
            if let Some(version) = found.tags.get(&tag.tag).filter(|_| verdict.is_dropped()) {
                doomed.push((tag, version.clone()));
            } else {
                tagged.insert(tag.digest);
            }
        }
        if options.is_dry_run {
            report.dropped_tags += doomed.len() as u64;
            return Ok(tagged);
        }
        for tags in doomed.chunks(TAGS_PER_TRANSACTION) {
            let drop = DropTags {
                repository: repository.clone(),
                tags: tags
                    .iter()
                    .map(|(tag, version)| (tag.tag.clone(), version.clone()))
                    .collect(),
                keep: policy.and_then(|policy| self.keep(EndReason::Retention(policy))),
                #[cfg(all(feature = "filesystem", unix))]
                adopting: Arc::clone(&self.adopting),
                now: self.clock.now(),
            };
            let dropped = self.backend.transact(Durability::Synced, drop).await?;
            for ((tag, _), is_dropped) in tags.iter().zip(dropped) {
                if is_dropped {
                    report.dropped_tags += 1;
                    tracing::info!(
                        %repository, tag = %tag.tag, digest = %tag.digest, pushed = %tag.pushed, policy,
                        "retention dropped a tag, which no rule of the policy keeps"
                    );
                } else {
                    report.undecided += 1;
                    tagged.insert(tag.digest.clone());
                }
            }
        }
        Ok(tagged)
    }

    /// Condemns the manifests that nothing keeps, and removes those that a sealed cycle condemned.
    async fn collect_untagged(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
        cycle: &Cycle,
        found: &Repository,
        tagged: &BTreeSet<Digest>,
        report: &mut RetainReport,
    ) -> Result<(), Error> {
        let retention = &options.retention;
        let policy = retention.policy_of(repository).map(|(index, _)| index);
        let names = tagged.iter().collect();
        let verdicts = retention.evaluate_manifests(repository, &found.facts, &names, self.clock.now());
        let verdicts: BTreeMap<Digest, Verdict> = verdicts.into_iter().collect();
        let mut changes = Vec::new();
        for (digest, manifest) in &found.manifests {
            let verdict = verdicts.get(digest);
            let is_young = matches!(verdict, Some(Verdict::Kept { by: Keeper::Age, .. }));
            let is_old = verdict.is_some_and(Verdict::is_dropped);
            let decision = collect(Candidate {
                is_certain: false,
                state: manifest.state,
                is_root: !is_young && !is_old,
                is_sealed: manifest
                    .condemned_in
                    .is_some_and(|cycle_of_it| cycle.is_sealed(cycle_of_it)),
                is_old,
            });
            match decision {
                Collect::Leave if is_young && manifest.state == State::Condemned => {
                    report.waiting_manifests += 1;
                }
                // What a delete of the whole repository condemned is its own, unless a push may need it.
                Collect::Revive if !is_needed_by_content(verdict) => {}
                Collect::Leave => {}
                Collect::Condemn | Collect::Revive => {
                    report.condemned_manifests += u64::from(decision == Collect::Condemn);
                    let version = manifest.version.clone();
                    let condemned_in = (decision == Collect::Condemn).then(|| cycle.number());
                    changes.push(Change {
                        digest: digest.clone(),
                        version,
                        condemned_in,
                    });
                }
                Collect::Kill if options.is_dry_run => report.removed_manifests += 1,
                Collect::Kill => {
                    let version = manifest.version.clone();
                    let keep = policy.and_then(|policy| self.keep(EndReason::Retention(policy)));
                    if self.delete_untagged(repository, digest, version, keep).await? {
                        report.removed_manifests += 1;
                        tracing::info!(%repository, %digest, policy, "retention removed a manifest without a tag");
                    } else {
                        report.undecided += 1;
                    }
                }
            }
        }
        if !options.is_dry_run && !changes.is_empty() {
            let change = ChangeManifests {
                repository: repository.clone(),
                changes: changes.into(),
                #[cfg(all(feature = "filesystem", unix))]
                adopting: Arc::clone(&self.adopting),
                now: self.clock.now(),
            };
            transact_all(&*self.backend, |_| Durability::Deferred, change).await?;
        }
        Ok(())
    }
}

/// Returns whether a tag, an index or a push needs a manifest: a tag if there is no verdict about it.
const fn is_needed_by_content(verdict: Option<&Verdict>) -> bool {
    matches!(
        verdict,
        None | Some(Verdict::Kept {
            by: Keeper::Parent(_) | Keeper::Push,
            ..
        })
    )
}
