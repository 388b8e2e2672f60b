//! `registry-bin import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::HumanBytes;
use registry_core::RepositoryName;
use registry_storage::Maintenance;
use serde::{Deserialize, Serialize};

use crate::arguments::StoreArguments;
use crate::config::load;
use crate::control::{Command, NewFolder, Outcome, Reporter, absolute, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::WithOwner as _;

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
    let Layout::Oci = import.layout;
    let request = ImportOci {
        source: absolute(&import.source)?,
        repositories: import.repositories.clone(),
    };
    execute(&loaded.configuration, request)
}

/// An import of an image layout as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "import-oci", deny_unknown_fields)]
pub(super) struct ImportOci {
    source: PathBuf,
    repositories: Vec<RepositoryName>,
}

impl Command for ImportOci {
    fn changes_content(&self) -> bool {
        true
    }

    fn new_folder(&self) -> NewFolder {
        NewFolder::Created
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let source = self.source.display();
        let imported = store
            .import_layout(&self.repositories, &self.source, &reporter)
            .await;
        let report = imported.map_err(|cause| {
            let failed = Failure::new(format!(
                "{source} was not imported; what was stored so far stays, and it can be started again"
            ));
            failed.because(cause.with_owner())
        })?;
        let mut text = format!(
            "Imported {}, {} and {} from {source}; {} stored ({}).",
            count(report.repositories, "repository"),
            count(report.tags, "tag"),
            count(report.manifests, "manifest"),
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
}
