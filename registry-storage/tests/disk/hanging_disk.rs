//! A disk of which some files do not answer.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::{Error, ErrorCode};
use registry_storage::BytesName;
use registry_storage::backend::{Backend as _, Expect, StagedBytes};
use registry_storage::filesystem::{FILE_THREADS, FilesystemBackend, FilesystemOptions};
use tokio::time::timeout;

use crate::intercepted::{Intercept, InterceptedDisk};

/// A read that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The files for which no call ends.
#[derive(Debug, Default)]
struct Hanging {
    paths: Mutex<BTreeSet<PathBuf>>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Hanging {
    fn set(&self, paths: impl IntoIterator<Item = PathBuf>) {
        *self.paths.lock().unwrap() = paths.into_iter().collect();
        self.changed.notify_all();
    }

    fn wait_for(&self, path: &Path) {
        let paths = self.paths.lock().unwrap();
        if !paths.contains(path) {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = self.changed.wait_while(paths, |paths| paths.contains(path));
        drop(waited.unwrap());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Intercept for Hanging {
    fn before_open(&self, path: &Path) -> io::Result<()> {
        self.wait_for(path);
        Ok(())
    }

    fn before_call(&self, path: &Path) -> io::Result<()> {
        self.wait_for(path);
        Ok(())
    }
}

fn name(number: usize) -> BytesName {
    BytesName::parse(&format!("20260101/00000000-0000-4000-8000-{number:012}")).unwrap()
}

async fn write(backend: &FilesystemBackend, name: &BytesName, content: &Bytes) {
    let bytes = StagedBytes {
        name: name.clone(),
        token: None,
    };
    let mut writer = backend.write_bytes(&bytes, Arc::new(())).await.unwrap();
    writer.write(0, 0, content.clone()).await.unwrap();
    writer.close().await.unwrap();
    backend.seal_bytes(&bytes, content.len() as u64).await.unwrap();
}

async fn read(backend: &FilesystemBackend, name: &BytesName, size: usize) -> Result<Bytes, Error> {
    let content = backend.open_bytes(name, Expect::Nothing).await?.unwrap();
    let mut stream = content.read(0..size as u64);
    let mut read = Vec::new();
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk?);
    }
    Ok(read.into())
}

/// Runs a test as the server would: with as many threads for calls that block as it has.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32 + FILE_THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

#[test]
fn forty_reads_that_do_not_end_stop_neither_other_reads_nor_writes() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let hanging = Arc::<Hanging>::default();
        let disk = Arc::new(InterceptedDisk(Arc::clone(&hanging)));
        let backend = FilesystemOptions::new()
            .disk(disk)
            .open(folder.path())
            .await
            .unwrap();
        let backend = Arc::new(backend);
        let content = Bytes::from(vec![7; 100_000]);
        for number in 0..=40 {
            write(&backend, &name(number), &content).await;
        }
        let path = |number| folder.path().join("bytes").join(name(number).as_str());
        hanging.set((0..40).map(path));
        // Each file by itself, and clients that come back for the same.
        let mut pulls: Vec<_> = (0..80)
            .map(|number| {
                let (backend, size) = (Arc::clone(&backend), content.len());
                tokio::spawn(async move { read(&backend, &name(number % 40), size).await })
            })
            .collect();
        // Half of the clients go.
        for pull in pulls.drain(40..) {
            tokio::task::yield_now().await;
            pull.abort();
        }
        for _ in 0..3 {
            let other = timeout(PATIENCE, read(&backend, &name(40), content.len())).await;
            assert_eq!(other.expect("other files are read").unwrap(), content);
        }
        let written = timeout(PATIENCE, write(&backend, &name(41), &content)).await;
        written.expect("writes go on");
        hanging.set([]);
        for pull in pulls {
            match pull.await.unwrap() {
                Ok(read) => assert_eq!(read, content),
                Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable),
            }
        }
        let again = read(&backend, &name(0), content.len()).await.unwrap();
        assert_eq!(again, content, "a disk that answers again is read");
        backend.close().await.unwrap();
    });
}

