//! Hashing without holding up other requests.

use bytes::Bytes;
use registry_core::Error;
use registry_core::hash::Hasher;
use tokio::task::spawn_blocking;

/// Smaller pieces are hashed in place: handing them to another thread costs more.
const HASH_IN_PLACE_BYTES: usize = 32 * 1024;

/// Adds a chunk to a hash, on another thread if it is long.
pub(crate) async fn hash(mut hasher: Hasher, chunk: Bytes) -> Result<Hasher, Error> {
    if chunk.len() <= HASH_IN_PLACE_BYTES {
        hasher.update(&chunk);
        return Ok(hasher);
    }
    let hashing = spawn_blocking(move || {
        hasher.update(&chunk);
        hasher
    });
    hashing.await.map_err(Error::internal)
}
