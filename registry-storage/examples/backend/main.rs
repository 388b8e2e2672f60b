//! A backend of your own: records and bytes in maps. `tests/kits/backends.rs` runs the conformance kit on it.
//!
//! ```console
//! cargo run -p registry-storage --example backend
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod maps;

use std::pin::pin;

use bytes::Bytes;
use registry_core::storage::{BlobStorage as _, UploadKey, UploadStorage as _};
use registry_core::{Algorithm, Digest, RepositoryName};
use registry_storage::Store;

use crate::maps::MapBackend;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::new(MapBackend::default());
    let repository: RepositoryName = "library/app".parse()?;
    let content = Bytes::from(vec![1; 1_000_000]);
    let digest = Digest::of(Algorithm::Sha256, &content);
    let upload = UploadKey {
        repository: repository.clone(),
        id: store.create_upload(&repository, "", Algorithm::Sha256).await?,
        principal: String::new(),
    };
    let body = pin!(futures_util::stream::iter([Ok(content)]));
    store.finish_upload(&upload, &digest, None, body).await?;
    let size = store.stat_blob(&repository, &digest).await?;
    println!("stored a blob of {size} bytes in {repository}");
    Ok(())
}
