//! Concurrent requests: every behaviour is repeated with several seeds, which determine how long each task waits before
//! each step.

#![expect(clippy::disallowed_methods, reason = "the tasks of a kit end with its test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use registry_core::storage::{NewManifest, TagCondition};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Storage};
use tokio::task::yield_now;

use super::fixtures::{
    PART, SMALL, With as _, all_referrers, all_tags, append, append_body, assert_blob, assert_code,
    assert_no_blob, body, content, digest, get, get_tag, manifest, push_blob, read_blob, reference,
    repository, start, tag, try_push_blob,
};
use super::random::Random;

const SEEDS: u64 = 12;

/// Waits for a random number of turns.
async fn pause(random: &mut Random) {
    for _ in 0..random.below(6) {
        yield_now().await;
    }
}

/// Runs `count` tasks at once, each with its own number and random numbers, and returns their results.
async fn at_once<F>(seed: u64, count: u64, task: impl Fn(u64, Random) -> F) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks = (0..count).map(|number| {
        let mut random = Random::new(seed << 16 | number);
        let work = task(number, random.clone());
        tokio::spawn(async move {
            pause(&mut random).await;
            work.await
        })
    });
    // Collected first, so that they all run.
    let tasks: Vec<_> = tasks.collect();
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

/// Returns the repository of a seed.
fn repository_of(seed: u64) -> RepositoryName {
    repository(&format!("concurrent/{seed}"))
}

/// Checks what holds once nothing writes: every listed tag can be read, and so can what it names.
async fn assert_consistent(storage: &dyn Storage, repository: &RepositoryName) {
    match all_tags_or_none(storage, repository).await {
        Err(error) => assert_eq!(error.code(), ErrorCode::NameUnknown),
        Ok(tags) => {
            for name in tags {
                let read = get_tag(storage, repository, &tag(&name)).await;
                let read = read.unwrap_or_else(|error| panic!("the tag {name} dangles: {error}"));
                assert_eq!(get(storage, repository, &read.digest).await.unwrap(), read);
            }
        }
    }
}

async fn all_tags_or_none(storage: &dyn Storage, repository: &RepositoryName) -> Result<Vec<String>, Error> {
    let probe = super::fixtures::page(None, 1);
    storage.list_tags(repository, probe).await?;
    Ok(all_tags(storage, repository, 3).await)
}

/// Of several pushes of one tag, one is the last; all manifests stay.
pub async fn writers_of_one_tag(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let texts: Vec<String> = (0..16).map(|number| format!("image {number}")).collect();
        let pushed = at_once(seed, 16, |number, _| {
            let (storage, repository) = (Arc::clone(&storage), repository.clone());
            let new = manifest(&texts[number as usize]).with_tag(&tag("latest"));
            async move { storage.put_manifest(&repository, new).await }
        });
        for result in pushed.await {
            result.unwrap();
        }
        let last = get_tag(&*storage, &repository, &tag("latest")).await.unwrap();
        assert!(texts.iter().any(|text| manifest(text).manifest == last));
        for text in &texts {
            get(&*storage, &repository, &manifest(text).manifest.digest)
                .await
                .unwrap();
        }
        assert_eq!(all_tags(&*storage, &repository, 10).await, ["latest"]);
    }
}

/// Of sixteen pushes of an immutable tag, or on the condition that it is absent, exactly one wins.
pub async fn one_winner(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        for refusal in [ErrorCode::TagConflict, ErrorCode::PreconditionFailed] {
            let tag = tag(refusal.as_str());
            let results = at_once(seed, 16, |number, _| {
                let (storage, repository) = (Arc::clone(&storage), repository.clone());
                let new = manifest(&format!("image {number}")).with_tag(&tag);
                let new = match refusal {
                    ErrorCode::TagConflict => new.with_immutable_tags(),
                    _ => new.with_condition(TagCondition::Absent),
                };
                async move {
                    let digest = new.manifest.digest.clone();
                    storage.put_manifest(&repository, new).await.map(|()| digest)
                }
            });
            let mut winners = Vec::new();
            for result in results.await {
                match result {
                    Ok(digest) => winners.push(digest),
                    Err(error) => assert_eq!(error.code(), refusal, "{error:?}"),
                }
            }
            let [winner] = &winners[..] else {
                panic!(
                    "seed {seed}: {} writers won a tag that one may win",
                    winners.len()
                );
            };
            assert_eq!(
                get_tag(&*storage, &repository, &tag).await.unwrap().digest,
                *winner
            );
            storage.delete_tag(&repository, &tag, None).await.unwrap();
        }
    }
}

