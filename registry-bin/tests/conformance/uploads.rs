//! Pushing blobs in one piece: POST and PUT (end-4a, end-6), POST alone (end-4b), streamed PATCH, and the digest's check.

use crate::backend::behaviours;
use crate::support::client::with_query;
use crate::support::content::{Content, sha256, sha512};
use crate::support::repository::{OCTETS, Repository};

behaviours![
    a_session_is_202_with_its_location_and_id,
    a_push_is_201_with_a_location_that_can_be_pulled,
    post_alone_pushes_a_blob,
    post_alone_with_another_digest_is_400_and_stores_nothing,
    put_with_another_digest_is_400_and_stores_nothing,
    put_without_a_digest_is_400,
    put_with_a_malformed_or_unsupported_digest_is_400,
    a_streamed_patch_appends,
    several_streamed_patches_append_in_order,
    a_body_of_unknown_length_can_be_put,
    headers_that_some_clients_omit_are_not_needed,
    the_empty_blob_can_be_pushed_in_every_way,
    a_post_that_names_a_digest_without_a_body_starts_an_upload,
    the_algorithm_may_be_announced,
    an_unsupported_algorithm_cannot_be_announced,
    sha512_needs_no_announcement,
    a_blob_can_be_pushed_twice,
    equal_blobs_can_be_pushed_at_once,
    an_encoded_digest_is_decoded,
    a_large_blob_is_stored_whole,
];

fn pulled(repository: &Repository, digest: &str) -> Vec<u8> {
    let response = repository.get(&format!("blobs/{digest}"));
    response.expect_status(200);
    response.body
}

fn a_session_is_202_with_its_location_and_id(repository: &Repository) {
    let response = repository.request("POST", "blobs/uploads/").send();
    response.expect_status(202);
    let id = response
        .header("Docker-Upload-UUID")
        .expect("an upload has an id")
        .to_owned();
    let location = response.location();
    assert!(location.contains(&id), "{}", response.summary());
    assert!(
        location.starts_with(&repository.path("blobs/uploads/")),
        "{}",
        response.summary()
    );
    response.expect_header("Range", "0-0");
    assert_eq!(response.body, b"");
    assert_ne!(repository.open_upload(), location, "two sessions, two locations");
}

fn a_push_is_201_with_a_location_that_can_be_pulled(repository: &Repository) {
    let content = Content::new(1, 512).bytes();
    let digest = sha256(&content);
    let target = with_query(&repository.open_upload(), "digest", &digest);
    let response = repository
        .follow("PUT", &target)
        .header("Content-Type", OCTETS)
        .body(&content)
        .send();
    response.expect_status(201);
    response.expect_header("Docker-Content-Digest", &digest);
    assert_eq!(response.location(), repository.path(&format!("blobs/{digest}")));
    assert!(repository.follow("GET", &response.location()).send().body == content);
}

fn post_alone_pushes_a_blob(repository: &Repository) {
    let content = Content::new(2, 512).bytes();
    for digest in [sha256(&content), sha512(&content)] {
        let target = format!("blobs/uploads/?digest={digest}");
        let response = repository
            .request("POST", &target)
            .header("Content-Type", OCTETS)
            .body(&content)
            .send();
        response.expect_status(201);
        assert!(repository.follow("GET", &response.location()).send().body == content);
        assert!(pulled(repository, &digest) == content);
    }
}

fn post_alone_with_another_digest_is_400_and_stores_nothing(repository: &Repository) {
    let promised = sha256(b"something else");
    let target = format!("blobs/uploads/?digest={promised}");
    let response = repository
        .request("POST", &target)
        .header("Content-Type", OCTETS)
        .body(b"content")
        .send();
    response.expect_error(&[400], &["DIGEST_INVALID"]);
    for digest in [promised, sha256(b"content")] {
        repository.head(&format!("blobs/{digest}")).expect_status(404);
    }
}

