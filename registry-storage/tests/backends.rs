//! Every backend under the conformance kit.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use registry_storage::ObjectStoreBackend;

mod memory {
    use super::*;

    registry_storage::backend_conformance_tests!(async || (ObjectStoreBackend::memory(), ()));
}

mod faulty_without_faults {
    use super::*;
    use registry_storage::testing::Faulty;

    registry_storage::backend_conformance_tests!(async || (Faulty::new(ObjectStoreBackend::memory()), ()));
}

mod s3 {
    use super::*;
    use registry_storage::testing::S3Double;

    async fn start() -> (ObjectStoreBackend, S3Double) {
        let double = S3Double::start().await.unwrap();
        (double.backend("a/prefix").unwrap(), double)
    }

    registry_storage::backend_conformance_tests!(start);
}

/// A gateway that serves a folder as a bucket, by others: `cargo test -- --ignored versitygw`.
mod versitygw {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    struct Gateway {
        child: Child,
        _folder: tempfile::TempDir,
    }

    impl Drop for Gateway {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    async fn start() -> (ObjectStoreBackend, Gateway) {
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
        let backend =
            registry_storage::testing::s3::backend_at(&url, "bucket", "double", "doubledouble", "p");
        (backend.unwrap(), gateway)
    }

    registry_storage::backend_conformance_tests!(start, ignore = "needs VERSITYGW=/path/to/versitygw");
}

#[cfg(all(feature = "filesystem", unix))]
mod filesystem {
    use registry_storage::filesystem::FilesystemBackend;

    async fn open() -> (FilesystemBackend, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        (FilesystemBackend::open(root.path()).await.unwrap(), root)
    }

    registry_storage::backend_conformance_tests!(open);
}
