use super::*;
use crate::error::ErrorCode;
use crate::page::PageQuery;
use crate::range::RangeHeader;
use crate::request::EntityTags;
use crate::storage::{Blob, Manifest};
use crate::testing::{Memory, text_of};
use alloc::sync::Arc;
use alloc::vec;
use proptest::prelude::*;

fn repository() -> RepositoryName {
    "a/b".parse().unwrap()
}

fn digest() -> Digest {
    format!("sha256:{}", "ab".repeat(32)).parse().unwrap()
}

fn upload() -> UploadId {
    UploadId::from_random(1)
}

fn blob(text: &str) -> Blob {
    Blob {
        size: text.len() as u64,
        content: Arc::new(Memory(text.as_bytes().to_vec())),
    }
}

fn read(text: &str, range: &str) -> Response {
    let range = RangeHeader::parse(range).unwrap();
    Response::blob(&repository(), &digest(), &blob(text), Some(&range), None)
}

fn manifest() -> Manifest {
    Manifest {
        digest: digest(),
        media_type: MediaType::OCI_INDEX.parse().unwrap(),
        bytes: Bytes::from_static(b"{}"),
    }
}

/// Compares the header, except for the two fields that each response has.
fn check(response: &Response, status: u16, expected: &[(&str, &str)]) {
    assert_eq!(
        response.field("docker-distribution-api-version"),
        Some("registry/2.0")
    );
    assert_eq!(response.field("x-content-type-options"), Some("nosniff"));
    let fields: Vec<(&str, &str)> = response.fields[2..]
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!((response.status, fields.as_slice()), (status, expected));
    if let (Some(said), Some(length)) = (response.field("content-length"), response.body.length())
        && !matches!(response.body, ResponseBody::Empty)
    {
        assert_eq!(said, length.to_string());
    }
}

#[test]
fn each_outcome_of_a_write_has_its_header() {
    let (repository, digest, id) = (repository(), digest(), upload());
    let (uuid, hash) = (id.to_string(), digest.to_string());
    let location = |length: u64| format!("/v2/a/b/blobs/uploads/{id}?_state={length}");
    let progress = |location, range| {
        vec![
            ("Location", location),
            ("Range", range),
            ("Docker-Upload-UUID", uuid.as_str()),
        ]
    };
    let with_length = |fields: Vec<(&'static str, &str)>| {
        let mut all = vec![("Content-Length", "0")];
        all.extend(
            fields
                .into_iter()
                .map(|(name, value)| (name, String::leak(value.into()) as &str)),
        );
        all
    };
    for (length, range) in [(0, "0-0"), (1, "0-0"), (2, "0-1"), (1 << 40, "0-1099511627775")] {
        let location: &str = String::leak(location(length));
        check(
            &Response::upload_accepted(&repository, id, length),
            202,
            &with_length(progress(location, range)),
        );
        check(
            &Response::upload_status(&repository, id, length),
            204,
            &progress(location, range),
        );
    }
    check(&Response::upload_cancelled(), 204, &[]);
    check(&Response::deleted(), 202, &[("Content-Length", "0")]);
    let (blob_path, manifest_path) = (
        format!("/v2/a/b/blobs/{digest}"),
        format!("/v2/a/b/manifests/{digest}"),
    );
    check(
        &Response::blob_created(&repository, &digest),
        201,
        &[
            ("Content-Length", "0"),
            ("Location", &blob_path),
            ("Docker-Content-Digest", &hash),
        ],
    );
    let subject: Digest = "future+v1:x".parse().unwrap();
    let tags = ["one", "two"].map(|tag| tag.parse().unwrap());
    check(
        &Response::manifest_created(&repository, &digest, Some(&subject), &tags),
        201,
        &[
            ("Content-Length", "0"),
            ("Location", &manifest_path),
            ("Docker-Content-Digest", &hash),
            ("OCI-Subject", "future+v1:x"),
            ("OCI-Tag", "one"),
            ("OCI-Tag", "two"),
        ],
    );
}

