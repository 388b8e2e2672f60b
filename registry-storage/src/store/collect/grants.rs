//! The grants of a repository: which of them a manifest names.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::cycle::{Cycle, Facts};
use super::{CollectReport, Decided, write_candidates};
use crate::backend::LIST_LIMIT;
use crate::backend::{
    Again, Backend, Condition, Durability, RecordEntry, RecordTransaction, Transaction, Version,
};
use crate::chain::{Collect, State};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, Values, living_keys};
use crate::record::{BlobRecord, GrantRecord, ManifestRecord, state_of_size};
use crate::store::Store;
use crate::store::delete::{all_children, kill_grant, parse_manifest};
use crate::store::edge::{Found, Stateful as _, condemn, rescue, write};
use crate::store::looks::is_content_of;
use crate::store::mount::GrantKeys;
use crate::store::sweep::{Unnamed, write_unnamed};
use crate::store::ungranted::drop_blob;
use crate::store::usage::RepositoryUsage;

/// How many digests are in memory at once, some hundred bytes each. The manifests of a repository with more blobs are
/// read once for each time this many.
pub(super) const DIGESTS_IN_MEMORY: usize = 100_000;

/// How many grants are decided in one transaction: some hundred calls.
const GRANTS_PER_TRANSACTION: usize = 64;

/// The blobs or manifests that a repository has, or had, and whether something names each.
pub(super) type Candidates = BTreeMap<Digest, bool>;

/// A repository whose grants were decided about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collected {
    /// Nothing is left to do.
    pub(super) is_settled: bool,
    /// The blobs and manifests that it has now; `None` if nothing was read, because it never had a blob.
    pub(super) usage: Option<RepositoryUsage>,
}

/// What was found in the manifests of a repository.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named {
    /// A push is in progress.
    has_pushes: bool,
    /// The manifests.
    usage: RepositoryUsage,
}

impl<B: Backend> Store<B> {
    /// Decides about all grants of a repository. Returns `None` if a manifest cannot be read.
    ///
    /// `taken` is the version of the mark that the repository changed, if it was taken before.
    pub(super) async fn collect_grants(
        &self,
        cycle: &mut Cycle,
        repository: &RepositoryName,
        taken: Option<&Version>,
        report: &mut CollectReport,
    ) -> Result<Option<Collected>, Error> {
        let mut collected = Collected {
            is_settled: true,
            usage: None,
        };
        let mut pages = Pages::of(Key::repository_blobs(repository));
        loop {
            let mut candidates = Candidates::new();
            while candidates.len() < DIGESTS_IN_MEMORY
                && let Some(page) = pages.next(&*self.backend).await?
            {
                for key in living_keys(page) {
                    if let Some(KeyKind::RepositoryBlob(_, digest)) = KeyKind::of(&key) {
                        candidates.insert(digest, false);
                    }
                }
            }
            if candidates.is_empty() {
                return Ok(Some(collected));
            }
            // A push stores its manifest Pending before it looks at a grant, and the cycle began before this listing.
            // So a push that saw the grant before it was condemned is seen here.
            let named = self.mark_named(cycle, repository, &mut candidates, report);
            let Some(named) = named.await? else {
                return Ok(None);
            };
            self.mark_named_by_deleted(repository, &mut candidates).await?;
            let usage = collected.usage.get_or_insert_default();
            (usage.manifests, usage.manifest_bytes) = (named.usage.manifests, named.usage.manifest_bytes);
            let is_decided = self
                .decide_grants(cycle, repository, taken, candidates, usage, report)
                .await?;
            // What a push needs that is in progress may be named by nothing once it is refused.
            collected.is_settled &= is_decided && !named.has_pushes;
        }
    }

    /// Marks the candidates that a manifest names. Returns `None` if a manifest cannot be read.
    pub(super) async fn mark_named(
        &self,
        cycle: &Cycle,
        repository: &RepositoryName,
        candidates: &mut Candidates,
        report: &mut CollectReport,
    ) -> Result<Option<Named>, Error> {
        let mut named = Named::default();
        let is_read = |entry: &RecordEntry| state_of_size(entry.size) != State::Dead;
        let mut manifests = Values::of(Key::manifests(repository), is_read);
        while let Some(read) = manifests.next(&*self.backend).await? {
            report.manifests += read.len() as u64;
            for (key, stored) in read {
                if let Some(stored) = &stored {
                    named.usage.add_manifest(&stored.value);
                }
                let found = Found::<ManifestRecord>::new(stored.as_ref()).ok();
                let state = match found {
                    Some(found) => self.mark_children(cycle, &key, found, candidates).await?,
                    None => None,
                };
                let Some(state) = state else {
                    tracing::error!(
                        %key,
                        "a manifest cannot be read, so nothing is collected in its repository, as it may name anything; a \
                         check with repair puts it aside"
                    );
                    return Ok(None);
                };
                named.has_pushes |= state == State::Pending;
            }
        }
        Ok(Some(named))
    }

