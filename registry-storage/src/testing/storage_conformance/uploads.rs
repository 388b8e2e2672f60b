//! Uploads: chunks, offsets, commits, cancels.

#![expect(clippy::disallowed_methods, reason = "the tasks of a kit end with its test")]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::UploadKey;
use registry_core::{Algorithm, Digest, Error, ErrorCode, Storage};
use tokio::sync::Notify;

use super::fixtures::{
    PART, SMALL, append, append_body, assert_blob, assert_code, assert_no_blob, body, content, digest,
    digest_by, push_blob, read_blob, repository, start, start_as,
};
use super::random::Random;

/// However a blob is split into appends and chunks, the result is that blob.
pub async fn any_split_is_the_whole(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for seed in 0..24 {
        let mut random = Random::new(seed);
        // Most of them are small, because many of those fit in a second, and some have several parts.
        let size = random.below(if seed % 8 == 0 { 2 * PART + 100 } else { 3 * SMALL });
        let content = content(seed, size);
        let upload = start(&*storage, &repository).await;
        let mut at = 0;
        while at < size {
            let end = size.min(at + 1 + random.below(size));
            let mut chunks = Vec::new();
            let mut from = at;
            while from < end {
                let to = end.min(from + random.below(size / 3 + 2));
                chunks.push(content.slice(from..to));
                from = to;
            }
            let offset = (random.below(2) == 0).then_some(at as u64);
            let body = body(chunks);
            let length = append_body(&*storage, &upload, offset, body).await.unwrap();
            assert_eq!(length, end as u64, "seed {seed}");
            assert_eq!(
                storage.upload_status(&upload).await.unwrap(),
                end as u64,
                "seed {seed}"
            );
            at = end;
        }
        let digest = digest(&content);
        assert_no_blob(&*storage, &repository, &digest).await;
        storage.commit_upload(&upload, &digest).await.unwrap();
        assert_blob(&*storage, &repository, &content).await;
        storage.delete_blob(&repository, &digest, None).await.unwrap();
    }
}

/// Appends that end just before, at and after the ends of parts add up.
pub async fn appends_around_part_ends(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for first in [PART - 1, PART, PART + 1] {
        for second in [0, 1, 2] {
            let content = content(1, first + second + 3);
            let upload = start(&*storage, &repository).await;
            append(&*storage, &upload, Some(0), &content.slice(..first))
                .await
                .unwrap();
            append(&*storage, &upload, None, &content.slice(first..first + second))
                .await
                .unwrap();
            append(&*storage, &upload, None, &content.slice(first + second..))
                .await
                .unwrap();
            storage.commit_upload(&upload, &digest(&content)).await.unwrap();
            assert_blob(&*storage, &repository, &content).await;
        }
    }
}

/// An append at any offset other than the end is refused, and its body is not read.
pub async fn wrong_offset(storage: Arc<dyn Storage>) {
    let upload = start(&*storage, &repository("a")).await;
    append(&*storage, &upload, Some(0), &content(1, 10))
        .await
        .unwrap();
    for offset in [0, 9, 11, u64::MAX] {
        let untouched = stream::poll_fn(|_| -> Poll<Option<Result<Bytes, Error>>> {
            panic!("the body of a refused append was read")
        });
        let refused = append_body(&*storage, &upload, Some(offset), untouched).await;
        assert_code(refused, ErrorCode::RangeInvalid);
        assert_eq!(storage.upload_status(&upload).await.unwrap(), 10);
    }
    append(&*storage, &upload, Some(10), &content(2, 1))
        .await
        .unwrap();
    assert_eq!(storage.upload_status(&upload).await.unwrap(), 11);
}

/// A new session has no bytes, an empty body adds none, and committing it creates the empty blob.
pub async fn empty(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let upload = start(&*storage, &repository).await;
    assert_eq!(storage.upload_status(&upload).await.unwrap(), 0);
    let nothing = body([]);
    assert_eq!(
        append_body(&*storage, &upload, Some(0), nothing).await.unwrap(),
        0
    );
    assert_eq!(append(&*storage, &upload, None, &Bytes::new()).await.unwrap(), 0);
    storage.commit_upload(&upload, &digest(b"")).await.unwrap();
    assert_blob(&*storage, &repository, &Bytes::new()).await;
    let upload = start(&*storage, &repository).await;
    storage.commit_upload(&upload, &digest(b"")).await.unwrap();
}

