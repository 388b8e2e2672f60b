//! Adoption, from its beginning to its end, which is recorded.

use std::path::Path;

use registry_core::{Error, RepositoryName, Timestamp};
use tokio::task::spawn_blocking;

use super::error::AdoptError;
use super::look::Look;
use super::options::AdoptOptions;
use super::record;
use super::report::AdoptReport;
use super::run::{News, Run, Sink};
use super::seen::Wanted;
use super::tree::Tree;
use crate::backend::Backend;
use crate::filesystem::FilesystemBackend;
use crate::observer::MaintenanceObserver;
use crate::record::AdoptionRecord;
use crate::store::Store;

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
    /// It was finished, and what came since is taken since this time; or its process ended before that was done.
    Updating(Timestamp),
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
        Some(record) if record.since.is_some() => Adoption::Updating(record.begun),
        Some(record) => Adoption::Begun(record.begun),
        None if store.is_empty().await? => Adoption::NotBegun,
        // Another replica may have begun in between, and what is there is what it adopted.
        None => match record::read(store).await? {
            Some(record) => Adoption::Begun(record.begun),
            None => Adoption::OwnContent,
        },
    })
}

/// Adopts a tree, as [`Maintenance::adopt`](crate::Maintenance::adopt) says.
pub(crate) async fn adopt(
    store: &Store<FilesystemBackend>,
    tree: &Tree,
    options: &AdoptOptions,
    observer: &dyn MaintenanceObserver,
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
/// stays deleted, unless it was pushed there again. Returns `None` if nothing changed there, or the tree was not adopted
/// yet.
///
/// Repositories in which nothing changed cost a look at the times of some folders and links; the links of others are compared
/// with those that were adopted. It may be ended at any point and begun anew.
///
/// # Errors
/// [`AdoptError`]; what was adopted before an error stays, and the rest is tried again at the next call.
pub async fn update(
    store: &Store<FilesystemBackend>,
    tree: &Tree,
    observer: &dyn MaintenanceObserver,
) -> Result<Option<AdoptReport>, AdoptError> {
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    let Some(before) = record::read(store)
        .await?
        .filter(|before| before.finished.is_some())
    else {
        return Ok(None);
    };
    let looked_at = store.now();
    let mut looked = look(tree, &before).await?;
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
    if is_partial && !before.is_partial {
        // The next start looks at content. What came before this one looked is known to be there, or missing.
        let tree = tree.clone();
        let content = spawn_blocking(move || tree.last_change_of_content()).await;
        looked.last_change = looked.last_change.max(content.map_err(Error::internal)?);
    }
    let times = (looked_at, store.now());
    record::write(store, record::finished(before.begun, times, &looked, is_partial)).await?;
    Ok(Some(report))
}

/// Returns whether a tree that was adopted has something new, as [`update`] would find it. Nothing is written.
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

/// Returns which links of a repository are new.
pub(super) async fn wanted<B: Backend>(
    store: &Store<B>,
    news: News,
    name: &RepositoryName,
) -> Result<Wanted, AdoptError> {
    Ok(match news {
        News::New => Wanted::New(record::seen(store, name).await?),
        News::Unseen(time) => Wanted::Unseen(record::seen(store, name).await?, time),
        News::After(time) => Wanted::After(time),
    })
}

/// After an export to `root`: if the adopted tree is there, notes which of its links name what this store has. They are
/// nothing to adopt once that is deleted here.
pub(crate) async fn note_export(store: &Store<FilesystemBackend>, root: &Path) -> Result<(), AdoptError> {
    let own = store.backend().root();
    let is_own = root.canonicalize().ok() == own.canonicalize().ok();
    let Some(tree) = Tree::find(own).ok().flatten().filter(|_| is_own) else {
        return Ok(());
    };
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    let Some(before) = record::read(store).await? else {
        return Ok(());
    };
    for name in look(&tree, &before).await?.changed {
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
