//! Export and import of image layouts.

use std::path::Path;

use indicatif::HumanBytes;
use registry_core::RepositoryName;
use registry_storage::Maintenance;

use super::count::count;
use super::{Outcome, Reporter};
use crate::failure::Failure;
use crate::ownership::WithOwner as _;

/// Exports repositories as an image layout.
pub(super) async fn export(
    target: &Path,
    repositories: &[RepositoryName],
    store: &dyn Maintenance,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let exported = store.export_layout(repositories, target, reporter).await;
    let report = exported.map_err(|cause| {
        let message = format!(
            "{} was not written as a whole; it can be started again",
            target.display()
        );
        Failure::new(message).because(cause.with_owner())
    })?;
    let mut text = format!(
        "Exported {}, {} and {} to {}; {} written ({}).",
        count(report.repositories, "repository"),
        count(report.tags, "tag"),
        count(report.manifests, "manifest"),
        target.display(),
        count(report.blobs, "blob"),
        HumanBytes(report.size)
    );
    if report.left_out > 0 {
        text += &format!(
            " {} left out, gone or damaged: `check` tells more.",
            count(report.left_out, "thing")
        );
    }
    Ok(Outcome {
        text,
        is_success: report.left_out == 0,
    })
}

/// Imports the images of a layout.
pub(super) async fn import(
    source: &Path,
    repositories: &[RepositoryName],
    store: &dyn Maintenance,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let imported = store.import_layout(repositories, source, reporter).await;
    let report = imported.map_err(|cause| {
        let message = format!(
            "{} was not imported; what was stored so far stays, and it can be started again",
            source.display()
        );
        Failure::new(message).because(cause.with_owner())
    })?;
    let mut text = format!(
        "Imported {}, {} and {} from {}; {} stored ({}).",
        count(report.repositories, "repository"),
        count(report.tags, "tag"),
        count(report.manifests, "manifest"),
        source.display(),
        count(report.blobs, "blob"),
        HumanBytes(report.size)
    );
    if report.left_out > 0 {
        text += &format!(" {} left out.", count(report.left_out, "thing"));
    }
    Ok(Outcome {
        text,
        is_success: report.left_out == 0,
    })
}
