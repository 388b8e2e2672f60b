//! `registry-bin restore`.

use std::path::PathBuf;

use clap::Args;
use registry_storage::filesystem::backup::restore;

use super::backup::describe;
use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::with_progress;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::{self, WithOwner as _};
use crate::storage::StorageLocation;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  registry-bin restore /srv/backup/monday --storage /srv/registry

The registry's folder must be empty or not exist. On the same file system, bytes are hard links to those of the backup,
which stays unchanged and can be used again.")]
pub(crate) struct Restore {
    /// The folder of the backup.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    #[command(flatten)]
    configuration: ConfigArguments,
}

/// Restores a backup. No server can have the folder, so this process does it.
pub(crate) fn run(command: &Restore) -> Result<(), Failure> {
    let loaded = load(&command.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let StorageLocation::Folder(root) = StorageLocation::of(&loaded.configuration.storage)? else {
        return Err(Failure::new(
            "a backup is restored into a folder; name one with --storage. A bucket is filled with `import --layout oci`",
        ));
    };
    ownership::require_user_of(&root)?;
    let failed = || {
        Failure::new(format!(
            "{} was not restored into {}",
            command.folder.display(),
            root.display()
        ))
    };
    with_progress(async |progress| {
        let report = restore(&command.folder, &root, progress).await;
        let report = report.map_err(|cause| failed().because(cause.with_owner()))?;
        Ok(format!(
            "Restored into {}: {}.",
            root.display(),
            describe(&report)
        ))
    })
}