/// A session is known only under its own repository and principal.
pub async fn sessions_are_private(storage: Arc<dyn Storage>) {
    let own = start_as(&*storage, &repository("a"), "alice", Algorithm::Sha256).await;
    let content = content(1, 10);
    append(&*storage, &own, None, &content).await.unwrap();
    let of = |repository_name: &str, principal: &str| UploadKey {
        repository: repository(repository_name),
        id: own.id,
        principal: principal.to_owned(),
    };
    let never = UploadKey {
        id: "00000000-0000-4000-8000-000000000000".parse().unwrap(),
        ..own.clone()
    };
    for stranger in [
        of("b", "alice"),
        of("a", "bob"),
        of("a", ""),
        of("a/b", "alice"),
        never,
    ] {
        assert_unknown(&*storage, &stranger).await;
        assert_code(
            storage.commit_upload(&stranger, &digest(&content)).await,
            ErrorCode::BlobUploadUnknown,
        );
    }
    assert_eq!(storage.upload_status(&own).await.unwrap(), 10);
    storage.commit_upload(&own, &digest(&content)).await.unwrap();
}

/// After a cancel the session is unknown.
pub async fn cancel(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [0, 10, PART + 1] {
        let upload = start(&*storage, &repository).await;
        let content = content(1, size);
        append(&*storage, &upload, None, &content).await.unwrap();
        storage.cancel_upload(&upload).await.unwrap();
        assert_unknown(&*storage, &upload).await;
        assert_code(
            storage.commit_upload(&upload, &digest(&content)).await,
            ErrorCode::BlobUploadUnknown,
        );
        assert_no_blob(&*storage, &repository, &digest(&content)).await;
    }
}

async fn assert_unknown(storage: &dyn Storage, upload: &UploadKey) {
    assert_code(storage.upload_status(upload).await, ErrorCode::BlobUploadUnknown);
    let refused = append(storage, upload, None, &Bytes::from_static(b"more")).await;
    assert_code(refused, ErrorCode::BlobUploadUnknown);
    assert_code(storage.cancel_upload(upload).await, ErrorCode::BlobUploadUnknown);
}

/// A wrong digest is refused, and the session continues.
pub async fn wrong_digest(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [10, SMALL + 1, PART + 1] {
        let content = content(1, size);
        let upload = start(&*storage, &repository).await;
        append(&*storage, &upload, None, &content.slice(..size - 1))
            .await
            .unwrap();
        assert_code(
            storage.commit_upload(&upload, &digest(&content)).await,
            ErrorCode::DigestInvalid,
        );
        assert_no_blob(&*storage, &repository, &digest(&content)).await;
        let unsupported = "future+v1:A_b=".parse().unwrap();
        assert_code(
            storage.commit_upload(&upload, &unsupported).await,
            ErrorCode::DigestInvalid,
        );
        assert_eq!(storage.upload_status(&upload).await.unwrap(), size as u64 - 1);
        append(&*storage, &upload, None, &content.slice(size - 1..))
            .await
            .unwrap();
        storage.commit_upload(&upload, &digest(&content)).await.unwrap();
        assert_blob(&*storage, &repository, &content).await;
    }
}

/// A digest of either algorithm is checked, whichever was announced; a wrong one is refused and the right one accepted.
pub async fn algorithms(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [0, 10, SMALL + 1, PART + 1] {
        for hinted in Algorithm::ALL {
            for used in Algorithm::ALL {
                let content = content(used as u64 * 2 + hinted as u64, size);
                let upload = start_as(&*storage, &repository, "", hinted).await;
                append(&*storage, &upload, None, &content).await.unwrap();
                let wrong = digest_by(used, b"something else");
                assert_code(
                    storage.commit_upload(&upload, &wrong).await,
                    ErrorCode::DigestInvalid,
                );
                let digest = digest_by(used, &content);
                storage.commit_upload(&upload, &digest).await.unwrap();
                assert!(read_blob(&*storage, &repository, &digest).await.unwrap() == content);
            }
        }
    }
}

