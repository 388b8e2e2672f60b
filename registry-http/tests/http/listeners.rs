//! The kinds of sockets that a server listens at.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry_core::Registry;
use registry_core::registry::Options;
use registry_http::{Limits, ListenAddress, Listener, PeerAddress, RegistryService, Server};
use registry_storage::{ObjectStoreBackend, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::Records;
use crate::client::Client;

pub(crate) type Service = RegistryService<Store<ObjectStoreBackend>>;

pub(crate) fn service() -> Service {
    let storage = Arc::new(Store::new(ObjectStoreBackend::memory()));
    RegistryService::new(Registry::new(storage, Options::default()), Limits::default())
}

/// Returns the first line that a server answers at a unix socket.
async fn ask(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let request = "GET /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_unix_socket_is_served_with_its_mode_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let records = Records::default();
    let service = service().with_observer(Arc::new(records.clone()));
    let listener = Listener::bind_unix(&path, Some(0o620), None).await.unwrap();
    let server = Server::serve([listener], service, Limits::default()).unwrap();
    assert_eq!(server.addresses(), [ListenAddress::Unix(path.clone())]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    assert_eq!(ask(&path).await, "HTTP/1.1 200 OK");
    let record = records.wait(|_| true).await;
    assert_eq!(record.peer, Some(PeerAddress::Unix));
    server.shutdown(Duration::from_secs(5)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_unix_socket_belongs_to_the_group_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // One of the process' own, or any at all for root.
    let own = std::fs::metadata(folder.path()).unwrap();
    let group = if own.uid() == 0 { 4711 } else { own.gid() };
    let listener = Listener::bind_unix(&path, Some(0o660), Some(group))
        .await
        .unwrap();
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.gid(), file.mode() & 0o777), (group, 0o660));
    drop(listener);
    if own.uid() != 0 {
        Listener::bind_unix(&path, None, Some(0)).await.unwrap_err();
        assert!(!path.exists(), "what cannot be used is taken away again");
    }
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_one_that_is_in_use_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = Listener::bind_unix(&path, None, None).await.unwrap();
    let second = Listener::bind_unix(&path, None, None).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AddrInUse);
    // Whose socket was replaced by another leaves that alone.
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(other);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind_unix(&path, None, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn several_listeners_share_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listeners = [
        Listener::bind("127.0.0.1:0").await.unwrap(),
        Listener::bind_unix(&path, None, None).await.unwrap(),
    ];
    let server = Server::serve(listeners, service(), Limits::default()).unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    assert_eq!(Client::connect(address).await.get("/v2/").await.status, 200);
    assert_eq!(ask(&path).await, "HTTP/1.1 200 OK");
    assert!(Server::serve([], service(), Limits::default()).is_err());
}

#[tokio::test]
async fn http2_can_be_switched_off() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap().without_http2();
    let server = Server::serve([listener], service(), Limits::default()).unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    assert_eq!(Client::connect(address).await.get("/v2/").await.status, 200);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // What follows the refusal may be cut off.
    drop(stream.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(&[0]), "no frame of settings: {answer:?}");
}
