//! Every storage under the conformance kit.

use std::sync::Arc;

use registry_storage::ObjectStoreBackend;
use registry_storage::testing::Faulty;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::{Random, Subject};

mod memory {
    use super::*;

    async fn memory() -> Subject {
        Subject::over(Arc::new(ObjectStoreBackend::memory()))
    }

    registry_storage::storage_conformance_tests!(memory);
}

/// What is deleted is kept.
mod keeping {
    use std::time::Duration;

    use registry_core::Storage;
    use registry_storage::{Store, StoreOptions, SystemClock};

    use super::*;

    async fn keeping() -> Subject {
        let backend = Arc::new(ObjectStoreBackend::memory());
        let store = move || {
            let options = StoreOptions {
                keep_deleted: Duration::from_hours(1),
                ..StoreOptions::default()
            };
            Arc::new(Store::with_options(
                Arc::clone(&backend),
                Arc::new(SystemClock),
                options,
            )) as Arc<dyn Storage>
        };
        Subject::new(store()).with_reopen(move || {
            let store = store();
            async move { store }
        })
    }

    registry_storage::storage_conformance_tests!(keeping);
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

/// A bucket that was found to delete on condition.
mod purging_s3 {
    use registry_core::Timestamp;
    use registry_storage::testing::S3Double;

    use super::*;

    async fn s3() -> Subject {
        let double = S3Double::start().await.unwrap();
        let backend = double.backend("a/prefix").unwrap();
        backend.probe_promises(Timestamp(0)).await.unwrap();
        let backend = Arc::new(Faulty::new(backend));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(double)
    }

    registry_storage::storage_conformance_tests!(s3);
}

/// A bucket that keeps no condition, for the one process that writes.
mod single_writer {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn bucket() -> Subject {
        let double = S3Double::start().await.unwrap();
        double.faults().ignore_conditions();
        let backend = double.backend("a/prefix").unwrap().deciding_conditions();
        let backend = Arc::new(Faulty::new(backend));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(double)
    }

    registry_storage::storage_conformance_tests!(bucket);
}

/// Blobs come from a folder, if they are there.
#[cfg(unix)]
mod s3_with_blob_cache {
    use super::*;
    use registry_storage::object_store::BlobCache;
    use registry_storage::testing::S3Double;

    async fn cached() -> Subject {
        let double = S3Double::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(folder.path(), 1 << 20).await.unwrap();
        let backend = double.backend("a/prefix").unwrap().with_blob_cache(cache);
        let backend = Arc::new(Faulty::new(backend));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept((double, folder))
    }

    registry_storage::storage_conformance_tests!(cached);
}

/// One process on a bucket, whose answers may be old: it sees what it writes itself.
mod s3_with_record_age {
    use std::time::Duration;

    use super::*;
    use registry_storage::testing::S3Double;

    async fn aged() -> Subject {
        let double = S3Double::start().await.unwrap();
        let backend = double.backend("a/prefix").unwrap();
        let backend = Arc::new(Faulty::new(backend.with_record_age(Duration::from_hours(1))));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(double)
    }

    registry_storage::storage_conformance_tests!(aged);
}

#[cfg(feature = "gcs")]
mod gcs {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn gcs() -> Subject {
        let double = S3Double::start().await.unwrap();
        let backend = Arc::new(Faulty::new(double.gcs_backend("a/prefix").unwrap()));
        Subject::over(Arc::clone(&backend))
            .with_faults(backend)
            .with_kept(double)
    }

    registry_storage::storage_conformance_tests!(gcs);
}

/// `S3_TEST_ENDPOINT=… S3_TEST_BUCKET=… AWS_ACCESS_KEY_ID=… cargo test -- --ignored any_s3`.
mod any_s3_kit {
    use super::*;

    async fn bucket() -> Subject {
        let backend = Arc::new(Faulty::new(crate::any_s3::start().await.0));
        Subject::over(Arc::clone(&backend)).with_faults(backend)
    }

    registry_storage::storage_conformance_tests!(
        bucket,
        ignore = "needs S3_TEST_ENDPOINT and S3_TEST_BUCKET"
    );
}

/// `VERSITYGW=/path/to/versitygw cargo test -- --ignored versitygw`.
macro_rules! kit_on_store {
    ($name:ident $store:ident $reason:literal) => {
        mod $name {
            use super::*;

            async fn bucket() -> Subject {
                let backend = Arc::new(Faulty::new(crate::stores::$store.start().await.0));
                Subject::over(Arc::clone(&backend)).with_faults(backend)
            }

            registry_storage::storage_conformance_tests!(bucket, ignore = $reason);
        }
    };
}
accepted_stores! { kit_on_store }

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

mod reversed {
    use async_trait::async_trait;
    use registry_core::storage::{ListStorage, Page, PageRequest, ReferrersRequest};
    use registry_core::{Descriptor, Digest, Error, RepositoryName, Storage, Tag, forward_storage};
    use registry_storage::Store;
    use registry_storage::testing::storage_conformance::referrers;

    use super::*;

    /// Lists referrers from the last to the first; the name of a page is how many came before.
    #[derive(Debug)]
    struct Reversed<S>(S);

    macro_rules! call {
        ($self:ident.$method:ident($($argument:expr),*)) => { $self.0.$method($($argument),*).await };
    }

    forward_storage!(BlobStorage, UploadStorage, ManifestStorage for [S: Storage] Reversed<S> => call);

    #[async_trait]
    impl<S: Storage> ListStorage for Reversed<S> {
        async fn list_tags(
            &self,
            repository: &RepositoryName,
            page: PageRequest,
        ) -> Result<Page<Tag>, Error> {
            self.0.list_tags(repository, page).await
        }

        async fn list_referrers(
            &self,
            repository: &RepositoryName,
            subject: &Digest,
            request: ReferrersRequest,
        ) -> Result<Page<Descriptor>, Error> {
            let all = PageRequest {
                last: None,
                limit: 1000,
            };
            let mut all = self
                .0
                .list_referrers(repository, subject, all.into())
                .await?
                .items;
            all.reverse();
            let begin: usize = request.last.map_or(0, |last| last.parse().unwrap());
            let end = all.len().min(begin + request.limit);
            Ok(Page {
                items: all[begin..end].to_vec(),
                next: (end < all.len() && end > begin).then(|| end.to_string()),
            })
        }

        async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
            self.0.list_repositories(page).await
        }
    }

    #[tokio::test]
    async fn referrers_may_be_in_any_order() {
        let storage = Arc::new(Reversed(Store::new(ObjectStoreBackend::memory())));
        referrers::order_and_pages(storage).await;
    }
}
