//! Export of a store as files that other programs can read.

use std::path::Path;

use indicatif::HumanBytes;
use registry_storage::Store;
use registry_storage::distribution::{self, ExportOptions, ExportReport, Tree};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::progress::{Progress as _, Step};

use super::count::count;
use super::{Outcome, Reporter};
use crate::failure::Failure;
use crate::ownership::WithOwner as _;
use crate::storage::AnyStore;

/// Exports the folders of the distribution registry.
pub(super) async fn distribution(
    target: &Path,
    store: &AnyStore,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let mut progress = |report: &ExportReport| {
        let (step, done, total) = if report.content > 0 {
            (Step::Copying, report.content_done, report.content)
        } else {
            (Step::Links, report.grants + report.manifests, report.links)
        };
        // What is pushed meanwhile is counted too.
        reporter.step(step, done, Some(total.max(done)));
    };
    let exported = match store {
        AnyStore::Disk(store) => {
            let root = store.backend().root();
            let options = ExportOptions::new().link_from(root);
            let exported = distribution::export(store, target, &options, &mut progress).await;
            if let (Some(tree), Ok(_)) = (tree_of(store, target), &exported) {
                distribution::wrote_here(store, &tree)
                    .await
                    .map_err(|cause| failure(target).because(cause))?;
            }
            exported
        }
        AnyStore::Objects(store) => {
            distribution::export(store, target, &ExportOptions::new(), &mut progress).await
        }
    };
    let report = exported.map_err(|cause| failure(target).because(cause.with_owner()))?;
    let folder = target.display();
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

/// Returns the tree that the export wrote to, if it is the one beside the store: what the export writes there must not be
/// adopted again.
fn tree_of(store: &Store<FilesystemBackend>, target: &Path) -> Option<Tree> {
    let root = store.backend().root();
    let is_same = target.canonicalize().ok() == root.canonicalize().ok();
    Tree::find(root).ok().flatten().filter(|_| is_same)
}

fn failure(target: &Path) -> Failure {
    let message = format!(
        "{} was not exported as a whole; it can be started again",
        target.display()
    );
    Failure::new(message)
}
