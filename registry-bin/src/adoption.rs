//! Adoption of what the distribution registry left on the same disk, and how it is shown.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use registry_storage::distribution::{
    AdoptOptions, AdoptReport, Adoption, Defect, Observer, Tree, adopt, adoption, is_unadopted,
};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::{Backend, Store};

use crate::failure::Failure;
use crate::storage::StorageLocation;

/// How often the log says how far an adoption came.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Adopts what is below `root` if that was not done and nothing else is in the store, before it is served.
///
/// # Errors
/// Why it cannot be adopted. The registry must not be served then: clients would find it empty.
pub(crate) async fn adopt_before_serving(
    store: &Store<FilesystemBackend>,
    root: &Path,
) -> Result<(), Failure> {
    let Some(tree) = Tree::find(root) else {
        return Ok(());
    };
    let failed = || Failure::new(format!("cannot adopt what registry:2 left in {}", root.display()));
    match adoption(store).await.map_err(|cause| failed().because(cause))? {
        Adoption::NotBegun | Adoption::Begun(_) => {
            tracing::info!(
                root = %root.display(),
                "adopting what the distribution registry left here; its files stay as they are"
            );
            let mut show = Show::new();
            let adopted = adopt(store, &tree, &AdoptOptions::new(), &mut show).await;
            show.end();
            let report = adopted.map_err(|cause| failed().because(cause))?;
            tracing::info!("adopted {}", describe(&report));
        }
        Adoption::Finished(when) => {
            if tree.has_changed_since(when) {
                tracing::warn!(
                    adopted = %when,
                    "the distribution registry was pushed to after its data was adopted here; `registry-bin adopt --again` \
                     adds that"
                );
            }
        }
        Adoption::OwnContent => tracing::warn!(
            root = %root.display(),
            "there is data of the distribution registry beside that of this one; `registry-bin adopt --again` adds it"
        ),
    }
    Ok(())
}

/// Refuses a bucket that has the distribution registry's data and nothing of ours: served, it would look empty.
///
/// # Errors
/// What to do instead.
pub(crate) async fn refuse_unadopted<B: Backend>(
    store: &Store<B>,
    place: &StorageLocation,
) -> Result<(), Failure> {
    let failed = || Failure::new(format!("cannot use {place}"));
    match is_unadopted(store).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(failed().because(
            "it has the data of the distribution registry, which is adopted from a folder only, not from a bucket; \
             copy the images with a client (`skopeo sync`), or name another prefix (`rootdirectory`) to begin empty",
        )),
        Err(cause) => Err(failed().because(cause)),
    }
}

/// Says what was adopted, and what not.
pub(crate) fn describe(report: &AdoptReport) -> String {
    let mut text = format!(
        "{} repositories, {} manifests, {} tags, {} blobs ({})",
        report.repositories_done,
        report.manifests,
        report.tags,
        report.blobs,
        HumanBytes(report.bytes)
    );
    // Writing to a string cannot fail.
    if report.kept_tags > 0 {
        let _ = write!(text, "; {} tags were newer here and stay", report.kept_tags);
    }
    if report.uploads > 0 {
        let _ = write!(text, "; {} uploads in progress were left", report.uploads);
    }
    if report.defects.is_empty() {
        text.push_str("; nothing was broken");
    } else {
        let counts: Vec<_> = report
            .defects
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let _ = write!(text, "; broken, each named above: {}", counts.join(", "));
    }
    text
}

/// Shows an adoption: a bar on a terminal, else lines of the log. What is broken is always in the log.
pub(crate) struct Show {
    bar: Option<ProgressBar>,
    logged: Instant,
}

impl Show {
    pub(crate) fn new() -> Self {
        Self {
            bar: io::stderr().is_terminal().then(bar),
            logged: Instant::now(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Show {
    fn progress(&mut self, report: &AdoptReport) {
        if let Some(bar) = &self.bar {
            bar.set_length(report.repositories);
            bar.set_position(report.repositories_done);
            bar.set_message(format!(
                "{} blobs, {} manifests, {} tags",
                report.blobs, report.manifests, report.tags
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
    }

    fn defect(&mut self, defect: &Defect) {
        let log = || tracing::warn!("not adopted: {defect}");
        match &self.bar {
            Some(bar) => bar.suspend(log),
            None => log(),
        }
    }
}

/// A bar of repositories on the standard error.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} repositories, {msg}") {
        bar.set_style(style);
    }
    bar
}
