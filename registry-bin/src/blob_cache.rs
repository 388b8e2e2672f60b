//! What a server keeps of a bucket.

use std::path::Path;
use std::time::Duration;

use registry_storage::ObjectStoreBackend;
use registry_storage::object_store::{BlobCache, BlobCacheError};

use crate::config::sections::storage::Cache;
use crate::failure::Failure;
use crate::ownership::with_owner;
use crate::places::writable::cannot_cache;

/// How often a server that waits looks whether another one still has the folder.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Has a backend keep what the configuration says. Returns also the cache of blobs, if there is one. With `wait`, waits for another process that has the folder.
pub(crate) async fn with_cache(
    backend: ObjectStoreBackend,
    cache: &Cache,
    wait: bool,
) -> Result<(ObjectStoreBackend, Option<BlobCache>), Failure> {
    let backend = backend.with_record_age(cache.most_age.0);
    let Some(folder) = &cache.folder else {
        return Ok((backend, None));
    };
    let opened = open(folder, cache.size.0, wait).await?;
    tracing::info!(folder = %folder.display(), size = cache.size.0, "blobs that clients pull through this server are kept");
    Ok((backend.with_blob_cache(opened.clone()), Some(opened)))
}

async fn open(folder: &Path, size: u64, wait: bool) -> Result<BlobCache, Failure> {
    let mut is_logged = false;
    loop {
        match BlobCache::open(folder, size).await {
            Ok(cache) => return Ok(cache),
            Err(BlobCacheError::InUse) if wait => {
                if !std::mem::replace(&mut is_logged, true) {
                    tracing::info!(folder = %folder.display(), "waiting for another process that keeps blobs there");
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Err(BlobCacheError::Io(cause)) => {
                return Err(cannot_cache(folder).because(with_owner(folder, cause)));
            }
            Err(cause) => return Err(cannot_cache(folder).because(cause)),
        }
    }
}