/// A commit may be repeated while its blob exists; with another digest the session is unknown.
pub async fn repeated_commit(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [0, 10, SMALL + 1] {
        let content = content(1, size);
        let digest = digest(&content);
        let upload = start_as(&*storage, &repository, "alice", Algorithm::Sha256).await;
        append(&*storage, &upload, None, &content).await.unwrap();
        storage.commit_upload(&upload, &digest).await.unwrap();
        storage.commit_upload(&upload, &digest).await.unwrap();
        assert_unknown(&*storage, &upload).await;
        let other = digest_by(Algorithm::Sha512, &content);
        assert_code(
            storage.commit_upload(&upload, &other).await,
            ErrorCode::BlobUploadUnknown,
        );
        for stranger in [
            UploadKey {
                principal: "bob".to_owned(),
                ..upload.clone()
            },
            UploadKey {
                repository: super::fixtures::repository("b"),
                ..upload.clone()
            },
        ] {
            assert_code(
                storage.commit_upload(&stranger, &digest).await,
                ErrorCode::BlobUploadUnknown,
            );
        }
        storage.delete_blob(&repository, &digest, None).await.unwrap();
        assert_code(
            storage.commit_upload(&upload, &digest).await,
            ErrorCode::BlobUploadUnknown,
        );
        assert_no_blob(&*storage, &repository, &digest).await;
    }
}

/// If a body ends with an error, that error is returned and what arrived is kept.
pub async fn interrupted_body(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for arrived in [0, 10, SMALL + 1, PART, PART + 10] {
        let content = content(1, arrived + 10);
        let upload = start(&*storage, &repository).await;
        let interruption = Error::from(ErrorCode::BodyInterrupted);
        let body = stream::iter([Ok(content.slice(..arrived)), Err(interruption)]);
        let result = append_body(&*storage, &upload, Some(0), body).await;
        assert_code(result, ErrorCode::BodyInterrupted);
        assert_eq!(storage.upload_status(&upload).await.unwrap(), arrived as u64);
        append(
            &*storage,
            &upload,
            Some(arrived as u64),
            &content.slice(arrived..),
        )
        .await
        .unwrap();
        storage.commit_upload(&upload, &digest(&content)).await.unwrap();
        assert_blob(&*storage, &repository, &content).await;
    }
}

/// An append that waits for its body is stopped by the next append, and what had arrived is kept.
pub async fn takeover_by_append(storage: Arc<dyn Storage>) {
    for arrived in [10, PART + 10] {
        let content = content(1, arrived + 10);
        let (upload, waiting) = begin_endless_append(&storage, content.slice(..arrived)).await;
        let length = append(&*storage, &upload, None, &content.slice(arrived..))
            .await
            .unwrap();
        assert_eq!(length, arrived as u64 + 10);
        waiting.await.unwrap().unwrap_err();
        storage.commit_upload(&upload, &digest(&content)).await.unwrap();
        assert_blob(&*storage, &upload.repository, &content).await;
    }
}

/// An append that is stopped by one that begins at the same offset leaves nothing.
///
/// If the newer one begins elsewhere, it is refused, and what had arrived of the stopped one is kept.
pub async fn takeover_by_a_repeated_append(storage: Arc<dyn Storage>) {
    for (stood, arrived) in [(0, 10), (0, PART + 10), (SMALL, 2 * PART + 10)] {
        let (first, lost, content) = (content(1, stood), content(2, arrived), content(3, 3 * PART));
        let (upload, waiting) = begin_endless_append_after(&storage, &first, lost.clone()).await;
        let stood = stood as u64;
        let length = append(&*storage, &upload, Some(stood), &content).await.unwrap();
        assert_eq!(length, stood + content.len() as u64);
        assert_code(waiting.await.unwrap(), ErrorCode::Unavailable);
        let whole: Bytes = [first, content].concat().into();
        storage.commit_upload(&upload, &digest(&whole)).await.unwrap();
        assert_blob(&*storage, &upload.repository, &whole).await;

        let (upload, waiting) = begin_endless_append(&storage, lost.clone()).await;
        let elsewhere = append(&*storage, &upload, Some(1), &whole).await;
        assert_code(elsewhere, ErrorCode::RangeInvalid);
        assert_code(waiting.await.unwrap(), ErrorCode::Unavailable);
        assert_eq!(storage.upload_status(&upload).await.unwrap(), lost.len() as u64);
    }
}