fn put_with_another_digest_is_400_and_stores_nothing(repository: &Repository) {
    for promised in [sha256(b"something else"), sha512(b"something else")] {
        let target = with_query(&repository.open_upload(), "digest", &promised);
        let response = repository.follow("PUT", &target).body(b"content").send();
        response.expect_error(&[400], &["DIGEST_INVALID"]);
        for digest in [promised, sha256(b"content"), sha512(b"content")] {
            repository.head(&format!("blobs/{digest}")).expect_status(404);
        }
    }
}

fn put_without_a_digest_is_400(repository: &Repository) {
    let location = repository.open_upload();
    let response = repository.follow("PUT", &location).body(b"content").send();
    response.expect_error(&[400], &["DIGEST_INVALID", "BLOB_UPLOAD_INVALID"]);
}

fn put_with_a_malformed_or_unsupported_digest_is_400(repository: &Repository) {
    for digest in [
        "sha256:abc",
        "nonsense",
        "",
        "md5:9a0364b9e99bb480dd25e1f0284c8555",
    ] {
        let target = with_query(&repository.open_upload(), "digest", digest);
        let response = repository.follow("PUT", &target).body(b"content").send();
        response.expect_error(&[400], &["DIGEST_INVALID", "BLOB_UPLOAD_INVALID"]);
    }
}

/// What `docker push` does.
fn a_streamed_patch_appends(repository: &Repository) {
    let content = Content::new(3, 300_000).bytes();
    let location = repository.open_upload();
    let response = repository
        .follow("PATCH", &location)
        .chunked(content.as_slice())
        .send();
    response.expect_status(202);
    response.expect_header("Range", "0-299999");
    assert!(
        response.header("Docker-Upload-UUID").is_some(),
        "{}",
        response.summary()
    );
    let digest = sha256(&content);
    repository
        .close_upload(&response.location(), &digest)
        .expect_status(201);
    assert!(pulled(repository, &digest) == content);
}

fn several_streamed_patches_append_in_order(repository: &Repository) {
    let mut location = repository.open_upload();
    for (number, part) in ["one, ", "two, ", "three"].iter().enumerate() {
        let response = repository
            .follow("PATCH", &location)
            .chunked(part.as_bytes())
            .send();
        response.expect_status(202);
        response.expect_header("Range", ["0-4", "0-9", "0-14"][number]);
        location = response.location();
    }
    let digest = sha256(b"one, two, three");
    repository.close_upload(&location, &digest).expect_status(201);
    assert_eq!(pulled(repository, &digest), b"one, two, three");
}

fn a_body_of_unknown_length_can_be_put(repository: &Repository) {
    for content in [b"".as_slice(), b"a body of unknown length"] {
        let digest = sha256(content);
        let target = with_query(&repository.open_upload(), "digest", &digest);
        repository
            .follow("PUT", &target)
            .chunked(content)
            .send()
            .expect_status(201);
        assert_eq!(pulled(repository, &digest), content);
    }
}

fn headers_that_some_clients_omit_are_not_needed(repository: &Repository) {
    let content = b"no type, no range";
    let response = repository
        .follow("PATCH", &repository.open_upload())
        .body(content)
        .send();
    response.expect_status(202);
    response.expect_header("Range", "0-16");
    repository
        .close_upload(&response.location(), &sha256(content))
        .expect_status(201);
}

fn the_empty_blob_can_be_pushed_in_every_way(repository: &Repository) {
    let digest = sha256(b"");
    let expect_and_delete = || {
        assert_eq!(pulled(repository, &digest), b"");
        repository.delete(&format!("blobs/{digest}")).expect_status(202);
    };
    let post = repository.request("POST", &format!("blobs/uploads/?digest={digest}"));
    post.header("Content-Type", OCTETS)
        .body(b"")
        .send()
        .expect_status(201);
    expect_and_delete();
    repository
        .close_upload(&repository.open_upload(), &digest)
        .expect_status(201);
    expect_and_delete();
    let patched = repository
        .follow("PATCH", &repository.open_upload())
        .chunked(b"".as_slice())
        .send();
    patched.expect_status(202);
    repository
        .close_upload(&patched.location(), &digest)
        .expect_status(201);
    expect_and_delete();
    let patched = repository
        .follow("PATCH", &repository.open_upload())
        .body(b"")
        .send();
    patched.expect_status(202);
    repository
        .close_upload(&patched.location(), &digest)
        .expect_status(201);
    expect_and_delete();
}

