//! Adoption of the distribution registry's data in the same place, before requests are answered.

use std::error::Error as _;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};
use registry_core::Timestamp;
use registry_http::Health;
use registry_storage::distribution::{
    self, AdoptOptions, AdoptReport, Adoption, Defect, Observer, Tree, adoption, is_unadopted,
};
use registry_storage::filesystem::{FilesystemBackend, is_root};
use registry_storage::{Backend, Store};

use super::service_manager;
use crate::control::adopt::{amount, describe, failure, find_if_there, not_adopted};
use crate::control::count::count;
use crate::control::show::is_for_bars;
use crate::failure::Failure;
use crate::ownership::WithOwner as _;
use crate::storage::{AnyStore, StorageLocation};

/// How often the log reports the progress of an adoption.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Adopts the data in place, unless that was done before or the store has other content.
///
/// # Errors
/// Why it cannot be adopted. The registry must not be served then, because clients would find it empty.
pub(super) async fn adopt(
    location: &StorageLocation,
    store: &AnyStore,
    health: &Health,
) -> Result<(), Failure> {
    match (location, store) {
        (StorageLocation::Folder(root), AnyStore::Disk(store)) => adopt_folder(root, store, health).await,
        (StorageLocation::Bucket(_), AnyStore::Objects(store)) => refuse_unadopted(store, location).await,
        _ => Ok(()),
    }
}

async fn adopt_folder(root: &Path, store: &Store<FilesystemBackend>, health: &Health) -> Result<(), Failure> {
    let came = adoption(store)
        .await
        .map_err(|cause| failure(root).because(cause))?;
    if store.backend().is_read_only() && is_root(root) {
        return require_adopted(root, store, &came).await;
    }
    match came {
        Adoption::NotBegun | Adoption::Begun(_) => match find_if_there(root)? {
            Some(tree) => adopt_tree(&tree, root, store, health).await,
            None => Ok(()),
        },
        // Problems in the distribution registry's folders are no reason not to serve what is here.
        Adoption::Finished(when) => {
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
async fn update(tree: &Tree, when: Timestamp, store: &Store<FilesystemBackend>, health: &Health) {
    let mut show = Show::new(health);
    let updated = distribution::update(store, tree, &mut show).await;
    show.end();
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

fn tell_of_change(when: Timestamp) {
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
    health: &Health,
) -> Result<(), Failure> {
    tracing::info!(
        root = %root.display(),
        "adopting what the distribution registry left here; its files stay as they are"
    );
    let mut show = Show::new(health);
    let adopted = distribution::adopt(store, tree, &AdoptOptions::new(), &mut show).await;
    show.end();
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
        Adoption::Finished(when) => {
            if let Ok(Some(tree)) = Tree::find(root)
                && matches!(distribution::has_news(store, &tree).await, Ok(true))
            {
                tell_of_change(*when);
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

/// Refuses a bucket that has the distribution registry's data and none of ours: it would look empty to clients.
async fn refuse_unadopted<B: Backend>(store: &Store<B>, place: &StorageLocation) -> Result<(), Failure> {
    let failed = || Failure::new(format!("cannot use {place}"));
    match is_unadopted(store).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(failed().because(
            "it has the data of the distribution registry, which is adopted from a folder only, not from a bucket; \
             copy the images with a client (`skopeo sync`), or name another prefix (`rootdirectory`) to begin empty",
        )),
        Err(error) => Err(failed().because(of_service(&error))),
    }
}

/// Describes why a service failed, without the message for clients ("busy"), and says what to do if that is known.
fn of_service(error: &registry_core::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (**cause).source());
    let mut text = String::new();
    for cause in causes.map(ToString::to_string) {
        // Some errors include their causes.
        if !text.contains(&cause) {
            text = if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            };
        }
    }
    match text.as_str() {
        "" => error.to_string(),
        // The error of a TLS client that gets an HTTP answer.
        _ if text.contains("InvalidContentType") => format!(
            "the service speaks HTTP and is asked by HTTPS; write http:// in its address (`regionendpoint`, `serviceurl`), or \
             `secure: false`: {text}"
        ),
        _ => text,
    }
}

/// Shows the progress of an adoption: a bar on a terminal, otherwise log lines; also in the startup probe. Defects are
/// always logged.
struct Show<'h> {
    health: &'h Health,
    bar: Option<ProgressBar>,
    logged: Instant,
}

impl<'h> Show<'h> {
    fn new(health: &'h Health) -> Self {
        Self {
            health,
            bar: is_for_bars().then(bar),
            logged: Instant::now(),
        }
    }

    /// Removes the bar.
    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[async_trait]
impl Observer for Show<'_> {
    fn progress(&mut self, report: &AdoptReport) {
        let phase = format!(
            "adopting: {} of {} of the distribution registry are done; {}, {}",
            report.repositories_done,
            count(report.repositories, "repository"),
            count(report.blobs, "blob"),
            count(report.manifests, "manifest")
        );
        if let Some(bar) = &self.bar {
            let (_, done, total) = amount(report);
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!(
                "{}, {}, {}",
                count(report.blobs, "blob"),
                count(report.manifests, "manifest"),
                count(report.tags, "tag")
            ));
        } else if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            tracing::info!(
                repositories = report.repositories_done,
                of = report.repositories,
                blobs = report.blobs,
                manifests = report.manifests,
                tags = report.tags,
                "adopting"
            );
        }
        service_manager::status(&phase);
        self.health.starting(phase);
    }

    async fn defect(&mut self, defect: &Defect) {
        let log = || tracing::warn!("{}", not_adopted(defect));
        match &self.bar {
            Some(bar) => bar.suspend(log),
            None => log(),
        }
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
