//! What Azure does and Azurite does not: an object keeps its type until it is deleted, and a copy may go on after the answer.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use registry_core::{Algorithm, Digest, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{AzureCredentials, AzureOptions, ObjectStoreBackend};
use crate::bytes_name::BytesName;

/// A container in memory, by keys.
type Container = Arc<Mutex<BTreeMap<String, Blob>>>;

#[derive(Clone)]
struct Blob {
    kind: &'static str,
    content: Bytes,
    /// How many reads are refused until it is copied.
    pending: usize,
}

const BLOCK: &str = "BlockBlob";
const APPEND: &str = "AppendBlob";

/// How many reads come before a copy is done.
const PENDING: usize = 3;

const BEFORE_KEY: &str = "/account/container/root/";

fn blob(kind: &'static str, content: &'static [u8]) -> Blob {
    Blob {
        kind,
        content: Bytes::from_static(content),
        pending: 0,
    }
}

/// A server, which ends with the second result.
async fn start() -> (ObjectStoreBackend, JoinSet<()>, Container) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let options = AzureOptions {
        account: Some("account".into()),
        credentials: AzureCredentials::Key("a2V5".into()),
        endpoint: Some(format!("http://{}/account", listener.local_addr().unwrap())),
        ..AzureOptions::default()
    };
    let container = Container::default();
    let served = Arc::clone(&container);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let container = Arc::clone(&served);
            let service = service_fn(move |request| serve(Arc::clone(&container), request));
            connections.spawn(async move {
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connection.await.ok();
            });
        }
    });
    let backend = ObjectStoreBackend::azure("container", "root", &options).unwrap();
    (backend, server, container)
}

async fn serve(
    container: Container,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut blobs = container.lock().unwrap();
    if head.method == Method::POST {
        return Ok(deleted(&mut blobs, std::str::from_utf8(&body).unwrap()));
    }
    let key = head.uri.path().strip_prefix(BEFORE_KEY).unwrap();
    let found = blobs.get(key).cloned();
    let source = head.headers.get("x-ms-copy-source");
    let answer = match head.method {
        Method::PUT => {
            let new = match source {
                Some(source) => {
                    let (_, source) = source.to_str().unwrap().split_once(BEFORE_KEY).unwrap();
                    Blob {
                        pending: PENDING,
                        ..blobs[source].clone()
                    }
                }
                None => Blob {
                    content: body,
                    ..blob(BLOCK, b"")
                },
            };
            if found.is_some_and(|found| found.kind != new.kind) {
                refused(StatusCode::CONFLICT, "InvalidBlobType")
            } else {
                blobs.insert(key.to_owned(), new);
                answered(StatusCode::CREATED, Bytes::new())
            }
        }
        _ => match found {
            None => refused(StatusCode::NOT_FOUND, "BlobNotFound"),
            Some(found) if found.pending > 0 => {
                blobs.get_mut(key).unwrap().pending -= 1;
                refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange")
            }
            Some(found) if head.method == Method::HEAD => {
                let mut answer = answered(StatusCode::OK, Bytes::new());
                answer
                    .headers_mut()
                    .insert(CONTENT_LENGTH, found.content.len().into());
                answer
            }
            // The first byte.
            Some(found) => {
                let mut answer = answered(StatusCode::PARTIAL_CONTENT, found.content.slice(..1));
                let range = format!("bytes 0-0/{}", found.content.len());
                answer.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
                answer
            }
        },
    };
    Ok(answer)
}

/// Answers a batch of one delete, which is how the library sends it.
fn deleted(blobs: &mut BTreeMap<String, Blob>, batch: &str) -> Response<Full<Bytes>> {
    let (_, key) = batch.split_once("account/container/root/").unwrap();
    let (key, _) = key.split_once(' ').unwrap();
    blobs.remove(key).unwrap();
    let body = "--b\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n--b--\r\n";
    let mut answer = answered(StatusCode::ACCEPTED, body.into());
    let kind = "multipart/mixed; boundary=b".parse().unwrap();
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn answered(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header(ETAG, "\"1\"");
    let answer = answer.header(LAST_MODIFIED, "Mon, 06 Jan 2025 00:00:00 GMT");
    answer.body(body.into()).unwrap()
}

fn refused(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    answered(status, body.into())
}

#[tokio::test]
async fn an_object_of_the_tree_is_overwritten_whatever_its_type_is() {
    let (backend, _server, container) = start().await;
    for kind in [APPEND, BLOCK] {
        container
            .lock()
            .unwrap()
            .insert("link".into(), blob(kind, b"before"));
        let after = Bytes::from_static(b"after");
        backend.put_tree_object("link", after.clone()).await.unwrap();
        let blobs = container.lock().unwrap();
        assert_eq!((blobs["link"].kind, &blobs["link"].content), (BLOCK, &after));
    }
}

#[tokio::test]
async fn a_copy_replaces_a_layer_of_another_type_and_is_done_when_it_can_be_read() {
    const CONTENT: &[u8] = b"content";
    let (backend, _server, container) = start().await;
    let from = BytesName::random(Timestamp(0));
    let to = BytesName::in_tree(&Digest::of(Algorithm::Sha256, CONTENT)).unwrap();
    let key = backend.bytes_path(&to).unwrap();
    let key = key.as_ref().strip_prefix("root/").unwrap();
    let source = (format!("bytes/{from}"), blob(BLOCK, CONTENT));
    container.lock().unwrap().extend([source]);
    for there in [
        None,
        Some(blob(APPEND, b"damaged")),
        Some(blob(BLOCK, b"damaged")),
    ] {
        {
            let mut blobs = container.lock().unwrap();
            blobs.remove(key);
            blobs.extend(there.map(|there| (key.to_owned(), there)));
        }
        assert!(
            backend
                .copy_bytes(&from, &to, CONTENT.len() as u64)
                .await
                .unwrap()
        );
        let blobs = container.lock().unwrap();
        let copy = &blobs[key];
        assert_eq!((copy.kind, &*copy.content, copy.pending), (BLOCK, CONTENT, 0));
    }
}
