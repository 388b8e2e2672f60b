//! `registry-bin adopt` in a bucket.

use indicatif::HumanBytes;
use registry_storage::distribution::{self, AdoptOptions, Adoption, ReleaseError};
use registry_storage::{ObjectStoreBackend, Store};

use super::adopt::{outcome, with_refusal, would};
use crate::adoption::in_bucket;
use crate::control::{Outcome, Reporter};
use crate::count::count;
use crate::failure::Failure;

/// Adopts the tree in the bucket of a store, or, if that is all that is asked, says what would be adopted.
pub(super) async fn run(
    store: &Store<ObjectStoreBackend>,
    options: &AdoptOptions,
    only_looks: bool,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let failed = |cause| in_bucket().because(cause);
    let came = distribution::adoption(store).await.map_err(failed)?;
    let is_adopted = matches!(came, Adoption::Finished(_) | Adoption::Updating(_));
    if !is_adopted && !distribution::has_tree(store).await.map_err(failed)? {
        return Err(in_bucket().because(
            "nothing is below docker/registry/v2/repositories there; name the `rootdirectory` of the distribution registry",
        ));
    }
    if !only_looks {
        let adopted = distribution::adopt_in_place(store, options, reporter).await;
        return outcome(adopted, in_bucket);
    }
    let surveyed = distribution::survey_in_place(store, options, reporter).await;
    let surveyed = surveyed.map_err(|cause| in_bucket().because(cause))?;
    let text = would(&came, options, &surveyed, "`adopt --again`");
    let (text, is_success) = with_refusal(text, surveyed);
    Ok(Outcome { text, is_success })
}

/// Releases the tree in the bucket of a store.
pub(super) async fn release(
    store: &Store<ObjectStoreBackend>,
    allow_defects: bool,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let failed = || Failure::new("the distribution registry's tree was not released, or not to its end");
    let report = match distribution::release(store, allow_defects, reporter).await {
        Ok(report) => report,
        Err(ReleaseError::Partial) => {
            return Err(failed().because(
                "something of it was broken and left out, and would be deleted; --allow-defects says that it may be",
            ));
        }
        Err(cause) => return Err(failed().because(cause)),
    };
    Ok(Outcome {
        text: format!(
            "Released: {} and {} deleted. What is needed stays where it is: {} ({}); it goes like other content, once nothing \
             names it.",
            count(report.links, "link"),
            count(report.deleted, "unneeded object"),
            count(report.kept, "object"),
            HumanBytes(report.kept_bytes)
        ),
        is_success: true,
    })
}
