//! Adoption, from its beginning to its end, which is recorded.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use registry_core::{Error, RepositoryName, Timestamp};
use tokio::task::spawn_blocking;

use super::amount::Amount;
use super::layout;
use super::look::Look;
use super::record;
use super::report::{AdoptReport, Observer};
use super::seen::Wanted;
use super::tree::Tree;
use super::window::{News, Run, Scanned, Sink};
use crate::backend::Backend;
use crate::filesystem::FilesystemBackend;
use crate::key::Key;
use crate::record::AdoptionRecord;
use crate::store::Store;

/// How many links are read before they are adopted.
const WINDOW: usize = 2000;
/// How many repositories are read before they are adopted.
const WINDOW_REPOSITORIES: usize = 256;

/// How a tree is adopted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AdoptOptions {
    /// Compare the content of every blob with its digest, which reads all of it. Otherwise that is done only for
    /// manifests, for blobs of up to 16 KiB, and for blobs whose size differs from the size in a manifest. The default
    /// is `false`.
    pub verify: bool,
    /// Adopt even into a store that has content already, and again what was adopted before. The default is `false`.
    pub again: bool,
}

impl AdoptOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`verify`](Self::verify).
    #[must_use]
    pub const fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets [`again`](Self::again).
    #[must_use]
    pub const fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }
}

/// How far the adoption of a tree has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It was never begun, and the store is empty.
    NotBegun,
    /// It was never begun, and the store has its own content.
    OwnContent,
    /// It was begun at this time, and its process ended before it was finished.
    Begun(Timestamp),
    /// It was finished at this time.
    Finished(Timestamp),
}

/// Why a tree was not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// A file of the tree cannot get a second name, so its bytes would have to be copied.
    #[error("{} cannot get a second name beside the records of this registry; {}", file.display(), remedy(cause))]
    Link {
        /// The file.
        file: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// The store has content that does not come from the tree.
    #[error(
        "the store has content of its own already; adopt again to add what the tree has, where the newer of two tags wins"
    )]
    OwnContent,
    /// Another adoption into this store is in progress.
    #[error("an adoption goes on already")]
    Running,
    /// The tree was adopted before.
    #[error("the tree was adopted at {0} already; adopt again to add what it has since")]
    Finished(Timestamp),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Returns what to do when a file cannot be linked.
fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::CrossesDevices => {
            "the folder `docker` and this registry's files have to be on one file system and in one mount"
        }
        io::ErrorKind::PermissionDenied => {
            "run this registry as the owner of the files, or change their owner; a file system without hard links has to \
             be left for another one"
        }
        io::ErrorKind::Unsupported => "the file system has no hard links; move the data to one that has",
        io::ErrorKind::TooManyLinks => {
            "the file has as many names as the file system allows; put a copy in its place"
        }
        _ => "nothing was changed in the tree; start again to go on",
    }
}

/// Returns how far the adoption of the tree on a store's disk has progressed.
///
/// # Errors
/// Those of the store.
pub async fn adoption<B: Backend>(store: &Store<B>) -> Result<Adoption, Error> {
    Ok(match record::read(store).await? {
        Some(AdoptionRecord {
            finished: Some(finished),
            ..
        }) => Adoption::Finished(finished),
        Some(record) => Adoption::Begun(record.begun),
        None if store.is_empty().await? => Adoption::NotBegun,
        None => Adoption::OwnContent,
    })
}

/// Returns whether the objects of a store include a tree, and nothing of the store itself. The bytes of a tree in a
/// bucket are not adopted, so serving such a store serves an empty registry.
///
/// # Errors
/// Those of the store.
pub async fn is_unadopted<B: Backend>(store: &Store<B>) -> Result<bool, Error> {
    let tree = Key::from_stored(&format!("{}/", layout::TREE));
    let has_tree = !store.backend().list(&tree, None, 1).await?.is_empty();
    Ok(has_tree && store.is_empty().await?)
}

