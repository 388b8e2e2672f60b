//! `registry-bin adopt`.

use std::path::Path;

use clap::Args;
use registry_storage::distribution::{self, AdoptError, AdoptOptions, Adoption, Survey};
use registry_storage::filesystem::is_root;
use registry_storage::{Maintenance, NotOnDisk};
use serde::{Deserialize, Serialize};

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

Files get a second name (a hard link) below bytes/; the distribution registry's folder is never changed. Each defect is
printed and left out, and everything else is adopted; the exit code is then 1, unless --allow-defects is given. An
interrupted adoption can be started again. A running server does the work itself.")]
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

    /// Exit with 0 even if something is broken and left out.
    #[arg(long)]
    allow_defects: bool,
}

/// Adopts, or shows what would be adopted. Returns `false` if that is not everything there is.
pub(crate) fn run(command: &Adopt) -> Result<bool, Failure> {
    let loaded = load(&command.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let StorageLocation::Folder(root) = &location else {
        return Err(Failure::new(
            "only a folder can have data to adopt; name it with --storage FOLDER or by `storage.filesystem` of CONFIG",
        ));
    };
    // Before anything is created in a folder that was named by mistake.
    find(root)?;
    if command.dry_run && !is_root(root).map_err(|cause| cannot_look_into(root, &cause))? {
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
    let mut is_success = true;
    let text = match store.adopt(&find(root)?, options, reporter).await {
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
            return Err(failure(root).because(
                "this registry has content of its own there already; --again adds what the distribution registry has, \
                 and of two tags the newer one wins",
            ));
        }
        Err(cause) => return Err(failure(root).because(cause.with_owner())),
    };
    Ok(Outcome { text, is_success })
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
    let would = describe(&surveyed.report);
    let text = match came {
        Adoption::Finished(when) if !options.again && surveyed.report.is_empty() => {
            format!("It was adopted at {when}, and nothing came since.")
        }
        Adoption::Finished(when) if !options.again => {
            format!("It was adopted at {when}. The next start would adopt {would}.")
        }
        Adoption::OwnContent if !options.again => {
            format!(
                "With --again, as this registry has content of its own there already, would adopt {would}."
            )
        }
        _ => format!("Would adopt {would}."),
    };
    let (text, is_success) = with_refusal(text, surveyed);
    Ok(Outcome { text, is_success })
}

fn not_on_disk(cause: NotOnDisk) -> Failure {
    Failure::new("only what is in a folder can be adopted").because(cause)
}

/// Adds why it would fail, in the words of the adoption itself, and returns whether everything can be adopted.
fn with_refusal(text: String, surveyed: Survey) -> (String, bool) {
    match surveyed.refused {
        Some(cause) => (format!("{text}\nThis will fail: {}.", cause.with_owner()), false),
        None => (text, surveyed.report.defects.is_empty()),
    }
}
