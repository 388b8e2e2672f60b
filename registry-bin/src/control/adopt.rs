//! Adoption of the distribution registry's data in a folder.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use async_trait::async_trait;
use indicatif::HumanBytes;
use registry_storage::distribution::{self, AdoptError, AdoptOptions, AdoptReport, Defect, Observer, Tree};
use registry_storage::progress::{Progress as _, Step};

use super::count::count;
use super::{Outcome, Reporter};
use crate::failure::Failure;
use crate::ownership::{WithOwner as _, owner_note};
use crate::storage::AnyStore;

/// Adopts the tree in the root of a store.
pub(super) async fn adopt(
    options: &AdoptOptions,
    store: &AnyStore,
    mut reporter: Reporter,
) -> Result<Outcome, Failure> {
    let AnyStore::Disk(store) = store else {
        return Err(Failure::new("only what is in a folder can be adopted"));
    };
    let root = store.backend().root();
    let mut is_success = true;
    let text = match distribution::adopt(store, &find(root)?, options, &mut reporter).await {
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

/// Returns what would be adopted, and whether that is everything. Changes nothing.
pub(crate) async fn survey(
    root: &Path,
    options: &AdoptOptions,
    mut reporter: Reporter,
) -> Result<(String, bool), Failure> {
    let failed = || failure(root);
    let tree = find(root)?;
    let report = distribution::survey(&tree, options, &mut reporter).await;
    let report = report.map_err(|cause| failed().because(cause))?;
    let mut text = format!("Would adopt {}.", describe(&report));
    let mut is_all = report.defects.is_empty();
    if !is_on_one_file_system(root, tree.folder()).map_err(|cause| failed().because(cause))? {
        is_all = false;
        let _ = write!(
            text,
            "\nThis will fail: {} is on another file system than {}, and files cannot get a second name across both. Make \
             the folder `docker` a plain one on the file system where its files are.",
            tree.folder().display(),
            root.display()
        );
    }
    Ok((text, is_all))
}

/// Finds the tree in a root.
///
/// # Errors
/// If there is none, or it cannot be examined.
pub(crate) fn find(root: &Path) -> Result<Tree, Failure> {
    find_if_there(root)?.ok_or_else(|| {
        failure(root).because(
            "there is no folder docker/registry/v2/repositories; name the `rootdirectory` of the distribution registry",
        )
    })
}

/// Finds the tree in a root, if there is one.
///
/// # Errors
/// If it cannot be examined.
pub(crate) fn find_if_there(root: &Path) -> Result<Option<Tree>, Failure> {
    Tree::find(root).map_err(|cause| {
        let remedy = match cause.kind() {
            io::ErrorKind::PermissionDenied => "run this registry as the owner of the files",
            _ => "name the folder that has docker/registry/v2 itself as `rootdirectory`",
        };
        let note = owner_note(root, &cause);
        failure(root).because(format!("{cause}{note}; {remedy}"))
    })
}

pub(crate) fn failure(root: &Path) -> Failure {
    Failure::new(format!(
        "cannot adopt what the distribution registry left in {}",
        root.display()
    ))
}

fn is_on_one_file_system(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(one.metadata()?.dev() == other.metadata()?.dev())
}

/// Describes what was adopted, and what was not.
pub(crate) fn describe(report: &AdoptReport) -> String {
    let mut text = format!(
        "{}, {}, {}, {} ({})",
        count(report.repositories_done, "repository"),
        count(report.manifests, "manifest"),
        count(report.tags, "tag"),
        count(report.blobs, "blob"),
        HumanBytes(report.bytes)
    );
    // Writing to a string cannot fail.
    if report.kept_tags > 0 {
        let _ = write!(text, "; {} stayed, newer here", count(report.kept_tags, "tag"));
    }
    if report.uploads > 0 {
        let _ = write!(text, "; {} in progress left out", count(report.uploads, "upload"));
    }
    if report.defects.is_empty() {
        text.push_str("; nothing was broken");
    } else {
        let counts: Vec<_> = report
            .defects
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let _ = write!(text, "; broken, each named above: {}", counts.join(", "));
    }
    text
}

/// Returns the step that takes most of the time of an adoption, how much of it is done, and how much there is.
pub(crate) const fn amount(report: &AdoptReport) -> (Step, u64, u64) {
    if report.content > 0 {
        (Step::Content, report.content_done, report.content)
    } else {
        (Step::Links, report.links_done, report.links)
    }
}

/// Describes what was not adopted, with its owner if it cannot be read.
pub(crate) fn not_adopted(defect: &Defect) -> String {
    let note = match defect {
        Defect::Unreadable { path, cause } => owner_note(path, cause),
        _ => String::new(),
    };
    format!("not adopted: {defect}{note}")
}

#[async_trait]
impl Observer for Reporter {
    fn progress(&mut self, report: &AdoptReport) {
        let (step, done, total) = amount(report);
        self.step(step, done, Some(total));
    }

    async fn defect(&mut self, defect: &Defect) {
        self.say(not_adopted(defect)).await;
    }
}
