//! Adoption of the distribution registry's data in a folder.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use indicatif::HumanBytes;
use registry_storage::distribution::{
    self, AdoptError, AdoptOptions, AdoptReport, Adoption, Defect, Survey, Tree,
};
use registry_storage::{Finding, Maintenance, NotOnDisk};

use super::count::count;
use super::{Outcome, Reporter};
use crate::failure::Failure;
use crate::ownership::{WithOwner as _, owner_note};

/// Adopts the tree in the root of a store.
pub(super) async fn adopt(
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
pub(crate) async fn survey(
    root: &Path,
    options: &AdoptOptions,
    reporter: &Reporter,
) -> Result<(String, bool), Failure> {
    let surveyed = distribution::survey(&find(root)?, root, options, reporter).await;
    let surveyed = surveyed.map_err(|cause| failure(root).because(cause))?;
    let text = format!("Would adopt {}.", describe(&surveyed.report));
    Ok(with_refusal(text, surveyed))
}

/// Returns what a store lacks of the tree in its root, and whether all of it can be adopted. Changes nothing.
pub(super) async fn survey_into(
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