/// Adds the content of a tree on the same file system to a store.
///
/// Records are written with the transactions of uploads and pushes, and files get a second name, so the tree stays as
/// it is and only the content of blobs of up to 16 KiB is copied. What is broken is reported to `observer`, and
/// everything else is adopted. A manifest with missing children is adopted without them, as it was served.
///
/// It may be ended at any point, even by a loss of power, and begun again: it continues where it was. If repeated on
/// purpose, it adds what the tree has and the store does not. If both have a tag, the one that was written later wins,
/// by the time of the link's file. Deletes are not recorded: what was deleted on one side only reappears, or stays.
///
/// Cancel safety: a dropped future leaves what a killed process leaves.
///
/// # Errors
/// [`AdoptError`]; what was adopted before an error stays.
pub async fn adopt(
    store: &Store<FilesystemBackend>,
    tree: &Tree,
    options: &AdoptOptions,
    observer: &mut dyn Observer,
) -> Result<AdoptReport, AdoptError> {
    // Its beginning drops what a dead adoption left behind, so only one may run at a time.
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    match adoption(store).await? {
        Adoption::Finished(when) if !options.again => return Err(AdoptError::Finished(when)),
        Adoption::OwnContent if !options.again => return Err(AdoptError::OwnContent),
        _ => {}
    }
    store.drop_adoption_sessions().await?;
    let begun = store.now();
    let before = record::begun(begun);
    record::write(store, before.clone()).await?;
    // Before anything is read: what is written meanwhile is seen by the next start.
    let looked = look(tree, &before).await?;
    let mut run = Run::new(tree, Sink::Store(store), options, observer);
    let report = run.all().await?;
    let is_partial = !report.defects.is_empty();
    let times = (begun, store.now());
    record::write(store, record::finished(begun, times, &looked, is_partial)).await?;
    Ok(report)
}

/// Gives a store what came into a tree since it was adopted.
///
/// That is the links that were not adopted yet, those that were written again, and what they name. What was deleted here
/// stays deleted, unless it was pushed there again. Returns nothing if nothing changed there, or the tree was not adopted yet.
///
/// Repositories in which nothing changed cost a look at the times of some folders and links; the links of others are compared
/// with those that were adopted. It may be ended at any point and begun anew.
///
/// # Errors
/// [`AdoptError`]; what was adopted before an error stays, and the rest is tried again at the next call.
pub async fn update(
    store: &Store<FilesystemBackend>,
    tree: &Tree,
    observer: &mut dyn Observer,
) -> Result<Option<AdoptReport>, AdoptError> {
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    let Some(before) = record::read(store)
        .await?
        .filter(|before| before.finished.is_some())
    else {
        return Ok(None);
    };
    let looked_at = store.now();
    let looked = look(tree, &before).await?;
    let changed = changed(&before, &looked);
    if changed.names.is_empty() {
        return Ok(None);
    }
    store.drop_adoption_sessions().await?;
    let options = AdoptOptions::new();
    let mut run = Run::new(tree, Sink::Store(store), &options, observer);
    run.news = Some(changed.news);
    let report = run.repositories(changed.names).await?;
    let is_partial = !report.defects.is_empty() || before.is_partial && !changed.is_all;
    let times = (looked_at, store.now());
    record::write(store, record::finished(before.begun, times, &looked, is_partial)).await?;
    Ok(Some(report))
}

