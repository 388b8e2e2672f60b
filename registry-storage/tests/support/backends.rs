//! Tests of a behaviour on several backends. A test program has `world(backend, files)`, which makes what the behaviour
//! takes of a backend, and of the folder of its bytes where it has one.

/// Makes a test of each behaviour in memory and on a disk.
macro_rules! on_memory_and_disk {
    ($($behaviour:ident)*) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour(super::world(registry_storage::ObjectStoreBackend::memory(), None)).await;
            })*
        }
        #[cfg(all(feature = "filesystem", unix))]
        mod on_disk {
            $(#[tokio::test]
            async fn $behaviour() {
                let folder = tempfile::tempdir().unwrap();
                let backend = registry_storage::filesystem::FilesystemBackend::open(folder.path()).await.unwrap();
                super::$behaviour(super::world(backend, Some(folder.path().join("bytes")))).await;
            })*
        }
    };
}

/// Makes a test of each behaviour on a bucket that was found to delete on condition.
macro_rules! on_a_purging_bucket {
    ($($behaviour:ident)*) => {
        mod on_a_purging_bucket {
            $(#[tokio::test]
            async fn $behaviour() {
                let double = registry_storage::testing::S3Double::start().await.unwrap();
                let backend = double.backend("p").unwrap();
                backend.probe_promises(registry_core::Timestamp(0)).await.unwrap();
                super::$behaviour(super::world(backend, None)).await;
            })*
        }
    };
}

/// Makes a test of each behaviour in memory, on a disk, on a bucket that deletes on condition and on one that does not.
macro_rules! on_each_backend {
    ($($behaviour:ident)*) => {
        on_memory_and_disk! { $($behaviour)* }
        on_a_purging_bucket! { $($behaviour)* }
        mod on_a_bucket {
            $(#[tokio::test]
            async fn $behaviour() {
                let double = registry_storage::testing::S3Double::start().await.unwrap();
                super::$behaviour(super::world(double.backend("p").unwrap(), None)).await;
            })*
        }
    };
}
