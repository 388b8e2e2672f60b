//! Pushing blobs in chunks (end-5): the offsets, and what happens to chunks that come in the wrong order.

use crate::backend::behaviours;
use crate::support::client::{Response, with_query};
use crate::support::content::{Content, sha256};
use crate::support::repository::{OCTETS, Repository};

behaviours![
    chunks_are_put_together,
    the_last_chunk_may_come_with_the_put,
    the_last_chunk_may_come_with_the_put_without_a_range,
    chunks_may_be_one_byte_long,
    a_first_chunk_that_does_not_start_at_0_is_416,
    a_chunk_after_a_gap_is_416_and_the_session_goes_on,
    a_chunk_sent_twice_is_416,
    an_overlapping_chunk_is_416,
    a_last_chunk_out_of_order_is_416_and_the_session_goes_on,
    a_chunk_whose_length_is_not_that_of_its_range_is_refused,
    a_malformed_content_range_is_refused,
    a_closing_put_may_say_the_range_of_the_whole_blob,
    an_old_location_may_be_used_again,
    a_chunk_that_is_sent_again_is_not_appended_again,
    a_closing_put_that_is_sent_again_with_its_chunk_is_201_again,
    a_closing_put_that_is_refused_for_its_digest_leaves_the_session_as_it_was,
];

const CHUNK: usize = 1024;
const LENGTH: usize = 3 * CHUNK - 5;

fn content(seed: u64) -> Vec<u8> {
    Content::new(seed, LENGTH as u64).bytes()
}

#[track_caller]
fn expect_stored(repository: &Repository, put: &Response, content: &[u8]) {
    put.expect_status(201);
    assert!(repository.get(&format!("blobs/{}", sha256(content))).body == content);
}

#[track_caller]
fn expect_out_of_order(response: &Response) {
    response.expect_error(&[416], &["BLOB_UPLOAD_INVALID", "SIZE_INVALID"]);
}

/// Requires that the session has exactly `length` bytes, and returns its location.
#[track_caller]
fn expect_offset(repository: &Repository, location: &str, length: usize) -> String {
    let status = repository.follow("GET", location).send();
    status.expect_status(204);
    status.expect_header("Range", &format!("0-{}", length.saturating_sub(1)));
    status.location()
}

fn chunks_are_put_together(repository: &Repository) {
    let content = content(1);
    let mut location = repository.open_upload();
    let mut end = 0;
    for chunk in content.chunks(CHUNK) {
        let response = repository.patch(&location, end as u64, chunk);
        end += chunk.len();
        response.expect_status(202);
        response.expect_header("Range", &format!("0-{}", end - 1));
        assert!(
            response.header("Docker-Upload-UUID").is_some(),
            "{}",
            response.summary()
        );
        location = response.location();
    }
    expect_stored(
        repository,
        &repository.close_upload(&location, &sha256(&content)),
        &content,
    );
}

fn put_with_range(
    repository: &Repository,
    location: &str,
    range: &str,
    digest: &str,
    chunk: &[u8],
) -> Response {
    let request = repository.follow("PUT", &with_query(location, "digest", digest));
    request
        .header("Content-Type", OCTETS)
        .header("Content-Range", range)
        .body(chunk)
        .send()
}

fn the_last_chunk_may_come_with_the_put(repository: &Repository) {
    let content = content(2);
    let patched = repository.patch(&repository.open_upload(), 0, &content[..CHUNK]);
    let range = format!("{CHUNK}-{}", LENGTH - 1);
    let put = put_with_range(
        repository,
        &patched.location(),
        &range,
        &sha256(&content),
        &content[CHUNK..],
    );
    expect_stored(repository, &put, &content);
}

fn the_last_chunk_may_come_with_the_put_without_a_range(repository: &Repository) {
    let content = content(3);
    let patched = repository.patch(&repository.open_upload(), 0, &content[..CHUNK]);
    let target = with_query(&patched.location(), "digest", &sha256(&content));
    let put = repository.follow("PUT", &target).body(&content[CHUNK..]).send();
    expect_stored(repository, &put, &content);
}

