//! URLs with which clients read blobs from a bucket by themselves.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer, Url};
use registry_core::storage::{Blob, BlobStorage as _, SignedUrl, UploadKey, UploadStorage as _};
use registry_core::{Algorithm, Digest, RepositoryName};
use registry_storage::testing::S3Double;
use registry_storage::{Backend, ObjectStoreBackend, S3Options, Store};

/// More than what is kept in a record.
const LARGE: usize = 100_000;

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

async fn push<B: Backend>(store: &Store<B>, content: &[u8]) -> Blob {
    let repository: RepositoryName = "a/b".parse().unwrap();
    let digest = Digest::of(Algorithm::Sha256, content);
    let id = store
        .create_upload(&repository, "", Algorithm::Sha256)
        .await
        .unwrap();
    let upload = UploadKey {
        repository: repository.clone(),
        id,
        principal: String::new(),
    };
    let mut body = pin!(stream::iter([Ok(Bytes::copy_from_slice(content))]));
    store
        .finish_upload(&upload, &digest, None, body.as_mut())
        .await
        .unwrap();
    store.open_blob(&repository, &digest).await.unwrap()
}

fn options(double: &S3Double) -> S3Options {
    let mut options = S3Options::default();
    options.access_key = Some(("double".into(), "canary".into()));
    options.region = Some("us-east-1".into());
    options.endpoint = Some(double.url().into());
    options
}

async fn signed(backend: ObjectStoreBackend) -> SignedUrl {
    let blob = push(&Store::new(backend), &content(LARGE)).await;
    assert!(!format!("{blob:?}").contains("X-Amz"), "{blob:?}");
    blob.content.signed_url().await.unwrap()
}

/// Requests a URL as a client that knows nothing else. Returns the header and the body.
fn request(method: &str, url: &str, fields: &str) -> (String, Vec<u8>) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, target) = rest.split_at(rest.find('/').unwrap());
    let mut connection = TcpStream::connect(host).unwrap();
    write!(
        connection,
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end + 4..].to_vec())
}