/// An append that waits for its body is stopped by a cancel and by a commit.
pub async fn takeover_by_cancel_and_commit(storage: Arc<dyn Storage>) {
    let content = content(1, 10);
    let (upload, waiting) = begin_endless_append(&storage, content.clone()).await;
    storage.cancel_upload(&upload).await.unwrap();
    waiting.await.unwrap().unwrap_err();
    assert_unknown(&*storage, &upload).await;

    let (upload, waiting) = begin_endless_append(&storage, content.clone()).await;
    storage.commit_upload(&upload, &digest(&content)).await.unwrap();
    waiting.await.unwrap().unwrap_err();
    assert_blob(&*storage, &upload.repository, &content).await;
}

type Waiting = tokio::task::JoinHandle<Result<u64, Error>>;

/// Starts an append whose body has `arrived` and then never yields again, and waits until it asks for more.
async fn begin_endless_append(storage: &Arc<dyn Storage>, arrived: Bytes) -> (UploadKey, Waiting) {
    begin_endless_append_after(storage, &Bytes::new(), arrived).await
}

async fn begin_endless_append_after(
    storage: &Arc<dyn Storage>,
    first: &Bytes,
    arrived: Bytes,
) -> (UploadKey, Waiting) {
    let upload = start(&**storage, &repository("a")).await;
    append(&**storage, &upload, Some(0), first).await.unwrap();
    let asked = Arc::new(Notify::new());
    let waiting = tokio::spawn({
        let (storage, upload, asked) = (Arc::clone(storage), upload.clone(), Arc::clone(&asked));
        async move {
            let endless = stream::poll_fn(move |_| {
                asked.notify_one();
                Poll::Pending
            });
            let body = body([arrived]).chain(endless);
            append_body(&*storage, &upload, None, body).await
        }
    });
    asked.notified().await;
    (upload, waiting)
}

/// An append that is dropped at any point leaves a session that can be resumed at the offset of its status.
pub async fn dropped_append(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for polls in 1..40 {
        let content = content(polls, 3 * SMALL);
        let upload = start(&*storage, &repository).await;
        let chunks: Vec<Bytes> = content.chunks(SMALL / 2).map(Bytes::copy_from_slice).collect();
        {
            let slow = slow_body(chunks);
            let append = append_body(&*storage, &upload, Some(0), slow);
            poll_times(append, polls).await;
        }
        let kept = storage.upload_status(&upload).await.unwrap();
        let rest = content.slice(usize::try_from(kept).unwrap()..);
        append(&*storage, &upload, Some(kept), &rest).await.unwrap();
        storage.commit_upload(&upload, &digest(&content)).await.unwrap();
        assert_blob(&*storage, &repository, &content).await;
    }
}

/// After a dropped append, other bytes can be sent from the offset of the status: none of the first ones are left.
pub async fn other_bytes_after_a_dropped_append(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for polls in 1..40 {
        let (first, second) = (content(polls, 2 * SMALL), content(1000 + polls, 3 * SMALL));
        let upload = start(&*storage, &repository).await;
        let chunks: Vec<Bytes> = first.chunks(SMALL).map(Bytes::copy_from_slice).collect();
        poll_times(append_body(&*storage, &upload, Some(0), slow_body(chunks)), polls).await;
        let kept = storage.upload_status(&upload).await.unwrap();
        append(&*storage, &upload, Some(kept), &second).await.unwrap();
        let whole: Bytes = [&first[..usize::try_from(kept).unwrap()], &second]
            .concat()
            .into();
        storage.commit_upload(&upload, &digest(&whole)).await.unwrap();
        assert_blob(&*storage, &repository, &whole).await;
    }
}

