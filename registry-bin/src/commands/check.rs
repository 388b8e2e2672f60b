//! `registry-bin check`.

use clap::Args;

use crate::cli::ConfigArguments;
use crate::config::load;
use crate::control::{ControlRequest, execute};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::StorageLocation;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin check --storage /srv/registry                      every record, and that all bytes are there
  registry-bin check --storage /srv/registry --verify-content     also that the bytes are what their digests say
  registry-bin check --repair /etc/docker/registry/config.yml

It works beside a running server, which then does it, and on a bucket. The exit code is 1 where something is broken and
was not repaired. What cannot be repaired goes into quarantine with --repair: it is kept, clients are told 404, and a push
brings it back.")]
pub(crate) struct Check {
    #[command(flatten)]
    configuration: ConfigArguments,

    /// Repair what is safe to repair, and put the rest into quarantine.
    #[arg(long)]
    repair: bool,

    /// Read all content and compare its digest.
    #[arg(long)]
    verify_content: bool,

    /// How much content is read in a second at most, in MiB; 0 is no limit.
    #[arg(long, value_name = "MIB", default_value_t = 100, requires = "verify_content")]
    rate: u64,
}

/// Checks a store; `false` where something is broken and was not repaired.
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
