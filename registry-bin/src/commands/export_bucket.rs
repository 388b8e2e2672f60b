//! `registry-bin export --in-place`: into the bucket of the registry.

use indicatif::HumanBytes;
use registry_storage::Maintenance;
use registry_storage::distribution::{self, ExportInPlaceError};
use serde::Serialize;

use crate::control::{Command, Outcome, Reporter};
use crate::count::count;
use crate::failure::Failure;

/// An export into the distribution registry's tree in the bucket. No server does it: each process may write to the bucket.
#[derive(Debug, Serialize)]
pub(super) struct ExportInPlace {
    pub(super) allow_defects: bool,
}

impl Command for ExportInPlace {
    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let failed = || Failure::new("the tree in the bucket was not written, or not to its end");
        let Some(store) = store.in_bucket() else {
            return Err(failed().because("this registry is in no bucket"));
        };
        let report = match distribution::export_in_place(store, self.allow_defects, &reporter).await {
            Ok(report) => report,
            Err(ExportInPlaceError::Partial) => {
                return Err(failed().because(
                    "something of it was broken when it was adopted, and is not here, so its links would be deleted; \
                     --allow-defects says that they may be",
                ));
            }
            Err(ExportInPlaceError::Released(when)) => {
                return Err(failed().because(format!(
                    "it was released at {when}, and what is left of it belongs to this registry; write a whole tree into a folder \
                     with `export --layout distribution DIR`"
                )));
            }
            Err(cause) => return Err(failed().because(cause)),
        };
        let mut text = format!(
            "Exported {}, {} and {} into the bucket; {} copied there ({}), {} written, {} deleted.\n\
             Stop the servers of this registry before registry:2 writes there.",
            count(report.repositories, "repository"),
            count(report.manifests, "manifest"),
            count(report.tags, "tag"),
            count(report.copied, "blob"),
            HumanBytes(report.copied_bytes),
            count(report.written, "link"),
            report.deleted,
        );
        if report.lost > 0 {
            text += &format!(
                "\n{} could not be exported, because the content is lost: `check` tells more.",
                count(report.lost, "blob")
            );
        }
        Ok(Outcome {
            text,
            is_success: report.lost == 0,
        })
    }
}