#[test]
fn lists_and_version_have_their_types() {
    check(
        &Response::version(),
        200,
        &[("Content-Type", "application/json"), ("Content-Length", "2")],
    );
    let index = vec![Bytes::from_static(b"{}")];
    let index_type = ("Content-Type", "application/vnd.oci.image.index.v1+json");
    check(
        &Response::referrers(index, false),
        200,
        &[index_type, ("Content-Length", "2")],
    );
    check(
        &Response::referrers(vec![Bytes::from_static(b"{"), Bytes::from_static(b"}")], true)
            .with_next_page(Some(&Request::Version)),
        200,
        &[
            index_type,
            ("Content-Length", "2"),
            ("OCI-Filters-Applied", "artifactType"),
            ("Link", "</v2/>; rel=\"next\""),
        ],
    );
    let stream = ResponseBody::Bytes(Bytes::from_static(b"[]")).into_stream();
    check(
        &Response::json_stream(stream),
        200,
        &[("Content-Type", "application/json")],
    );
    let namespace = "docker.io".parse().unwrap();
    assert_eq!(
        Response::version()
            .with_namespace(&namespace)
            .field("OCI-Namespace"),
        Some("docker.io")
    );
}

#[test]
fn a_blob_says_what_and_where_it_is() {
    let (hash, tag) = (digest().to_string(), format!("\"{}\"", digest()));
    let path = format!("/v2/a/b/blobs/{hash}");
    let expected = |length| {
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", length),
            ("Accept-Ranges", "bytes"),
            ("Location", path.as_str()),
            ("Docker-Content-Digest", hash.as_str()),
            ("ETag", tag.as_str()),
            ("Cache-Control", "private, max-age=31536000, immutable"),
        ]
    };
    for (text, length) in [("hello world", "11"), ("", "0")] {
        let response = Response::blob(&repository(), &digest(), &blob(text), None, None);
        check(&response, 200, &expected(length));
        assert_eq!(text_of(response.body.into_stream()), text);
        let head = Response::blob_head(&repository(), &digest(), text.len() as u64, None);
        check(&head, 200, &expected(length));
        assert!(matches!(head.body, ResponseBody::Empty));
    }
}

#[test]
fn one_part_is_sent_as_it_is() {
    let response = read("hello world", "bytes=-5");
    let (hash, tag) = (digest().to_string(), format!("\"{}\"", digest()));
    check(
        &response,
        206,
        &[
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", "5"),
            ("Content-Range", "bytes 6-10/11"),
            ("Accept-Ranges", "bytes"),
            ("Docker-Content-Digest", &hash),
            ("ETag", &tag),
            ("Cache-Control", "private, max-age=31536000, immutable"),
        ],
    );
    assert_eq!(text_of(response.body.into_stream()), "world");
}

#[test]
fn several_parts_are_separated() {
    let response = read("hello world", "bytes=0-4,6-6");
    let boundary = "ab".repeat(32);
    let body = format!(
        "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-4/11\r\n\r\nhello\r\n\
         --{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 6-6/11\r\n\r\nw\r\n\
         --{boundary}--\r\n"
    );
    assert_eq!(response.status, 206);
    let content_type = format!("multipart/byteranges; boundary=\"{boundary}\"");
    assert_eq!(response.field("Content-Type"), Some(content_type.as_str()));
    assert_eq!(
        response.field("Content-Length"),
        Some(body.len().to_string().as_str())
    );
    assert_eq!(response.field("Content-Range"), None);
    assert_eq!(response.body.length(), Some(body.len() as u64));
    assert_eq!(text_of(response.body.into_stream()), body);
}