/// With `If-Match`, no push overwrites a value that it has not seen.
pub async fn compare_and_swap(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let tag = tag("counter");
        storage
            .put_manifest(&repository, manifest("start").with_tag(&tag))
            .await
            .unwrap();
        let replaced = at_once(seed, 6, |number, mut random| {
            let (storage, repository, tag) = (Arc::clone(&storage), repository.clone(), tag.clone());
            async move {
                loop {
                    let seen = get_tag(&*storage, &repository, &tag).await.unwrap().digest;
                    pause(&mut random).await;
                    let new = manifest(&format!("{number} after {seen}"))
                        .with_tag(&tag)
                        .with_condition(TagCondition::Matches(vec![seen.clone()]));
                    match storage.put_manifest(&repository, new).await {
                        Ok(()) => return seen,
                        Err(error) => assert_eq!(error.code(), ErrorCode::PreconditionFailed),
                    }
                }
            }
        });
        let replaced = replaced.await;
        let distinct: BTreeSet<&Digest> = replaced.iter().collect();
        assert_eq!(
            distinct.len(),
            replaced.len(),
            "seed {seed}: two pushes replaced the same manifest"
        );
    }
}

/// Of moves and deletes of a tag on the condition that it is as all of them saw it, one wins.
pub async fn compare_and_delete(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let tag = tag("latest");
        let first = manifest("first").with_tag(&tag);
        let seen = vec![first.manifest.digest.clone()];
        storage.put_manifest(&repository, first).await.unwrap();
        let results = at_once(seed, 12, |number, mut random| {
            let (storage, repository, tag) = (Arc::clone(&storage), repository.clone(), tag.clone());
            let seen = seen.clone();
            async move {
                pause(&mut random).await;
                if number % 2 == 0 {
                    return storage
                        .delete_tag(&repository, &tag, Some(&seen))
                        .await
                        .map(|()| None);
                }
                let new = manifest(&format!("image {number}"))
                    .with_tag(&tag)
                    .with_condition(TagCondition::Matches(seen));
                let digest = new.manifest.digest.clone();
                storage
                    .put_manifest(&repository, new)
                    .await
                    .map(|()| Some(digest))
            }
        });
        let mut winners = Vec::new();
        for result in results.await {
            match result {
                Ok(left) => winners.push(left),
                Err(error) => assert!(
                    matches!(
                        error.code(),
                        ErrorCode::PreconditionFailed | ErrorCode::ManifestUnknown
                    ),
                    "seed {seed}: {error:?}"
                ),
            }
        }
        let [left] = &winners[..] else {
            panic!("seed {seed}: {} writers changed the same value", winners.len());
        };
        let now = get_tag(&*storage, &repository, &tag).await;
        assert_eq!(now.ok().map(|manifest| manifest.digest), *left, "seed {seed}");
    }
}

/// A tag that only ever moves is never missing, even though the manifests that it leaves are deleted.
pub async fn readers_of_a_moving_tag(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let tag = tag("latest");
        storage
            .put_manifest(&repository, manifest("image 0").with_tag(&tag))
            .await
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let all = at_once(seed, 3, |number, mut random| {
            let (storage, repository, tag) = (Arc::clone(&storage), repository.clone(), tag.clone());
            let stop = Arc::clone(&stop);
            async move {
                if number > 0 {
                    while !stop.load(Ordering::Relaxed) {
                        get_tag(&*storage, &repository, &tag).await.unwrap();
                        storage
                            .stat_manifest(&repository, &reference(&tag))
                            .await
                            .unwrap();
                        pause(&mut random).await;
                        yield_now().await;
                    }
                    return;
                }
                for round in 0..20 {
                    let next = manifest(&format!("image {}", round + 1)).with_tag(&tag);
                    let before = manifest(&format!("image {round}")).manifest.digest;
                    storage.put_manifest(&repository, next).await.unwrap();
                    pause(&mut random).await;
                    storage
                        .delete_manifest(&repository, &before, None, None)
                        .await
                        .unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            }
        });
        all.await;
    }
}

