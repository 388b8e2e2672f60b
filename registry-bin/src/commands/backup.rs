//! `registry-bin backup`.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::{ControlRequest, absolute, execute};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::StorageLocation;

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
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let request = ControlRequest::Backup {
        target: absolute(&backup.folder)?,
    };
    execute(&location, request)
}
