//! Recording in the background what was pulled.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry_core::retention::{PULL_PRECISION, Retention};
use registry_core::{Digest, Reference, RepositoryName, Storage, Timestamp, forward_storage};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::store::NotedPulls;

/// How many manifests are remembered at once, of all repositories: some 10 MB.
const REMEMBERED_MANIFESTS: usize = 50_000;

/// The time to the next try after an error of the medium.
const RETRY_PAUSE: Duration = Duration::from_mins(1);

/// How often a process whose policies do not ask for pulls looks whether another one records them. What was pulled when recording
/// began stays for [`PULL_PRECISION`] at least, so nothing is dropped while both run.
const END_INTERVAL: Duration = Duration::from_mins(30);

/// How long the last pulls may take to be written at the end.
const LAST_FLUSH: Duration = Duration::from_secs(10);

/// A task that remembers what is pulled from a storage, and writes it down every now and then.
///
/// It does so for the repositories whose retention asks for it. It ends with [`PullRecorder::shutdown`], or soon after it was
/// dropped.
///
/// A pull costs a look into memory. Each manifest is written down at most once in [`PULL_PRECISION`], with all others of its
/// repository in one record. A process that is killed loses the pulls since it last wrote: up to `interval`. If there are more
/// than can be remembered until then, or the medium refuses them for too long, everything counts as pulled at that time, so
/// that nothing seems older than it is.
///
/// If no policy asks for pulls, it forgets the recorded ones, because those that follow will be unknown. Processes that share a
/// store have to ask for the pulls of the same repositories. Of those that do not, each begins anew, or ends the recording, so
/// that nothing counts as pulled too long ago, and logs a warning. If none recorded for an hour, another process may have served
/// without it, so recording begins anew, too.
///
/// Retention in the same process also knows of the pulls that are not written down yet.
#[derive(Debug)]
pub struct PullRecorder {
    pulls: Arc<Pulls>,
    task: Background,
}

impl PullRecorder {
    /// Starts the task on the current tokio runtime. It writes every `interval`.
    #[must_use]
    pub fn start(store: Arc<dyn Maintenance>, retention: Arc<Retention>, interval: Duration) -> Self {
        let pulls = Arc::new(Pulls::new(store, retention));
        if pulls.retention.uses_pulls() {
            let noted = Arc::downgrade(&pulls);
            pulls.store.add_pull_recorder(noted);
        }
        let task = Background::start(record(Arc::clone(&pulls), interval));
        Self { pulls, task }
    }

    /// Returns a storage whose pulls are recorded: each answered `pull_manifest`, and each `stat_manifest` of a tag, with which
    /// clients that have the manifest resolve the tag. If no policy asks for them, this is `storage` itself.
    #[must_use]
    pub fn observe(&self, storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
        if self.pulls.retention.uses_pulls() {
            Arc::new(ObservedPulls {
                inner: storage,
                pulls: Arc::clone(&self.pulls),
            })
        } else {
            storage
        }
    }

    /// Writes down what was pulled since that was done last, or that nothing is recorded. Cancel safe: what was not written is written later.
    ///
    /// # Errors
    /// Those of the medium; what could not be written is kept in memory.
    pub async fn flush(&self) -> Result<(), registry_core::Error> {
        flush(&self.pulls).await
    }

    /// Stops the task, and writes down what [`flush`](Self::flush) does, for up to ten seconds.
    pub async fn shutdown(self) {
        let Self { pulls, task } = self;
        task.shutdown().await;
        match timeout(LAST_FLUSH, flush(&pulls)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log(&error),
            Err(_) => tracing::error!("the last pulls could not be recorded in time"),
        }
    }
}

fn log(error: &registry_core::Error) {
    let cause = std::error::Error::source(error);
    tracing::error!(%error, cause, "pulls could not be recorded; that is tried again");
}

