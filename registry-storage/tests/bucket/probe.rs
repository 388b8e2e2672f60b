//! What a store must keep, tried over HTTP. The lies are in the tests beside the probe.

use registry_core::Timestamp;
use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Fault;
use registry_storage::{ObjectStoreBackend, ProbeError, Promise};

use crate::{any_s3, stores};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// So many requests a probe may take: each costs money and time.
const MOST_REQUESTS: u64 = 900;

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_bucket_passes_each_time() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("a/prefix").unwrap();
    for _ in 0..20 {
        let before = double.faults().requests();
        backend.probe_promises(NOW).await.unwrap();
        let requests = double.faults().requests() - before;
        assert!(requests <= MOST_REQUESTS, "{requests}");
    }
    let keys: Vec<_> = double.objects().into_keys().collect();
    assert_eq!(keys, ["a/prefix/probed/store"]);
    assert_eq!(double.open_uploads(), 0);
}

#[tokio::test]
async fn a_restart_costs_one_read() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("a").unwrap();
    backend.probe_promises(NOW).await.unwrap();
    let before = double.faults().requests();
    assert!(backend.was_probed(NOW).await.unwrap());
    assert_eq!(double.faults().requests() - before, 1);
}

#[tokio::test]
async fn a_bucket_that_ignores_conditions_is_refused() {
    let double = S3Double::start().await.unwrap();
    double.faults().ignore_conditions();
    let error = double.backend("").unwrap().probe_promises(NOW).await.unwrap_err();
    assert!(
        matches!(
            error,
            ProbeError::Broken {
                promise: Promise::Create,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(double.objects().is_empty());
}

/// 501 to a condition is an answer, 503 is none.
#[tokio::test]
async fn not_implemented_is_told_from_busy() {
    for (status, is_lie) in [(501, true), (503, false)] {
        let double = S3Double::start().await.unwrap();
        for request in 0..10 {
            double.faults().fault_at(request, S3Fault::Status(status));
        }
        let error = double.backend("").unwrap().probe_promises(NOW).await.unwrap_err();
        assert_eq!(
            matches!(error, ProbeError::Broken { .. }),
            is_lie,
            "{status}: {error:?}"
        );
        assert_eq!(
            error
                .to_string()
                .contains("does not implement conditional writes"),
            is_lie,
            "{error}"
        );
    }
}

/// A fault that passes is no lie, at whatever request: the probe passes, or says that a request failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fails_once_is_not_called_a_liar() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    backend.probe_promises(NOW).await.unwrap();
    let requests = double.faults().requests();
    let mut unanswered = 0;
    for fault in [
        S3Fault::LieAboutFailure,
        S3Fault::LoseAnswer,
        S3Fault::Status(409),
    ] {
        // Those in sequence come first, one after the other.
        for request in (0..30)
            .chain((30..300).step_by(5))
            .chain((300..requests).step_by(50))
        {
            double.faults().fault_after(request, fault);
            if let Err(error) = backend.probe_promises(NOW).await {
                assert!(
                    matches!(error, ProbeError::Unanswered(..)),
                    "{fault:?} at {request}: {error:?}"
                );
                unanswered += 1;
            }
        }
    }
    assert!(unanswered > 0, "the faults were met");
}

/// A delete on condition is a request of its own, which is signed by itself.
#[tokio::test]
async fn a_bucket_deletes_on_condition_if_it_keeps_that() {
    for keeps in [true, false] {
        let double = S3Double::start().await.unwrap();
        if !keeps {
            double.faults().ignore_delete_conditions();
        }
        let backend = double.backend("a").unwrap();
        backend.probe_promises(NOW).await.unwrap();
        assert_eq!(backend.deletes_on_condition(), keeps);
        let keys: Vec<_> = double.objects().into_keys().collect();
        assert_eq!(keys, ["a/probed/store"]);
    }
}

/// Two servers that start at once do not disturb each other.
#[tokio::test(flavor = "multi_thread")]
async fn probes_at_once_pass() {
    let double = S3Double::start().await.unwrap();
    let backends: [ObjectStoreBackend; 3] = std::array::from_fn(|_| double.backend("a").unwrap());
    let probes = backends.iter().map(|backend| backend.probe_promises(NOW));
    for probe in futures_util::future::join_all(probes).await {
        probe.unwrap();
    }
    // All of them know by the one record, and nothing else of theirs is left.
    assert!(backends[0].was_probed(NOW).await.unwrap());
    let keys: Vec<_> = double.objects().into_keys().collect();
    assert_eq!(keys, ["a/probed/store"]);
    assert_eq!(double.open_uploads(), 0);
}

/// The conditions of Google Cloud Storage are on generations.
#[cfg(feature = "gcs")]
#[tokio::test(flavor = "multi_thread")]
async fn the_dialect_of_google_passes() {
    let double = S3Double::start().await.unwrap();
    let backend = double.gcs_backend("a").unwrap();
    backend.probe_promises(NOW).await.unwrap();
    assert!(backend.deletes_on_condition());
    double.faults().ignore_conditions();
    let backend = double.gcs_backend("b").unwrap();
    let error = backend.probe_promises(NOW).await.unwrap_err();
    assert!(
        matches!(
            error,
            ProbeError::Broken {
                promise: Promise::Create,
                ..
            }
        ),
        "{error:?}"
    );
}

/// So often is a store tried that is by others.
const STARTS: usize = 20;

#[expect(clippy::print_stdout, reason = "the times are to be noted")]
async fn is_accepted_each_time(backend: &ObjectStoreBackend) {
    for _ in 0..STARTS {
        let begun = std::time::Instant::now();
        backend.probe_promises(NOW).await.unwrap();
        println!("{:?}", begun.elapsed());
    }
    assert!(backend.was_probed(NOW).await.unwrap());
}

/// The store fails one of these probes, which are named as in docs/stores.md.
#[expect(clippy::print_stdout, reason = "what it did is to be noted")]
async fn is_refused_each_time(backend: &ObjectStoreBackend, expected: &[&str]) {
    for _ in 0..STARTS {
        match backend.probe_promises(NOW).await {
            Err(ProbeError::Broken { promise, found, .. }) => {
                println!("{}: {found}", promise.name());
                assert!(expected.contains(&promise.name()));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// `RCLONE=/path/to/rclone cargo test -- --ignored rclone`.
macro_rules! accepted {
    ($name:ident $store:ident $reason:literal) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            #[ignore = $reason]
            async fn is_accepted_each_time() {
                let (backend, ()) = stores::$store.start().await;
                super::is_accepted_each_time(&backend).await;
                let backend = stores::$store.bucket(Some(true)).await;
                backend.probe_promises(NOW).await.unwrap();
                println!("deletes on condition: {}", backend.deletes_on_condition());
            }
        }
    };
}
accepted_stores! { accepted }

macro_rules! refused {
    ($($name:ident $store:ident $reason:literal: $($probe:literal)*;)*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = $reason]
            async fn is_refused_each_time() {
                let (backend, ()) = crate::stores::$store.start().await;
                super::is_refused_each_time(&backend, &[$($probe),*]).await;
            }
        }
    )*};
}
refused! {
    s3mock S3MOCK "needs S3MOCK=/path/to/folder/of/jars": "one-creator" "one-updater";
    s3rver S3RVER "needs S3RVER=/path/to/s3rver": "create";
    s3s_fs S3S_FS "needs S3S_FS=/path/to/s3s-fs": "one-creator";
}

/// Not even the first request, whether it was probed, has an answer that says something.
#[cfg(feature = "gcs")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs FAKE_GCS_SERVER=/path/to/fake-gcs-server"]
async fn fake_gcs_server_is_refused_each_time() {
    let (backend, ()) = stores::FAKE_GCS_SERVER.start().await;
    for _ in 0..STARTS {
        let error = backend.was_probed(NOW).await.unwrap_err();
        assert!(format!("{error:?}").contains("status: 404"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3_TEST_ENDPOINT and S3_TEST_BUCKET"]
async fn any_s3_is_accepted_each_time() {
    is_accepted_each_time(&any_s3::start().await.0).await;
}

/// `S3_TEST_REFUSED` names the probes that the server may fail, such as `one-creator,one-updater`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3_TEST_ENDPOINT, S3_TEST_BUCKET and S3_TEST_REFUSED"]
#[expect(clippy::disallowed_methods, reason = "variables name the bucket")]
async fn the_store_of_the_variables_is_refused_each_time() {
    let expected = std::env::var("S3_TEST_REFUSED").unwrap();
    let expected: Vec<&str> = expected.split(',').collect();
    is_refused_each_time(&any_s3::start().await.0, &expected).await;
}
