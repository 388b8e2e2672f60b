//! The same on servers by others.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use registry_storage::{
    Backend as _, BytesName, Clock as _, Maintenance as _, ObjectStoreBackend, SweepOptions, SystemClock,
};

use super::{DAY, assert_finishes, clock_at, content, store};
use crate::support::images::start_upload;
use crate::{any_s3, stores};

/// How many uploads a bucket lists.
async fn listed(backend: &ObjectStoreBackend) -> usize {
    let mut pages = pin!(backend.begun_bytes());
    let mut count = 0;
    while let Some(page) = pages.try_next().await.unwrap() {
        count += page.len();
    }
    count
}

/// More uploads than in one page, and one of a session that a sweeper with a clock far ahead meets. rclone allows that many with
/// `--multipart-max-uploads 2000`, as `support/stores.rs` starts it.
async fn are_listed_and_aborted(backend: ObjectStoreBackend) {
    const LOST: usize = 1001;
    let clock = clock_at(SystemClock.now());
    clock.advance(9 * DAY);
    let store = store(backend.clone(), &clock, 7 * DAY);
    let sent = content(1);
    let live = start_upload(&store, "a", &sent).await;
    for _ in 0..LOST {
        let name = BytesName::random(clock.now());
        backend.begin_bytes(&name).await.unwrap();
    }
    assert_eq!(listed(&backend).await, LOST + 1);
    let report = store.sweep(&SweepOptions::new().full(true)).await.unwrap();
    assert_eq!(report.abandoned_uploads, LOST as u64);
    assert_eq!(listed(&backend).await, 1);
    assert_finishes(&store, &live, &sent).await;
    assert_eq!(listed(&backend).await, 0);
}

#[tokio::test]
#[ignore = "needs VERSITYGW=/path/to/versitygw"]
async fn versitygw_lists_and_aborts() {
    are_listed_and_aborted(stores::VERSITYGW.start().await.0).await;
}

#[tokio::test]
#[ignore = "needs RCLONE=/path/to/rclone"]
async fn rclone_lists_and_aborts() {
    are_listed_and_aborted(stores::RCLONE.start().await.0).await;
}

#[tokio::test]
#[ignore = "needs S3_TEST_ENDPOINT=http://HOST:PORT and a bucket"]
async fn any_s3_lists_and_aborts() {
    let (backend, ()) = any_s3::start().await;
    are_listed_and_aborted(backend).await;
}