async fn record(pulls: Arc<Pulls>, interval: Duration) {
    if !pulls.retention.uses_pulls() {
        end_recording(&*pulls.store).await;
    }
    loop {
        if let Err(error) = flush(&pulls).await {
            log(&error);
            sleep(RETRY_PAUSE.min(interval)).await;
        }
        tokio::select! {
            () = sleep(interval) => {}
            () = pulls.is_full.notified() => {}
        }
    }
}

/// Ends the recording of pulls, again and again.
async fn end_recording(store: &dyn Maintenance) -> ! {
    let mut has_ended = false;
    loop {
        let pause = match store.end_recording_pulls().await {
            Ok(was_recorded) => {
                if was_recorded && has_ended {
                    tracing::warn!(
                        "another server on this storage records pulls, because its retention policies ask for them, and the \
                         pulls from this one are unknown; until all have the same policies, nothing is dropped because it was \
                         not pulled"
                    );
                }
                has_ended = true;
                END_INTERVAL
            }
            Err(error) => {
                log(&error);
                RETRY_PAUSE
            }
        };
        sleep(pause).await;
    }
}

async fn flush(pulls: &Pulls) -> Result<(), registry_core::Error> {
    if !pulls.retention.uses_pulls() {
        // The task may have been stopped before it came to that.
        return pulls.store.end_recording_pulls().await.map(drop);
    }
    let (store, (waiting, forgotten)) = (&*pulls.store, pulls.waiting());
    for (repository, digests) in waiting {
        let at = store.record_pulls(&repository, &digests).await?;
        pulls.written(&repository, &digests, at);
    }
    // Only what is written down is recorded. Another process may have ended the recording, or may record the pulls of other
    // repositories.
    let has_begun = store
        .begin_recording_pulls(&pulls.retention, forgotten > 0)
        .await?;
    let had_begun = pulls.begun(forgotten);
    if has_begun && !had_begun {
        tracing::info!(
            "recording of pulls begins: everything counts as pulled now, because nobody recorded pulls before"
        );
    }
    if has_begun && had_begun && forgotten == 0 {
        tracing::warn!(
            "another server on this storage has retention policies that ask for the pulls of other repositories, or of none, so \
             everything counts as pulled now; until all have the same policies, nothing is dropped because it was not pulled"
        );
    }
    Ok(())
}

/// The pulls that a process knows of.
struct Pulls {
    store: Arc<dyn Maintenance>,
    retention: Arc<Retention>,
    batch: Mutex<Batch>,
    is_full: Notify,
}

#[derive(Default)]
struct Batch {
    /// When each was written down last, unless it is to be written.
    repositories: HashMap<RepositoryName, HashMap<Digest, Option<Timestamp>>>,
    /// Whether this process began to record, or found that another one had.
    has_begun: bool,
    manifests: usize,
    /// How many pulls were not remembered, because there were too many.
    forgotten: u64,
    /// Since when none was forgotten.
    noted_since: Timestamp,
}

impl Batch {
    /// Forgets what need not be written.
    fn forget_written(&mut self) {
        self.repositories.retain(|_, manifests| {
            manifests.retain(|_, written| written.is_none());
            !manifests.is_empty()
        });
        self.manifests = self.repositories.values().map(HashMap::len).sum();
    }
}