async fn open(folder: &Path) -> (Arc<Hanging>, Arc<FilesystemBackend>) {
    let hanging = Arc::<Hanging>::default();
    let disk = Arc::new(InterceptedDisk(Arc::clone(&hanging)));
    let backend = FilesystemOptions::new().disk(disk).open(folder).await.unwrap();
    (hanging, Arc::new(backend))
}

/// Waits until so many calls hang.
async fn until_hanging(hanging: &Hanging, calls: usize) {
    let all = async {
        while hanging.waiting.load(Ordering::Relaxed) < calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("calls hang");
}

/// A push looks at bytes that are there already, and others write: both for files that do not answer.
#[test]
fn lengths_and_writes_that_do_not_end_stop_neither_other_pulls_nor_other_writes() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (hanging, backend) = open(folder.path()).await;
        let content = Bytes::from(vec![7; 100_000]);
        for number in 0..=40 {
            write(&backend, &name(number), &content).await;
        }
        let path = |number| folder.path().join("bytes").join(name(number).as_str());
        hanging.set((0..40).chain(100..140).map(path));
        let lengths: Vec<_> = (0..40)
            .map(|number| {
                let backend = Arc::clone(&backend);
                tokio::spawn(async move { backend.bytes_size(&name(number)).await })
            })
            .collect();
        let writes: Vec<_> = (100..140)
            .map(|number| {
                let (backend, content) = (Arc::clone(&backend), content.clone());
                tokio::spawn(async move { write(&backend, &name(number), &content).await })
            })
            .collect();
        until_hanging(&hanging, 80).await;
        for number in 200..203 {
            let other = timeout(PATIENCE, read(&backend, &name(40), content.len())).await;
            assert_eq!(other.expect("other files are read").unwrap(), content);
            let size = timeout(PATIENCE, backend.bytes_size(&name(40))).await;
            assert_eq!(size.expect("other files have a length").unwrap(), Some(100_000));
            let written = timeout(PATIENCE, write(&backend, &name(number), &content)).await;
            written.expect("writes go on");
        }
        hanging.set([]);
        for length in lengths {
            match length.await.unwrap() {
                Ok(length) => assert_eq!(length, Some(100_000)),
                Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable),
            }
        }
        for write in writes {
            write.await.unwrap();
        }
        backend.close().await.unwrap();
    });
}

/// More than there are threads for: whoever comes is told at once, the records and writes go on, and so do reads once one ends.
#[test]
fn where_every_read_hangs_the_next_one_is_refused_at_once_and_writes_go_on() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (hanging, backend) = open(folder.path()).await;
        let content = Bytes::from(vec![7; 40_000]);
        let count = 16 + 128;
        for number in 0..=count {
            write(&backend, &name(number), &content).await;
        }
        let path = |number| folder.path().join("bytes").join(name(number).as_str());
        hanging.set((0..count).map(path));
        let pulls: Vec<_> = (0..count)
            .map(|number| {
                let (backend, size) = (Arc::clone(&backend), content.len());
                tokio::spawn(async move { read(&backend, &name(number), size).await })
            })
            .collect();
        until_hanging(&hanging, count).await;
        // Each is older than ten seconds by then; before, one waits for a turn.
        let refused = timeout(PATIENCE, read(&backend, &name(count), content.len())).await;
        let error = refused.expect("it is told").unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert!(error.message().contains("does not answer"), "{error}");
        let last = name(count);
        let at_once = read(&backend, &last, content.len());
        let at_once = timeout(Duration::from_secs(5), at_once).await.expect("at once");
        assert_eq!(at_once.unwrap_err().code(), ErrorCode::Unavailable);
        assert_eq!(backend.probe().await.unwrap_err().code(), ErrorCode::Unavailable);
        let written = timeout(PATIENCE, write(&backend, &name(500), &content)).await;
        written.expect("writes go on");
        hanging.set((1..count).map(path));
        let again = async {
            while read(&backend, &name(count), content.len()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, again)
            .await
            .expect("a read that ended leaves its place");
        hanging.set([]);
        for pull in pulls {
            drop(pull.await.unwrap());
        }
        backend.close().await.unwrap();
    });
}