#[test]
fn what_does_not_exist_is_not_satisfiable() {
    for range in ["bytes=11-", "bytes=5-0", "bytes=-0"] {
        let response = read("hello world", range);
        assert_eq!(
            (response.status, response.field("Content-Range")),
            (416, Some("bytes */11")),
            "{range}"
        );
    }
    assert_eq!(read("hello world", "bytes=0-,0-").status, 200);
    assert_eq!(read("", "bytes=0-").status, 200);
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let (hash, tag) = (digest().to_string(), format!("\"{}\"", digest()));
    let has = EntityTags::Digests(vec![digest()]);
    let other = EntityTags::Digests(vec!["x:y".parse().unwrap()]);
    let expected = |caching| {
        [
            ("Docker-Content-Digest", hash.as_str()),
            ("ETag", tag.as_str()),
            ("Cache-Control", caching),
        ]
    };
    let (forever, always) = ("private, max-age=31536000, immutable", "private, no-cache");
    let (by_tag, by_digest) = (Reference::Tag("v1".parse().unwrap()), Reference::Digest(digest()));
    for tags in [&has, &EntityTags::Any] {
        let range = RangeHeader::parse("bytes=0-0").unwrap();
        check(
            &Response::blob(&repository(), &digest(), &blob("hello"), Some(&range), Some(tags)),
            304,
            &expected(forever),
        );
        check(
            &Response::blob_head(&repository(), &digest(), 5, Some(tags)),
            304,
            &expected(forever),
        );
        check(
            &Response::manifest(&by_tag, &manifest(), Some(tags)),
            304,
            &expected(always),
        );
        check(
            &Response::manifest(&by_digest, &manifest(), Some(tags)),
            304,
            &expected(forever),
        );
    }
    assert_eq!(
        Response::blob_head(&repository(), &digest(), 5, Some(&other)).status,
        200
    );
    let response = Response::manifest(&by_tag, &manifest(), Some(&other)).without_body();
    check(
        &response,
        200,
        &[
            ("Content-Type", MediaType::OCI_INDEX),
            ("Content-Length", "2"),
            ("Docker-Content-Digest", &hash),
            ("ETag", &tag),
            ("Cache-Control", always),
        ],
    );
    assert!(matches!(response.body, ResponseBody::Empty));
}

#[test]
fn an_error_is_a_document_with_its_fields() {
    let error =
        Error::new(ErrorCode::Unauthorized, "say \"who\" you are").with_field("WWW-Authenticate", "Basic");
    let response = Response::from(error);
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"say \"who\" you are"}]}"#;
    check(
        &response,
        401,
        &[
            ("Content-Type", "application/json"),
            ("Content-Length", &body.len().to_string()),
            ("WWW-Authenticate", "Basic"),
        ],
    );
    assert_eq!(
        response.error.as_ref().map(Error::code),
        Some(ErrorCode::Unauthorized)
    );
    assert_eq!(text_of(response.body.into_stream()), body);
    for code in ErrorCode::ALL {
        let response = Response::from(Error::from(*code));
        let waits = matches!(response.status, 429 | 503);
        assert_eq!(response.field("Retry-After"), waits.then_some("1"), "{code:?}");
        assert_eq!(response.status, code.status());
    }
    let told = Response::from(Error::from(ErrorCode::Unavailable).with_field("Retry-After", "30"));
    assert_eq!(
        told.fields
            .iter()
            .filter(|(name, _)| *name == "Retry-After")
            .count(),
        1
    );
}

proptest! {
    #[test]
    fn a_link_is_followed_to_the_next_page(limit: u64, last in ".+", kind in "[a-z+/.]+") {
        let next = Request::ListReferrers {
            repository: "a/b".parse().unwrap(),
            subject: "future+v1:A_b=".parse().unwrap(),
            artifact_type: Some(kind),
            page: PageQuery { limit: Some(limit), last: None }.after(last),
            namespace: None,
        };
        let response = Response::version().with_next_page(Some(&next));
        let link = response.field("Link").unwrap();
        // As Docker's client parses it.
        let target = link.split(';').next().unwrap().trim_matches(['<', '>']);
        let fields: [(&str, &str); 0] = [];
        prop_assert_eq!(Request::parse("GET", target, fields.as_slice()).unwrap(), next);
        prop_assert!(link.is_ascii() && link.ends_with("; rel=\"next\""));
    }
}
