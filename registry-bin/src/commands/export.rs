//! `registry-bin export`.

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
  registry-bin export --layout distribution /srv/back --storage /var/lib/registry
  registry-bin export --layout distribution /var/lib/registry --config /etc/docker/registry/config.yml
  registry-bin export --layout oci app.tar team/app --storage /srv/registry
  registry-bin export --layout oci /srv/images --storage s3://bucket/prefix
  skopeo copy oci:/srv/images:team/app:v1 docker://example.com/team/app:v1

distribution: an empty folder gets exactly what is here. The adopted folder gets what it lacks, and tags are moved; nothing is
deleted there, so what was deleted only here remains. Content is linked on the same file system and copied elsewhere.

oci: an image layout of the named repositories, or of all, as a folder or an archive: tags, what they reach, and what refers
to that. Images are named TAG if one repository is named, and REPOSITORY:TAG otherwise.

A running server does the work itself and writes files with its own rights. An interrupted export can be started again.")]
pub(crate) struct Export {
    /// The layout of the files.
    #[arg(long, value_enum)]
    layout: Layout,

    /// Where to write: for `distribution` that registry's `rootdirectory`, for `oci` a folder or FILE.tar.
    #[arg(value_name = "DIR|FILE.tar")]
    target: PathBuf,

    /// The repositories to export, with `oci`. [default: all]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    #[command(flatten)]
    store: StoreArguments,
}

/// A layout of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// The folders of registry:2 and registry:3.
    Distribution,
    /// OCI image layouts.
    Oci,
}

/// Exports the content of a registry.
pub(crate) fn run(export: &Export) -> Result<bool, Failure> {
    let loaded = load(&export.store, &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let target = absolute(&export.target)?;
    let request = match export.layout {
        Layout::Distribution if export.repositories.is_empty() => {
            ControlRequest::ExportDistribution { target }
        }
        Layout::Distribution => {
            return Err(Failure::new(
                "--layout distribution writes the whole registry; name repositories with --layout oci",
            ));
        }
        Layout::Oci => ControlRequest::ExportOci {
            target,
            repositories: export.repositories.clone(),
        },
    };
    execute(&location, request)
}