/// Tells whether a tree that was adopted has something new, as [`update`] would find it. Nothing is written.
///
/// # Errors
/// Those of the store.
pub async fn has_news(store: &Store<FilesystemBackend>, tree: &Tree) -> Result<bool, AdoptError> {
    let Some(before) = record::read(store)
        .await?
        .filter(|before| before.finished.is_some())
    else {
        return Ok(false);
    };
    let changed = changed(&before, &look(tree, &before).await?);
    for name in changed.names {
        let wanted = wanted(store, changed.news, &name).await?;
        let tree = tree.clone();
        let has_some = spawn_blocking(move || wanted.has_any(&tree.read(&name)));
        if has_some.await.map_err(Error::internal)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the repositories to compare, and how new links are told from others.
pub(super) fn changed(before: &AdoptionRecord, looked: &Look) -> Changed {
    let newest = record::newest(before);
    let is_copy = before.folder.is_some() && before.folder != looked.folder;
    let news = match before.changed {
        None => News::After(newest),
        // Each link has the time when it was copied.
        Some(_) if is_copy && looked.oldest > newest => News::Unseen(Timestamp(newest.0.saturating_add(1))),
        Some(_) => News::New,
    };
    // What was broken may be whole now.
    let is_all = is_copy || before.changed.is_none() || before.is_partial && looked.has_new_content;
    let names = if is_all { &looked.all } else { &looked.changed };
    Changed {
        names: names.clone(),
        is_all,
        news,
    }
}

/// What of a tree is compared with what was adopted.
pub(super) struct Changed {
    pub(super) names: Vec<RepositoryName>,
    is_all: bool,
    pub(super) news: News,
}

/// Tells which links of a repository are new.
async fn wanted(
    store: &Store<FilesystemBackend>,
    news: News,
    name: &RepositoryName,
) -> Result<Wanted, AdoptError> {
    Ok(match news {
        News::New => Wanted::New(record::seen(store, name).await?),
        News::Unseen(time) => Wanted::Unseen(record::seen(store, name).await?, time),
        News::After(time) => Wanted::After(time),
    })
}

/// Notes which links of an adopted tree name what this store has, after it wrote to the tree: they are nothing to adopt once
/// that is deleted here.
///
/// # Errors
/// Those of the store.
pub async fn wrote_here(store: &Store<FilesystemBackend>, tree: &Tree) -> Result<(), AdoptError> {
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    let Some(before) = record::read(store).await? else {
        return Ok(());
    };
    for name in look(tree, &before).await?.changed {
        let tree = tree.clone();
        let read = {
            let name = name.clone();
            spawn_blocking(move || tree.read(&name))
        };
        let mut links = read.await.map_err(Error::internal)?;
        store.leave_missing(&mut links).await?;
        let mut seen = record::seen(store, &name).await?;
        seen.add(&links);
        record::write_seen(store, [(&name, &seen)]).await?;
    }
    Ok(())
}

/// Looks what changed in a tree since it was adopted.
pub(super) async fn look(tree: &Tree, before: &AdoptionRecord) -> Result<Look, AdoptError> {
    let tree = tree.clone();
    let since = before.changed.unwrap_or(Timestamp(0));
    // That of an adoption which just begins may become so.
    let with_content = before.is_partial || before.finished.is_none();
    let looked = spawn_blocking(move || tree.look(since, with_content)).await;
    Ok(looked.map_err(Error::internal)?)
}

impl<'r> Run<'r> {
    pub(super) fn new(
        tree: &'r Tree,
        sink: Sink<'r>,
        options: &'r AdoptOptions,
        observer: &'r mut dyn Observer,
    ) -> Self {
        Self {
            tree,
            sink,
            options,
            news: None,
            is_synced: false,
            settled: 0,
            with_some: 0,
            read: Arc::default(),
            report: AdoptReport::default(),
            observer,
        }
    }

    pub(super) async fn all(&mut self) -> Result<AdoptReport, AdoptError> {
        let tree = self.tree.clone();
        let list = move || {
            let mut defects = Vec::new();
            let names = tree.repositories(&mut defects);
            (names, defects)
        };
        let (names, defects) = spawn_blocking(list).await.map_err(Error::internal)?;
        for defect in &defects {
            self.note(defect).await;
        }
        self.repositories(names).await
    }

    pub(super) async fn repositories(
        &mut self,
        names: Vec<RepositoryName>,
    ) -> Result<AdoptReport, AdoptError> {
        let names = self.survey_links(names).await?;
        self.observer.progress(&self.report);
        let mut window: Vec<Scanned> = Vec::new();
        for (name, links) in names {
            let wanted = match (self.news, self.sink.store()) {
                (Some(news), Some(store)) => wanted(store, news, &name).await?,
                _ => Wanted::All,
            };
            let tree = self.tree.clone();
            let scanned = spawn_blocking(move || Scanned::read(&tree, &name, links, &wanted));
            window.push(scanned.await.map_err(Error::internal)?);
            let weight: usize = window.iter().map(Scanned::weight).sum();
            if weight >= WINDOW || window.len() >= WINDOW_REPOSITORIES {
                self.take(std::mem::take(&mut window)).await?;
            }
        }
        self.take(window).await?;
        // The rest are manifests, and content that nothing names.
        self.report.content_done = self.report.content;
        if self.news.is_some() {
            self.report.repositories_done = self.with_some;
        }
        self.observer.progress(&self.report);
        Ok(self.report.clone())
    }

    /// Counts what there is to do, so that the caller knows how much is left. Returns how many links each repository
    /// has.
    async fn survey_links(
        &mut self,
        names: Vec<RepositoryName>,
    ) -> Result<Vec<(RepositoryName, u64)>, AdoptError> {
        let tree = self.tree.clone();
        let reads_all = self.options.verify && self.news.is_none();
        let count = move || {
            let counted = names.into_iter().map(|name| {
                let links = tree.count_links(&name);
                (name, links)
            });
            counted.collect::<Vec<_>>()
        };
        let counted = spawn_blocking(count).await.map_err(Error::internal)?;
        self.report.repositories = counted.len() as u64;
        self.report.links = counted.iter().map(|(_, links)| links).sum();
        if reads_all {
            let amount = Amount::of(self.tree.folder(), self.sink.store()).await?;
            self.report.content = amount.all;
            // Stored content is not compared again.
            self.report.content_done = amount.stored;
            self.read.store(amount.stored, Ordering::Relaxed);
        }
        Ok(counted)
    }
}
