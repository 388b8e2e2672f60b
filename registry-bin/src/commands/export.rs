//! `registry-bin export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::HumanBytes;
use registry_core::RepositoryName;
use registry_storage::Maintenance;
use registry_storage::distribution::ExportOptions;
use serde::{Deserialize, Serialize};

use super::export_bucket;
use crate::arguments::{NamedStore, StoreArguments};
use crate::config::{Configuration, load};
use crate::control::{Command, Outcome, Reporter, absolute, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::WithOwner as _;
use crate::storage::StorageLocation;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin export --layout distribution /srv/back --storage /var/lib/registry
  registry-bin export --layout distribution /var/lib/registry --config /etc/docker/registry/config.yml
  registry-bin export --layout distribution --in-place --config /etc/docker/registry/config.yml
  registry-bin export --layout oci app.tar team/app --storage /srv/registry
  registry-bin export --layout oci /srv/images --storage s3://bucket/prefix
  skopeo copy oci:/srv/images:team/app:v1 docker://example.com/team/app:v1

distribution: an empty folder gets exactly what is here. The adopted folder gets what it lacks, and tags are moved; nothing is
deleted there, so what was deleted only here remains. Content is linked on the same file system and copied elsewhere.

distribution --in-place: the tree in the bucket of the configuration, below its `rootdirectory`, gets exactly what is here, so that
registry:2 can go on there. The bucket copies content that it lacks. The links of what was deleted here are deleted. It is refused
if registry:2 wrote there since the adoption, and what it wrote is not here.

oci: an image layout of the named repositories, or of all, as a folder or an archive: tags, what they reach, and what refers
to that. Images are named TAG if one repository is named, and REPOSITORY:TAG otherwise.

A running server does the work itself and writes files with its own rights. An interrupted export can be started again.")]
pub(crate) struct Export {
    /// The layout of the files.
    #[arg(long, value_enum)]
    layout: Layout,

    /// Where to write: for `distribution` that registry's `rootdirectory`, for `oci` a folder or FILE.tar.
    #[arg(
        value_name = "DIR|FILE.tar",
        required_unless_present = "in_place",
        conflicts_with = "in_place"
    )]
    target: Option<PathBuf>,

    /// The repositories to export, with `oci`. [default: all]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<RepositoryName>,

    /// Write into the bucket that this registry is in, with `distribution`.
    #[arg(long)]
    in_place: bool,

    /// With --in-place, delete even the links of what was broken when it was adopted, and is not here.
    #[arg(long, requires = "in_place")]
    allow_defects: bool,

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
    let Some(target) = &export.target else {
        return in_place(export, &loaded.configuration);
    };
    let target = absolute(target)?;
    match export.layout {
        Layout::Distribution if export.repositories.is_empty() => {
            execute(&loaded.configuration, ExportDistribution { target })
        }
        Layout::Distribution => Err(Failure::new(
            "--layout distribution writes the whole registry; name repositories with --layout oci",
        )),
        Layout::Oci => {
            let repositories = export.repositories.clone();
            execute(
                &loaded.configuration,
                ExportOci {
                    target,
                    repositories,
                    store: export.store.named(),
                },
            )
        }
    }
}

/// Exports into the bucket of the registry.
fn in_place(export: &Export, configuration: &Configuration) -> Result<bool, Failure> {
    if export.layout != Layout::Distribution {
        return Err(Failure::new(
            "only --layout distribution can be written --in-place",
        ));
    }
    if let StorageLocation::Folder(root) = StorageLocation::of(&configuration.storage)? {
        return Err(Failure::new(format!(
            "--in-place is for a bucket; name the folder instead: `export --layout distribution {}`",
            root.display()
        )));
    }
    let allow_defects = export.allow_defects;
    execute(configuration, export_bucket::ExportInPlace { allow_defects })
}

/// An export of the distribution registry's folders as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "export-distribution", deny_unknown_fields)]
pub(super) struct ExportDistribution {
    target: PathBuf,
}

impl Command for ExportDistribution {
    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let options = ExportOptions::new();
        let folder = self.target.display();
        let exported = store.export_distribution(&self.target, &options, &reporter).await;
        let report = exported.map_err(|cause| {
            let failed = Failure::new(format!(
                "{folder} was not exported as a whole; it can be started again"
            ));
            failed.because(cause.with_owner())
        })?;
        Ok(Outcome {
            text: format!(
                "Exported {}, {} and {}; {} linked, {} copied ({}).\n\
                 Serve it with registry:2 and this configuration: storage.filesystem.rootdirectory: {folder}",
                count(report.repositories_done, "repository"),
                count(report.manifests, "manifest"),
                count(report.tags, "tag"),
                count(report.linked, "blob"),
                report.copied,
                HumanBytes(report.copied_bytes)
            ),
            is_success: true,
        })
    }
}

/// An export of an image layout as it is sent to a server. If no repository is named, all are exported.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "export-oci", deny_unknown_fields)]
pub(super) struct ExportOci {
    target: PathBuf,
    repositories: Vec<RepositoryName>,
    #[serde(default, skip_serializing_if = "NamedStore::is_empty")]
    store: NamedStore,
}

impl Command for ExportOci {
    fn only_reads(&self) -> bool {
        true
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let target = self.target.display();
        let exported = store
            .export_layout(&self.repositories, &self.target, &reporter)
            .await;
        let report = exported.map_err(|cause| {
            let failed = Failure::new(format!(
                "{target} was not written as a whole; it can be started again"
            ));
            failed.because(cause.with_owner())
        })?;
        let mut text = format!(
            "Exported {}, {} and {} to {target}; {} written ({}).",
            count(report.repositories, "repository"),
            count(report.tags, "tag"),
            count(report.manifests, "manifest"),
            count(report.blobs, "blob"),
            HumanBytes(report.size)
        );
        if report.left_out > 0 {
            text += &format!(
                " {} left out, gone or damaged: `check{}` tells more.",
                count(report.left_out, "thing"),
                self.store
            );
        }
        Ok(Outcome {
            text,
            is_success: report.left_out == 0,
        })
    }
}
