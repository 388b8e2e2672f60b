//! The storage of a server: opening it, adopting what registry:2 left there, and the socket for commands.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};
use registry_core::Timestamp;
use registry_http::ServerHealth;
use registry_storage::distribution::{self, AdoptOptions, AdoptReport, Adoption, Tree, adoption};
use registry_storage::filesystem::{FilesystemBackend, is_root};
use registry_storage::{Backend as _, Finding, Maintenance, MaintenanceObserver, Step, Store};

use super::bucket_adoption::adopt_bucket;
use super::listeners::{Reservation, Reserved};
use super::process::{ServiceManager, Signals};
use crate::adoption::{describe, failure, find_if_there, finding_line};
use crate::commands::any::AnyCommand;
use crate::config::Configuration;
use crate::control::server::{ControlServer, Rules};
use crate::control::show::is_for_bars;
use crate::count::count;
use crate::failure::Failure;
use crate::ownership::WithOwner as _;
use crate::storage::{Applied, OpenStorage, StorageLocation};

/// Opens the storage, which may keep `open_files` files of blobs open, then reserves the port unless that was done
/// before, and adopts what registry:2 left in the storage. In this order one server can take over from another. Returns
/// `None` if a signal came first.
pub(super) async fn open(
    configuration: &Configuration,
    location: &StorageLocation,
    reservation: Reservation,
    applied: Applied,
    open_files: usize,
    health: &ServerHealth,
    signals: &mut Signals,
) -> Result<Option<(OpenStorage, Reserved)>, Failure> {
    let wait = matches!(reservation, Reservation::Deferred(_));
    ServiceManager::status(match location {
        StorageLocation::Folder(_) if wait => "opening the storage, waiting for another server that has it",
        StorageLocation::Bucket(_) if wait => "opening the storage, waiting until the bucket can be used",
        _ => "opening the storage",
    });
    let storage = tokio::select! {
        storage = OpenStorage::open(location, configuration, applied, open_files, wait) => storage?,
        () = signals.next() => return Ok(None),
    };
    let reserved = reservation.make(&configuration.http)?;
    let adopted = tokio::select! {
        adopted = adopt(location, configuration, &*storage.store, health) => adopted.map(|()| true),
        () = signals.next() => Ok(false),
    };
    if !matches!(adopted, Ok(true)) {
        storage.close().await?;
        return adopted.map(|_| None);
    }
    Ok(Some((storage, reserved)))
}

/// How often the log reports the progress of an adoption.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Adopts the data in place, unless that was done before or the store has other content.
///
/// # Errors
/// Why it cannot be adopted. The registry must not be served then, because clients would find it empty.
async fn adopt(
    location: &StorageLocation,
    configuration: &Configuration,
    store: &dyn Maintenance,
    health: &ServerHealth,
) -> Result<(), Failure> {
    match (location, store.on_disk(), store.in_bucket()) {
        (StorageLocation::Folder(root), Ok(store), _) => adopt_folder(root, store, health).await,
        (StorageLocation::Bucket(bucket), _, Some(store)) => {
            let is_read_only = configuration.storage.maintenance.read_only.enabled;
            adopt_bucket(bucket, store, is_read_only, health).await
        }
        _ => Ok(()),
    }
}

async fn adopt_folder(
    root: &Path,
    store: &Store<FilesystemBackend>,
    health: &ServerHealth,
) -> Result<(), Failure> {
    let came = adoption(store)
        .await
        .map_err(|cause| failure(root).because(cause))?;
    if store.backend().is_read_only() && is_root(root).map_err(|cause| failure(root).because(cause))? {
        return require_adopted(root, store, &came).await;
    }
    match came {
        Adoption::NotBegun | Adoption::Begun(_) => match find_if_there(root)? {
            Some(tree) => adopt_tree(&tree, root, store, health).await,
            None => Ok(()),
        },
        // Problems in the distribution registry's folders are no reason not to serve what is here.
        Adoption::Finished(when) | Adoption::Updating(when) => {
            if let Ok(Some(tree)) = Tree::find(root) {
                update(&tree, when, store, health).await;
            }
            Ok(())
        }
        Adoption::OwnContent => {
            if matches!(Tree::find(root), Ok(Some(_))) {
                tracing::warn!(
                    root = %root.display(),
                    "there is data of the distribution registry beside that of this one; `registry-bin adopt --again` adds \
                     it"
                );
            }
            Ok(())
        }
    }
}

/// Adopts what the distribution registry stored after its folders were adopted.
async fn update(tree: &Tree, when: Timestamp, store: &Store<FilesystemBackend>, health: &ServerHealth) {
    let progress = AdoptionProgress::new(health);
    let updated = distribution::update(store, tree, &progress).await;
    progress.end();
    match updated {
        Ok(Some(report)) if !report.is_empty() => {
            tracing::info!(
                adopted = %when,
                "the distribution registry was used after its folders were adopted; adopted {}",
                describe(&report)
            );
        }
        Ok(_) => {}
        Err(cause) => tracing::error!(
            adopted = %when,
            error = %Failure::new("what the distribution registry took since cannot be adopted").because(cause),
            "the next start tries it again"
        ),
    }
}

