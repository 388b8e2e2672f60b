//! Export of a store as files that other programs can read.

use std::path::Path;

use indicatif::HumanBytes;
use registry_storage::Maintenance;
use registry_storage::distribution::ExportOptions;

use super::count::count;
use super::{Outcome, Reporter};
use crate::failure::Failure;
use crate::ownership::WithOwner as _;

/// Exports the folders of the distribution registry.
pub(super) async fn distribution(
    target: &Path,
    store: &dyn Maintenance,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let options = ExportOptions::new();
    let exported = store.export_distribution(target, &options, reporter).await;
    let report = exported.map_err(|cause| failure(target).because(cause.with_owner()))?;
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
