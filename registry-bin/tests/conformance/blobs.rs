//! Pulling blobs (end-2).

use crate::backend::behaviours;
use crate::support::content::{Content, sha256, sha512};
use crate::support::repository::Repository;

behaviours![
    a_blob_is_returned_as_it_was_pushed,
    head_has_the_headers_of_get_and_no_body,
    a_missing_blob_is_404,
    a_blob_of_an_unknown_repository_is_404,
    a_malformed_digest_is_400,
    an_unsupported_algorithm_is_400_or_404,
    the_empty_blob_has_a_length_of_0,
    a_blob_can_be_pushed_under_its_sha512_digest,
    one_content_can_have_two_digests,
    a_blob_belongs_to_the_repository_it_was_pushed_to,
    a_blob_is_never_transformed,
    a_blob_that_did_not_change_is_304,
    a_blob_names_its_own_location,
    blobs_around_buffer_sizes_come_back_whole,
];

fn blob(digest: &str) -> String {
    format!("blobs/{digest}")
}

fn a_blob_is_returned_as_it_was_pushed(repository: &Repository) {
    let content = Content::new(1, 100_000).bytes();
    let digest = repository.push_blob(&content);
    // Whoever sends the content, the registry says what it is.
    let first = repository.request("GET", &blob(&digest)).send();
    first.expect_header("Docker-Content-Digest", &digest);
    first.expect_header("Docker-Distribution-API-Version", "registry/2.0");
    let response = repository.get(&blob(&digest));
    response.expect_status(200);
    response.expect_header("Content-Length", "100000");
    response.expect_header("Accept-Ranges", "bytes");
    assert!(
        response.header("Content-Type").is_some(),
        "{}",
        response.summary()
    );
    assert!(response.body == content);
}

fn head_has_the_headers_of_get_and_no_body(repository: &Repository) {
    let digest = repository.push_blob(b"some content");
    let got = repository.get(&blob(&digest));
    let headed = repository.head(&blob(&digest));
    headed.expect_status(200);
    for name in [
        "Content-Length",
        "Docker-Content-Digest",
        "Content-Type",
        "Accept-Ranges",
        "ETag",
        "Cache-Control",
    ] {
        assert_eq!(headed.header(name), got.header(name), "{name}");
    }
    headed.expect_header("Content-Length", "12");
    assert_eq!(headed.body, b"");
}

fn a_missing_blob_is_404(repository: &Repository) {
    repository.push_blob(b"present");
    let missing = blob(&sha256(b"missing"));
    repository.get(&missing).expect_error(&[404], &["BLOB_UNKNOWN"]);
    let headed = repository.head(&missing);
    headed.expect_status(404);
    assert_eq!(headed.body, b"");
}

fn a_blob_of_an_unknown_repository_is_404(repository: &Repository) {
    let missing = blob(&sha256(b"missing"));
    repository
        .get(&missing)
        .expect_error(&[404], &["BLOB_UNKNOWN", "NAME_UNKNOWN"]);
    repository.head(&missing).expect_status(404);
}

fn a_malformed_digest_is_400(repository: &Repository) {
    let upper = sha256(b"x").to_uppercase().replace("SHA256", "sha256");
    for digest in [
        "sha256:abc",
        "sha256:totallywrong",
        &upper,
        &format!("{}0", sha256(b"x")),
        "sha256:",
        ":abc",
    ] {
        repository
            .get(&blob(digest))
            .expect_error(&[400], &["DIGEST_INVALID"]);
        repository.head(&blob(digest)).expect_status(400);
    }
}

fn an_unsupported_algorithm_is_400_or_404(repository: &Repository) {
    for digest in [
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
    ] {
        let response = repository.get(&blob(digest));
        response.expect_error(&[400, 404], &["DIGEST_INVALID", "BLOB_UNKNOWN", "NAME_UNKNOWN"]);
    }
}

