//! `registry-bin check`.

use clap::Args;

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::{ControlRequest, execute};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::StorageLocation;

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
    let location = StorageLocation::of(&loaded.configuration.storage)?;
    let request = ControlRequest::Check {
        repair: check.repair,
        verify_content: check.verify_content,
        bytes_per_second: (check.rate > 0).then(|| check.rate.saturating_mul(1024 * 1024)),
    };
    execute(&location, request)
}
