//! A gateway that serves a folder as a bucket, by others.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use registry_storage::ObjectStoreBackend;

/// Stops when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An empty bucket of the program that the variable `VERSITYGW` names.
pub(crate) async fn start() -> (ObjectStoreBackend, Gateway) {
    let program = std::env::var("VERSITYGW").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new(program)
        .args(["--access", "double", "--secret", "doubledouble", "--port"])
        .args([&address.to_string(), "posix"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let gateway = Gateway {
        child,
        _folder: folder,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "the gateway does not listen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let url = format!("http://{address}");
    let backend = registry_storage::testing::s3::backend_at(&url, "bucket", "double", "doubledouble", "p");
    (backend.unwrap(), gateway)
}