/// ollama names the digest when it starts the upload of a part of a model, and sends the bytes to the `Location`.
fn a_post_that_names_a_digest_without_a_body_starts_an_upload(repository: &Repository) {
    let content = b"that comes later";
    let digest = sha256(content);
    let response = repository
        .request("POST", &format!("blobs/uploads/?digest={digest}"))
        .body(b"")
        .send();
    response.expect_status(202);
    let put = repository
        .follow("PUT", &format!("{}&digest={digest}", response.location()))
        .header("Content-Type", OCTETS);
    put.body(content).send().expect_status(201);
    assert_eq!(pulled(repository, &digest), content);
}

/// end-4c
fn the_algorithm_may_be_announced(repository: &Repository) {
    let content = b"announced";
    for (algorithm, digest) in [("sha256", sha256(content)), ("sha512", sha512(content))] {
        let request = repository.request("POST", &format!("blobs/uploads/?digest-algorithm={algorithm}"));
        let opened = request.send();
        opened.expect_status(202);
        let patched = repository.patch(&opened.location(), 0, content);
        patched.expect_status(202);
        repository
            .close_upload(&patched.location(), &digest)
            .expect_status(201);
        assert_eq!(pulled(repository, &digest), content);
    }
}

fn an_unsupported_algorithm_cannot_be_announced(repository: &Repository) {
    for algorithm in ["md5", "SHA256"] {
        let request = repository.request("POST", &format!("blobs/uploads/?digest-algorithm={algorithm}"));
        request
            .send()
            .expect_error(&[400], &["DIGEST_INVALID", "BLOB_UPLOAD_INVALID", "UNSUPPORTED"]);
    }
}

fn sha512_needs_no_announcement(repository: &Repository) {
    let content = Content::new(4, 200_000).bytes();
    let first = repository.patch(&repository.open_upload(), 0, &content[..70_000]);
    let second = repository.patch(&first.location(), 70_000, &content[70_000..]);
    let digest = sha512(&content);
    repository
        .close_upload(&second.location(), &digest)
        .expect_status(201);
    assert!(pulled(repository, &digest) == content);
}

fn a_blob_can_be_pushed_twice(repository: &Repository) {
    for _ in 0..2 {
        let digest = repository.push_blob(b"twice");
        assert_eq!(pulled(repository, &digest), b"twice");
    }
}

fn equal_blobs_can_be_pushed_at_once(repository: &Repository) {
    let content = Content::new(5, 300_000).bytes();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| repository.push_blob(&content));
        }
    });
    assert!(pulled(repository, &sha256(&content)) == content);
}

fn an_encoded_digest_is_decoded(repository: &Repository) {
    let digest = sha256(b"encoded");
    let target = with_query(&repository.open_upload(), "digest", &digest.replace(':', "%3A"));
    repository
        .follow("PUT", &target)
        .body(b"encoded")
        .send()
        .expect_status(201);
    assert_eq!(pulled(repository, &digest), b"encoded");
}

fn a_large_blob_is_stored_whole(repository: &Repository) {
    let length = (64 << 20) + 1;
    let content = Content::new(6, length);
    let patched = repository
        .follow("PATCH", &repository.open_upload())
        .chunked(content.clone())
        .send();
    patched.expect_status(202);
    patched.expect_header("Range", &format!("0-{}", length - 1));
    let digest = content.digest();
    repository
        .close_upload(&patched.location(), &digest)
        .expect_status(201);
    let mut hashed = crate::support::content::Hashed::new();
    let got = repository
        .request("GET", &format!("blobs/{digest}"))
        .try_pull_to(&mut hashed);
    got.expect("the blob can be pulled").expect_status(200);
    assert_eq!(hashed.finish(), (digest, length));
}