impl Pulls {
    fn new(store: Arc<dyn Maintenance>, retention: Arc<Retention>) -> Self {
        let batch = Batch {
            noted_since: store.now(),
            ..Batch::default()
        };
        Self {
            store,
            retention,
            batch: Mutex::new(batch),
            is_full: Notify::new(),
        }
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a pull.
    fn note(&self, repository: &RepositoryName, digest: &Digest) {
        let mut batch = self.batch();
        let known = batch
            .repositories
            .get_mut(repository)
            .and_then(|manifests| manifests.get_mut(digest));
        match known {
            Some(None) => return,
            // By the clock of what is written: another one may stand still while a machine sleeps. If the clock was set back,
            // it is written again.
            Some(Some(written)) if is_precise(*written, self.store.now()) => return,
            Some(written) => {
                *written = None;
                return;
            }
            None => {}
        }
        if !self.retention.uses_pulls_of(repository) {
            return;
        }
        if batch.manifests >= REMEMBERED_MANIFESTS {
            batch.forget_written();
        }
        if batch.manifests >= REMEMBERED_MANIFESTS {
            batch.forgotten += 1;
            batch.noted_since = self.store.now();
            self.is_full.notify_one();
            return;
        }
        let manifests = batch.repositories.entry(repository.clone()).or_default();
        manifests.insert(digest.clone(), None);
        batch.manifests += 1;
    }

    /// Returns what is to be written, and how many pulls were not remembered.
    fn waiting(&self) -> (Vec<(RepositoryName, Vec<Digest>)>, u64) {
        let batch = self.batch();
        let waiting = batch.repositories.iter().map(|(repository, manifests)| {
            let digests = manifests.iter().filter(|(_, written)| written.is_none());
            let digests: Vec<Digest> = digests.map(|(digest, _)| digest.clone()).collect();
            (repository.clone(), digests)
        });
        let waiting = waiting.filter(|(_, digests)| !digests.is_empty()).collect();
        (waiting, batch.forgotten)
    }

    /// Notes that recording has begun, and counts the forgotten pulls for which it began anew. Returns whether it had begun before.
    fn begun(&self, forgotten: u64) -> bool {
        let mut batch = self.batch();
        batch.forgotten -= forgotten;
        std::mem::replace(&mut batch.has_begun, true)
    }

    /// Notes that pulls were written down. One that came meanwhile was before the time that was written.
    fn written(&self, repository: &RepositoryName, digests: &[Digest], at: Timestamp) {
        let mut batch = self.batch();
        if let Some(manifests) = batch.repositories.get_mut(repository) {
            for digest in digests {
                if let Some(written) = manifests.get_mut(digest) {
                    *written = Some(at);
                }
            }
        }
    }
}

/// Returns whether a pull need not be written down, because an earlier one was.
fn is_precise(written: Timestamp, now: Timestamp) -> bool {
    let passed = now.0.checked_sub(written.0).map(Duration::from_millis);
    passed.is_some_and(|passed| passed < PULL_PRECISION)
}

impl NotedPulls for Pulls {
    fn since(&self) -> Timestamp {
        self.batch().noted_since
    }

    fn waiting_of(&self, repository: &RepositoryName) -> Vec<Digest> {
        let batch = self.batch();
        let manifests = batch.repositories.get(repository).into_iter().flatten();
        let waiting = manifests.filter(|(_, written)| written.is_none());
        waiting.map(|(digest, _)| digest.clone()).collect()
    }
}

impl fmt::Debug for Pulls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulls").finish_non_exhaustive()
    }
}

/// A storage whose pulls a [`PullRecorder`] records.
#[derive(Debug)]
struct ObservedPulls<S: ?Sized> {
    pulls: Arc<Pulls>,
    inner: Arc<S>,
}

/// Calls the inner storage, and notes which manifest was pulled.
macro_rules! observed {
    ($self:ident.pull_manifest($repository:expr, $reference:expr)) => {{
        let found = $self.inner.pull_manifest($repository, $reference).await;
        if let Ok(manifest) = &found {
            $self.pulls.note($repository, &manifest.digest);
        }
        found
    }};
    ($self:ident.stat_manifest($repository:expr, $reference:expr)) => {{
        let found = $self.inner.stat_manifest($repository, $reference).await;
        if let (Ok(manifest), Reference::Tag(_)) = (&found, $reference) {
            $self.pulls.note($repository, &manifest.digest);
        }
        found
    }};
    ($self:ident.$method:ident($($argument:expr),*)) => {
        $self.inner.$method($($argument),*).await
    };
}

forward_storage!(
    BlobStorage, UploadStorage, ManifestStorage, ListStorage for [S: ?Sized + Storage] ObservedPulls<S> => observed
);

