//! Tags: moves, conditions, deletes.

use std::sync::Arc;

use registry_core::storage::{PageRequest, RestoreTag, TagCondition, TagFilter};
use registry_core::{Digest, ErrorCode, RepositoryName, Storage, Tag};

use super::fixtures::{With as _, all_tags, assert_code, digest, get, get_tag, manifest, repository, tag};

/// The last push of a tag wins, and the manifest that the tag named before stays.
pub async fn tags_move(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let latest = tag("latest");
    for text in ["one", "two", "one", "three"] {
        let new = manifest(text).with_tag(&latest);
        storage.put_manifest(&repository, new.clone()).await.unwrap();
        assert!(get_tag(&*storage, &repository, &latest).await.unwrap() == new.manifest);
    }
    for text in ["one", "two", "three"] {
        get(&*storage, &repository, &manifest(text).manifest.digest)
            .await
            .unwrap();
    }
    assert_eq!(all_tags(&*storage, &repository, 10).await, ["latest"]);
}

/// Several tags are written by one push, or none of them.
pub async fn several_tags(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let (one, two, three) = (tag("1"), tag("2"), tag("3"));
    let new = manifest("first").with_tag(&two);
    storage.put_manifest(&repository, new).await.unwrap();
    let all = manifest("second").with_tag(&one).with_tag(&two).with_tag(&three);
    let refused = all.clone().with_immutable_tags();
    assert_code(
        storage.put_manifest(&repository, refused).await,
        ErrorCode::TagConflict,
    );
    assert_eq!(all_tags(&*storage, &repository, 10).await, ["2"]);
    assert_tag(&*storage, &repository, &two, "first").await;
    storage.put_manifest(&repository, all).await.unwrap();
    for tag in [one, two, three] {
        assert_tag(&*storage, &repository, &tag, "second").await;
    }
    // A tag that is given twice counts once.
    let twice = manifest("third").with_tag(&tag("4")).with_tag(&tag("4"));
    for new in [twice.clone().with_immutable_tags(), twice] {
        storage.put_manifest(&repository, new).await.unwrap();
    }
    assert_tag(&*storage, &repository, &tag("4"), "third").await;
}

async fn assert_tag(storage: &dyn Storage, repository: &RepositoryName, tag: &Tag, text: &str) {
    let read = get_tag(storage, repository, tag).await.unwrap();
    assert_eq!(read, manifest(text).manifest);
}

/// An immutable tag is written once, and again with the same digest; a delete frees it.
pub async fn immutable(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let tag = tag("v1");
    let push = |text: &str| {
        let new = manifest(text).with_tag(&tag).with_immutable_tags();
        storage.put_manifest(&repository, new)
    };
    push("one").await.unwrap();
    push("one").await.unwrap();
    assert_code(push("two").await, ErrorCode::TagConflict);
    assert_tag(&*storage, &repository, &tag, "one").await;
    storage.delete_tag(&repository, &tag, None).await.unwrap();
    push("two").await.unwrap();
    storage
        .delete_manifest(&repository, &manifest("two").manifest.digest, None, None)
        .await
        .unwrap();
    push("three").await.unwrap();
    push("three").await.unwrap();
    assert_code(push("two").await, ErrorCode::TagConflict);
    assert_tag(&*storage, &repository, &tag, "three").await;
}

