//! Adopting what registry:2 left in the bucket of a server.

use registry_http::ServerHealth;
use registry_storage::distribution::{self, AdoptError, AdoptOptions, Adoption, adoption};
use registry_storage::{ObjectStoreBackend, Store};

use super::storage::AdoptionProgress;
use crate::adoption::describe;
use crate::bucket::Bucket;
use crate::failure::Failure;

/// Adopts the tree in a bucket in place, unless that was done before or the store has other content. Several servers may do so at
/// once.
///
/// # Errors
/// Why it cannot be adopted. The registry must not be served then, because clients would find it empty.
pub(super) async fn adopt_bucket(
    bucket: &Bucket,
    store: &Store<ObjectStoreBackend>,
    is_read_only: bool,
    health: &ServerHealth,
) -> Result<(), Failure> {
    let failed = || {
        Failure::new(format!(
            "cannot adopt what the distribution registry left in {bucket}"
        ))
    };
    let came = adoption(store).await.map_err(|cause| failed().because(cause))?;
    if matches!(came, Adoption::Finished(_) | Adoption::Updating(_)) {
        // What came since is taken beside requests.
        return Ok(());
    }
    let has_tree = distribution::has_tree(store).await;
    let is_ours = matches!(came, Adoption::NotBegun | Adoption::OwnContent);
    if !has_tree.map_err(|cause| failed().because(cause))? && is_ours {
        return Ok(());
    }
    match came {
        Adoption::OwnContent => {
            tracing::warn!(
                %bucket,
                "there is data of the distribution registry beside that of this one; `registry-bin adopt --again` adds it"
            );
            Ok(())
        }
        _ if is_read_only => Err(failed().because(
            "it was not adopted as a whole, and `storage.maintenance.readonly` lets nothing be written; run `registry-bin adopt`, \
             or start once without that key",
        )),
        _ => adopt(bucket, store, health)
            .await
            .map_err(|cause| failed().because(cause)),
    }
}

async fn adopt(
    bucket: &Bucket,
    store: &Store<ObjectStoreBackend>,
    health: &ServerHealth,
) -> Result<(), AdoptError> {
    tracing::info!(
        %bucket,
        "adopting what the distribution registry left here; its objects stay as they are, and are named where they are"
    );
    let progress = AdoptionProgress::new(health);
    let adopted = distribution::adopt_in_place(store, &AdoptOptions::new(), &progress).await;
    progress.end();
    let report = match adopted {
        // Another server has finished it since.
        Err(AdoptError::Finished(_)) => return Ok(()),
        adopted => adopted?,
    };
    tracing::info!("adopted {}", describe(&report));
    tracing::info!(
        "the distribution registry must not collect garbage in this bucket any more, which would delete what is named here; once \
         there is no way back, `registry-bin adopt --release-old-tree` deletes what it alone needs"
    );
    if !report.defects.is_empty() {
        tracing::warn!("once the rest is put right, `registry-bin adopt --again` adds it");
    }
    Ok(())
}