/// Two uploads of one digest both succeed, into one repository and into two.
pub async fn uploads_of_one_digest(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let (a, b) = (repository_of(seed), repository("other"));
        for size in [0, 10, SMALL + 1, if seed == 0 { PART + 1 } else { 2 * SMALL }] {
            let content = content(seed << 32 | size as u64, size);
            let pushed = at_once(seed, 4, |number, _| {
                let (storage, content) = (Arc::clone(&storage), content.clone());
                let repository = if number % 2 == 0 { a.clone() } else { b.clone() };
                async move { try_push_blob(&*storage, &repository, &content).await }
            });
            for result in pushed.await {
                result.unwrap();
            }
            assert_blob(&*storage, &a, &content).await;
            assert_blob(&*storage, &b, &content).await;
        }
    }
}

/// Uploads, mounts and deletes of one blob: each is answered as in one of the possible orders, and none breaks another.
pub async fn uploads_mounts_and_deletes_of_one_blob(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let (a, b) = (repository_of(seed), repository("other"));
        let content = content(seed, if seed % 2 == 0 { 10 } else { SMALL + 1 });
        let digest = digest(&content);
        at_once(seed, 6, |number, mut random| {
            let (storage, a, b) = (Arc::clone(&storage), a.clone(), b.clone());
            let (content, digest) = (content.clone(), digest.clone());
            async move {
                for _ in 0..4 {
                    pause(&mut random).await;
                    match number % 3 {
                        0 => drop(try_push_blob(&*storage, &a, &content).await.unwrap()),
                        1 => drop(storage.mount_blob(&a, &b, &digest).await.unwrap()),
                        _ => {
                            let from = if number == 2 { &a } else { &b };
                            if let Err(error) = storage.delete_blob(from, &digest, None).await {
                                assert_eq!(error.code(), ErrorCode::BlobUnknown);
                            }
                        }
                    }
                    for repository in [&a, &b] {
                        match read_blob(&*storage, repository, &digest).await {
                            Ok(read) => assert!(read == content),
                            Err(error) => assert_eq!(error.code(), ErrorCode::BlobUnknown),
                        }
                    }
                }
            }
        })
        .await;
        push_blob(&*storage, &a, &content).await;
        assert!(storage.mount_blob(&a, &b, &digest).await.unwrap());
        assert_blob(&*storage, &a, &content).await;
        assert_blob(&*storage, &b, &content).await;
    }
}

/// Pushes and deletes by digest of one manifest leave no dangling tag, and no entry in a list of referrers.
pub async fn delete_against_push(storage: Arc<dyn Storage>) {
    for seed in 0..3 * SEEDS {
        let repository = repository_of(seed);
        let subject = digest(b"subject");
        let new = manifest("image").with_subject(&subject);
        let digest = new.manifest.digest.clone();
        at_once(seed, 5, |number, mut random| {
            let (storage, repository, new) = (Arc::clone(&storage), repository.clone(), new.clone());
            async move {
                for round in 0..3 {
                    pause(&mut random).await;
                    match number {
                        0 | 1 => {
                            let new = new.with_number(number, round);
                            storage.put_manifest(&repository, new).await.unwrap();
                        }
                        2 => {
                            let other = manifest("another").with_tag(&tag("shared"));
                            storage.put_manifest(&repository, other).await.unwrap();
                        }
                        _ => {
                            let deleted = storage
                                .delete_manifest(&repository, &new.manifest.digest, None, None)
                                .await;
                            if let Err(error) = deleted {
                                let known = [ErrorCode::ManifestUnknown, ErrorCode::NameUnknown];
                                assert!(known.contains(&error.code()), "{error:?}");
                            }
                        }
                    }
                }
            }
        })
        .await;
        assert_consistent(&*storage, &repository).await;
        let listed = all_referrers(&*storage, &repository, &subject, 10).await.len();
        let visible = get(&*storage, &repository, &digest).await.is_ok();
        assert_eq!(listed, usize::from(visible), "seed {seed}");
        storage
            .put_manifest(&repository, new.clone().with_tag(&tag("last")))
            .await
            .unwrap();
        assert_eq!(
            get_tag(&*storage, &repository, &tag("last")).await.unwrap(),
            new.manifest
        );
        assert_eq!(all_referrers(&*storage, &repository, &subject, 10).await.len(), 1);
        storage
            .delete_manifest(&repository, &digest, None, None)
            .await
            .unwrap();
        assert_consistent(&*storage, &repository).await;
    }
}

