//! Image layouts, written and read.

use std::path::Path;

use indicatif::HumanBytes;
use registry_core::{RepositoryName, Storage};
use registry_storage::layout;

use super::{Outcome, Reporter};
use crate::failure::Failure;

/// Writes repositories as an image layout.
pub(super) async fn export(
    target: &Path,
    repositories: &[RepositoryName],
    storage: &dyn Storage,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let exported = layout::export(storage, repositories, target, reporter).await;
    let report = exported.map_err(|cause| {
        let message = format!(
            "{} was not written as a whole; it can be started again",
            target.display()
        );
        Failure::new(message).because(cause)
    })?;
    let mut text = format!(
        "Exported {} repositories, {} tags and {} manifests to {}; {} blobs were written ({}).",
        report.repositories,
        report.tags,
        report.manifests,
        target.display(),
        report.blobs,
        HumanBytes(report.size)
    );
    if report.left_out > 0 {
        text += &format!(
            " {} things were left out, as they are gone or damaged: `check` tells more.",
            report.left_out
        );
    }
    Ok(Outcome {
        text,
        is_success: report.left_out == 0,
    })
}

/// Stores the images of a layout.
pub(super) async fn import(
    source: &Path,
    repositories: &[RepositoryName],
    storage: &dyn Storage,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let imported = layout::import(storage, source, repositories, reporter).await;
    let report = imported.map_err(|cause| {
        let message = format!(
            "{} was not imported; what was stored so far stays, and it can be started again",
            source.display()
        );
        Failure::new(message).because(cause)
    })?;
    let mut text = format!(
        "Imported {} repositories, {} tags and {} manifests from {}; {} blobs were new ({}).",
        report.repositories,
        report.tags,
        report.manifests,
        source.display(),
        report.blobs,
        HumanBytes(report.size)
    );
    if report.left_out > 0 {
        text += &format!(" {} things were left out.", report.left_out);
    }
    Ok(Outcome {
        text,
        is_success: report.left_out == 0,
    })
}
