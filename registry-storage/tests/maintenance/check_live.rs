//! `Store::check` beside pushes and deletes: what is half done is no finding.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use registry_core::storage::{BlobStorage as _, ManifestStorage as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use registry_storage::Maintenance as _;
use registry_storage::check::{CheckOptions, Severity};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::Faulty;
use registry_storage::testing::Observed;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::Random;
use registry_storage::{Backend, ObjectStoreBackend, Store, SweepOptions};

use crate::support::images::{digest, image, name, push_image, push_index, tag, try_push};

const CLIENTS: u64 = 4;
/// How many things each does at most; what a bucket forgets nothing of is looked at again and again.
const STEPS: usize = 300;
const CHECKS: usize = 4;

/// Pushes and deletes a few images, referrers, tags and blobs until it is told to stop.
async fn client<B: Backend>(store: Arc<Store<B>>, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = Random::new(seed);
    for _ in 0..STEPS {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let repository = ["a", "b/c"][random.below(2)];
        let number = random.below(3) as u64;
        let size = [100, 20_000][random.below(2)];
        let tags = ["one", "two"];
        let tag_name = tags[random.below(2)];
        let base = image(number, size, None);
        let referrer = image(number, size, Some(&base));
        let result = match random.below(8) {
            0 | 1 => try_push(&*store, repository, Some(tag_name), &base).await,
            2 => try_push(&*store, repository, None, &referrer).await,
            3 => {
                store
                    .delete_manifest(&name(repository), &base.digest, None, None)
                    .await
            }
            4 => {
                store
                    .delete_manifest(&name(repository), &referrer.digest, None, None)
                    .await
            }
            5 => store.delete_tag(&name(repository), &tag(tag_name), None).await,
            6 => {
                store
                    .delete_blob(&name(repository), &digest(&base.layer), None)
                    .await
            }
            _ => store
                .mount_blob(&name("a"), &name("b/c"), &digest(&base.config))
                .await
                .map(drop),
        };
        accept(result);
        tokio::task::yield_now().await;
    }
}

/// Others delete what a client needs.
fn accept(result: Result<(), Error>) {
    if let Err(error) = result {
        let expected = [
            ErrorCode::ManifestBlobUnknown,
            ErrorCode::ManifestUnknown,
            ErrorCode::NameUnknown,
            ErrorCode::BlobUnknown,
            ErrorCode::Unavailable,
        ];
        assert!(expected.contains(&error.code()), "{error:?}");
    }
}

async fn nothing_is_found<B: Backend>(backend: B, settle: Duration, is_swept: bool) {
    let store = Arc::new(Store::new(backend));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| tokio::spawn(client(Arc::clone(&store), seed, Arc::clone(&stop))))
        .collect();
    let started = Instant::now();
    for round in 0..CHECKS {
        let options = CheckOptions::new()
            .settle(settle)
            .verify_content(true)
            .repair(round % 2 == 1);
        let observed = Observed::default();
        store.check(&options, &observed).await.unwrap();
        let mut findings = observed.into_records();
        findings.retain(|finding| finding.problem.severity() == Severity::Broken);
        assert!(findings.is_empty(), "{findings:#?}");
        if is_swept {
            store.sweep(&SweepOptions::default()).await.unwrap();
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "the checks take too long"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // That it is not for lack of looking.
    let image = push_image(&*store, "a", Some("last"), 77, 20_000).await;
    push_index(&*store, "a", "index", &[&image]).await;
    let bytes = store.backend().list_bytes(None, 1000).await.unwrap();
    for name in bytes {
        store.backend().delete_bytes(&name).await.unwrap();
    }
    let report = store.check(&CheckOptions::new(), &()).await.unwrap();
    assert!(!report.is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let backend = FilesystemBackend::open(folder.path()).await.unwrap();
    nothing_is_found(backend, Duration::ZERO, true).await;
}

/// On a bucket every step of a push stands alone for a while.
#[tokio::test]
async fn on_a_bucket() {
    let backend = Faulty::new(ObjectStoreBackend::memory());
    let mut random = Random::new(1);
    for call in 0..400_000 {
        backend.fault_at(call, Fault::Delay(random.below(4) as u32));
    }
    nothing_is_found(backend, Duration::from_millis(100), false).await;
}
