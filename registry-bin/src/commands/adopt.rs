//! `registry-bin adopt`.

use std::path::Path;

use clap::Args;
use registry_storage::distribution::{self, AdoptError, AdoptOptions, AdoptReport, Adoption, Survey};
use registry_storage::filesystem::is_root;
use registry_storage::{Maintenance, NotOnDisk};
use serde::{Deserialize, Serialize};

use super::adopt_bucket;
use crate::adoption::{describe, failure, find};
use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::{Command, NewFolder, Outcome, Reporter, execute, with_reporter};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::ownership::{WithOwner as _, cannot_look_into};
use crate::storage::StorageLocation;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin adopt --dry-run /etc/docker/registry/config.yml     what there is, and what is broken
  registry-bin adopt --storage /var/lib/registry                   before the first start, which then is quick
  registry-bin adopt --again --storage /var/lib/registry           after the distribution registry was used again
  registry-bin adopt --release-old-tree CONFIG                     in a bucket, once there is no way back

In a folder, files get a second name (a hard link) below bytes/; the distribution registry's folder is never changed. In a bucket,
its objects are named where they are, and none is changed or deleted before --release-old-tree. Each defect is printed and left out,
and everything else is adopted; the exit code is then 1, unless --allow-defects is given. An interrupted adoption can be started
again. A running server of a folder does the work itself.")]
pub(crate) struct Adopt {
    #[command(flatten)]
    configuration: ConfigArguments,

    /// Only say what would be adopted and what is broken; change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Compare all content with its digest. By default only manifests, blobs of up to 16 KiB and blobs whose size
    /// contradicts a manifest are compared.
    #[arg(long)]
    verify: bool,

    /// Adopt again, or into a registry that has content: add what is missing here. Of two tags the newer one wins; what
    /// was deleted only here comes back.
    #[arg(long)]
    again: bool,

    /// Exit with 0 even if something is broken and left out; with --release-old-tree, delete that too.
    #[arg(long)]
    allow_defects: bool,

    /// Give up the distribution registry's tree in the bucket, after it was adopted: delete its links and what is not needed here.
    /// What is needed stays where it is, and is deleted like other content from then on. There is no way back.
    #[arg(long, conflicts_with_all = ["dry_run", "verify", "again"])]
    release_old_tree: bool,
}

/// Adopts, or shows what would be adopted. Returns `false` if that is not everything there is.
pub(crate) fn run(command: &Adopt) -> Result<bool, Failure> {
    let loaded = load(&command.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let root = match &location {
        StorageLocation::Memory => {
            return Err(Failure::new(
                "only a folder or a bucket can have data to adopt; name it with --storage or in CONFIG",
            ));
        }
        StorageLocation::Bucket(_) if command.release_old_tree => {
            let allow_defects = command.allow_defects;
            return execute(&loaded.configuration, ReleaseRequest { allow_defects });
        }
        StorageLocation::Bucket(_) => None,
        StorageLocation::Folder(root) if command.release_old_tree => {
            return Err(failure(root).because(
                "--release-old-tree is for a bucket; here the folder `docker` can be removed once there is no way back",
            ));
        }
        StorageLocation::Folder(root) => Some(root),
    };
    if let Some(root) = root {
        // Before anything is created in a folder that was named by mistake.
        find(root)?;
    }
    if let Some(root) = root
        && command.dry_run
        && !is_root(root).map_err(|cause| cannot_look_into(root, &cause))?
    {
        let options = AdoptOptions::new().verify(command.verify);
        let mut is_all = true;
        with_reporter(async |reporter| {
            let (text, all) = survey(root, &options, &reporter).await?;
            is_all = all;
            Ok(text)
        })?;
        return Ok(is_all || command.allow_defects);
    }
    let request = AdoptRequest {
        verify: command.verify,
        again: command.again,
        dry_run: command.dry_run,
    };
    Ok(execute(&loaded.configuration, request)? || command.allow_defects)
}

/// An adoption as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "adopt", deny_unknown_fields)]
pub(super) struct AdoptRequest {
    verify: bool,
    again: bool,
    /// Only say what would be adopted.
    dry_run: bool,
}

impl Command for AdoptRequest {
    fn only_reads(&self) -> bool {
        self.dry_run
    }

    fn new_folder(&self) -> NewFolder {
        NewFolder::Adopted
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let options = AdoptOptions::new().verify(self.verify).again(self.again);
        if let Some(store) = store.in_bucket() {
            return adopt_bucket::run(store, &options, self.dry_run, &reporter).await;
        }
        if self.dry_run {
            survey_into(&options, store, &reporter).await
        } else {
            adopt(&options, store, &reporter).await
        }
    }
}

/// Adopts the tree in the root of a store.
async fn adopt(
    options: &AdoptOptions,
    store: &dyn Maintenance,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let root = store.on_disk().map_err(not_on_disk)?.backend().root();
    let adopted = store.adopt(&find(root)?, options, reporter).await;
    outcome(adopted, || failure(root))
}

/// Says how an adoption ended.
pub(super) fn outcome(
    adopted: Result<AdoptReport, AdoptError>,
    failed: impl FnOnce() -> Failure,
) -> Result<Outcome, Failure> {
    let mut is_success = true;
    let text = match adopted {
        Ok(report) if report.defects.is_empty() => format!("Adopted {}.", describe(&report)),
        Ok(report) => {
            is_success = false;
            format!(
                "Adopted {}. Once the rest is put right, --again adds it.",
                describe(&report)
            )
        }
        Err(AdoptError::Finished(when)) => {
            format!("It was adopted at {when}; nothing was done. --again adds what came since.")
        }
        Err(AdoptError::OwnContent) => {
            return Err(failed().because(
                "this registry has content of its own there already; --again adds what the distribution registry has, \
                 and of two tags the newer one wins",
            ));
        }
        Err(cause) => return Err(failed().because(cause.with_owner())),
    };
    Ok(Outcome { text, is_success })
}

/// A release of the tree in a bucket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "release", deny_unknown_fields)]
struct ReleaseRequest {
    allow_defects: bool,
}

impl Command for ReleaseRequest {
    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        match store.in_bucket() {
            Some(store) => adopt_bucket::release(store, self.allow_defects, &reporter).await,
            None => Err(Failure::new("only the tree in a bucket can be released")),
        }
    }
}

