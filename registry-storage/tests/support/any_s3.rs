//! Any server that speaks S3: the bucket that variables name.

#![expect(clippy::disallowed_methods, reason = "variables name the bucket")]

use registry_storage::{ObjectStoreBackend, S3Options};

/// A folder of its own in the bucket `S3_TEST_BUCKET` at `S3_TEST_ENDPOINT`, with the access key of the variables `AWS_…`.
/// What the tests leave there stays.
pub(crate) async fn start() -> (ObjectStoreBackend, ()) {
    let mut options = S3Options::default();
    options.endpoint = Some(std::env::var("S3_TEST_ENDPOINT").unwrap());
    let bucket = std::env::var("S3_TEST_BUCKET").unwrap();
    let prefix = format!("registry-tests/{}", uuid::Uuid::new_v4());
    (ObjectStoreBackend::s3(&bucket, &prefix, &options).unwrap(), ())
}
