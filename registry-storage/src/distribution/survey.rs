//! Looking at what an adoption would do, without changing anything.

use std::collections::BTreeSet;
use std::path::Path;

use super::adopt::{changed, look};
use super::error::AdoptError;
use super::linkable::LinkRules;
use super::options::AdoptOptions;
use super::record;
use super::report::AdoptReport;
use super::run::{Nowhere, Run, Sink};
use super::source::Source;
use super::tree::Tree;
use crate::filesystem::{FilesystemBackend, is_writable};
use crate::observer::MaintenanceObserver;
use crate::store::Store;

/// What an adoption would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survey {
    /// What it would adopt.
    pub report: AdoptReport,
    /// Why it would end early: a file that cannot get a second name.
    pub refused: Option<AdoptError>,
}

/// Looks at what an adoption of `tree` into a new store in `root` would do. It has the digest of each blob in memory.
///
/// # Errors
/// None but that the runtime is shutting down.
pub async fn survey(
    tree: &Tree,
    root: &Path,
    options: &AdoptOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<Survey, AdoptError> {
    let sink = Sink::Nowhere(nowhere(root, None));
    let mut run = Run::new(tree, sink, options, observer);
    run.all().await?;
    Ok(run.into_survey())
}

/// Looks at what a store lacks of the tree beside it.
///
/// After an adoption that is what [`update`](super::update) would adopt; before, and with [`AdoptOptions::again`], what
/// [`Maintenance::adopt`](crate::Maintenance::adopt) would.
///
/// # Errors
/// Those of the store.
pub async fn survey_into(
    store: &Store<FilesystemBackend>,
    tree: &Tree,
    options: &AdoptOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<Survey, AdoptError> {
    let sink = Sink::Nowhere(nowhere(store.backend().root(), Some(store)));
    let mut run = Run::new(tree, sink, options, observer);
    let before = record::read(store).await?;
    match before.filter(|before| before.finished.is_some() && !options.again) {
        Some(before) => {
            let changed = changed(&before, &look(tree, &before).await?);
            run.news = Some(changed.news);
            run.repositories(changed.names).await?;
        }
        None => {
            run.all().await?;
        }
    }
    Ok(run.into_survey())
}

fn nowhere<'s>(root: &Path, store: Option<&'s Store<FilesystemBackend>>) -> Nowhere<'s, FilesystemBackend> {
    Nowhere {
        store,
        seen: BTreeSet::new(),
        // What is only read gets no second names.
        rules: is_writable(root).then(|| LinkRules::of(root)),
        refused: None,
    }
}

impl<S: Source> Run<'_, S> {
    pub(super) fn into_survey(self) -> Survey {
        let refused = match self.sink {
            Sink::Nowhere(nowhere) => nowhere.refused,
            Sink::Store(_) => None,
        };
        Survey {
            report: self.report,
            refused,
        }
    }
}
