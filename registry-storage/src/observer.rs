//! What a long operation reports while it runs: how far it is, and what it finds.

use std::fmt;

use async_trait::async_trait;

use crate::copy::NotCopied;
#[cfg(all(feature = "filesystem", unix))]
use crate::distribution::{AdoptReport, Defect};
#[cfg(all(feature = "layout", unix))]
use crate::layout::LeftOut;
use crate::store::check::finding::RecordFinding;

/// Observes a long operation. Each method ignores what it receives unless it is implemented; `()` ignores everything,
/// and a closure receives the findings.
///
/// ```
/// use registry_storage::{Finding, MaintenanceObserver, Step};
///
/// #[derive(Debug)]
/// struct Print;
///
/// #[async_trait::async_trait]
/// impl MaintenanceObserver for Print {
///     fn step(&self, step: Step, done: u64, total: Option<u64>) {
///         println!("{done} of {total:?} {}", step.unit());
///     }
///
///     async fn found(&self, finding: Finding) {
///         println!("{finding}");
///     }
/// }
/// ```
#[async_trait]
pub trait MaintenanceObserver: Send + Sync {
    /// `done` of `total` units of `step` are done. The total is not always known, and may grow. Called often, so it
    /// should be quick.
    fn step(&self, _step: Step, _done: u64, _total: Option<u64>) {}

    /// Something is broken, or was left out. There may be any number of findings, and reports only count them. The
    /// operation continues when this returns.
    async fn found(&self, _finding: Finding) {}

    /// An adoption took over this much so far. Called after each step, which takes up to a second or so.
    #[cfg(all(feature = "filesystem", unix))]
    fn adopted(&self, _report: &AdoptReport) {}
}

/// Ignores everything.
impl MaintenanceObserver for () {}

#[async_trait]
impl<F: Fn(Finding) + Send + Sync> MaintenanceObserver for F {
    async fn found(&self, finding: Finding) {
        self(finding);
    }
}

/// Something that is broken, or was left out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A check found something wrong with a record or the bytes that it names.
    Record(RecordFinding),
    /// Something in the folders of the distribution registry was not adopted.
    #[cfg(all(feature = "filesystem", unix))]
    NotAdopted(Defect),
    /// Something was not written to an image layout, or not read from one.
    #[cfg(all(feature = "layout", unix))]
    LeftOut(LeftOut),
    /// Something was not copied from one store to another.
    NotCopied(NotCopied),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(finding) => finding.fmt(f),
            #[cfg(all(feature = "filesystem", unix))]
            Self::NotAdopted(defect) => write!(f, "not adopted: {defect}"),
            #[cfg(all(feature = "layout", unix))]
            Self::LeftOut(left_out) => left_out.fmt(f),
            Self::NotCopied(not_copied) => not_copied.fmt(f),
        }
    }
}

/// What an operation is doing, and so what it counts: the part that takes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Reading records.
    Records,
    /// Looking for what no manifest names, in one repository after the other.
    Repositories,
    /// Deleting what a repository has: first tags, then manifests and blobs.
    Deletes,
    /// Reading content and comparing its digest; counted in bytes.
    Content,
    /// Looking for bytes that nothing names; counted in names.
    Bytes,
    /// Copying the records; counted in pages of the database.
    Copy,
    /// Giving files second names.
    Files,
    /// Writing content to another place; counted in bytes.
    Copying,
    /// Taking over or writing what repositories name, without copying it.
    Links,
}

impl Step {
    /// Returns what is counted, in the plural; for bytes, what is done with them.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Repositories => "repositories",
            Self::Deletes => "deletes",
            Self::Content => "read",
            Self::Bytes => "byte strings",
            Self::Copy => "pages of records",
            Self::Files => "files",
            Self::Copying => "copied",
            Self::Links => "blobs and manifests",
        }
    }

    /// Returns whether bytes are counted.
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::Content | Self::Copying)
    }
}
