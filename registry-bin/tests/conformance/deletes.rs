//! Deleting tags and manifests (end-9) and blobs (end-10).

use std::io::Write as _;

use crate::backend::behaviours;
use crate::support::content::{sha256, sha512};
use crate::support::repository::{IMAGE, Repository};
use crate::support::server::Server;

behaviours![
    a_deleted_tag_is_gone_and_its_manifest_stays,
    a_tag_that_moved_is_not_deleted_if_the_client_names_what_it_was,
    a_manifest_that_is_deleted_by_digest_takes_its_tags_along,
    a_deleted_blob_is_gone_at_once,
    a_referenced_blob_can_be_deleted,
    blobs_can_be_deleted_after_their_manifest,
    what_is_not_there_cannot_be_deleted,
    a_malformed_reference_is_refused,
    a_deleted_thing_can_be_pushed_again,
    a_delete_is_felt_in_its_own_repository_only,
    the_repository_stays_when_everything_in_it_is_gone,
    a_moved_tag_survives_the_delete_of_its_old_manifest,
    a_whole_repository_is_deleted_at_once,
    what_was_moved_or_deleted_is_restored,
];

fn manifest(reference: &str) -> String {
    format!("manifests/{reference}")
}

fn blob(digest: &str) -> String {
    format!("blobs/{digest}")
}

fn a_deleted_tag_is_gone_and_its_manifest_stays(repository: &Repository) {
    let image = repository.push_image("one", "tag");
    repository.push_manifest("two", IMAGE, &image.content);
    repository.delete(&manifest("one")).expect_status(202);
    repository
        .get(&manifest("one"))
        .expect_error(&[404], &["MANIFEST_UNKNOWN"]);
    repository.head(&manifest("one")).expect_status(404);
    assert_eq!(repository.get(&manifest("two")).body, image.content);
    assert_eq!(repository.get(&manifest(&image.digest)).body, image.content);
    assert_eq!(repository.tags(), ["two"]);
}

fn a_tag_that_moved_is_not_deleted_if_the_client_names_what_it_was(repository: &Repository) {
    let old = repository.push_image("latest", "old");
    let new = repository.push_image("latest", "new");
    let delete = |tag: &str| {
        let request = repository.request("DELETE", &manifest("latest"));
        request.header("If-Match", tag).send()
    };
    delete(&format!("\"{}\"", old.digest)).expect_error(&[412], &["DENIED"]);
    assert_eq!(repository.get(&manifest("latest")).body, new.content);
    delete(&format!("\"{}\"", new.digest)).expect_status(202);
    repository.head(&manifest("latest")).expect_status(404);
    assert_eq!(repository.get(&manifest(&new.digest)).body, new.content);
    delete("*").expect_error(&[404], &["MANIFEST_UNKNOWN"]);
}

fn a_manifest_that_is_deleted_by_digest_takes_its_tags_along(repository: &Repository) {
    let image = repository.push_image("one", "digest");
    repository.push_manifest("two", IMAGE, &image.content);
    let other = repository.push_image("other", "other");
    repository.delete(&manifest(&image.digest)).expect_status(202);
    for reference in ["one", "two", &image.digest] {
        repository
            .get(&manifest(reference))
            .expect_error(&[404], &["MANIFEST_UNKNOWN"]);
        repository.head(&manifest(reference)).expect_status(404);
    }
    assert_eq!(repository.tags(), ["other"]);
    assert_eq!(repository.get(&manifest("other")).body, other.content);
}

fn a_whole_repository_is_deleted_at_once(repository: &Repository) {
    let whole = repository.sibling("whole");
    let below = whole.sibling("below");
    let image = whole.push_image("one", "whole");
    whole.push_manifest("two", IMAGE, &image.content);
    below.push_image("one", "whole");
    let upload = whole.open_upload();
    let answer = whole.delete("_registry/repository");
    answer.expect_status(202);
    let deleted = answer.received().repository_deleted().expect("it says what");
    assert_eq!(
        (
            deleted.tags,
            deleted.manifests,
            deleted.cancelled_uploads,
            deleted.is_gone
        ),
        (2, 1, 1, true)
    );
    whole.get("tags/list").expect_error(&[404], &["NAME_UNKNOWN"]);
    whole.head(&manifest(&image.digest)).expect_status(404);
    whole
        .follow("GET", &upload)
        .send()
        .expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
    whole
        .delete("_registry/repository")
        .expect_error(&[404], &["NAME_UNKNOWN"]);
    assert_eq!(below.tags(), ["one"]);
}