fn chunks_may_be_one_byte_long(repository: &Repository) {
    let content = &content(4)[..40];
    let mut location = repository.open_upload();
    for (offset, byte) in content.chunks(1).enumerate() {
        let response = repository.patch(&location, offset as u64, byte);
        response.expect_status(202);
        response.expect_header("Range", &format!("0-{offset}"));
        location = response.location();
    }
    expect_stored(
        repository,
        &repository.close_upload(&location, &sha256(content)),
        content,
    );
}

fn a_first_chunk_that_does_not_start_at_0_is_416(repository: &Repository) {
    let content = content(5);
    let location = repository.open_upload();
    expect_out_of_order(&repository.patch(&location, CHUNK as u64, &content[CHUNK..2 * CHUNK]));
    let location = expect_offset(repository, &location, 0);
    let patched = repository.patch(&location, 0, &content);
    patched.expect_status(202);
    expect_stored(
        repository,
        &repository.close_upload(&patched.location(), &sha256(&content)),
        &content,
    );
}

fn a_chunk_after_a_gap_is_416_and_the_session_goes_on(repository: &Repository) {
    let content = content(6);
    let patched = repository.patch(&repository.open_upload(), 0, &content[..CHUNK]);
    let location = patched.location();
    expect_out_of_order(&repository.patch(&location, 2 * CHUNK as u64, &content[2 * CHUNK..]));
    let location = expect_offset(repository, &location, CHUNK);
    let patched = repository.patch(&location, CHUNK as u64, &content[CHUNK..]);
    patched.expect_header("Range", &format!("0-{}", LENGTH - 1));
    expect_stored(
        repository,
        &repository.close_upload(&patched.location(), &sha256(&content)),
        &content,
    );
}

fn a_chunk_sent_twice_is_416(repository: &Repository) {
    let content = content(7);
    let opened = repository.open_upload();
    let patched = repository.patch(&opened, 0, &content[..CHUNK]);
    expect_out_of_order(&repository.patch(&opened, 0, &content[..CHUNK]));
    expect_out_of_order(&repository.patch(&patched.location(), 0, &content[..CHUNK]));
    expect_offset(repository, &opened, CHUNK);
    let patched = repository.patch(&patched.location(), CHUNK as u64, &content[CHUNK..]);
    expect_stored(
        repository,
        &repository.close_upload(&patched.location(), &sha256(&content)),
        &content,
    );
}

fn an_overlapping_chunk_is_416(repository: &Repository) {
    let content = content(8);
    let location = repository
        .patch(&repository.open_upload(), 0, &content[..CHUNK])
        .location();
    expect_out_of_order(&repository.patch(&location, CHUNK as u64 - 1, &content[CHUNK - 1..]));
    expect_offset(repository, &location, CHUNK);
}

fn a_last_chunk_out_of_order_is_416_and_the_session_goes_on(repository: &Repository) {
    let content = content(9);
    let digest = sha256(&content);
    let location = repository
        .patch(&repository.open_upload(), 0, &content[..CHUNK])
        .location();
    let early = format!("{}-{}", 2 * CHUNK, LENGTH - 1);
    expect_out_of_order(&put_with_range(
        repository,
        &location,
        &early,
        &digest,
        &content[2 * CHUNK..],
    ));
    // The official suite asks at the very address of the refused PUT.
    let location = expect_offset(repository, &with_query(&location, "digest", &digest), CHUNK);
    repository.head(&format!("blobs/{digest}")).expect_status(404);
    let right = format!("{CHUNK}-{}", LENGTH - 1);
    let put = put_with_range(repository, &location, &right, &digest, &content[CHUNK..]);
    expect_stored(repository, &put, &content);
}

fn a_chunk_whose_length_is_not_that_of_its_range_is_refused(repository: &Repository) {
    let content = content(10);
    for range in ["0-1022", "0-1024", "0-0"] {
        let location = repository.open_upload();
        let request = repository
            .follow("PATCH", &location)
            .header("Content-Range", range);
        let response = request.body(&content[..CHUNK]).send();
        response.expect_error(&[400, 416], &["BLOB_UPLOAD_INVALID", "SIZE_INVALID"]);
        let location = expect_offset(repository, &location, 0);
        let patched = repository.patch(&location, 0, &content);
        expect_stored(
            repository,
            &repository.close_upload(&patched.location(), &sha256(&content)),
            &content,
        );
    }
}

