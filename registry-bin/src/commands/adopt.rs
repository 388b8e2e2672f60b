//! `registry-bin adopt`.

use clap::Args;
use registry_storage::distribution::AdoptOptions;
use registry_storage::filesystem::is_root;

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::adopt::{find, survey};
use crate::control::{ControlRequest, execute, with_reporter};
use crate::failure::Failure;
use crate::logging::Logging;
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
    if command.dry_run && !is_root(root) {
        let options = AdoptOptions::new().verify(command.verify);
        let mut is_all = true;
        with_reporter(async |reporter| {
            let (text, all) = survey(root, &options, &reporter).await?;
            is_all = all;
            Ok(text)
        })?;
        return Ok(is_all || command.allow_defects);
    }
    let request = ControlRequest::Adopt {
        verify: command.verify,
        again: command.again,
        dry_run: command.dry_run,
    };
    Ok(execute(&location, request)? || command.allow_defects)
}
