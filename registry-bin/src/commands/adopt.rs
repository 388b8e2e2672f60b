//! `registry-bin adopt`.

use std::io::Write as _;
use std::path::Path;

use registry_storage::Store;
use registry_storage::distribution::{AdoptError, AdoptOptions, Tree, adopt, survey};
use registry_storage::filesystem::FilesystemBackend;

use crate::adoption::{Show, describe};
use crate::cli::Adopt;
use crate::config::load;
use crate::control::block_on;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::storage::StorageLocation;

/// Adopts, or looks at what would be adopted.
pub(crate) fn run(command: &Adopt) -> Result<(), Failure> {
    let loaded = load(&command.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let StorageLocation::Folder(root) = StorageLocation::of(&loaded.configuration.storage)? else {
        return Err(Failure::new(
            "only a folder can have data to adopt; name it with --storage FOLDER or by `storage.filesystem` of CONFIG",
        ));
    };
    let text = block_on(run_in(command, &root))?;
    writeln!(std::io::stdout(), "{text}")
        .map_err(|cause| Failure::new("cannot write to the standard output").because(cause))
}

async fn run_in(command: &Adopt, root: &Path) -> Result<String, Failure> {
    let failed = || Failure::new(format!("cannot adopt what is in {}", root.display()));
    let tree = Tree::find(root).ok_or_else(|| {
        failed().because(
            "there is no folder docker/registry/v2/repositories; name the `rootdirectory` of the distribution registry",
        )
    })?;
    let options = AdoptOptions::new().verify(command.verify).again(command.again);
    let mut show = Show::new();
    if command.dry_run {
        let report = survey(&tree, &options, &mut show).await;
        show.end();
        let report = report.map_err(|cause| failed().because(cause))?;
        return Ok(format!("would adopt {}", describe(&report)));
    }
    let backend = FilesystemBackend::open(root)
        .await
        .map_err(|cause| failed().because(cause))?;
    let store = Store::new(backend);
    let adopted = adopt(&store, &tree, &options, &mut show).await;
    show.end();
    store.close().await.map_err(|cause| failed().because(cause))?;
    match adopted {
        Ok(report) => Ok(format!("adopted {}", describe(&report))),
        Err(AdoptError::Finished(when)) => Ok(format!(
            "it was adopted at {when}; nothing was done. --again adds what came since."
        )),
        Err(AdoptError::OwnContent) => Err(failed().because(
            "this registry has content of its own there already; --again adds what the distribution registry has, and \
             of two tags the newer one wins",
        )),
        Err(cause) => Err(failed().because(cause)),
    }
}
