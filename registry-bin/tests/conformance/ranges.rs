//! Parts of blobs (end-2 with `Range`, RFC 9110 section 14).

use crate::backend::behaviours;
use crate::support::client::Response;
use crate::support::content::Content;
use crate::support::repository::Repository;

behaviours![
    a_range_with_both_ends,
    a_range_without_an_end,
    a_suffix,
    an_end_beyond_the_blob_is_cut,
    one_byte,
    a_start_beyond_the_blob_is_416,
    an_end_before_the_start_is_416,
    an_empty_suffix_is_416,
    a_suffix_longer_than_the_blob_is_all_of_it,
    a_malformed_range_is_ignored,
    an_unknown_unit_is_ignored,
    a_range_of_the_empty_blob_is_never_a_server_error,
    several_ranges_are_multipart,
    a_thousand_ranges_are_as_many_parts,
    more_ranges_than_are_served_are_416,
    a_range_applies_if_the_blob_is_the_expected_one,
    a_download_can_be_resumed_at_any_byte,
    parts_of_a_large_blob_in_parallel_make_the_whole,
];

const LENGTH: u64 = 2048;

fn ask(repository: &Repository, range: &str) -> (Vec<u8>, Response) {
    let content = Content::new(7, LENGTH).bytes();
    let digest = repository.push_blob(&content);
    let response = repository
        .request("GET", &format!("blobs/{digest}"))
        .header("Range", range)
        .send_and_follow();
    (content, response)
}

#[track_caller]
fn expect_part(repository: &Repository, range: &str, first: usize, last: usize) {
    let (content, response) = ask(repository, range);
    response.expect_status(206);
    response.expect_header("Content-Range", &format!("bytes {first}-{last}/{LENGTH}"));
    response.expect_header("Content-Length", &(last - first + 1).to_string());
    assert!(response.body == content[first..=last], "{range}");
}

#[track_caller]
fn expect_unsatisfiable(repository: &Repository, range: &str) {
    let (_, response) = ask(repository, range);
    response.expect_error(&[416], &["SIZE_INVALID", "BLOB_UPLOAD_INVALID", "UNSUPPORTED"]);
    response.expect_header("Content-Range", &format!("bytes */{LENGTH}"));
}

#[track_caller]
fn expect_whole(repository: &Repository, range: &str) {
    let (content, response) = ask(repository, range);
    response.expect_status(200);
    assert!(response.body == content, "{range}");
}

fn a_range_with_both_ends(repository: &Repository) {
    expect_part(repository, "bytes=500-1499", 500, 1499);
    expect_part(repository, "bytes=0-2047", 0, 2047);
}

fn a_range_without_an_end(repository: &Repository) {
    expect_part(repository, "bytes=500-", 500, 2047);
    expect_part(repository, "bytes=0-", 0, 2047);
}

fn a_suffix(repository: &Repository) {
    expect_part(repository, "bytes=-500", 1548, 2047);
}

fn an_end_beyond_the_blob_is_cut(repository: &Repository) {
    expect_part(repository, "bytes=2000-5000", 2000, 2047);
    expect_part(repository, "bytes=2000-18446744073709551615", 2000, 2047);
}

fn one_byte(repository: &Repository) {
    expect_part(repository, "bytes=0-0", 0, 0);
    expect_part(repository, "bytes=2047-2047", 2047, 2047);
    expect_part(repository, "bytes=-1", 2047, 2047);
}

fn a_start_beyond_the_blob_is_416(repository: &Repository) {
    expect_unsatisfiable(repository, "bytes=5000-10000");
    expect_unsatisfiable(repository, "bytes=2048-");
}

/// RFC 9110 would let a registry ignore it; the official suite takes that for a missing feature.
fn an_end_before_the_start_is_416(repository: &Repository) {
    expect_unsatisfiable(repository, "bytes=500-0");
}

fn an_empty_suffix_is_416(repository: &Repository) {
    expect_unsatisfiable(repository, "bytes=-0");
}

fn a_suffix_longer_than_the_blob_is_all_of_it(repository: &Repository) {
    expect_part(repository, "bytes=-5000", 0, 2047);
}

fn a_malformed_range_is_ignored(repository: &Repository) {
    for range in ["bytes=abc", "bytes=", "bytes", "bytes=-", "bytes=1-2-3", "0-10"] {
        expect_whole(repository, range);
    }
}

fn an_unknown_unit_is_ignored(repository: &Repository) {
    expect_whole(repository, "lines=0-10");
}