/// Some tags of a push may be immutable while others move; a manifest is not deleted while a tag that must stay names
/// it.
pub async fn some_immutable(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let (fixed, moving) = (tag("v1"), tag("latest"));
    let push = |text: &str| {
        let mut new = manifest(text).with_tag(&moving).with_tag(&fixed);
        new.immutable_tags = vec![fixed.clone()];
        storage.put_manifest(&repository, new)
    };
    push("one").await.unwrap();
    assert_code(push("two").await, ErrorCode::TagConflict);
    assert_tag(&*storage, &repository, &moving, "one").await;
    let two = manifest("two").with_tag(&moving);
    storage.put_manifest(&repository, two).await.unwrap();
    assert_tag(&*storage, &repository, &moving, "two").await;
    let delete = |text: &str| {
        let stays = fixed.clone();
        let may_delete: TagFilter = Arc::new(move |tag| *tag != stays);
        let digest = manifest(text).manifest.digest;
        let (storage, repository) = (Arc::clone(&storage), repository.clone());
        async move {
            storage
                .delete_manifest(&repository, &digest, Some(may_delete), None)
                .await
        }
    };
    assert_code(delete("one").await, ErrorCode::TagConflict);
    assert_tag(&*storage, &repository, &fixed, "one").await;
    delete("two").await.unwrap();
    assert_eq!(all_tags(&*storage, &repository, 10).await, ["v1"]);
    // A tag that once named the manifest, and now names another, does not keep it.
    let three = manifest("three").with_tag(&fixed);
    storage.put_manifest(&repository, three).await.unwrap();
    delete("one").await.unwrap();
}

/// A push on the condition that the tag is absent is refused if the tag exists, even with the same digest.
pub async fn absent(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let tag = tag("v1");
    let push = |text: &str| {
        let new = manifest(text).with_tag(&tag).with_condition(TagCondition::Absent);
        storage.put_manifest(&repository, new)
    };
    push("one").await.unwrap();
    assert_code(push("one").await, ErrorCode::PreconditionFailed);
    assert_code(push("two").await, ErrorCode::PreconditionFailed);
    assert_tag(&*storage, &repository, &tag, "one").await;
    storage.delete_tag(&repository, &tag, None).await.unwrap();
    push("two").await.unwrap();
    storage
        .delete_manifest(&repository, &manifest("two").manifest.digest, None, None)
        .await
        .unwrap();
    push("two").await.unwrap();
    assert_tag(&*storage, &repository, &tag, "two").await;
}

/// With `If-Match`, a push, and the delete of a tag, succeed if the tag names one of the digests.
pub async fn if_match(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let tag = tag("v1");
    let of =
        |texts: &[&str]| -> Vec<Digest> { texts.iter().map(|text| manifest(text).manifest.digest).collect() };
    let push = |text: &str, digests: Vec<Digest>| {
        let new = manifest(text)
            .with_tag(&tag)
            .with_condition(TagCondition::Matches(digests));
        storage.put_manifest(&repository, new)
    };
    assert_code(push("one", of(&["one"])).await, ErrorCode::PreconditionFailed);
    storage
        .put_manifest(&repository, manifest("one").with_tag(&tag))
        .await
        .unwrap();
    assert_code(push("two", of(&["two"])).await, ErrorCode::PreconditionFailed);
    assert_code(push("two", Vec::new()).await, ErrorCode::PreconditionFailed);
    push("two", of(&["zero", "one"])).await.unwrap();
    push("two", of(&["two"])).await.unwrap();
    assert_code(push("three", of(&["one"])).await, ErrorCode::PreconditionFailed);
    assert_tag(&*storage, &repository, &tag, "two").await;
    storage
        .delete_manifest(&repository, &manifest("two").manifest.digest, None, None)
        .await
        .unwrap();
    assert_code(push("three", of(&["two"])).await, ErrorCode::PreconditionFailed);
    let delete = async |digests: Vec<Digest>| storage.delete_tag(&repository, &tag, Some(&digests)).await;
    assert_code(delete(of(&["two"])).await, ErrorCode::ManifestUnknown);
    let four = manifest("four").with_tag(&tag);
    storage.put_manifest(&repository, four).await.unwrap();
    assert_code(delete(of(&["two"])).await, ErrorCode::PreconditionFailed);
    assert_code(delete(Vec::new()).await, ErrorCode::PreconditionFailed);
    assert_tag(&*storage, &repository, &tag, "four").await;
    delete(of(&["two", "four"])).await.unwrap();
    assert_eq!(all_tags(&*storage, &repository, 10).await, [""; 0]);
    get(&*storage, &repository, &manifest("four").manifest.digest)
        .await
        .unwrap();
}