trait WithNumber {
    /// Adds a tag of the writer's own and a tag that all writers share.
    fn with_number(&self, writer: u64, round: u64) -> Self;
}

impl WithNumber for NewManifest {
    fn with_number(&self, writer: u64, round: u64) -> Self {
        let own = tag(&format!("w{writer}-{round}"));
        self.clone().with_tag(&own).with_tag(&tag("shared"))
    }
}

/// Conditional pushes that are refused after they wrote a tag restore what it replaced, and never a dangling tag, even
/// if all of it is being deleted.
pub async fn refused_pushes_against_deletes(storage: Arc<dyn Storage>) {
    for seed in 0..3 * SEEDS {
        let repository = repository_of(seed);
        at_once(seed, 5, |number, mut random| {
            let (storage, repository) = (Arc::clone(&storage), repository.clone());
            async move {
                for _ in 0..4 {
                    pause(&mut random).await;
                    let image = manifest(&format!("image {}", number % 2));
                    let result = match number {
                        0 | 1 => {
                            let pair = image.with_tag(&tag("first")).with_tag(&tag("second"));
                            let pair = pair.with_immutable_tags();
                            storage.put_manifest(&repository, pair).await
                        }
                        2 => {
                            storage
                                .put_manifest(&repository, image.with_tag(&tag("second")))
                                .await
                        }
                        3 => storage.delete_tag(&repository, &tag("first"), None).await,
                        _ => {
                            let which = manifest(&format!("image {}", random.below(2)));
                            storage
                                .delete_manifest(&repository, &which.manifest.digest, None, None)
                                .await
                        }
                    };
                    if let Err(error) = result {
                        let known = [
                            ErrorCode::TagConflict,
                            ErrorCode::ManifestUnknown,
                            ErrorCode::NameUnknown,
                        ];
                        assert!(known.contains(&error.code()), "{error:?}");
                    }
                }
            }
        })
        .await;
        assert_consistent(&*storage, &repository).await;
    }
}

/// Pushes of one manifest with several tags all succeed.
pub async fn pushes_of_one_manifest(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let blob = push_blob(&*storage, &repository, &content(seed, 10)).await;
        let new = manifest("image").with_blob(&blob);
        let pushed = at_once(seed, 6, |number, _| {
            let (storage, repository) = (Arc::clone(&storage), repository.clone());
            let new = new.clone().with_tag(&tag(&format!("v{number}")));
            async move { storage.put_manifest(&repository, new).await }
        });
        for result in pushed.await {
            result.unwrap();
        }
        assert_eq!(
            all_tags(&*storage, &repository, 4).await,
            ["v0", "v1", "v2", "v3", "v4", "v5"]
        );
        assert_consistent(&*storage, &repository).await;
    }
}

/// A push whose child is missing does not break another push of the same manifest that may lack it.
pub async fn refused_and_accepted_push_of_one_manifest(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let lacking = manifest("image").with_blob(&digest(b"never pushed"));
        let pushed = at_once(seed, 4, |number, _| {
            let (storage, repository) = (Arc::clone(&storage), repository.clone());
            let mut new = lacking.clone().with_tag(&tag(&format!("v{number}")));
            new.allow_missing = number % 2 == 0;
            async move { storage.put_manifest(&repository, new).await }
        });
        for (number, result) in pushed.await.into_iter().enumerate() {
            if number % 2 == 0 {
                result.unwrap();
                get_tag(&*storage, &repository, &tag(&format!("v{number}")))
                    .await
                    .unwrap();
            }
        }
        assert_consistent(&*storage, &repository).await;
    }
}

