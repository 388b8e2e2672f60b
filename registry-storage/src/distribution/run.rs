//! An adoption in progress.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use registry_core::{Digest, RepositoryName, Timestamp};

use super::adopt::wanted;
use super::defect::Defect;
use super::error::AdoptError;
use super::linkable::LinkRules;
use super::options::AdoptOptions;
use super::report::AdoptReport;
use super::scanned::Scanned;
use super::seen::Wanted;
use super::source::Source;
use crate::observer::{Finding, MaintenanceObserver, Step};
use crate::store::Store;

/// How many links are read before they are adopted.
const LINKS_PER_WINDOW: usize = 2000;
/// How many repositories are read before they are adopted.
const REPOSITORIES_PER_WINDOW: usize = 256;

/// The destination of adopted content.
pub(super) enum Sink<'s, B> {
    /// Into a store.
    Store(&'s Store<B>),
    /// Nowhere: it is only counted.
    Nowhere(Nowhere<'s, B>),
}

impl<'s, B> Sink<'s, B> {
    /// Returns the store that has, or would get, the content.
    pub(super) const fn store(&self) -> Option<&'s Store<B>> {
        match self {
            Self::Store(store) => Some(*store),
            Self::Nowhere(nowhere) => nowhere.store,
        }
    }
}

/// What is known where content is only counted.
pub(super) struct Nowhere<'s, B> {
    /// What the store has is not counted.
    pub(super) store: Option<&'s Store<B>>,
    /// The blobs that were counted, so that each is counted once.
    pub(super) seen: BTreeSet<Digest>,
    /// Whether files could get second names, if they would have to.
    pub(super) rules: Option<LinkRules>,
    /// The first file that could not.
    pub(super) refused: Option<AdoptError>,
}

/// The state of an adoption.
pub(super) struct Run<'r, S: Source> {
    pub(super) tree: &'r S,
    pub(super) sink: Sink<'r, S::Backend>,
    pub(super) options: &'r AdoptOptions,
    /// How it is told what is new, if that is all that is wanted.
    pub(super) news: Option<News>,
    /// The files of the tree were synced together.
    pub(super) is_synced: bool,
    /// The links of the repositories that are done.
    pub(super) settled: u64,
    /// How many repositories had something to adopt.
    pub(super) with_some: u64,
    /// How many bytes were compared with their digests.
    pub(super) read: Arc<AtomicU64>,
    pub(super) report: AdoptReport,
    pub(super) observer: &'r dyn MaintenanceObserver,
}

/// How the links that are new are told from others.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// As [`Wanted::New`].
    New,
    /// As [`Wanted::Unseen`].
    Unseen(Timestamp),
    /// As [`Wanted::After`].
    After(Timestamp),
}

impl<'r, S: Source> Run<'r, S> {
    pub(super) fn new(
        tree: &'r S,
        sink: Sink<'r, S::Backend>,
        options: &'r AdoptOptions,
        observer: &'r dyn MaintenanceObserver,
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

    /// Reports that some links of unfinished repositories are done.
    pub(super) fn tell(&mut self, links: usize) {
        let done = self.report.links_done.saturating_add(links as u64);
        self.report.links_done = done.min(self.report.links);
        self.report.content_done = self.read.load(Ordering::Relaxed).min(self.report.content);
        self.report_progress();
    }

    /// Reports how much was adopted so far: in the step that takes most of the time, and in full.
    pub(super) fn report_progress(&self) {
        let report = &self.report;
        let (step, done, total) = if report.content > 0 {
            (Step::Content, report.content_done, report.content)
        } else {
            (Step::Links, report.links_done, report.links)
        };
        self.observer.step(step, done, Some(total));
        self.observer.adopted(report);
    }

    pub(super) async fn note(&mut self, defect: Defect) {
        self.report.note(&defect);
        self.observer.found(Finding::NotAdopted(defect)).await;
    }
}

impl<S: Source> Run<'_, S> {
    pub(super) async fn all(&mut self) -> Result<AdoptReport, AdoptError> {
        let found = self.tree.repositories().await?;
        for defect in found.defects {
            self.note(defect).await;
        }
        self.counted(found.counted).await
    }

    pub(super) async fn repositories(
        &mut self,
        names: Vec<RepositoryName>,
    ) -> Result<AdoptReport, AdoptError> {
        let counted = self.tree.count_links(names).await?;
        self.counted(counted).await
    }

    /// Takes repositories, each with the number of its links.
    async fn counted(&mut self, names: Vec<(RepositoryName, u64)>) -> Result<AdoptReport, AdoptError> {
        self.count_work(&names).await?;
        self.report_progress();
        let mut window: Vec<Scanned> = Vec::new();
        for (name, links) in names {
            let wanted = match (self.news, self.sink.store()) {
                (Some(news), Some(store)) => wanted(store, news, &name).await?,
                _ => Wanted::All,
            };
            window.push(self.tree.scan(name, links, wanted).await?);
            let weight: usize = window.iter().map(Scanned::weight).sum();
            if weight >= LINKS_PER_WINDOW || window.len() >= REPOSITORIES_PER_WINDOW {
                if !self.goes_on().await? {
                    return Ok(self.report.clone());
                }
                self.take(std::mem::take(&mut window)).await?;
            }
        }
        if !self.goes_on().await? {
            return Ok(self.report.clone());
        }
        self.take(window).await?;
        // The rest are manifests, and content that nothing names.
        self.report.content_done = self.report.content;
        if self.news.is_some() {
            self.report.repositories_done = self.with_some;
        }
        self.report_progress();
        Ok(self.report.clone())
    }

    /// Returns `false` if another process finished this.
    async fn goes_on(&self) -> Result<bool, AdoptError> {
        Ok(match self.sink.store() {
            Some(store) => self.tree.goes_on(store).await?,
            None => true,
        })
    }

    /// Counts what there is to do, so that the caller knows how much is left.
    async fn count_work(&mut self, counted: &[(RepositoryName, u64)]) -> Result<(), AdoptError> {
        self.report.repositories = counted.len() as u64;
        self.report.links = counted.iter().map(|(_, links)| links).sum();
        if self.options.verify && self.news.is_none() {
            let amount = self.tree.amount(self.sink.store()).await?;
            self.report.content = amount.all;
            // Stored content is not compared again.
            self.report.content_done = amount.stored;
            self.read.store(amount.stored, Ordering::Relaxed);
        }
        Ok(())
    }
}
