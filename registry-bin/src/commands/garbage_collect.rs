//! `registry-bin garbage-collect`, which the cron jobs of registry:2 call.

use std::path::PathBuf;

use clap::Args;

/// The arguments of registry:2's command, whose flags take `=true` and `=false`.
#[derive(Debug, Args)]
pub(crate) struct GarbageCollect {
    /// The configuration of the registry.
    #[arg(value_name = "CONFIG")]
    _file: Option<PathBuf>,

    /// Has no effect, as nothing is collected.
    #[arg(short = 'd', long = "dry-run", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    _dry_run: Option<bool>,

    /// Has no effect, as nothing is collected.
    #[arg(short = 'm', long = "delete-untagged", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    _delete_untagged: Option<bool>,

    /// Has no effect: what there is to say is one sentence.
    #[arg(short = 'q', long = "quiet", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    _quiet: Option<bool>,
}

/// Explains the situation. Does not fail, because the usual job stops the registry, collects and starts it again, and
/// one that aborts on the first error would leave it stopped.
#[expect(
    clippy::print_stderr,
    reason = "whoever calls it must see it, and cron sends what is printed"
)]
pub(crate) fn run(_: &GarbageCollect) {
    eprintln!(
        "nothing was collected: on a disk the running server frees the layers that were deleted by itself, and layers that no \
         manifest names any more stay until each is deleted from its repositories (DELETE /v2/NAME/blobs/DIGEST)"
    );
}
