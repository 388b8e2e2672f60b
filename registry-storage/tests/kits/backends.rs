//! Every backend under the conformance kit.

use registry_storage::ObjectStoreBackend;

mod memory {
    use super::*;

    registry_storage::backend_conformance_tests!(async || (ObjectStoreBackend::memory(), ()));
}

/// The example for those who write a backend.
mod example {
    use crate::maps::MapBackend;

    registry_storage::backend_conformance_tests!(async || (MapBackend::default(), ()));
}

mod faulty_without_faults {
    use super::*;
    use registry_storage::testing::Faulty;

    registry_storage::backend_conformance_tests!(async || (Faulty::new(ObjectStoreBackend::memory()), ()));
}

mod s3 {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn start() -> (ObjectStoreBackend, S3Double) {
        let double = S3Double::start().await.unwrap();
        (double.backend("a/prefix").unwrap(), double)
    }

    registry_storage::backend_conformance_tests!(start);
}

/// A bucket that was found to delete on condition.
mod purging_s3 {
    use registry_core::Timestamp;
    use registry_storage::testing::S3Double;

    use super::*;

    async fn start() -> (ObjectStoreBackend, S3Double) {
        let double = S3Double::start().await.unwrap();
        let backend = double.backend("a/prefix").unwrap();
        backend.probe_promises(Timestamp(0)).await.unwrap();
        double.lose("a/prefix/probed/");
        (backend, double)
    }

    registry_storage::backend_conformance_tests!(start);
}

/// A bucket that keeps no condition, for the one process that writes.
mod single_writer {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn start() -> (ObjectStoreBackend, S3Double) {
        let double = S3Double::start().await.unwrap();
        double.faults().ignore_conditions();
        let backend = double.backend("a/prefix").unwrap().deciding_conditions();
        (backend, double)
    }

    registry_storage::backend_conformance_tests!(start);
}

#[cfg(unix)]
mod s3_with_blob_cache {
    use super::*;
    use registry_storage::object_store::BlobCache;
    use registry_storage::testing::S3Double;

    async fn start() -> (ObjectStoreBackend, (S3Double, tempfile::TempDir)) {
        let double = S3Double::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(folder.path(), 1 << 20).await.unwrap();
        let backend = double.backend("a/prefix").unwrap().with_blob_cache(cache);
        (backend, (double, folder))
    }

    registry_storage::backend_conformance_tests!(start);
}

#[cfg(feature = "gcs")]
mod gcs {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn start() -> (ObjectStoreBackend, S3Double) {
        let double = S3Double::start().await.unwrap();
        (double.gcs_backend("a/prefix").unwrap(), double)
    }

    registry_storage::backend_conformance_tests!(start);
}

/// `S3_TEST_ENDPOINT=… S3_TEST_BUCKET=… AWS_ACCESS_KEY_ID=… cargo test -- --ignored any_s3`.
mod any_s3_kit {
    use crate::any_s3::start;

    registry_storage::backend_conformance_tests!(start, ignore = "needs S3_TEST_ENDPOINT and S3_TEST_BUCKET");
}

/// `VERSITYGW=/path/to/versitygw cargo test -- --ignored versitygw`.
macro_rules! kit_on_store {
    ($name:ident $store:ident $reason:literal) => {
        mod $name {
            use crate::stores;

            registry_storage::backend_conformance_tests!(|| stores::$store.start(), ignore = $reason);
        }
    };
}
accepted_stores! { kit_on_store }

#[cfg(all(feature = "filesystem", unix))]
mod filesystem {
    use registry_storage::filesystem::FilesystemBackend;

    async fn open() -> (FilesystemBackend, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        (FilesystemBackend::open(root.path()).await.unwrap(), root)
    }

    registry_storage::backend_conformance_tests!(open);
}
