//! Clients that are sent elsewhere for a blob.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use registry_core::registry::{Options, Registry};
use registry_core::storage::{
    Blob, BlobContent, BlobStorage, ByteStream, Page, PageRequest, SignedUrl, TagFilter,
};
use registry_core::{Digest, Error, RepositoryName, Storage, forward_storage};
use registry_http::{Connection, Limits, MeteredStorage, Metrics, PeerAddress, RegistryService};
use registry_storage::{ObjectStoreBackend, Store};

use crate::digest;

const URL: &str = "https://bucket.example/1?signature=canary";

/// A storage whose blobs can be read elsewhere, too.
struct Elsewhere<S>(Arc<S>);

#[derive(Debug)]
struct Content;

#[async_trait]
impl BlobContent for Content {
    fn read(&self, _: Range<u64>) -> ByteStream {
        Box::pin(futures_util::stream::empty())
    }

    async fn signed_url(&self) -> Option<SignedUrl> {
        SignedUrl::new(URL, Duration::from_mins(20))
    }
}

macro_rules! call {
    ($self:ident.$method:ident($($argument:expr),*)) => { $self.0.$method($($argument),*).await };
}

forward_storage!(UploadStorage, ManifestStorage, ListStorage for [S: Storage] Elsewhere<S> => call);

#[async_trait]
impl<S: Storage> BlobStorage for Elsewhere<S> {
    async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
        self.0.stat_blob(repository, digest).await
    }

    async fn open_blob(&self, _: &RepositoryName, _: &Digest) -> Result<Blob, Error> {
        Ok(Blob {
            size: 5,
            content: Arc::new(Content),
        })
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        self.0.mount_blob(from, to, digest).await
    }

    async fn list_blob_repositories(
        &self,
        digest: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error> {
        self.0.list_blob_repositories(digest, page).await
    }

    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        self.0.delete_blob(repository, digest, immutable).await
    }
}

#[tokio::test]
async fn only_clients_of_the_networks_are_sent_elsewhere_and_a_wrapped_storage_still_says_where() {
    let storage = Elsewhere(Arc::new(Store::new(ObjectStoreBackend::memory())));
    let storage = MeteredStorage::new(Arc::new(storage), "test", Arc::new(Metrics::default()));
    let mut options = Options::default();
    options.redirect_from_size = Some(5);
    let everybody = RegistryService::new(Registry::new(Arc::new(storage), options), Limits::default());
    let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|network| network.parse().unwrap());
    let some = everybody.clone().with_redirected_networks(networks);
    for (client, is_sent) in [
        (Some("192.0.2.1"), true),
        (Some("::ffff:192.0.2.1"), true),
        (Some("2001:db8::1"), true),
        (Some("192.0.3.1"), false),
        (None, false),
    ] {
        let ask = async |service: &RegistryService<_>| {
            let path = format!("/v2/a/blobs/{}", digest(b"hello"));
            let request = Request::get(path).header("Host", "registry.example");
            let mut request = request.body(Empty::<Bytes>::new()).unwrap();
            if let Some(client) = client {
                let client: IpAddr = client.parse().unwrap();
                let connection = Connection::new(PeerAddress::Tcp((client, 1).into()));
                request.extensions_mut().insert(connection);
            }
            service.answer(request).await
        };
        let answer = ask(&everybody).await;
        assert_eq!(answer.status(), 307, "{client:?}");
        assert_eq!(answer.headers()["location"], URL);
        assert_eq!(ask(&some).await.status() == 307, is_sent, "{client:?}");
    }
}