#[cfg(test)]
mod tests {
    use registry_core::retention::{KeepRule, RetentionPolicy};

    use super::*;
    use crate::backend::Backend as _;
    use crate::key::Key;
    use crate::object_store::ObjectStoreBackend;
    use crate::store::{Store, StoreOptions};
    use crate::testing::ManualClock;

    fn digest(number: usize) -> Digest {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    struct World {
        store: Arc<Store<ObjectStoreBackend>>,
        clock: Arc<ManualClock>,
        pulls: Pulls,
    }

    /// Uses pulls of repositories that begin with `a`.
    fn world() -> World {
        let policy = RetentionPolicy {
            repositories: vec!["a*".parse().unwrap()],
            tags: Vec::new(),
            keep: vec![KeepRule {
                pulled_within: Some(Duration::from_hours(1)),
                ..KeepRule::default()
            }],
            untagged: None,
            pulled_within: None,
        };
        let retention = Retention {
            policies: vec![policy],
            immutable: Vec::new(),
        };
        let (backend, clock) = (ObjectStoreBackend::memory(), Arc::new(ManualClock::default()));
        let store = Store::with_options(
            Arc::new(backend),
            Arc::clone(&clock) as _,
            StoreOptions::default(),
        );
        let store = Arc::new(store);
        World {
            pulls: Pulls::new(Arc::clone(&store) as _, Arc::new(retention)),
            store,
            clock,
        }
    }

    #[tokio::test]
    async fn of_too_many_pulls_none_seems_older() {
        let (World { store, pulls, .. }, a) = (world(), "a".parse().unwrap());
        pulls.note(&"b".parse().unwrap(), &digest(0));
        for number in 0..REMEMBERED_MANIFESTS + 2 {
            pulls.note(&a, &digest(number));
        }
        let (waiting, forgotten) = pulls.waiting();
        assert_eq!(
            (waiting.len(), waiting[0].1.len(), forgotten),
            (1, REMEMBERED_MANIFESTS, 2)
        );
        flush(&pulls).await.unwrap();
        let begun = store.backend().get(&Key::pulls()).await.unwrap();
        assert!(begun.is_some(), "everything counts as pulled now");
        assert_eq!(pulls.waiting(), (Vec::new(), 0));
        // There is room again, because what was written need not be remembered.
        pulls.note(&a, &digest(REMEMBERED_MANIFESTS + 9));
        assert_eq!(
            pulls.waiting(),
            (vec![(a, vec![digest(REMEMBERED_MANIFESTS + 9)])], 0)
        );
    }

    #[tokio::test]
    async fn a_hot_manifest_is_written_once_in_an_hour() {
        let (World { clock, pulls, .. }, a) = (world(), "a".parse().unwrap());
        let mut written = 0;
        for _ in 0..180 {
            pulls.note(&a, &digest(1));
            written += pulls.waiting().0.len();
            flush(&pulls).await.unwrap();
            clock.advance(Duration::from_mins(1));
        }
        assert_eq!(written, 3);
    }

    /// A machine that sleeps stops the time of its processes but not the clock.
    #[tokio::test(start_paused = true)]
    async fn a_pull_after_a_sleep_is_written() {
        let (World { clock, pulls, .. }, a) = (world(), "a".parse().unwrap());
        for _ in 0..2 {
            pulls.note(&a, &digest(1));
            assert_eq!(pulls.waiting().0.len(), 1);
            flush(&pulls).await.unwrap();
            pulls.note(&a, &digest(1));
            assert_eq!(pulls.waiting().0.len(), 0);
            clock.advance(Duration::from_hours(48));
        }
        let (hour, now) = (3_600_000, pulls.store.now());
        assert!(is_precise(now, now) && is_precise(now, Timestamp(now.0 + hour - 1)));
        for other in [now.0 - 1, now.0 + hour] {
            assert!(!is_precise(now, Timestamp(other)), "the clock was set");
        }
    }
}
