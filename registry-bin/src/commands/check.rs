//! `registry-bin check`.

use clap::Args;
use indicatif::HumanBytes;
use registry_storage::check::CheckOptions;
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::{Backend as _, Maintenance};
use serde::{Deserialize, Serialize};

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::{Command, Outcome, Reporter, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin check --storage /srv/registry                      every record, and that its bytes are there
  registry-bin check --storage /srv/registry --verify-content     also that the bytes have their digests
  registry-bin check --repair /etc/docker/registry/config.yml

A running server does the work itself; buckets can be checked from anywhere. The exit code is 1 if something broken was not
repaired. With --repair, what cannot be repaired goes into quarantine: it is kept, clients get 404, and a push brings it
back.")]
pub(crate) struct Check {
    #[command(flatten)]
    configuration: ConfigArguments,

    /// Repair what can be repaired without loss, and put the rest into quarantine.
    #[arg(long)]
    repair: bool,

    /// Read all content and compare it with its digest.
    #[arg(long)]
    verify_content: bool,

    /// The most content to read per second, in MiB; 0 is no limit.
    #[arg(long, value_name = "MIB", default_value_t = 100, requires = "verify_content")]
    rate: u64,
}

/// Checks a store. Returns `false` if something is broken and was not repaired.
pub(crate) fn run(check: &Check) -> Result<bool, Failure> {
    let loaded = load(&check.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let request = CheckRequest {
        repair: check.repair,
        verify_content: check.verify_content,
        bytes_per_second: (check.rate > 0).then(|| check.rate.saturating_mul(1024 * 1024)),
    };
    execute(&loaded.configuration, request)
}

/// A check as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "check", deny_unknown_fields)]
pub(super) struct CheckRequest {
    repair: bool,
    verify_content: bool,
    /// The most bytes of content to read per second.
    bytes_per_second: Option<u64>,
}

impl Command for CheckRequest {
    fn only_reads(&self) -> bool {
        !self.repair
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let options = CheckOptions::new()
            .repair(self.repair)
            .verify_content(self.verify_content)
            .bytes_per_second(self.bytes_per_second);
        let checked = store.check(&options, &reporter).await;
        let report = checked.map_err(|cause| Failure::new("the check ended early").because(cause))?;
        let mut text = count(report.records, "record");
        if options.verify_content {
            text += &format!(" and {} of content", HumanBytes(report.content));
        }
        text += &match (report.broken.saturating_sub(report.missing), report.repaired) {
            (0, _) if report.missing > 0 => ": nothing else is broken.".to_owned(),
            (0, _) => ": nothing is broken.".to_owned(),
            (1, 0) if !options.repair => ": 1 thing is broken. Repair it with --repair.".to_owned(),
            (broken, 0) if !options.repair => {
                format!(": {broken} things are broken. Repair them with --repair.")
            }
            (1, 0) => ": 1 thing was broken, and is not repaired.".to_owned(),
            (1, _) => ": 1 thing was broken, and is repaired now.".to_owned(),
            (broken, repaired) => {
                format!(": {broken} things were broken, {repaired} of them are repaired now.")
            }
        };
        if report.missing > 0 {
            let missing = count(report.missing, "record");
            text += &format!(" Missing until it is pushed again: {missing} in quarantine.");
        }
        if report.notices > 0 {
            text += &format!(" {} may be meant so.", count(report.notices, "thing"));
        }
        if report.unnamed_bytes > 0 {
            text += &format!(
                " {} of which no record knows; the sweeper deletes those.",
                count(report.unnamed_bytes, "byte string")
            );
        }
        if report.quarantined > 0 {
            text += &format!(" In all {} in quarantine.", count(report.quarantined, "record"));
        }
        if let Ok(store) = store.on_disk()
            && store.backend().is_copy()
        {
            text += &describe_copy(store.backend(), report.is_sound()).await?;
        }
        Ok(Outcome {
            text,
            is_success: report.is_sound(),
        })
    }
}

/// Describes that a folder is a copy, and makes it the original if nothing is broken.
async fn describe_copy(folder: &FilesystemBackend, is_sound: bool) -> Result<String, Failure> {
    let copy_note = " The folder is a copy of the one that its records were written in, ";
    if folder.is_read_only() || !is_sound {
        return Ok(format!(
            "{copy_note}and lacks what came last if a server wrote there meanwhile; a copy that `backup` made does not."
        ));
    }
    let taken = folder.take_for_original().await;
    taken.map_err(|cause| Failure::new("the folder cannot be taken for the original").because(cause))?;
    Ok(format!("{copy_note}and is taken for the original from now on."))
}