    /// Marks what a manifest names. Returns its state; `None` if its content cannot be read.
    async fn mark_children(
        &self,
        cycle: &Cycle,
        key: &Key,
        mut found: Found<ManifestRecord>,
        candidates: &mut Candidates,
    ) -> Result<Option<State>, Error> {
        let Some(KeyKind::Manifest(_, digest)) = KeyKind::of(key) else {
            return Ok(None);
        };
        match self.newest(key, found).await? {
            Some(newest) => found = newest,
            None => return Ok(None),
        }
        let state = found.state();
        if !state.holds_children() || self.ends_push(cycle, key, &found).await? {
            return Ok(Some(State::Dead));
        }
        if !is_content_of(&digest, &found).await? {
            return Ok(None);
        }
        let Some((record, content)) = found.record else {
            return Ok(Some(state));
        };
        let Some(view) = parse_manifest(content, record.media_type).await? else {
            return Ok(None);
        };
        for child in all_children(&view) {
            if let Some(is_named) = candidates.get_mut(&child.digest) {
                *is_named = true;
            }
        }
        Ok(Some(state))
    }

    /// Reads a manifest again if it looks gone: the listing saw it, and a cache may be older. Returns `None` if its record
    /// cannot be read.
    pub(super) async fn newest(
        &self,
        key: &Key,
        found: Found<ManifestRecord>,
    ) -> Result<Option<Found<ManifestRecord>>, Error> {
        if found.state().holds_children() {
            return Ok(Some(found));
        }
        let read = ReadManifest(key.clone());
        Ok(self.backend.transact(Durability::Deferred, read).await?.ok())
    }

    /// Makes a manifest Dead that a push left Pending, if no push takes that long. Returns whether it did.
    async fn ends_push(
        &self,
        cycle: &Cycle,
        key: &Key,
        found: &Found<ManifestRecord>,
    ) -> Result<bool, Error> {
        let (Some(header), Some(version)) = (found.header(), found.version()) else {
            return Ok(false);
        };
        let facts = Facts {
            state: header.state,
            condemned_in: None,
            written: header.stamp.written,
            // Whether a tag names it does not matter while it is Pending, and nothing else is decided here.
            is_root: true,
            is_certain: false,
        };
        let now = self.clock.now();
        if header.state != State::Pending || cycle.decide(facts, now) != Collect::Kill {
            return Ok(false);
        }
        if cycle.is_dry_run {
            return Ok(true);
        }
        let end = EndPush {
            key: key.clone(),
            dead: header.clone().in_state(State::Dead, now),
            version: version.clone(),
        };
        self.backend.transact(Durability::Synced, end).await
    }

    /// Decides about grants, and adds those that stay to `usage`. Returns whether nothing is left to do.
    async fn decide_grants(
        &self,
        cycle: &mut Cycle,
        repository: &RepositoryName,
        taken: Option<&Version>,
        candidates: Candidates,
        usage: &mut RepositoryUsage,
        report: &mut CollectReport,
    ) -> Result<bool, Error> {
        let mut is_settled = true;
        let mut candidates = candidates.into_iter();
        loop {
            let some: Vec<(Digest, bool)> = candidates.by_ref().take(LIST_LIMIT).collect();
            if some.is_empty() {
                return Ok(is_settled);
            }
            let keys: Vec<Key> = some
                .iter()
                .map(|(digest, _)| Key::grant(digest, repository))
                .collect();
            let (mut undecided, mut gone) = (Vec::new(), Vec::new());
            for (grant, stored) in some.into_iter().zip(self.backend.get_all(&keys).await?) {
                let value = stored.map(|stored| stored.value).unwrap_or_default();
                match state_of_size(value.len() as u64) {
                    // Most grants are named and Live.
                    State::Live | State::Pending if grant.1 => usage.add_grant(&value),
                    State::Dead => gone.push(grant.0),
                    State::Absent if value.is_empty() => gone.push(grant.0),
                    _ => undecided.push((grant, value)),
                }
            }
            if !cycle.is_dry_run {
                self.end_grants(repository, &gone).await?;
            }
            let deciding: Vec<_> = undecided
                .chunks(GRANTS_PER_TRANSACTION)
                .map(|grants| self.decide_some(cycle, repository, taken, grants))
                .collect();
            let mut deciding = stream::iter(deciding).buffered(self.parallel_transactions());
            while let Some((decided, grants)) = deciding.try_next().await? {
                is_settled &= decided.iter().all(Decided::is_final);
                for (decided, (_, before)) in decided.into_iter().zip(grants) {
                    if !matches!(decided, Decided::Removed(_)) {
                        usage.add_grant(before);
                    }
                    report.add(decided);
                }
            }
            drop(deciding);
            self.seal_on_the_way(cycle).await?;
        }
    }

