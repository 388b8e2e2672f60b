//! `registry-bin import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use registry_core::RepositoryName;

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
  registry-bin import --layout oci app.tar team/app --storage /srv/registry
  registry-bin import --layout oci /srv/images --config /etc/docker/registry/config.yml

What skopeo, podman, buildah, BuildKit, containerd and `docker save` (since Docker 25) write can be read, unless it is
compressed. An image is stored as the repository that the layout says, without the host where `docker save` and containerd
say one; a layout of one repository can be given another name. Digests are compared, and tags are moved, also those of
tags.immutable. What is broken is left out and said, and the exit code is 1.

Beside a running server, the server does it: it must have the right to read the files. It may be interrupted and
started again.")]
pub(crate) struct Import {
    /// How the files are laid out.
    #[arg(long, value_enum)]
    layout: Layout,

    /// What to store.
    #[arg(value_name = "DIR|FILE.tar")]
    source: PathBuf,

    /// The repository to store the images as; of a layout of several, those to store. [default: as the layout says]
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

/// Stores images.
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
