//! Writing what a store has as files that other programs understand.

use std::path::Path;

use indicatif::HumanBytes;
use registry_storage::distribution::{self, ExportOptions, ExportReport};
use registry_storage::progress::{Progress as _, Step};

use super::count::count;
use super::{Outcome, Reporter};
use crate::failure::Failure;
use crate::storage::AnyStore;

/// Writes the folders of the distribution registry.
pub(super) async fn distribution(
    target: &Path,
    store: &AnyStore,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let mut progress = |report: &ExportReport| {
        reporter.step(
            Step::Repositories,
            report.repositories_done,
            Some(report.repositories),
        );
    };
    let exported = match store {
        AnyStore::Disk(store) => {
            let options = ExportOptions::new().link_from(store.backend().root());
            distribution::export(store, target, &options, &mut progress).await
        }
        AnyStore::Objects(store) => {
            distribution::export(store, target, &ExportOptions::new(), &mut progress).await
        }
    };
    let report = exported.map_err(|cause| failure(target).because(cause))?;
    let folder = target.display();
    Ok(Outcome {
        text: format!(
            "Exported {}, {} and {}; {} linked, {} copied ({}).\n\
             Serve it with registry:2 and this configuration: storage.filesystem.rootdirectory: {folder}",
            count(report.repositories_done, "repository"),
            count(report.manifests, "manifest"),
            count(report.tags, "tag"),
            count(report.linked, "blob"),
            report.copied,
            HumanBytes(report.copied_bytes)
        ),
        is_success: true,
    })
}

fn failure(target: &Path) -> Failure {
    let message = format!(
        "{} was not exported as a whole; it can be started again",
        target.display()
    );
    Failure::new(message)
}