/// A push that was acknowledged after its blobs is complete, even if another repository deletes the same blobs.
pub async fn pushes_against_deletes_elsewhere(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let content = content(seed, if seed % 2 == 0 { 10 } else { SMALL + 1 });
        at_once(seed, 4, |number, mut random| {
            let storage = Arc::clone(&storage);
            let own = repository(&format!("concurrent/{seed}/{number}"));
            let content = content.clone();
            async move {
                for round in 0..3 {
                    let blob = push_blob(&*storage, &own, &content).await;
                    pause(&mut random).await;
                    let new = manifest(&format!("image {round}")).with_blob(&blob);
                    storage.put_manifest(&own, new.clone()).await.unwrap();
                    assert_blob(&*storage, &own, &content).await;
                    storage
                        .delete_manifest(&own, &new.manifest.digest, None, None)
                        .await
                        .unwrap();
                    storage.delete_blob(&own, &blob, None).await.unwrap();
                    assert_no_blob(&*storage, &own, &blob).await;
                }
            }
        })
        .await;
    }
}

/// Of a cancel and a commit exactly one succeeds, and the blob exists accordingly.
pub async fn cancel_against_commit(storage: Arc<dyn Storage>) {
    for seed in 0..2 * SEEDS {
        let repository = repository_of(seed);
        let content = content(seed, if seed % 2 == 0 { 10 } else { SMALL + 1 });
        let digest = digest(&content);
        let upload = start(&*storage, &repository).await;
        append(&*storage, &upload, None, &content).await.unwrap();
        let results = at_once(seed, 2, |number, _| {
            let (storage, upload, digest) = (Arc::clone(&storage), upload.clone(), digest.clone());
            async move {
                match number {
                    0 => storage.commit_upload(&upload, &digest).await,
                    _ => storage.cancel_upload(&upload).await,
                }
            }
        });
        match &results.await[..] {
            [Ok(()), Err(error)] => {
                assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
                assert_blob(&*storage, &repository, &content).await;
                storage.commit_upload(&upload, &digest).await.unwrap();
            }
            [Err(error), Ok(())] => {
                assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
                assert_no_blob(&*storage, &repository, &digest).await;
            }
            other => panic!("seed {seed}: commit and cancel gave {other:?}"),
        }
        assert_code(storage.upload_status(&upload).await, ErrorCode::BlobUploadUnknown);
    }
}

/// Concurrent commits of one session all succeed.
pub async fn commits_of_one_session(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let content = content(seed, if seed % 2 == 0 { 10 } else { SMALL + 1 });
        let upload = start(&*storage, &repository).await;
        append(&*storage, &upload, None, &content).await.unwrap();
        let results = at_once(seed, 3, |_, _| {
            let (storage, upload, digest) = (Arc::clone(&storage), upload.clone(), digest(&content));
            async move { storage.commit_upload(&upload, &digest).await }
        });
        for result in results.await {
            result.unwrap();
        }
        assert_blob(&*storage, &repository, &content).await;
    }
}

/// Concurrent appends to one session: the session has one length, and its content is what was sent.
pub async fn appends_to_one_session(storage: Arc<dyn Storage>) {
    for seed in 0..SEEDS {
        let repository = repository_of(seed);
        let content = content(seed, 3 * SMALL);
        let upload = start(&*storage, &repository).await;
        at_once(seed, 3, |_, mut random| {
            let (storage, upload, content) = (Arc::clone(&storage), upload.clone(), content.clone());
            async move {
                loop {
                    let at = storage.upload_status(&upload).await.unwrap();
                    let rest = content.slice(usize::try_from(at).unwrap()..);
                    if rest.is_empty() {
                        return;
                    }
                    pause(&mut random).await;
                    let chunks: Vec<_> = rest.chunks(5000).map(bytes::Bytes::copy_from_slice).collect();
                    let body = body(chunks);
                    let appended = append_body(&*storage, &upload, Some(at), body).await;
                    if let Err(error) = appended {
                        let known = [ErrorCode::RangeInvalid, ErrorCode::BlobUploadInvalid];
                        assert!(known.contains(&error.code()), "{error:?}");
                    }
                }
            }
        })
        .await;
        storage.commit_upload(&upload, &digest(&content)).await.unwrap();
        assert_blob(&*storage, &repository, &content).await;
    }
}