/// Returns what would be adopted where there is no store yet, and whether that is everything. Changes nothing.
async fn survey(root: &Path, options: &AdoptOptions, reporter: &Reporter) -> Result<(String, bool), Failure> {
    let surveyed = distribution::survey(&find(root)?, root, options, reporter).await;
    let surveyed = surveyed.map_err(|cause| failure(root).because(cause))?;
    let text = format!("Would adopt {}.", describe(&surveyed.report));
    Ok(with_refusal(text, surveyed))
}

/// Returns what a store lacks of the tree in its root, and whether all of it can be adopted. Changes nothing.
async fn survey_into(
    options: &AdoptOptions,
    store: &dyn Maintenance,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let store = store.on_disk().map_err(not_on_disk)?;
    let root = store.backend().root();
    let failed = |cause: AdoptError| failure(root).because(cause);
    let came = distribution::adoption(store)
        .await
        .map_err(|cause| failed(cause.into()))?;
    let surveyed = distribution::survey_into(store, &find(root)?, options, reporter).await;
    let surveyed = surveyed.map_err(failed)?;
    let text = would(&came, options, &surveyed, "The next start");
    let (text, is_success) = with_refusal(text, surveyed);
    Ok(Outcome { text, is_success })
}

/// Says what would be adopted, and by whom after an adoption.
pub(super) fn would(came: &Adoption, options: &AdoptOptions, surveyed: &Survey, next: &str) -> String {
    let would = describe(&surveyed.report);
    match came {
        Adoption::Finished(when) if !options.again && surveyed.report.is_empty() => {
            format!("It was adopted at {when}, and nothing came since.")
        }
        Adoption::Finished(when) if !options.again => {
            format!("It was adopted at {when}. {next} would adopt {would}.")
        }
        Adoption::OwnContent if !options.again => {
            format!(
                "With --again, as this registry has content of its own there already, would adopt {would}."
            )
        }
        _ => format!("Would adopt {would}."),
    }
}

fn not_on_disk(cause: NotOnDisk) -> Failure {
    Failure::new("only what is in a folder can be adopted").because(cause)
}

/// Adds why it would fail, in the words of the adoption itself, and returns whether everything can be adopted.
pub(super) fn with_refusal(text: String, surveyed: Survey) -> (String, bool) {
    match surveyed.refused {
        Some(cause) => (format!("{text}\nThis will fail: {}.", cause.with_owner()), false),
        None => (text, surveyed.report.defects.is_empty()),
    }
}
