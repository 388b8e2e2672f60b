//! A strict double of S3 on a thread of its own, for servers under test.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::sync::mpsc;
use std::thread;

use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Faults;

/// A server that speaks S3 and has one bucket, `bucket`. It ends with the value.
#[derive(Debug)]
pub(crate) struct BucketServer {
    double: S3Double,
    runtime: tokio::runtime::Runtime,
}

impl BucketServer {
    /// Starts one on a port of the system's choice.
    pub(crate) fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        // A runtime may not be entered from a test that runs in one.
        let starting = thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a thread can be started");
            let double = runtime.block_on(S3Double::start()).expect("a port is free");
            sender.send(Self { double, runtime }).expect("the test waits");
        });
        starting.join().expect("the double starts");
        receiver.recv().expect("the double started")
    }

    /// Returns the switches of its faults.
    pub(crate) fn faults(&self) -> &S3Faults {
        self.double.faults()
    }

    /// Looks at the bucket, or changes it, behind the servers' backs.
    pub(crate) fn block_on<T>(&self, work: impl AsyncFnOnce(&S3Double) -> T) -> T {
        self.runtime.block_on(work(&self.double))
    }

    /// Deletes the objects whose keys begin so, behind the back of the server under test.
    pub(crate) fn lose(&self, prefix: &str) {
        self.double.lose(prefix);
    }

    /// Returns the variables with which a server finds it.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT", self.url()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "double"),
            ("AWS_SECRET_ACCESS_KEY", "double"),
        ]
    }

    /// Returns its address, without the bucket.
    pub(crate) fn url(&self) -> &str {
        self.double.url()
    }

    /// Returns the keys of its objects that begin with `prefix`.
    pub(crate) fn keys_below(&self, prefix: &str) -> Vec<String> {
        let objects = self.double.objects().into_keys();
        objects.filter(|key| key.starts_with(prefix)).collect()
    }

    /// Returns how many parts its open uploads have.
    pub(crate) fn parts_of_open_uploads(&self) -> usize {
        self.double.parts_of_open_uploads()
    }
}