    /// Has no back reference name grants that are gone: the process died on its way, or it was of a version that left them.
    async fn end_grants(&self, repository: &RepositoryName, gone: &[Digest]) -> Result<(), Error> {
        let ending: Vec<_> = gone
            .chunks(GRANTS_PER_TRANSACTION)
            .map(|gone| {
                let keys = gone.iter().map(|digest| GrantKeys::new(repository, digest));
                let end = EndGrants(keys.collect(), self.clock.now());
                self.backend.transact(Durability::Deferred, end)
            })
            .collect();
        let ending = stream::iter(ending).buffer_unordered(self.parallel_transactions());
        ending.try_collect().await
    }

    /// Decides about grants in one transaction, and returns what was decided about each.
    async fn decide_some<'g>(
        &self,
        cycle: &Cycle,
        repository: &RepositoryName,
        taken: Option<&Version>,
        grants: &'g [((Digest, bool), Bytes)],
    ) -> Result<(Vec<Decided>, &'g [((Digest, bool), Bytes)]), Error> {
        let decide = DecideGrants {
            repository: repository.clone(),
            grants: grants.iter().map(|(grant, _)| grant.clone()).collect(),
            cycle: cycle.clone(),
            taken: taken.cloned(),
            is_certain: false,
            is_one_step: self.backend.is_atomic(),
            has_written_candidates: false,
            left: Vec::new(),
            #[cfg(all(feature = "filesystem", unix))]
            adopting: std::sync::Arc::clone(&self.adopting),
            now: self.clock.now(),
        };
        // A grant that is Dead becomes durable at the latest with the blob's record, before its bytes go.
        let decided = self.backend.transact(Durability::Deferred, decide).await?;
        Ok((decided, grants))
    }
}

/// Reads a manifest from the medium. The inner error is one of the record.
#[derive(Clone)]
struct ReadManifest(Key);

impl Transaction for ReadManifest {
    type Output = Result<Found<ManifestRecord>, Error>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Reading(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        Ok(Found::new(records.get(&self.0).await?.as_ref()))
    }
}

/// Makes a Pending manifest Dead as it was read. Returns `false` if it was written since.
#[derive(Clone)]
struct EndPush {
    key: Key,
    dead: ManifestRecord,
    version: Version,
}

impl Transaction for EndPush {
    type Output = bool;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let condition = Condition::Matches(self.version);
        let Some(version) = write(records, &self.key, &self.dead, &[], condition).await? else {
            return Ok(false);
        };
        records.purge_if(&self.key, &version).await?;
        Ok(true)
    }
}

/// Removes grants that are gone, and what refers to them. Those that came back stay.
#[derive(Clone)]
pub(super) struct EndGrants(pub(super) Vec<GrantKeys>, pub(super) Timestamp);

impl Transaction for EndGrants {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for keys in self.0 {
            let back_reference = records.get(&keys.back_reference).await?;
            let Ok(grant) = Found::<GrantRecord>::new(records.get(&keys.grant).await?.as_ref()) else {
                continue;
            };
            if matches!(grant.state(), State::Absent | State::Dead) {
                kill_grant(records, &keys, &grant, back_reference, self.1).await?;
            }
        }
        Ok(())
    }
}

