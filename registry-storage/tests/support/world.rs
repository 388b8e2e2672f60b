//! A store with a clock that a test sets, on a backend whose calls fail if a test says so; and what clients and operators do
//! with it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use registry_core::storage::{PageRequest, Storage};
use registry_core::{Digest, Error, ErrorCode, Reference};
use registry_storage::check::CheckOptions;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Backend, CollectOptions, CollectReport, Finding, Maintenance as _, ObjectStoreBackend, Store,
    StoreOptions, SweepOptions,
};

use super::images::{IMAGE, Image, digest, name, tag};

pub(crate) struct World<B> {
    pub(crate) store: Arc<Store<Faulty<B>>>,
    pub(crate) clock: Arc<ManualClock>,
}

/// Makes a world with the defaults, for the macros in `backends.rs`.
pub(crate) fn world<B: Backend>(backend: B, _: Option<PathBuf>) -> World<B> {
    World::with_options(backend, StoreOptions::default())
}

impl World<ObjectStoreBackend> {
    /// Makes a world in memory whose every call takes one more turn, as on a bucket, so that a test can stop between any two
    /// of them.
    pub(crate) fn stepped() -> Self {
        let world = world(ObjectStoreBackend::memory(), None);
        world.step();
        world
    }
}

impl<B: Backend> World<B> {
    pub(crate) fn with_options(backend: B, options: StoreOptions) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Store::with_options(Arc::new(Faulty::new(backend)), Arc::clone(&clock) as _, options);
        Self {
            store: Arc::new(store),
            clock,
        }
    }

    /// From now on, every call takes one more turn.
    pub(crate) fn step(&self) {
        let backend = self.store.backend();
        let first = backend.calls();
        for call in first..first + 20_000 {
            backend.fault_at(call, Fault::Delay(1));
        }
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.store
    }

    pub(crate) async fn catalog(&self) -> Vec<String> {
        let page = PageRequest {
            last: None,
            limit: 1000,
        };
        let page = self.storage().list_repositories(page).await.unwrap();
        page.items.iter().map(ToString::to_string).collect()
    }

    pub(crate) async fn tags(&self, repository: &str) -> Result<Vec<String>, ErrorCode> {
        let page = PageRequest {
            last: None,
            limit: 1000,
        };
        let tags = self.storage().list_tags(&name(repository), page).await;
        let tags = tags.map_err(|error| error.code())?;
        Ok(tags.items.iter().map(ToString::to_string).collect())
    }

    /// Returns which manifest the tag names.
    pub(crate) async fn named(&self, repository: &str, text: &str) -> Option<Digest> {
        let by_tag = Reference::Tag(tag(text));
        let found = self.storage().get_manifest(&name(repository), &by_tag).await;
        found.ok().map(|manifest| manifest.digest)
    }

    /// Asks with a GET: a HEAD would keep the manifest.
    pub(crate) async fn has_manifest(&self, repository: &str, digest: &Digest) -> bool {
        let by_digest = Reference::Digest(digest.clone());
        let found = self.storage().get_manifest(&name(repository), &by_digest).await;
        found.is_ok()
    }

    pub(crate) async fn has_blob(&self, repository: &str, content: &Bytes) -> bool {
        let (repository, digest) = (name(repository), digest(content));
        match self.storage().open_blob(&repository, &digest).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}");
                false
            }
        }
    }

    pub(crate) async fn assert_whole(&self, repository: &str, image: &Image) {
        let by_digest = Reference::Digest(image.digest.clone());
        let found = self.storage().get_manifest(&name(repository), &by_digest).await;
        let found = found.unwrap();
        assert_eq!(
            (found.bytes, found.media_type.as_str()),
            (image.bytes.clone(), IMAGE)
        );
        for content in [&image.layer, &image.config] {
            assert!(self.has_blob(repository, content).await);
        }
    }

    pub(crate) async fn try_delete_manifest(&self, repository: &str, digest: &Digest) -> Result<(), Error> {
        self.storage()
            .delete_manifest(&name(repository), digest, None, None)
            .await
    }

    pub(crate) async fn delete_manifest(&self, repository: &str, digest: &Digest) {
        self.try_delete_manifest(repository, digest).await.unwrap();
    }

    pub(crate) async fn collect(&self, options: &CollectOptions) -> CollectReport {
        self.store.collect(options, &()).await.unwrap()
    }

    pub(crate) async fn collect_and_sweep(&self, options: &CollectOptions) -> CollectReport {
        let report = self.collect(options).await;
        self.sweep().await;
        report
    }

    pub(crate) async fn sweep(&self) {
        self.store.sweep(&SweepOptions::default()).await.unwrap();
    }

    /// Returns how many byte strings the backend has.
    pub(crate) async fn byte_strings(&self) -> usize {
        self.store.backend().list_bytes(None, 1000).await.unwrap().len()
    }

    /// Everything that a record names is there: no manifest without its blobs, no index without its manifests.
    pub(crate) async fn assert_sound(&self, when: &str) {
        let found = |finding: Finding| panic!("{when}: {finding}");
        let report = self.store.check(&CheckOptions::new(), &found).await.unwrap();
        assert!(report.is_sound(), "{when}: {report:?}");
    }
}
