//! What the distribution registry left in a folder: finding it, and describing what of it was adopted.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use indicatif::HumanBytes;
use registry_storage::Finding;
use registry_storage::distribution::{AdoptReport, Defect, Tree};

use crate::count::count;
use crate::failure::Failure;
use crate::ownership::{cannot_look_into, owner_note};

/// The folder of the repositories in a root.
const REPOSITORIES: &str = "docker/registry/v2/repositories";

/// Finds the tree in a root.
///
/// # Errors
/// If there is none, or it cannot be examined.
pub(crate) fn find(root: &Path) -> Result<Tree, Failure> {
    find_if_there(root)?.ok_or_else(|| {
        failure(root).because(format!(
            "there is no folder {REPOSITORIES}; name the `rootdirectory` of the distribution registry"
        ))
    })
}

/// Finds the tree in a root, if there is one.
///
/// # Errors
/// If it cannot be examined.
pub(crate) fn find_if_there(root: &Path) -> Result<Option<Tree>, Failure> {
    Tree::find(root).map_err(|cause| match cause.kind() {
        // It may well be a store, so adoption is not the business of whoever asked.
        io::ErrorKind::PermissionDenied if root.join(".").metadata().is_err() => {
            cannot_look_into(root, &cause)
        }
        io::ErrorKind::PermissionDenied => {
            let note = owner_note(&root.join(REPOSITORIES), &cause);
            failure(root).because(format!(
                "{cause}{note}; run this registry as the owner of the files"
            ))
        }
        _ => failure(root).because(format!(
            "{cause}; name the folder that has docker/registry/v2 itself as `rootdirectory`"
        )),
    })
}

pub(crate) fn failure(root: &Path) -> Failure {
    Failure::new(format!(
        "cannot adopt what the distribution registry left in {}",
        root.display()
    ))
}

/// As [`failure`], in a bucket.
pub(crate) fn in_bucket() -> Failure {
    Failure::new("cannot adopt what the distribution registry left in the bucket")
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
            .map(|(kind, count)| format!("{count} {}", kind.name(*count)))
            .collect();
        let _ = write!(text, "; broken, each named above: {}", counts.join(", "));
    }
    text
}

/// Describes a finding, with the owner of a file that cannot be read.
pub(crate) fn finding_line(finding: &Finding) -> String {
    let note = match finding {
        Finding::NotAdopted(Defect::Unreadable { path, cause }) => owner_note(path, cause),
        _ => String::new(),
    };
    format!("{finding}{note}")
}