/// Decides about some grants of a repository, each by itself, and returns what was decided.
#[derive(Clone)]
struct DecideGrants {
    repository: RepositoryName,
    /// The digests, and whether a manifest names each.
    grants: Vec<(Digest, bool)>,
    cycle: Cycle,
    /// The version of the mark that the repository changed, if it was taken before the manifests were read.
    taken: Option<Version>,
    /// No manifest was stored since.
    is_certain: bool,
    /// This transaction is one step, so a blob goes with its last grant.
    is_one_step: bool,
    /// The blobs were written down, before a grant goes Dead.
    has_written_candidates: bool,
    /// The bytes of the blobs that went.
    left: Vec<Unnamed>,
    #[cfg(all(feature = "filesystem", unix))]
    adopting: std::sync::Arc<tokio::sync::Semaphore>,
    now: Timestamp,
}

impl Transaction for DecideGrants {
    type Output = Vec<Decided>;

    fn again(&self) -> Option<Again<Self>> {
        Some(if self.cycle.is_dry_run {
            Again::Reading(self.clone())
        } else {
            Again::Freeing(self.clone())
        })
    }

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Vec<Decided>, Error> {
        // An adoption makes grants before the manifests that name them, which it stores without looking for them.
        #[cfg(all(feature = "filesystem", unix))]
        if self.adopting.available_permits() == 0 {
            return Ok(vec![Decided::Undecided; self.grants.len()]);
        }
        self.is_certain = self.is_certain(records).await?;
        let mut decided = Vec::with_capacity(self.grants.len());
        for (digest, is_named) in self.grants.clone() {
            decided.push(self.decide(records, &digest, is_named).await?);
        }
        write_unnamed(records, &self.left, self.now).await?;
        Ok(decided)
    }
}

impl DecideGrants {
    /// Returns whether no manifest was stored since the mark was taken: a push sets it together with its manifest.
    async fn is_certain(&self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        if !self.cycle.kills_at_once() || self.cycle.is_dry_run {
            return Ok(self.cycle.kills_at_once());
        }
        let Some(taken) = &self.taken else {
            return Ok(false);
        };
        let mark = records.stat(&Key::changed(&self.repository)).await?;
        Ok(mark.is_some_and(|mark| mark.version == *taken))
    }

    async fn decide(
        &mut self,
        records: &mut dyn RecordTransaction,
        digest: &Digest,
        is_named: bool,
    ) -> Result<Decided, Error> {
        let keys = GrantKeys::new(&self.repository, digest);
        let Ok(grant) = Found::<GrantRecord>::new(records.get(&keys.grant).await?.as_ref()) else {
            return Ok(Decided::Undecided);
        };
        let Some(header) = grant.header().cloned() else {
            return Ok(Decided::Gone);
        };
        let size = header.blob.as_ref().map_or(0, |blob| blob.size);
        let facts = Facts {
            state: header.state,
            condemned_in: header.condemned_in,
            written: header.stamp.written,
            is_root: is_named,
            is_certain: self.is_certain,
        };
        let decision = self.cycle.decide(facts, self.now);
        let is_done = match decision {
            _ if self.cycle.is_dry_run => true,
            Collect::Leave => true,
            Collect::Revive => rescue(records, &keys.grant, &grant, self.now).await?,
            Collect::Condemn => condemn(records, &keys.grant, &grant, self.cycle.number(), self.now).await?,
            Collect::Kill => {
                if !self.is_one_step {
                    self.write_candidates(records).await?;
                }
                let back_reference = records.get(&keys.back_reference).await?;
                let is_done = kill_grant(records, &keys, &grant, back_reference, self.now).await?;
                if is_done && self.is_one_step {
                    let dropped = drop_blob(records, digest, self.now).await?;
                    let names = dropped.iter().flat_map(BlobRecord::names).cloned();
                    self.left.extend(Unnamed::of_blob(digest, names));
                }
                is_done
            }
        };
        Ok(Decided::of(&self.cycle, decision, facts, size, is_done))
    }

    /// Writes down once all blobs that this transaction may take from the repository.
    async fn write_candidates(&mut self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        if std::mem::replace(&mut self.has_written_candidates, true) {
            return Ok(());
        }
        let unnamed = self.grants.iter().filter(|(_, is_named)| !is_named);
        let unnamed: Vec<Digest> = unnamed.map(|(digest, _)| digest.clone()).collect();
        write_candidates(records, &unnamed, self.now).await
    }
}