fn the_empty_blob_has_a_length_of_0(repository: &Repository) {
    let digest = repository.push_blob(b"");
    for response in [repository.get(&blob(&digest)), repository.head(&blob(&digest))] {
        response.expect_status(200);
        response.expect_header("Content-Length", "0");
        response.expect_header("Docker-Content-Digest", &digest);
        assert_eq!(response.body, b"");
    }
}

fn a_blob_can_be_pushed_under_its_sha512_digest(repository: &Repository) {
    for content in [b"".as_slice(), b"sha512 content"] {
        let digest = sha512(content);
        repository.push_blob_as(&digest, content);
        let response = repository.get(&blob(&digest));
        response.expect_status(200);
        response.expect_header("Docker-Content-Digest", &digest);
        assert_eq!(response.body, content);
        repository
            .head(&blob(&digest))
            .expect_header("Docker-Content-Digest", &digest);
    }
}

fn one_content_can_have_two_digests(repository: &Repository) {
    let content = b"content with two names";
    repository.push_blob_as(&sha512(content), content);
    repository.push_blob(content);
    for digest in [sha256(content), sha512(content)] {
        let response = repository.get(&blob(&digest));
        response.expect_header("Docker-Content-Digest", &digest);
        assert_eq!(response.body, content);
    }
    repository.delete(&blob(&sha256(content))).expect_status(202);
    repository.get(&blob(&sha512(content))).expect_status(200);
}

fn a_blob_belongs_to_the_repository_it_was_pushed_to(repository: &Repository) {
    let other = repository.sibling("other");
    other.push_blob(b"something else");
    let digest = repository.push_blob(b"private to one repository");
    other.head(&blob(&digest)).expect_status(404);
    other.get(&blob(&digest)).expect_status(404);
    other.head(&blob(&digest)).expect_status(404);
}

fn a_blob_is_never_transformed(repository: &Repository) {
    let content = vec![b'a'; 50_000];
    let digest = repository.push_blob(&content);
    let request = repository
        .request("GET", &blob(&digest))
        .header("Accept-Encoding", "zstd, gzip, deflate, br");
    let response = request.send_and_follow();
    response.expect_header("Content-Length", "50000");
    assert_eq!(response.header("Content-Encoding"), None);
    assert!(response.body == content);
}

fn a_blob_that_did_not_change_is_304(repository: &Repository) {
    let digest = repository.push_blob(b"cached content");
    let etag = repository
        .get(&blob(&digest))
        .header("ETag")
        .expect("a blob has an ETag")
        .to_owned();
    for method in ["GET", "HEAD"] {
        for matching in [
            etag.as_str(),
            "*",
            &format!("\"other\", {etag}"),
            &format!("W/{etag}"),
        ] {
            let request = repository
                .request(method, &blob(&digest))
                .header("If-None-Match", matching);
            let response = request.send();
            assert_eq!(response.status, 304, "{method} {matching}");
            assert_eq!(response.body, b"");
        }
        repository
            .request(method, &blob(&digest))
            .header("If-None-Match", "\"other\"")
            .send()
            .expect_status(200);
    }
}

/// ollama takes an answer without `Location` for an error.
fn a_blob_names_its_own_location(repository: &Repository) {
    let digest = repository.push_blob(b"found where it is");
    let location = repository.get(&blob(&digest)).location();
    assert_eq!(
        repository.follow("GET", &location).send().body,
        b"found where it is"
    );
}

fn blobs_around_buffer_sizes_come_back_whole(repository: &Repository) {
    for power in [12, 14, 16, 18, 20, 22] {
        for length in [(1_u64 << power) - 1, 1 << power, (1 << power) + 1] {
            let content = Content::new(length, length);
            let digest = repository.push_blob(&content.clone().bytes());
            let response = repository.get(&blob(&digest));
            response.expect_header("Content-Length", &length.to_string());
            assert!(response.body == content.bytes(), "{length}");
        }
    }
}