fn warn_of_change(when: Timestamp) {
    tracing::warn!(
        adopted = %when,
        "the distribution registry's folders changed after they were adopted here; `registry-bin adopt --again` adds what was \
         pushed there"
    );
}

async fn adopt_tree(
    tree: &Tree,
    root: &Path,
    store: &Store<FilesystemBackend>,
    health: &ServerHealth,
) -> Result<(), Failure> {
    tracing::info!(
        root = %root.display(),
        "adopting what the distribution registry left here; its files stay as they are"
    );
    let progress = AdoptionProgress::new(health);
    let adopted = store.adopt(tree, &AdoptOptions::new(), &progress).await;
    progress.end();
    let report = adopted.map_err(|cause| failure(root).because(cause.with_owner()))?;
    tracing::info!("adopted {}", describe(&report));
    if store.backend().is_read_only() {
        tracing::info!("the records of it are in memory, so each start adopts it anew");
        return Ok(());
    }
    if report.blobs > 0 {
        tracing::info!(
            "what was adopted is shared with the distribution registry's folders and keeps its owner and modes: whoever may \
             read it there, may read it still"
        );
    }
    tracing::info!(
        "a copy of this folder that is made while the server runs is no backup, unlike one of the distribution registry's; \
         `registry-bin backup DIR` makes one, and the key `backup` makes them regularly"
    );
    if !report.defects.is_empty() {
        tracing::warn!("once the rest is put right, `registry-bin adopt --again` adds it");
    }
    Ok(())
}

/// Refuses a read-only folder that would look empty, or emptier than it is.
///
/// # Errors
/// If an adoption was not finished, or not begun although there is something to adopt.
async fn require_adopted(
    root: &Path,
    store: &Store<FilesystemBackend>,
    came: &Adoption,
) -> Result<(), Failure> {
    let is_whole = match came {
        Adoption::Finished(when) | Adoption::Updating(when) => {
            if let Ok(Some(tree)) = Tree::find(root)
                && matches!(distribution::has_news(store, &tree).await, Ok(true))
            {
                warn_of_change(*when);
            }
            true
        }
        Adoption::OwnContent => true,
        Adoption::Begun(_) => false,
        Adoption::NotBegun => find_if_there(root)?.is_none(),
    };
    if is_whole {
        return Ok(());
    }
    Err(failure(root).because(
        "it was not adopted as a whole, and nothing can be written there now; run `registry-bin adopt` where this folder can \
         be written",
    ))
}

/// Shows the progress of an adoption: a bar on a terminal, otherwise log lines; also in the startup probe. Defects are
/// always logged.
pub(super) struct AdoptionProgress<'h> {
    health: &'h ServerHealth,
    bar: Option<ProgressBar>,
    logged: Mutex<Instant>,
}

impl<'h> AdoptionProgress<'h> {
    pub(super) fn new(health: &'h ServerHealth) -> Self {
        Self {
            health,
            bar: is_for_bars().then(bar),
            logged: Mutex::new(Instant::now()),
        }
    }

    /// Returns whether the log reported no progress for a while, and counts from now on.
    fn is_log_due(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged.elapsed() >= PROGRESS_INTERVAL;
        if is_due {
            *logged = Instant::now();
        }
        is_due
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[async_trait]
impl MaintenanceObserver for AdoptionProgress<'_> {
    fn step(&self, _: Step, done: u64, total: Option<u64>) {
        if let (Some(bar), Some(total)) = (&self.bar, total) {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    async fn found(&self, finding: Finding) {
        let line = finding_line(&finding);
        let log = || tracing::warn!("{line}");
        match &self.bar {
            Some(bar) => bar.suspend(log),
            None => log(),
        }
    }

    fn adopted(&self, report: &AdoptReport) {
        let phase = format!(
            "adopting: {} of {} of the distribution registry are done; {}, {}",
            report.repositories_done,
            count(report.repositories, "repository"),
            count(report.blobs, "blob"),
            count(report.manifests, "manifest")
        );
        if let Some(bar) = &self.bar {
            bar.set_message(format!(
                "{}, {}, {}",
                count(report.blobs, "blob"),
                count(report.manifests, "manifest"),
                count(report.tags, "tag")
            ));
        } else if self.is_log_due() {
            tracing::info!(
                repositories = report.repositories_done,
                of = report.repositories,
                blobs = report.blobs,
                manifests = report.manifests,
                tags = report.tags,
                "adopting"
            );
        }
        ServiceManager::status(&phase);
        self.health.starting(phase);
    }
}

/// Creates a bar of blobs and manifests on standard error.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} to adopt, {eta} left; {msg}")
    {
        bar.set_style(style);
    }
    bar
}

/// Listens for commands below a folder. If that fails, logs it; the server runs anyway.
pub(super) fn start_control(
    location: &StorageLocation,
    storage: &OpenStorage,
    rules: Rules,
) -> Option<ControlServer> {
    let StorageLocation::Folder(root) = location else {
        // A command that can reach the bucket needs no server.
        return None;
    };
    if storage.store.write_state().is_read_only {
        // What may be done with a read-only folder needs no server.
        return None;
    }
    ControlServer::start::<AnyCommand>(root, Arc::clone(&storage.store), rules)
        .inspect_err(|error| {
            tracing::warn!(%error, "check, backup and other commands cannot work while this server runs");
        })
        .ok()
}