/// A delete by tag keeps the manifest and its other tags.
pub async fn delete_by_tag(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let (one, two) = (tag("1"), tag("2"));
    storage
        .put_manifest(&repository, manifest("image").with_tag(&one).with_tag(&two))
        .await
        .unwrap();
    storage.delete_tag(&repository, &one, None).await.unwrap();
    assert_code(
        get_tag(&*storage, &repository, &one).await,
        ErrorCode::ManifestUnknown,
    );
    assert_code(
        storage.delete_tag(&repository, &one, None).await,
        ErrorCode::ManifestUnknown,
    );
    assert_tag(&*storage, &repository, &two, "image").await;
    assert_eq!(all_tags(&*storage, &repository, 10).await, ["2"]);
    get(&*storage, &repository, &manifest("image").manifest.digest)
        .await
        .unwrap();
    storage.delete_tag(&repository, &two, None).await.unwrap();
    get(&*storage, &repository, &manifest("image").manifest.digest)
        .await
        .unwrap();
    storage
        .put_manifest(&repository, manifest("image").with_tag(&one))
        .await
        .unwrap();
    assert_eq!(all_tags(&*storage, &repository, 10).await, ["1"]);
}

/// A delete by digest deletes every tag that names it, and no other.
pub async fn delete_by_digest(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let mut new = manifest("image");
    for number in 0..30 {
        new = new.with_tag(&tag(&format!("v{number}")));
    }
    storage.put_manifest(&repository, new.clone()).await.unwrap();
    storage
        .put_manifest(
            &repository,
            manifest("other").with_tag(&tag("v7")).with_tag(&tag("w")),
        )
        .await
        .unwrap();
    storage
        .delete_manifest(&repository, &new.manifest.digest, None, None)
        .await
        .unwrap();
    assert_eq!(all_tags(&*storage, &repository, 10).await, ["v7", "w"]);
    assert_tag(&*storage, &repository, &tag("v7"), "other").await;
    assert_code(
        storage
            .delete_manifest(&repository, &digest(b"image"), None, None)
            .await,
        ErrorCode::ManifestUnknown,
    );
}

/// What a tag named before is listed and can be restored, or the storage keeps nothing, and says so.
pub async fn history_and_restore(storage: Arc<dyn Storage>) {
    let (repository, moved) = (repository("a"), tag("v1"));
    let images = [manifest("1"), manifest("2")];
    for image in &images {
        let image = image.clone().with_tag(&moved);
        storage.put_manifest(&repository, image).await.unwrap();
    }
    let page = PageRequest {
        last: None,
        limit: 10,
    };
    let history = storage.list_tag_history(&repository, Some(&moved), page).await;
    let values = match history {
        Err(error) if error.code() == ErrorCode::Unsupported => Vec::new(),
        history => history.unwrap().items,
    };
    let restored = storage
        .restore_tag(&repository, RestoreTag::new(moved.clone()))
        .await;
    if !values.iter().any(|value| value.end.is_some()) {
        let code = restored.unwrap_err().code();
        assert!(matches!(
            code,
            ErrorCode::Unsupported | ErrorCode::ManifestUnknown
        ));
        return;
    }
    let [past, present] = &values[..] else {
        panic!("{values:?}")
    };
    assert_eq!(past.digest, images[0].manifest.digest);
    assert_eq!(
        (&present.digest, &present.end),
        (&images[1].manifest.digest, &None)
    );
    let restored = restored.unwrap();
    assert!(restored.manifest == images[0].manifest);
    assert_eq!(restored.replaced.as_ref(), Some(&present.digest));
    assert!(get_tag(&*storage, &repository, &moved).await.unwrap() == images[0].manifest);
    storage
        .delete_manifest(&repository, &past.digest, None, None)
        .await
        .unwrap();
    let deleted = RestoreTag {
        digest: Some(past.digest.clone()),
        ..RestoreTag::new(tag("v2"))
    };
    let found = storage.find_restorable(&repository, &deleted).await.unwrap();
    assert!(found == images[0].manifest);
    assert_eq!(
        storage.restore_tag(&repository, deleted).await.unwrap().manifests,
        1
    );
    assert!(get_tag(&*storage, &repository, &tag("v2")).await.unwrap() == found);
}