fn what_was_moved_or_deleted_is_restored(repository: &Repository) {
    let first = repository.push_image("moved", "first");
    let second = repository.push_image("moved", "second");
    let values = |page: &str| {
        let answer = repository.get(&format!("_registry/tags/history{page}"));
        answer.expect_status(200);
        answer.received().tag_history().expect("it is a history").items
    };
    let [past, present] = &values("?tag=moved")[..] else {
        panic!("one value and what the tag names now")
    };
    assert_eq!(
        (past.digest.as_str(), present.digest.as_str()),
        (&*first.digest, &*second.digest)
    );
    let end = past.end.as_ref().expect("it ended");
    assert!(end.restorable_until.is_some_and(|until| until > end.at) && present.end.is_none());
    let restore = |query: &str| {
        repository
            .request("POST", &format!("_registry/tags/restore?{query}"))
            .send()
    };
    let answer = restore("tag=moved");
    answer.expect_status(201);
    answer.expect_header("Docker-Content-Digest", &first.digest);
    let restored = answer.received().tag_restored().expect("it says what");
    assert_eq!((restored.manifests, restored.replaced.is_some()), (0, true));
    assert_eq!(repository.get(&manifest("moved")).body, first.content);
    for image in [&first, &second] {
        repository.delete(&manifest(&image.digest)).expect_status(202);
    }
    restore(&format!("tag=back&digest={}", second.digest)).expect_status(201);
    assert_eq!(repository.get(&manifest("back")).body, second.content);
    assert_eq!(repository.tags(), ["back"]);
    repository.delete("_registry/repository").expect_status(202);
    restore("tag=moved").expect_status(201);
    assert_eq!(repository.get(&manifest("moved")).body, first.content);
    // A part of the list, and the next one.
    let answer = repository.get("_registry/tags/history?n=1");
    let next = answer.received().tag_history().expect("it is a history").next;
    assert!(next.is_some());
    restore("tag=never").expect_error(&[404], &["MANIFEST_UNKNOWN"]);
    restore(&format!("tag=moved&digest={}", sha256(b"never"))).expect_error(&[404], &["MANIFEST_UNKNOWN"]);
    restore("").expect_error(&[400], &["UNSUPPORTED"]);
    repository
        .get("_registry/tags/restore?tag=moved")
        .expect_error(&[405], &["UNSUPPORTED"]);
    let never = repository.sibling("never");
    assert!(
        never.get("_registry/tags/history").json()["values"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

fn a_deleted_blob_is_gone_at_once(repository: &Repository) {
    for content in [b"deleted".to_vec(), vec![1; 100_000]] {
        let digest = repository.push_blob(&content);
        repository.head(&blob(&digest)).expect_status(200);
        repository.delete(&blob(&digest)).expect_status(202);
        repository.head(&blob(&digest)).expect_status(404);
        repository
            .get(&blob(&digest))
            .expect_error(&[404], &["BLOB_UNKNOWN"]);
    }
}

fn a_referenced_blob_can_be_deleted(repository: &Repository) {
    let image = repository.push_image("latest", "referenced");
    repository.delete(&blob(&image.layer)).expect_status(202);
    repository.delete(&blob(&image.config)).expect_status(202);
    repository.get(&manifest("latest")).expect_status(200);
    repository.delete(&manifest(&image.digest)).expect_status(202);
}

fn blobs_can_be_deleted_after_their_manifest(repository: &Repository) {
    let image = repository.push_image("latest", "order");
    repository.delete(&manifest(&image.digest)).expect_status(202);
    repository.delete(&blob(&image.config)).expect_status(202);
    repository.delete(&blob(&image.layer)).expect_status(202);
}

fn what_is_not_there_cannot_be_deleted(repository: &Repository) {
    let unknown = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"];
    repository
        .delete(&manifest("latest"))
        .expect_error(&[404], &unknown);
    repository
        .delete(&manifest(&sha256(b"missing")))
        .expect_error(&[404], &unknown);
    repository
        .delete(&blob(&sha256(b"missing")))
        .expect_error(&[404], &["BLOB_UNKNOWN", "NAME_UNKNOWN"]);
    let image = repository.push_image("latest", "present");
    repository
        .delete(&manifest("missing"))
        .expect_error(&[404], &["MANIFEST_UNKNOWN"]);
    repository
        .delete(&manifest(&sha512(b"missing")))
        .expect_error(&[404], &["MANIFEST_UNKNOWN"]);
    repository
        .delete(&blob(&sha256(b"missing")))
        .expect_error(&[404], &["BLOB_UNKNOWN"]);
    for path in [manifest("latest"), manifest(&image.digest), blob(&image.layer)] {
        repository.delete(&path).expect_status(202);
        repository
            .delete(&path)
            .expect_error(&[404], &["MANIFEST_UNKNOWN", "BLOB_UNKNOWN"]);
    }
}

fn a_malformed_reference_is_refused(repository: &Repository) {
    repository.push_image("latest", "malformed");
    repository
        .delete(&blob("sha256:abc"))
        .expect_error(&[400], &["DIGEST_INVALID"]);
    let response = repository.delete(&manifest("sha256:abc"));
    response.expect_error(&[400, 404], &["DIGEST_INVALID", "MANIFEST_UNKNOWN"]);
    let response = repository.delete(&manifest(".bad"));
    response.expect_error(
        &[400, 404],
        &["MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID"],
    );
}

fn a_deleted_thing_can_be_pushed_again(repository: &Repository) {
    for _ in 0..3 {
        let image = repository.push_image("latest", "again");
        assert_eq!(repository.get(&manifest("latest")).body, image.content);
        repository.get(&blob(&image.layer)).expect_status(200);
        assert_eq!(repository.tags(), ["latest"]);
        repository.delete(&manifest(&image.digest)).expect_status(202);
        repository.delete(&blob(&image.layer)).expect_status(202);
    }
    let image = repository.push_image("latest", "again");
    repository.delete(&manifest("latest")).expect_status(202);
    repository.push_manifest("latest", IMAGE, &image.content);
    assert_eq!(repository.get(&manifest("latest")).body, image.content);
}

fn a_delete_is_felt_in_its_own_repository_only(repository: &Repository) {
    let other = repository.sibling("other");
    let image = repository.push_image("latest", "both");
    other.push_image("latest", "both");
    repository.delete(&manifest(&image.digest)).expect_status(202);
    repository.delete(&blob(&image.layer)).expect_status(202);
    assert_eq!(other.get(&manifest("latest")).body, image.content);
    assert_eq!(other.get(&blob(&image.layer)).body, b"layer both");
    repository.get(&blob(&image.layer)).expect_status(404);
}

fn the_repository_stays_when_everything_in_it_is_gone(repository: &Repository) {
    let image = repository.push_image("latest", "everything");
    for path in [
        manifest("latest"),
        manifest(&image.digest),
        blob(&image.config),
        blob(&image.layer),
    ] {
        repository.delete(&path).expect_status(202);
    }
    assert_eq!(repository.tags(), [""; 0]);
}

fn a_moved_tag_survives_the_delete_of_its_old_manifest(repository: &Repository) {
    let old = repository.push_image("latest", "old");
    let new = repository.push_image("latest", "new");
    repository.delete(&manifest(&old.digest)).expect_status(202);
    assert_eq!(repository.get(&manifest("latest")).body, new.content);
    assert_eq!(repository.tags(), ["latest"]);
}

/// As in distribution's configuration, where deletes are off unless they are asked for.
#[test]
fn deletes_that_are_disabled_are_405() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("config.yml");
    let mut file = std::fs::File::create(&path).expect("a file can be made");
    write!(
        file,
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
        folder.path().join("data").display()
    )
    .expect("a file can be written");
    let server = Server::run(&["serve", path.to_str().expect("a plain path")]);
    let repository = Repository::new(server.address(), "disabled");
    let image = repository.push_image("latest", "disabled");
    for path in [manifest("latest"), manifest(&image.digest), blob(&image.layer)] {
        let refused = repository.delete(&path);
        refused.expect_error(&[405], &["UNSUPPORTED"]);
        assert!(refused.list("Allow").contains(&"GET"), "{}", refused.summary());
        repository.get(&path).expect_status(200);
    }
}