/// A last request that fails, or is dropped at any point, leaves the session with what it had before, so that the same
/// request can be sent again: no bytes of failed requests are left.
pub async fn a_finish_that_fails_leaves_the_session_as_it_was(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for before in [0, 10, SMALL + 1, PART + 10] {
        for last in [10, SMALL + 1, PART + 10] {
            let whole = content((3 * before + last) as u64, before + last);
            let (start_of_it, rest) = (whole.slice(..before), whole.slice(before..));
            let (at, digest) = (Some(before as u64), digest(&whole));
            let upload = start(&*storage, &repository).await;
            append(&*storage, &upload, None, &start_of_it).await.unwrap();
            let other = content(1, last + 5);

            let interruption = Error::from(ErrorCode::BodyInterrupted);
            let cut = stream::iter([Ok(other.clone()), Err(interruption)]);
            let result = finish(&*storage, &upload, &digest, at, cut).await;
            assert_code(result, ErrorCode::BodyInterrupted);
            assert_eq!(storage.upload_status(&upload).await.unwrap(), before as u64);

            let result = finish(&*storage, &upload, &digest, at, body([other.clone()])).await;
            assert_code(result, ErrorCode::DigestInvalid);
            assert_eq!(storage.upload_status(&upload).await.unwrap(), before as u64);

            let elsewhere = Some(before as u64 + 1);
            let result = finish(&*storage, &upload, &digest, elsewhere, body([rest.clone()])).await;
            assert_code(result, ErrorCode::RangeInvalid);

            for polls in 1..8 {
                let chunks: Vec<Bytes> = other.chunks(SMALL).map(Bytes::copy_from_slice).collect();
                let dropped = finish(&*storage, &upload, &digest, at, slow_body(chunks));
                let ended = poll_times(dropped, polls).await;
                assert!(ended.is_none_or(|ended| ended.is_err()));
                assert_eq!(storage.upload_status(&upload).await.unwrap(), before as u64);
            }
            assert_no_blob(&*storage, &repository, &digest).await;

            let size = finish(&*storage, &upload, &digest, at, body([rest])).await;
            assert_eq!(size.unwrap(), (before + last) as u64);
            assert_blob(&*storage, &repository, &whole).await;
            storage.commit_upload(&upload, &digest).await.unwrap();
            assert_unknown(&*storage, &upload).await;
        }
    }
}

/// After a last request that failed, the session continues, or ends with what it has.
pub async fn a_session_goes_on_after_a_finish_that_failed(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for before in [10, PART + 10] {
        for goes_on in [false, true] {
            let mut whole = content(before as u64, before);
            let upload = start(&*storage, &repository).await;
            append(&*storage, &upload, None, &whole).await.unwrap();
            let other = digest(b"other");
            let failed = finish(&*storage, &upload, &other, None, body([content(2, PART + 20)]));
            assert_code(failed.await, ErrorCode::DigestInvalid);
            if goes_on {
                let more = content(3, PART);
                append(&*storage, &upload, Some(before as u64), &more)
                    .await
                    .unwrap();
                whole = [whole, more].concat().into();
            }
            storage.commit_upload(&upload, &digest(&whole)).await.unwrap();
            assert_blob(&*storage, &repository, &whole).await;
        }
    }
}

async fn finish(
    storage: &dyn Storage,
    upload: &UploadKey,
    digest: &Digest,
    offset: Option<u64>,
    body: impl Stream<Item = Result<Bytes, Error>> + Send,
) -> Result<u64, Error> {
    let mut body = std::pin::pin!(body);
    storage.finish_upload(upload, digest, offset, body.as_mut()).await
}

/// Returns a body that is Pending once before each chunk.
fn slow_body(chunks: Vec<Bytes>) -> Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>> {
    let slow = stream::iter(chunks).then(|chunk| async {
        tokio::task::yield_now().await;
        Ok(chunk)
    });
    Box::pin(slow)
}

/// Polls a future until it is done, or `times` times, and returns its output if it is done.
pub(super) async fn poll_times<F: Future>(future: F, times: u64) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = times;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Sessions of one repository do not see each other's bytes.
pub async fn sessions_are_independent(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let contents = [content(1, 100), content(2, SMALL + 1), content(3, 7)];
    let mut uploads = Vec::new();
    for _ in &contents {
        uploads.push(start(&*storage, &repository).await);
    }
    for (from, to) in [(0.0, 0.3), (0.3, 0.9), (0.9, 1.0)] {
        for (upload, content) in uploads.iter().zip(&contents) {
            let at = |share: f64| (content.len() as f64 * share) as usize;
            append(&*storage, upload, None, &content.slice(at(from)..at(to)))
                .await
                .unwrap();
        }
    }
    for (upload, content) in uploads.iter().zip(&contents) {
        storage.commit_upload(upload, &digest(content)).await.unwrap();
        assert_blob(&*storage, &repository, content).await;
    }
}

/// A session whose blob already exists, from another upload, can still be committed.
pub async fn commit_of_what_is_there(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [10, SMALL + 1, PART + 1] {
        let content = content(1, size);
        let upload = start(&*storage, &repository).await;
        append(&*storage, &upload, None, &content).await.unwrap();
        push_blob(&*storage, &repository, &content).await;
        storage.commit_upload(&upload, &digest(&content)).await.unwrap();
        assert_unknown(&*storage, &upload).await;
        assert_blob(&*storage, &repository, &content).await;
    }
}
