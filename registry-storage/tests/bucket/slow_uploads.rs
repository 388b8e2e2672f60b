//! Clients that send slowly, beside one that does not.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use registry_core::storage::UploadKey;
use registry_core::{Algorithm, Digest, Error, Storage};
use registry_storage::Store;
use registry_storage::testing::S3Double;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::images::create_upload;

const MIB: usize = 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(60);

async fn start(storage: &dyn Storage) -> UploadKey {
    create_upload(storage, "a").await.unwrap()
}

/// Yields content at a rate: a chunk of it each tenth of a second.
fn at_rate(content: Bytes, rate: usize) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let chunk = rate / 10;
    stream::unfold(content, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let chunk = left.split_to(chunk.min(left.len()));
        Some((Ok(chunk), left))
    })
}

/// Appends content as fast as it is taken, and commits it.
async fn push(storage: &dyn Storage, content: &Bytes) {
    let upload = start(storage).await;
    let chunks: Vec<_> = content
        .chunks(256 * 1024)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    let mut body = pin!(stream::iter(chunks));
    storage.append_upload(&upload, None, body.as_mut()).await.unwrap();
    storage
        .commit_upload(&upload, &Digest::of(Algorithm::Sha256, content))
        .await
        .unwrap();
}

/// On a real clock, and a bucket that takes no part that is too small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_client_is_not_held_up_by_many_slow_ones() {
    const SLOW: usize = 24;
    let double = S3Double::start().await.unwrap();
    let store = Arc::new(Store::new(double.backend("").unwrap()));
    let mut slow = JoinSet::new();
    let (hurry, _) = broadcast::channel::<()>(1);
    let content: Bytes = (0..6 * MIB).map(|at| (at % 251).to_le_bytes()[0]).collect();
    for _ in 0..SLOW {
        let (store, mut hurries, content) = (Arc::clone(&store), hurry.subscribe(), content.clone());
        slow.spawn(async move {
            let storage: &dyn Storage = &*store;
            let upload = start(storage).await;
            // Until it is told to.
            let slowly = content.slice(..5 * MIB - 1);
            let slowly = at_rate(slowly, 40_000).take_until(async move { hurries.recv().await });
            let mut body = pin!(slowly);
            let length = storage.append_upload(&upload, None, body.as_mut()).await.unwrap();
            let rest = content.slice(usize::try_from(length).unwrap()..);
            let mut rest = pin!(stream::iter([Ok(rest)]));
            storage.append_upload(&upload, None, rest.as_mut()).await.unwrap();
            let digest = Digest::of(Algorithm::Sha256, &content);
            storage.commit_upload(&upload, &digest).await.unwrap();
        });
    }
    // More of them than may have memory for a whole part: the others park what they have.
    let parked = || {
        double
            .objects()
            .keys()
            .filter(|key| key.starts_with("parked/"))
            .count()
    };
    let is_scarce = async {
        while parked() < 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, is_scarce).await.unwrap();
    let begun = Instant::now();
    push(&*store, &vec![9; 50 * MIB].into()).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    hurry.send(()).unwrap();
    let all_end = async {
        while let Some(ended) = slow.join_next().await {
            ended.unwrap();
        }
    };
    timeout(DEADLINE, all_end).await.unwrap();
    assert_eq!(parked(), 0);
}
