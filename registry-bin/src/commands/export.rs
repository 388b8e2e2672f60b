//! `registry-bin export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::StoreArguments;
use crate::config::load;
use crate::control::{ControlRequest, absolute, execute};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::StorageLocation;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin export --layout distribution /srv/back --storage /var/lib/registry
  registry-bin export --layout distribution /var/lib/registry --config /etc/docker/registry/config.yml

distribution: into an empty folder it writes exactly what is here. Over the folder that was adopted it adds what is missing
and moves tags; it deletes nothing, so what was deleted only here is there still. Content on the same file system is
linked, else copied.

Beside a running server, the server does it: files are written with its rights. It may be interrupted and started again.")]
pub(crate) struct Export {
    /// How the files are laid out.
    #[arg(long, value_enum)]
    layout: Layout,

    /// Where to write: for `distribution` the `rootdirectory` of that registry.
    #[arg(value_name = "DIR")]
    target: PathBuf,

    #[command(flatten)]
    store: StoreArguments,
}

/// A layout of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// The folders of registry:2 and registry:3.
    Distribution,
}

/// Writes what a registry has.
pub(crate) fn run(export: &Export) -> Result<bool, Failure> {
    let loaded = load(&export.store, &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let target = absolute(&export.target)?;
    let request = match export.layout {
        Layout::Distribution => ControlRequest::ExportDistribution { target },
    };
    execute(&location, request)
}
