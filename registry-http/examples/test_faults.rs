//! Tests of a program that downloads from registries, against a registry that fails on demand.
//!
//! ```console
//! cargo run -p registry-http --example test_faults
//! ```
//!
//! In a crate of yours, `registry-http` with the feature `testing` is a development dependency, each function of
//! [`main`] is a `#[tokio::test]`, and [`download`] is what you test.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod client;

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use registry_core::range::{ByteRange, RangeHeader};
use registry_core::request::Request;
use registry_core::response::{ReceivedResponse, ResponseError, RetryAfter};
use registry_core::{Algorithm, Digest, ErrorCode, RepositoryName};
use registry_http::HeaderFields;
use registry_http::testing::{RegistryEndpoint, TestRegistry};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Result};

/// How often a download is tried.
const ATTEMPTS: usize = 4;

/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);

// ---- What is tested: a download that continues where it broke off. ----

/// Downloads a blob. After a failure that may pass, it continues with the bytes that are missing.
async fn download(registry: SocketAddr, repository: &RepositoryName, digest: &Digest) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut attempt = 1;
    loop {
        let part = timeout(
            PATIENCE,
            download_part(registry, repository, digest, &mut content),
        );
        let error = match part.await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        let wait = match error.downcast_ref() {
            Some(ResponseError::Refused(refusal)) if refusal.is_temporary() => refusal.retry_after,
            Some(_) => return Err(error),
            None => None,
        };
        if attempt == ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
        if let Some(RetryAfter::Delay(delay)) = wait {
            sleep(delay.min(PATIENCE)).await;
        }
    }
    if Digest::of(Algorithm::Sha256, &content) == *digest {
        Ok(content)
    } else {
        Err("the registry sent other content".into())
    }
}

/// Appends what is missing of a blob to `content`, which keeps what arrived if the connection breaks.
async fn download_part(
    registry: SocketAddr,
    repository: &RepositoryName,
    digest: &Digest,
    content: &mut Vec<u8>,
) -> Result<()> {
    let first = content.len() as u64;
    let range = (first > 0).then(|| RangeHeader::new(vec![ByteRange::From { first }]));
    let get = Request::GetBlob {
        repository: repository.clone(),
        digest: digest.clone(),
        range: range.flatten(),
        if_none_match: None,
        namespace: None,
    };
    let parts = get.build();
    let mut request = http::Request::builder()
        .uri(parts.target)
        .header("Host", registry.to_string());
    for (name, value) in parts.fields {
        request = request.header(name, value);
    }
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(registry).await?)).await?;
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let response = sender
        .send_request(request.body(Empty::<bytes::Bytes>::new())?)
        .await?;
    let (parts, mut body): (_, Incoming) = response.into_parts();
    ReceivedResponse::new(parts.status.as_u16(), HeaderFields(&parts.headers), b"").blob(digest)?;
    if parts.status == 200 {
        // The registry ignored the range.
        content.clear();
    }
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame?.into_data() {
            content.extend_from_slice(&chunk);
        }
    }
    Ok(())
}

// ---- The tests. ----

#[tokio::main]
async fn main() -> Result<()> {
    a_busy_registry_is_asked_again().await?;
    a_broken_download_continues().await?;
    a_connection_without_an_answer_is_tried_again().await?;
    a_slow_registry_is_asked_again().await?;
    a_blob_that_is_not_there_is_asked_for_once().await
}

/// Starts a registry with one image, and returns its layer.
async fn registry_with_an_image() -> Result<(TestRegistry, RepositoryName, Vec<u8>, Digest)> {
    let registry = TestRegistry::start().await;
    let repository = "library/app".parse()?;
    let layer: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut client = Client::connect(registry.address()).await?;
    client.push(&repository, &"1".parse()?, &layer).await?;
    assert_eq!(client.pull(&repository, &"1".parse()?).await?[1], layer);
    registry.clear_requests();
    let digest = Digest::of(Algorithm::Sha256, &layer);
    Ok((registry, repository, layer, digest))
}

async fn a_busy_registry_is_asked_again() -> Result<()> {
    let (registry, repository, layer, digest) = registry_with_an_image().await?;
    registry.fail(RegistryEndpoint::GetBlob, 1).status(503);
    registry.fail(RegistryEndpoint::GetBlob, 2).status(429);
    let content = download(registry.address(), &repository, &digest).await?;
    assert_eq!(content, layer);
    assert_eq!(registry.requests().len(), 3);
    println!("after 503 and 429, the third attempt has the blob");
    Ok(())
}

async fn a_broken_download_continues() -> Result<()> {
    let (registry, repository, layer, digest) = registry_with_an_image().await?;
    registry.fail(RegistryEndpoint::GetBlob, 1).truncate(60_000);
    let content = download(registry.address(), &repository, &digest).await?;
    assert_eq!(content, layer);
    // The journal has what the client sent.
    let requests = registry.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header["Range"], "bytes=60000-");
    println!("after 60 000 of 100 000 bytes, the second attempt asked for the rest");
    Ok(())
}

async fn a_connection_without_an_answer_is_tried_again() -> Result<()> {
    let (registry, repository, layer, digest) = registry_with_an_image().await?;
    registry.fail(RegistryEndpoint::GetBlob, 1).reset();
    let content = download(registry.address(), &repository, &digest).await?;
    assert_eq!(content, layer);
    println!("after a reset, the second attempt has the blob");
    Ok(())
}

async fn a_slow_registry_is_asked_again() -> Result<()> {
    let (registry, repository, layer, digest) = registry_with_an_image().await?;
    registry.fail(RegistryEndpoint::GetBlob, 1).delay(10 * PATIENCE);
    let content = download(registry.address(), &repository, &digest).await?;
    assert_eq!(content, layer);
    println!("after a silence, the second attempt has the blob");
    Ok(())
}

async fn a_blob_that_is_not_there_is_asked_for_once() -> Result<()> {
    let (registry, repository, ..) = registry_with_an_image().await?;
    let missing = Digest::of(Algorithm::Sha256, b"never pushed");
    let error = download(registry.address(), &repository, &missing).await.err();
    let error = error.ok_or("a blob that was never pushed")?;
    let Some(ResponseError::Refused(refusal)) = error.downcast_ref() else {
        return Err(error);
    };
    assert_eq!(refusal.code(), Some(ErrorCode::BlobUnknown));
    assert_eq!(registry.requests().len(), 1);
    println!("a blob that is not there: {refusal}");
    Ok(())
}