fn a_range_of_the_empty_blob_is_never_a_server_error(repository: &Repository) {
    let digest = repository.push_blob(b"");
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let response = repository
            .request("GET", &format!("blobs/{digest}"))
            .header("Range", range)
            .send_and_follow();
        assert!(
            [200, 416].contains(&response.status),
            "{range}: {}",
            response.summary()
        );
    }
}

/// zstd:chunked and eStargz pull this way.
fn several_ranges_are_multipart(repository: &Repository) {
    let (content, response) = ask(repository, "bytes=0-9,100-199,-5");
    response.expect_status(206);
    let kind = response.header("Content-Type").expect("a type").to_owned();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("byteranges")
        .trim_matches('"');
    response.expect_header("Content-Length", &response.body.len().to_string());
    let mut rest = response.body.as_slice();
    for (first, last) in [(0, 9), (100, 199), (2043, 2047)] {
        let end = rest
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a part's head")
            + 4;
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        assert!(
            head.trim_start()
                .starts_with(&format!("--{}", boundary.to_ascii_lowercase())),
            "{head}"
        );
        assert!(
            head.contains(&format!("content-range: bytes {first}-{last}/{LENGTH}")),
            "{head}"
        );
        let length = last - first + 1;
        assert!(rest[end..end + length] == content[first..=last]);
        rest = &rest[end + length..];
    }
    assert_eq!(String::from_utf8_lossy(rest).trim(), format!("--{boundary}--"));
}

fn a_range_applies_if_the_blob_is_the_expected_one(repository: &Repository) {
    let content = Content::new(8, LENGTH).bytes();
    let path = format!("blobs/{}", repository.push_blob(&content));
    let etag = repository
        .head(&path)
        .header("ETag")
        .expect("a blob has an ETag")
        .to_owned();
    let ask = |condition: &str| {
        repository
            .request("GET", &path)
            .header("Range", "bytes=1-2")
            .header("If-Range", condition)
            .send_and_follow()
    };
    let same = ask(&etag);
    same.expect_status(206);
    assert_eq!(same.body, content[1..=2]);
    let other = ask("\"other\"");
    other.expect_status(200);
    assert!(other.body == content);
}

fn a_download_can_be_resumed_at_any_byte(repository: &Repository) {
    let length = (5 << 20) + 1;
    let bytes = Content::new(9, length).bytes();
    let path = format!("blobs/{}", repository.push_blob(&bytes));
    for start in [1, 65_535, 65_536, 262_143, (1 << 20) + 1, 5 << 20] {
        let response = repository
            .request("GET", &path)
            .header("Range", &format!("bytes={start}-"))
            .send_and_follow();
        response.expect_status(206);
        assert!(response.body == bytes[start..], "{start}");
    }
}

fn parts_of_a_large_blob_in_parallel_make_the_whole(repository: &Repository) {
    let content = Content::new(10, 8 << 20).bytes();
    let path = format!("blobs/{}", repository.push_blob(&content));
    let part = content.len() / 8;
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (path, content) = (&path, &content);
            scope.spawn(move || {
                let (first, last) = (number * part, (number + 1) * part - 1);
                let range = format!("bytes={first}-{last}");
                let response = repository
                    .request("GET", path)
                    .header("Range", &range)
                    .send_and_follow();
                response.expect_status(206);
                assert!(response.body == content[first..=last]);
            });
        }
    });
}

/// podman asks for the hundreds of chunks of a layer that it lacks. Every second one follows the one before it, and is a part of
/// its own nevertheless: podman gave up on the layer ("checksum mismatch") where two came as one.
fn a_thousand_ranges_are_as_many_parts(repository: &Repository) {
    let place = |number: usize| number / 2 * 3 + number % 2;
    let ranges: Vec<String> = (0..1024)
        .map(|number| format!("{0}-{0}", place(number)))
        .collect();
    let (content, response) = ask(repository, &format!("bytes={}", ranges.join(",")));
    response.expect_status(206);
    let kind = response.header("Content-Type").expect("it has a type");
    let boundary = kind
        .split("boundary=")
        .nth(1)
        .expect("a boundary")
        .trim_matches('"');
    let expected: Vec<u8> = (0..1024_usize)
        .flat_map(|number| {
            let (at, before) = (place(number), if number == 0 { "" } else { "\r\n" });
            let head = format!(
                "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: bytes {at}-{at}/{LENGTH}\r\n\r\n"
            );
            [head.as_bytes(), &content[at..=at]].concat()
        })
        .chain(format!("\r\n--{boundary}--\r\n").into_bytes())
        .collect();
    assert!(response.body == expected);
}

fn more_ranges_than_are_served_are_416(repository: &Repository) {
    expect_unsatisfiable(repository, &format!("bytes={}", vec!["0-0"; 2049].join(",")));
}
