//! A tree in a container of Azure, as the distribution registry writes it there.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use registry_core::Digest;
use registry_storage::{AzureCredentials, ObjectStoreBackend, Store};

use crate::fixture::Old;
use crate::in_bucket::ROOT;
use crate::stores::AZURITE;
use crate::stores::azure::Container;

/// How much the distribution registry appends at a time, in bytes.
const APPENDED: usize = 4 << 20;

/// How many objects are written or read at once.
const AT_ONCE: usize = 16;

/// Which versions of the distribution registry write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// 2.7 and 2.8, and those after 3.1: layers are append blobs, as uploads are, and the copy of one is one. Links and manifests, which are
    /// written at once, are block blobs.
    Mixed,
    /// Up to 2.6, and 3.0 to 3.1: all are append blobs.
    Append,
}

/// A container in which the distribution registry had `rootdirectory: /root`.
pub(crate) struct OldContainer {
    container: Container,
    writer: Writer,
}

impl OldContainer {
    /// Puts the files of a tree into a container.
    pub(crate) async fn of(old: &Old, writer: Writer) -> Self {
        let container = AZURITE.container().await;
        let container = Self { container, writer };
        container.put_all(old).await;
        container
    }

    pub(crate) async fn put_all(&self, old: &Old) {
        let files = old.snapshot().into_iter().map(|(path, (content, ..))| {
            let key = path.strip_prefix(old.root.path()).unwrap();
            (format!("{ROOT}/{}", key.to_str().unwrap()), content)
        });
        let files: Vec<_> = files.collect();
        let writing = stream::iter(files).map(|(key, content)| async move {
            let is_layer = key.ends_with("/data") && !content.starts_with(b"{");
            if is_layer || self.writer == Writer::Append {
                self.append(&key, &content).await;
            } else {
                self.put_block_blob(&key, content).await;
            }
        });
        writing.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    async fn append(&self, key: &str, content: &[u8]) {
        let kind = [("x-ms-blob-type", "AppendBlob")];
        self.container.put(&format!("/{key}"), &kind, Vec::new()).await;
        for part in content.chunks(APPENDED) {
            let target = format!("/{key}?comp=appendblock");
            self.container.put(&target, &[], part.to_vec()).await;
        }
    }

    async fn put_block_blob(&self, key: &str, content: Vec<u8>) {
        let kind = [("x-ms-blob-type", "BlockBlob")];
        self.container.put(&format!("/{key}"), &kind, content).await;
    }

    /// Pushes an image as the distribution registry does.
    pub(crate) async fn push_to_old(&self, repository: &str, tag: &str, seed: usize) -> Vec<u8> {
        let old = Old::new();
        let manifest = old.push_image(repository, tag, seed);
        self.put_all(&old).await;
        manifest
    }

    pub(crate) fn store(&self) -> Store<ObjectStoreBackend> {
        Store::new(self.container.backend(ROOT))
    }

    fn client(&self) -> MicrosoftAzure {
        let options = self.container.options();
        let AzureCredentials::Key(key) = options.credentials else {
            panic!("{options:?}")
        };
        let builder = MicrosoftAzureBuilder::new()
            .with_account(options.account.unwrap())
            .with_access_key(key)
            .with_endpoint(options.endpoint.unwrap())
            .with_allow_http(true);
        builder.with_container_name(&self.container.name).build().unwrap()
    }

    /// Returns the objects below a folder, by what follows it.
    pub(crate) async fn objects(&self, folder: &str) -> BTreeMap<String, Bytes> {
        let client = self.client();
        let prefix = format!("{ROOT}/{folder}");
        let listed: Vec<_> = client.list(Some(&(&*prefix).into())).try_collect().await.unwrap();
        let (client, prefix) = (&client, &prefix);
        let reading = stream::iter(listed).map(|object| async move {
            let content = client.get(&object.location).await.unwrap().bytes().await.unwrap();
            let key = object.location.as_ref().strip_prefix(prefix).unwrap();
            (key.trim_start_matches('/').to_owned(), content)
        });
        reading.buffer_unordered(AT_ONCE).collect().await
    }

    pub(crate) async fn tree(&self) -> BTreeMap<String, Bytes> {
        self.objects("docker/registry/v2").await
    }

    pub(crate) async fn content_in_tree(&self) -> Vec<Digest> {
        let keys = self.objects("docker/registry/v2/blobs/sha256").await.into_keys();
        let digests = keys.map(|key| format!("sha256:{}", key.split('/').nth(1).unwrap()).parse());
        digests.map(Result::unwrap).collect()
    }

    /// Puts a copy of the tree into another container.
    pub(crate) async fn copy_of_tree(&self) -> Self {
        let copy = Self::of(&Old::new(), self.writer).await;
        for (key, content) in self.tree().await {
            let key = format!("{ROOT}/docker/registry/v2/{key}");
            copy.put_block_blob(&key, content.into()).await;
        }
        copy
    }
}

/// Waits until the clock, which Azurite has too, is in a later second: it dates in whole ones.
pub(crate) async fn next_second() {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (begun, deadline) = (second(), Instant::now() + Duration::from_secs(60));
    while second() <= begun {
        assert!(Instant::now() < deadline, "the clock stands");
        tokio::task::yield_now().await;
    }
}
