//! Running a command.

use std::sync::Arc;

use indicatif::HumanBytes;
use registry_storage::check::CheckOptions;
use registry_storage::distribution::AdoptOptions;
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::filesystem::backup::{BackupError, BackupReport};
use registry_storage::{Backend as _, Maintenance};

use super::count::count;
use super::{ControlRequest, Outcome, Reporter, adopt, export, images};
use crate::failure::Failure;
use crate::ownership::WithOwner as _;

/// Runs a command on an open store. Cancel safety: dropping the future stops the command, which can be started again.
///
/// # Errors
/// Why it failed.
pub(crate) async fn run(
    request: ControlRequest,
    store: &dyn Maintenance,
    reporter: Reporter,
) -> Result<Outcome, Failure> {
    match request {
        ControlRequest::Check {
            repair,
            verify_content,
            bytes_per_second,
        } => {
            let options = CheckOptions::new()
                .repair(repair)
                .verify_content(verify_content)
                .bytes_per_second(bytes_per_second);
            check(&options, store, &reporter).await
        }
        ControlRequest::Backup { target } => {
            let report = store.backup(&target, Arc::new(reporter)).await;
            let report = report.map_err(|cause| match cause {
                BackupError::NotOnDisk(_) => Failure::new(
                    "a backup is made of a folder. For a bucket, turn on its versioning or replication, or copy the \
                     images with `export --layout oci`",
                ),
                cause => Failure::new(format!("no backup was made in {}", target.display()))
                    .because(cause.with_owner()),
            })?;
            Ok(Outcome {
                text: format!(
                    "The backup in {} is whole: {}.",
                    target.display(),
                    describe(&report)
                ),
                is_success: report.missing == 0,
            })
        }
        ControlRequest::Adopt {
            verify,
            again,
            dry_run,
        } => {
            let options = AdoptOptions::new().verify(verify).again(again);
            if dry_run {
                return adopt::survey_into(&options, store, &reporter).await;
            }
            adopt::adopt(&options, store, &reporter).await
        }
        ControlRequest::ExportDistribution { target } => {
            export::distribution(&target, store, &reporter).await
        }
        ControlRequest::ExportOci { target, repositories } => {
            images::export(&target, &repositories, store, &reporter).await
        }
        ControlRequest::ImportOci { source, repositories } => {
            images::import(&source, &repositories, store, &reporter).await
        }
    }
}

async fn check(
    options: &CheckOptions,
    store: &dyn Maintenance,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let checked = store.check(options, reporter).await;
    let report = checked.map_err(|cause| Failure::new("the check ended early").because(cause))?;
    let mut text = count(report.records, "record");
    if options.verify_content {
        text += &format!(" and {} of content", HumanBytes(report.content));
    }
    text += &match (report.broken, report.repaired) {
        (0, _) => ": nothing is broken.".to_owned(),
        (1, 0) if !options.repair => ": 1 thing is broken. Repair it with --repair.".to_owned(),
        (broken, 0) if !options.repair => format!(": {broken} things are broken. Repair them with --repair."),
        (1, 0) => ": 1 thing was broken, and is not repaired.".to_owned(),
        (1, _) => ": 1 thing was broken, and is repaired now.".to_owned(),
        (broken, repaired) => format!(": {broken} things were broken, {repaired} of them are repaired now."),
    };
    if report.notices > 0 {
        text += &format!(" {} may be meant so.", count(report.notices, "thing"));
    }
    if report.unnamed_bytes > 0 {
        text += &format!(
            " {} of which no record knows; the sweeper deletes those.",
            count(report.unnamed_bytes, "byte string")
        );
    }
    if report.quarantined > 0 {
        text += &format!(" {} in quarantine.", count(report.quarantined, "record"));
    }
    if let Ok(store) = store.on_disk()
        && store.backend().is_copy()
    {
        text += &describe_copy(store.backend(), report.is_sound()).await?;
    }
    Ok(Outcome {
        text,
        is_success: report.is_sound(),
    })
}

/// Describes that a folder is a copy, and makes it the original if nothing is broken.
async fn describe_copy(folder: &FilesystemBackend, is_sound: bool) -> Result<String, Failure> {
    let said = " The folder is a copy of the one that its records were written in, ";
    if folder.is_read_only() || !is_sound {
        return Ok(format!(
            "{said}and lacks what came last if a server wrote there meanwhile; a copy that `backup` made does not."
        ));
    }
    let taken = folder.take_for_original().await;
    taken.map_err(|cause| Failure::new("the folder cannot be taken for the original").because(cause))?;
    Ok(format!("{said}and is taken for the original from now on."))
}

/// Describes the content of a backup.
pub(crate) fn describe(report: &BackupReport) -> String {
    let mut text = format!(
        "{} byte strings are linked, {} copied, {} in all",
        report.linked,
        report.copied,
        HumanBytes(report.size)
    );
    if report.copied > 0 {
        text += ", as the two folders can have no links between them";
    }
    if report.missing > 0 {
        text += &format!(
            "; {} were gone before, which `check` tells more of",
            report.missing
        );
    }
    text
}
