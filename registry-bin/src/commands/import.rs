//! `registry-bin import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use registry_core::RepositoryName;

use crate::arguments::StoreArguments;
use crate::config::load;
use crate::control::{ControlRequest, absolute, execute};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::StorageLocation;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin import --layout oci app.tar team/app --storage /srv/registry
  registry-bin import --layout oci /srv/images --config /etc/docker/registry/config.yml

Reads what skopeo, podman, buildah, BuildKit, containerd and `docker save` (since Docker 25) write, unless it is compressed.
Images go to the repository that the layout names, without the host that `docker save` and containerd add; a layout of one
repository can be given another name. Digests are compared, and tags are moved, even those of tags.immutable. Each defect is
printed and left out, and the exit code is then 1.

A running server does the work itself and must be able to read the files. An interrupted import can be started again.")]
pub(crate) struct Import {
    /// The layout of the files.
    #[arg(long, value_enum)]
    layout: Layout,

    /// What to import.
    #[arg(value_name = "DIR|FILE.tar")]
    source: PathBuf,

    /// The repository to import to; for a layout of several, those to import. [default: as the layout says]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    #[command(flatten)]
    store: StoreArguments,
}

/// A layout of files. Those of the distribution registry are adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// OCI image layouts.
    Oci,
}

/// Imports images.
pub(crate) fn run(import: &Import) -> Result<bool, Failure> {
    let loaded = load(&import.store, &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let Layout::Oci = import.layout;
    let request = ControlRequest::ImportOci {
        source: absolute(&import.source)?,
        repositories: import.repositories.clone(),
    };
    execute(&location, request)
}