fn a_malformed_content_range_is_refused(repository: &Repository) {
    for range in [
        "abc",
        "5-",
        "-5",
        "10-5",
        "0-1023-2000",
        "99999999999999999999-99999999999999999999",
    ] {
        let location = repository.open_upload();
        let request = repository
            .follow("PATCH", &location)
            .header("Content-Range", range);
        let response = request.body(&[0; CHUNK]).send();
        response.expect_error(&[400, 416], &["BLOB_UPLOAD_INVALID", "SIZE_INVALID"]);
        expect_offset(repository, &location, 0);
    }
}

fn a_closing_put_may_say_the_range_of_the_whole_blob(repository: &Repository) {
    let content = content(21);
    let (digest, whole) = (sha256(&content), format!("0-{}", LENGTH - 1));
    // All came before, or a part of it.
    for before in [LENGTH, CHUNK] {
        let patched = repository.patch(&repository.open_upload(), 0, &content[..before]);
        let put = put_with_range(
            repository,
            &patched.location(),
            &whole,
            &digest,
            &content[before..],
        );
        expect_stored(repository, &put, &content);
    }
    // Where bytes are missing, the digest tells.
    let patched = repository.patch(&repository.open_upload(), 0, &content[..CHUNK]);
    let put = put_with_range(repository, &patched.location(), &whole, &digest, &[]);
    put.expect_error(&[400], &["DIGEST_INVALID"]);
    expect_offset(repository, &patched.location(), CHUNK);
}

fn an_old_location_may_be_used_again(repository: &Repository) {
    let content = content(11);
    let opened = repository.open_upload();
    repository.patch(&opened, 0, &content[..CHUNK]).expect_status(202);
    repository
        .patch(&opened, CHUNK as u64, &content[CHUNK..])
        .expect_status(202);
    expect_offset(repository, &opened, LENGTH);
    expect_stored(
        repository,
        &repository.close_upload(&opened, &sha256(&content)),
        &content,
    );
}

/// A client that lost the answer, or got a 503 on the way, sends the same request to the same URL.
fn a_chunk_that_is_sent_again_is_not_appended_again(repository: &Repository) {
    let content = content(20);
    let (first, last) = content.split_at(CHUNK);
    let location = repository.open_upload();
    let patch = |location: &str| repository.follow("PATCH", location).body(first).send();
    let accepted = patch(&location);
    accepted.expect_status(202);
    let again = patch(&location);
    expect_out_of_order(&again);
    again.expect_header("Range", &format!("0-{}", CHUNK - 1));
    assert_eq!(again.location(), accepted.location());
    let digest = sha256(&content);
    let close = |location: &str| {
        let target = with_query(location, "digest", &digest);
        repository.follow("PUT", &target).body(last).send()
    };
    expect_out_of_order(&close(&location));
    expect_stored(repository, &close(&again.location()), &content);
}

fn a_closing_put_that_is_sent_again_with_its_chunk_is_201_again(repository: &Repository) {
    let content = content(21);
    let (first, last) = content.split_at(CHUNK);
    let location = repository.patch(&repository.open_upload(), 0, first).location();
    let target = with_query(&location, "digest", &sha256(&content));
    for _ in 0..2 {
        let put = repository.follow("PUT", &target).body(last).send();
        expect_stored(repository, &put, &content);
    }
    let other = with_query(&location, "digest", &sha256(b"other"));
    let put = repository.follow("PUT", &other).body(last).send();
    put.expect_error(&[404], &["BLOB_UPLOAD_UNKNOWN"]);
}

fn a_closing_put_that_is_refused_for_its_digest_leaves_the_session_as_it_was(repository: &Repository) {
    let content = content(22);
    let (first, last) = content.split_at(CHUNK);
    let location = repository.patch(&repository.open_upload(), 0, first).location();
    let target = with_query(&location, "digest", &sha256(&content));
    for wrong in [&content[..], b"x", &last[..last.len() - 1]] {
        let refused = repository.follow("PUT", &target).body(wrong).send();
        refused.expect_error(&[400], &["DIGEST_INVALID"]);
        expect_offset(repository, &location, CHUNK);
    }
    let put = repository.follow("PUT", &target).body(last).send();
    expect_stored(repository, &put, &content);
}
