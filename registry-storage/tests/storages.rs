//! Every storage under the conformance kit.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use registry_storage::ObjectStoreBackend;
use registry_storage::testing::Faulty;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::{Random, Subject};

#[path = "support/versitygw.rs"]
mod gateway;

mod memory {
    use super::*;

    async fn memory() -> Subject {
        Subject::over(Arc::new(ObjectStoreBackend::memory()))
    }

    registry_storage::storage_conformance_tests!(memory);
}

mod faulty {
    use super::*;

    async fn without_faults() -> Subject {
        let backend = Arc::new(Faulty::new(ObjectStoreBackend::memory()));
        Subject::over(Arc::clone(&backend)).with_faults(backend)
    }

    registry_storage::storage_conformance_tests!(without_faults);
}

mod delayed {
    use super::*;

    /// Memory never makes anybody wait, so that on it requests do not interleave; here they do, at every call.
    async fn delayed() -> Subject {
        let backend = Faulty::new(ObjectStoreBackend::memory());
        let mut random = Random::new(1);
        for call in 0..30_000 {
            backend.fault_at(call, Fault::Delay(random.below(4) as u32));
        }
        Subject::over(Arc::new(backend))
    }

    registry_storage::storage_conformance_tests!(delayed);
}

mod s3 {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn s3() -> Subject {
        let double = S3Double::start().await.unwrap();
        let backend = Faulty::new(double.backend("a/prefix").unwrap());
        let backend = Arc::new(backend);
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(double)
    }

    registry_storage::storage_conformance_tests!(s3);
}

/// A bucket by others: `VERSITYGW=/path/to/versitygw cargo test -- --ignored versitygw`.
mod versitygw {
    use super::*;

    async fn bucket() -> Subject {
        let (backend, gateway) = gateway::start().await;
        let backend = Arc::new(Faulty::new(backend));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(gateway)
    }

    registry_storage::storage_conformance_tests!(bucket, ignore = "needs VERSITYGW=/path/to/versitygw");
}

#[cfg(all(feature = "filesystem", unix))]
mod filesystem {
    use std::path::PathBuf;
    use std::time::Duration;

    use registry_core::Storage;
    use registry_storage::Store;
    use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};

    use super::*;

    async fn open(root: PathBuf) -> FilesystemBackend {
        // The last write of a storage that was dropped may hold the root a little longer.
        FilesystemOptions::new()
            .wait(Duration::from_secs(10))
            .open(root)
            .await
            .unwrap()
    }

    async fn filesystem() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let store = |backend| Arc::new(Store::new(backend)) as Arc<dyn Storage>;
        Subject::new(store(open(root.clone()).await))
            .with_reopen(move || {
                let root = root.clone();
                async move { store(open(root).await) }
            })
            .with_kept(folder)
    }

    registry_storage::storage_conformance_tests!(filesystem);
}

#[cfg(all(feature = "filesystem", unix))]
mod faulty_filesystem {
    use registry_storage::filesystem::FilesystemBackend;

    use super::*;

    async fn without_faults() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let backend = FilesystemBackend::open(folder.path()).await.unwrap();
        let backend = Arc::new(Faulty::new(backend));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(folder)
    }

    registry_storage::storage_conformance_tests!(@subject [] without_faults crash
        dropped_requests single_faults everything_outlives_the_process another_process_resumes);
}
