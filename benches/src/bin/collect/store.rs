//! Images that are pushed straight into a store.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::manifest::ManifestView;
use registry_core::storage::{
    Manifest, ManifestChild, ManifestStorage as _, NewManifest, TagCondition, UploadKey, UploadStorage as _,
};
use registry_core::{Algorithm, Digest, Error, MediaType, RepositoryName};
use registry_storage::testing::Faulty;
use registry_storage::{Backend, Store};

/// How many images are pushed at once: commits of many are one write of the disk.
const AT_ONCE: usize = 64;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) struct Images<B> {
    pub(super) store: Arc<Store<Faulty<B>>>,
    pub(super) blobs: u64,
    pub(super) repositories: u64,
}

impl<B: Backend> Images<B> {
    /// Pushes the images of these numbers, each to the repository of its number.
    pub(super) async fn push(&self, numbers: Range<u64>) -> Result<(), String> {
        self.push_to(self.repositories, numbers).await
    }

    /// Pushes the images of these numbers to the first `repositories`.
    pub(super) async fn push_to(&self, repositories: u64, numbers: Range<u64>) -> Result<(), String> {
        let (count, mut said) = (numbers.end - numbers.start, Instant::now());
        let pushes = stream::iter(numbers.enumerate());
        let pushes = pushes.map(|(at, number)| async move {
            self.push_image(&repository(number % repositories), number)
                .await
                .map_err(|error| format!("image {number}: {error:?}"))?;
            Ok::<_, String>(at)
        });
        let mut pushes = pin!(pushes.buffered(AT_ONCE));
        while let Some(at) = pushes.try_next().await? {
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                eprintln!("{at} of {count} images are pushed");
            }
        }
        Ok(())
    }

    /// Deletes the images of the first `repositories`, of as many as were pushed. Returns how many.
    pub(super) async fn delete_in(&self, repositories: u64, pushed: u64) -> Result<u64, String> {
        let numbers = (0..pushed).filter(|number| number % self.repositories < repositories);
        let deletes = stream::iter(numbers).map(|number| async move {
            let (_, manifest) = self.image(number);
            let digest = Digest::of(Algorithm::Sha256, &manifest);
            let repository = repository(number % self.repositories);
            self.store
                .delete_manifest(&repository, &digest, None, None)
                .await
                .map_err(|error| format!("image {number}: {error:?}"))
        });
        let deleted = deletes.buffer_unordered(AT_ONCE);
        deleted.try_fold(0, async |count, ()| Ok(count + 1)).await
    }

    async fn push_image(&self, repository: &RepositoryName, number: u64) -> Result<(), Error> {
        let (blobs, manifest) = self.image(number);
        for blob in blobs {
            self.push_blob(repository, blob).await?;
        }
        let media_type: MediaType = IMAGE.parse()?;
        let view = ManifestView::parse(&manifest, Some(&media_type))?;
        let children: Vec<ManifestChild> = view.children().to_vec();
        let new = NewManifest {
            manifest: Manifest {
                digest: Digest::of(Algorithm::Sha256, &manifest),
                media_type,
                bytes: manifest,
            },
            children,
            allow_missing: false,
            optional_children: Vec::new(),
            subject: None,
            tags: vec![format!("v{number}").parse()?],
            condition: TagCondition::Any,
            immutable_tags: Vec::new(),
            principal: String::new(),
        };
        self.store.put_manifest(repository, new).await
    }

    async fn push_blob(&self, repository: &RepositoryName, content: Bytes) -> Result<(), Error> {
        let id = self
            .store
            .create_upload(repository, "", Algorithm::Sha256)
            .await?;
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        let digest = Digest::of(Algorithm::Sha256, &content);
        let body = pin!(stream::iter([Ok(content)]));
        self.store.finish_upload(&upload, &digest, None, body).await?;
        Ok(())
    }

    /// Returns the blobs of an image, and its manifest.
    fn image(&self, number: u64) -> (Vec<Bytes>, Bytes) {
        let blobs = (0..self.blobs).map(|blob| Bytes::from(format!("blob {blob} of image {number}")));
        let blobs: Vec<Bytes> = blobs.collect();
        let descriptors: Vec<String> = blobs.iter().map(|blob| descriptor(blob)).collect();
        let (config, layers) = descriptors
            .split_first()
            .map_or(("", Vec::new()), |(config, layers)| {
                (config.as_str(), layers.to_vec())
            });
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        (blobs, manifest.into())
    }
}

fn repository(number: u64) -> RepositoryName {
    #[expect(clippy::expect_used, reason = "it is letters and digits")]
    format!("team/app{number}").parse().expect("a name")
}

fn descriptor(content: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha256, content);
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{}}}"#,
        content.len()
    )
}