fn parameters(url: &SignedUrl) -> BTreeMap<String, String> {
    let (_, query) = url.reveal().split_once('?').unwrap();
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_a_blob_by_its_url_whole_and_in_ranges_and_nothing_else() {
    let double = S3Double::start().await.unwrap();
    let backend = ObjectStoreBackend::s3("bucket", "p", &options(&double)).unwrap();
    assert_eq!(
        backend.signed_origin().await.unwrap().as_deref(),
        Some(double.url())
    );
    let url = signed(backend).await;
    assert_eq!(url.lifetime(), Duration::from_mins(20));
    assert_eq!(parameters(&url)["X-Amz-Expires"], "1200");

    let (head, body) = request("GET", url.reveal(), "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // The type that objects have by themselves is another.
    assert!(head.contains("content-type: application/octet-stream"), "{head}");
    assert!(body == content(LARGE));
    let (head, body) = request("GET", url.reveal(), "Range: bytes=99990-\r\n");
    assert!(
        head.starts_with("HTTP/1.1 206") && body == content(LARGE)[99_990..],
        "{head}"
    );
    for method in ["HEAD", "DELETE", "PUT"] {
        let (head, _) = request(method, url.reveal(), "");
        assert!(head.starts_with("HTTP/1.1 403"), "{method}: {head}");
    }
}

#[tokio::test]
async fn a_blob_in_its_record_and_one_in_memory_have_no_url() {
    let double = S3Double::start().await.unwrap();
    let backend = ObjectStoreBackend::s3("bucket", "p", &options(&double)).unwrap();
    let small = push(&Store::new(backend), &content(1000)).await;
    assert_eq!(small.content.signed_url().await, None);
    let memory = ObjectStoreBackend::memory();
    assert_eq!(memory.signed_origin().await.unwrap(), None);
    let large = push(&Store::new(memory), &content(LARGE)).await;
    assert_eq!(large.content.signed_url().await, None);
}

#[tokio::test]
async fn the_host_that_clients_are_sent_to_is_part_of_what_is_signed() {
    let double = S3Double::start().await.unwrap();
    let mut options = options(&double);
    options.redirect_endpoint = Some("https://cdn.example/".into());
    let backend = ObjectStoreBackend::s3("bucket", "p", &options).unwrap();
    let url = signed(backend).await;
    assert!(
        url.reveal().starts_with("https://cdn.example/bucket/p/bytes/"),
        "{}",
        url.reveal()
    );
    assert_eq!(parameters(&url)["X-Amz-SignedHeaders"], "host");
    // The host is that of the option, without the bucket.
    options.bucket_in_host = true;
    let backend = ObjectStoreBackend::s3("bucket", "p", &options).unwrap();
    let origin = backend.signed_origin().await.unwrap();
    assert_eq!(origin.as_deref(), Some("https://cdn.example"));
    for endpoint in [
        "cdn.example",
        "https://cdn.example/path",
        "https://a@cdn.example",
        "ftp://cdn",
        "https://",
    ] {
        options.redirect_endpoint = Some(endpoint.into());
        let error = ObjectStoreBackend::s3("bucket", "p", &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            options.check("bucket").unwrap_err().to_string()
        );
        assert!(
            error.to_string().contains("without a path"),
            "{endpoint}: {error}"
        );
    }
}

/// A signer whose keys are gone.
#[derive(Debug, Default)]
struct WithoutKeys(AtomicUsize);

#[async_trait]
impl Signer for WithoutKeys {
    async fn signed_url(&self, _: Method, _: &Path, _: Duration) -> object_store::Result<Url> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(object_store::Error::NotImplemented {
            operation: "sign".into(),
            implementer: "none".into(),
        })
    }
}

#[tokio::test]
async fn without_keys_content_comes_from_here_and_they_are_not_asked_for_each_time() {
    let double = S3Double::start().await.unwrap();
    let signer = Arc::new(WithoutKeys::default());
    let dynamic: Arc<dyn Signer> = Arc::clone(&signer) as _;
    let backend = double
        .backend("p")
        .unwrap()
        .with_signer(dynamic, SignedUrlOptions::new());
    assert!(backend.signed_origin().await.is_err());
    let blob = push(&Store::new(backend), &content(LARGE)).await;
    let before = signer.0.load(Ordering::Relaxed);
    for _ in 0..5 {
        assert_eq!(blob.content.signed_url().await, None);
    }
    assert_eq!(signer.0.load(Ordering::Relaxed), before + 1);
}

#[cfg(feature = "gcs")]
#[tokio::test]
async fn only_the_key_of_a_service_account_signs_urls_of_google() {
    use registry_storage::GcsCredentials;

    let pem = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../registry-http/tests/http/certificates/rsa-pkcs8.pem"
    );
    let key = serde_json::json!({
        "type": "service_account",
        "client_email": "me@example",
        "private_key": std::fs::read_to_string(pem).unwrap(),
        "private_key_id": "1",
    });
    let backend = ObjectStoreBackend::gcs("bucket", "p", &GcsCredentials::Key(key.to_string())).unwrap();
    let origin = backend.signed_origin().await.unwrap();
    assert_eq!(origin.as_deref(), Some("https://storage.googleapis.com"));
    let backend = ObjectStoreBackend::gcs("bucket", "p", &GcsCredentials::Environment).unwrap();
    assert_eq!(backend.signed_origin().await.unwrap(), None);
}

#[cfg(feature = "azure")]
#[tokio::test]
async fn the_key_of_an_account_signs_urls_of_azure() {
    use registry_storage::{AzureCredentials, AzureOptions};

    let mut options = AzureOptions::default();
    options.account = Some("me".into());
    options.credentials = AzureCredentials::Key("a2V5".into());
    let backend = ObjectStoreBackend::azure("bucket", "p", &options).unwrap();
    let origin = backend.signed_origin().await.unwrap();
    assert_eq!(origin.as_deref(), Some("https://me.blob.core.windows.net"));
}
