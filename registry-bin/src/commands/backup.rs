//! `registry-bin backup`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::HumanBytes;
use registry_storage::Maintenance;
use registry_storage::filesystem::backup::{BackupError, BackupReport};
use serde::{Deserialize, Serialize};

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::{Command, Outcome, Reporter, absolute, execute};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::WithOwner as _;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin backup /srv/backup/monday --storage /srv/registry
  registry-bin backup /srv/backup/monday /etc/docker/registry/config.yml

A running server makes the backup itself and writes DIR with its own rights. On the same file system, bytes are hard
links, which take no space until the registry deletes the originals; copy DIR elsewhere in case the disk is lost. Uploads in
progress are left out. A backup without backup.json was interrupted.")]
pub(crate) struct Backup {
    /// The folder to create; it must be empty or not exist.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    #[command(flatten)]
    configuration: ConfigArguments,
}

/// Makes a backup. Returns `false` if it is complete but the registry lacks content.
pub(crate) fn run(backup: &Backup) -> Result<bool, Failure> {
    let loaded = load(&backup.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let request = BackupRequest {
        target: absolute(&backup.folder)?,
    };
    execute(&loaded.configuration, request)
}

/// A backup as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "backup", deny_unknown_fields)]
pub(super) struct BackupRequest {
    target: PathBuf,
}

impl Command for BackupRequest {
    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let target = self.target.display();
        let report = store.backup(&self.target, Arc::new(reporter)).await;
        let report = report.map_err(|cause| match cause {
            BackupError::NotOnDisk(_) => Failure::new(
                "a backup is made of a folder. For a bucket, turn on its versioning or replication, or copy the images \
                 with `export --layout oci`",
            ),
            cause => Failure::new(format!("no backup was made in {target}")).because(cause.with_owner()),
        })?;
        Ok(Outcome {
            text: format!("The backup in {target} is whole: {}.", describe(&report)),
            is_success: report.missing == 0,
        })
    }
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
