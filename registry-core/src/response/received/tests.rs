use super::*;
use crate::challenge::Challenge;
use crate::descriptor::{Annotations, Descriptor};
use crate::digest::Algorithm;
use crate::error::Error;
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::page::PageQuery;
use crate::range::tests::any_range;
use crate::range::{ContentRange, RangeHeader, Selection};
use crate::reference::Reference;
use crate::referrers::referrers_index;
use crate::request::tests::{digest, page, repository, tag, upload};
use crate::request::{EntityTags, Request, RequestParts, blob_path, manifest_path, upload_location};
use crate::response::Response;
use crate::storage::{Blob, Manifest};
use crate::tag::Tag;
use crate::testing::{Memory, read_all};
use crate::time::Timestamp;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use bytes::Bytes;
use core::time::Duration;
use proptest::prelude::*;

/// A response on the wire.
struct Wire {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Wire {
    fn new(status: u16, fields: &[(&str, &str)], body: &str) -> Self {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Self {
            status,
            fields: fields.collect(),
            body: body.into(),
        }
    }

    fn received(&self) -> ReceivedResponse<'_, &[(String, String)]> {
        ReceivedResponse::new(self.status, self.fields.as_slice(), &self.body)
    }
}

impl From<Response> for Wire {
    fn from(response: Response) -> Self {
        let fields = response.fields.into_iter();
        Self {
            status: response.status,
            // In another case, as HTTP/2 has them.
            fields: fields.map(|(name, value)| (name.to_lowercase(), value)).collect(),
            body: read_all(response.body.into_stream()).unwrap(),
        }
    }
}

fn parse(parts: &RequestParts) -> Request {
    Request::parse(parts.method, &parts.target, parts.fields.as_slice()).unwrap()
}

fn known() -> Digest {
    Digest::of(Algorithm::Sha256, b"content")
}

fn refused<T: core::fmt::Debug>(result: Result<T, ResponseError>) -> Refusal {
    match result {
        Err(ResponseError::Refused(refusal)) => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn session(location: &str, offset: u64) -> UploadSession {
    UploadSession {
        location: Location::parse(location).unwrap(),
        offset,
        minimum_chunk: None,
    }
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let annotations = prop::sample::select(vec!["", "{\"a\":\"b\",\"c\":\"\\u00e9\"}"]);
    let artifact_type = prop::option::of("a/[ab]");
    (digest(), any::<u64>(), artifact_type, annotations).prop_map(
        |(digest, size, artifact_type, annotations)| Descriptor {
            media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
            digest,
            size,
            artifact_type,
            annotations: Annotations::from_json(Bytes::from_static(annotations.as_bytes())),
        },
    )
}

proptest! {
    #[test]
    fn a_blob_is_what_was_built(
        repository in repository(), digest in digest(), size in 0_usize..40, range in prop::option::of(any_range()),
    ) {
        let blob = Blob { size: size as u64, content: Arc::new(Memory(vec![7; size])) };
        let whole = ReceivedBlob { digest: digest.clone(), size: Some(blob.size), part: BlobPart::Whole };
        let head = Wire::from(Response::blob_head(&repository, &digest, blob.size, None));
        prop_assert_eq!(head.received().blob(&digest), Ok(whole.clone()));
        let wire = Wire::from(Response::blob(&repository, &digest, &blob, range.as_ref(), None));
        let received = wire.received().blob(&digest);
        match range.map_or(Selection::Whole, |range| range.resolve(blob.size)) {
            Selection::Whole => prop_assert_eq!(received, Ok(whole)),
            Selection::Parts(parts) if parts.len() == 1 => {
                let received = received.unwrap();
                prop_assert_eq!(received.part, BlobPart::Range(parts[0].clone()));
                prop_assert_eq!(received.size, Some(blob.size));
            }
            Selection::Parts(_) => {
                let BlobPart::Multipart { boundary } = received.unwrap().part else { panic!("not several parts") };
                let start = format!("--{boundary}\r\n");
                prop_assert!(wire.body.starts_with(start.as_bytes()));
            }
            Selection::NotSatisfiable | Selection::TooManyParts => {
                let refusal = refused(received);
                prop_assert_eq!(refusal.code(), Some(ErrorCode::RangeNotSatisfiable));
                prop_assert_eq!((refusal.size, refusal.upload), (Some(blob.size), None));
            }
        }
        let has = EntityTags::Digests(vec![digest.clone()]);
        let wire = Wire::from(Response::blob(&repository, &digest, &blob, None, Some(&has)));
        let not_modified = ResponseError::NotModified { digest: Some(digest.clone()) };
        prop_assert_eq!(wire.received().blob(&digest), Err(not_modified));
    }

    #[test]
    fn a_manifest_is_what_was_built(tag in tag(), body in ".{1,20}", kind in "a/[a-z][a-z+]{0,4}") {
        let manifest = Manifest {
            digest: Digest::of(Algorithm::Sha512, body.as_bytes()),
            media_type: kind.parse().unwrap(),
            bytes: Bytes::from(body),
        };
        for reference in [Reference::Tag(tag), Reference::Digest(manifest.digest.clone())] {
            for response in [
                Response::manifest(&reference, &manifest, None),
                Response::manifest(&reference, &manifest, None).without_body(),
            ] {
                let wire = Wire::from(response);
                let received = wire.received().manifest(&reference).unwrap();
                prop_assert_eq!(received.verify(&manifest.bytes), Ok(manifest.digest.clone()));
                prop_assert!(received.verify(b"other bytes than those, and more of them than there were").is_err());
                prop_assert_eq!(received.media_type, Some(manifest.media_type.clone()));
                prop_assert_eq!(received.size, Some(manifest.bytes.len() as u64));
            }
            let wire = Wire::from(Response::manifest(&reference, &manifest, Some(&EntityTags::Any)));
            let not_modified = ResponseError::NotModified { digest: Some(manifest.digest.clone()) };
            prop_assert_eq!(wire.received().manifest(&reference), Err(not_modified));
        }
    }

    #[test]
    fn a_session_is_continued_where_it_was_built(
        repository in repository(), id in upload(), length in 0..u64::MAX / 2, more in 1..u64::MAX / 2, digest in digest(),
    ) {
        let started = Wire::from(Response::upload_accepted(&repository, id, 0)).received().upload_started().unwrap();
        prop_assert_eq!(&started, &session(&upload_location(&repository, id, 0), 0));
        let continued = session(&upload_location(&repository, id, length), length);
        let accepted = Wire::from(Response::upload_accepted(&repository, id, length));
        prop_assert_eq!(accepted.received().chunk_accepted(&started, length), Ok(continued.clone()));
        let status = Wire::from(Response::upload_status(&repository, id, length));
        prop_assert_eq!(status.received().upload_status(&started, length), Ok(continued.clone()));
        // Less than was sent has arrived.
        let half = status.received().upload_status(&started, length + more).unwrap();
        prop_assert_eq!(half.offset, if length == 1 { 0 } else { length });

        let range = ContentRange::new(length, length + more - 1);
        let append = Request::AppendUpload {
            repository: repository.clone(), id, offset: Some(length), range, length: Some(more),
        };
        prop_assert_eq!(parse(&continued.append(Some(more))), append);
        let finish = |range, length| Request::FinishUpload {
            repository: repository.clone(), id, digest: digest.clone(), offset: Some(continued.offset), range, length,
        };
        prop_assert_eq!(parse(&continued.finish(&digest, Some(more))), finish(range, Some(more)));
        prop_assert_eq!(parse(&continued.finish(&digest, None)), finish(None, None));
        let status = Request::UploadStatus { repository: repository.clone(), id };
        prop_assert_eq!(parse(&continued.status()), status);
        let cancel = Request::CancelUpload { repository: repository.clone(), id };
        prop_assert_eq!(parse(&continued.cancel()), cancel);
        // A chunk that is out of order.
        let error = Error::from(ErrorCode::RangeInvalid)
            .with_field("Location", upload_location(&repository, id, length))
            .with_field("Range", crate::response::upload_range(length));
        let refusal = refused(Wire::from(Response::from(error)).received().chunk_accepted(&started, length));
        prop_assert_eq!(refusal.code(), Some(ErrorCode::RangeInvalid));
        prop_assert_eq!(refusal.upload.map(|upload| upload.offset), Some(if length == 1 { 0 } else { length }));
    }

    #[test]
    fn a_push_created_what_was_built(
        repository in repository(), digest in digest(), subject in prop::option::of(digest()),
        tags in prop::collection::vec(tag(), 0..4), id in upload(),
    ) {
        let created = |path: String, subject, tags| Created {
            location: Location::parse(&path), digest: digest.clone(), subject, tags,
        };
        let blob = created(blob_path(&repository, &digest), None, vec![]);
        let wire = Wire::from(Response::blob_created(&repository, &digest));
        prop_assert_eq!(wire.received().blob_created(&digest), Ok(blob.clone()));
        prop_assert_eq!(wire.received().blob_posted(&digest), Ok(PostedBlob::Created(blob)));
        let wire = Wire::from(Response::upload_accepted(&repository, id, 0));
        let upload = session(&upload_location(&repository, id, 0), 0);
        prop_assert_eq!(wire.received().blob_posted(&digest), Ok(PostedBlob::Upload(upload)));
        let wire = Wire::from(Response::manifest_created(&repository, &digest, subject.as_ref(), &tags));
        let path = manifest_path(&repository, &Reference::Digest(digest.clone()));
        prop_assert_eq!(wire.received().manifest_created(&digest), Ok(created(path, subject, tags)));
    }

    #[test]
    fn a_list_is_what_was_built(
        tags in prop::collection::vec(tag(), 0..5), repositories in prop::collection::vec(repository(), 0..5),
        descriptors in prop::collection::vec(descriptor(), 0..5), query in page(), has_next: bool, repository in repository(),
    ) {
        let page = PageQuery { last: Some("x".into()), ..query };
        let next = Request::ListTags { repository, page, namespace: None };
        let wire = |response: Response| Wire::from(response.with_next_page(Some(&next).filter(|_| has_next)));
        let check = |location: Option<Location>| {
            let parse = |location: Location| Request::parse("GET", location.target().unwrap(), NO_FIELDS).unwrap();
            assert_eq!(location.map(parse).as_ref(), Some(&next).filter(|_| has_next));
        };
        let json = |value: serde_json::Value| Response::json(value.to_string().into());
        let list = wire(json(serde_json::json!({"name": "a", "tags": tags}))).received().tags().unwrap();
        prop_assert_eq!(list.items, tags);
        check(list.next);
        let list = wire(json(serde_json::json!({"repositories": repositories}))).received().repositories().unwrap();
        prop_assert_eq!(list.items, repositories);
        check(list.next);
        let index = referrers_index(&descriptors).unwrap();
        for is_filtered in [false, true] {
            let wire = wire(Response::referrers(index.clone(), is_filtered));
            let list = wire.received().referrers(None).unwrap();
            prop_assert_eq!(&list.items, &descriptors);
            check(list.next);
            // The client filters if the registry did not.
            let list = wire.received().referrers(Some("a/a")).unwrap();
            let is_wanted = |item: &&Descriptor| is_filtered || item.artifact_type.as_deref() == Some("a/a");
            prop_assert_eq!(list.items.iter().collect::<Vec<_>>(), descriptors.iter().filter(is_wanted).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_is_what_was_built(code in prop::sample::select(ErrorCode::ALL.to_vec()), message: String) {
        let wire = Wire::from(Response::from(Error::new(code, message.clone())));
        let refusal = refused(wire.received().tags());
        let found = refusal.code().unwrap();
        prop_assert_eq!((found.as_str(), found.status(), refusal.status), (code.as_str(), code.status(), code.status()));
        prop_assert_eq!(refusal.errors.len(), 1);
        prop_assert_eq!(&refusal.errors[0].message, &message);
        let waits = matches!(code, ErrorCode::TooManyRequests | ErrorCode::Unavailable);
        prop_assert_eq!(refusal.retry_after, waits.then_some(RetryAfter::Delay(Duration::from_secs(1))));
        prop_assert!(refusal.to_string().chars().all(crate::printable::is_printable));
        // The answer to HEAD has no body, and its status says less.
        let wire = Wire::from(Response::from(Error::new(code, message)).without_body());
        let refusal = refused(wire.received().tags());
        prop_assert!(refusal.errors.is_empty());
        prop_assert_eq!(refusal.code().map(ErrorCode::status), Some(code.status()).filter(|status| !matches!(status, 400 | 409)));
    }

    #[test]
    fn no_response_makes_parsing_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzzing::response(&bytes);
    }

    #[test]
    fn no_field_makes_parsing_panic(
        status in 100_u16..600,
        lines in prop::collection::vec(
            "(location|range|link|content-range|content-type|retry-after|etag|docker-content-digest|oci-tag|allow): \
             (<?(https?:)?/?/?[a-z.:/?#]{0,9}>?(; ?rel=\"?next\"?)?,?|(bytes[ =])?[0-9*]{0,3}[-/]?[0-9*]{0,3}/?[0-9*]{0,2})",
            0..6,
        ),
        body in "(\\{\"(tags|repositories|manifests|errors)\":\\[(null|\"a\"|\\{\\}|1)?\\]\\})?",
    ) {
        crate::fuzzing::response(format!("{status}\n{}\n\n{body}", lines.join("\n")).as_bytes());
    }
}

const NO_FIELDS: &[(&str, &str)] = &[];

#[test]
fn the_rest_is_what_was_built() {
    let digest = known();
    assert_eq!(Wire::from(Response::version()).received().version(), Ok(()));
    let deleted = Wire::from(Response::deleted());
    assert_eq!(deleted.received().manifest_deleted(), Ok(()));
    assert_eq!(deleted.received().blob_deleted(), Ok(()));
    assert_eq!(
        Wire::from(Response::upload_cancelled())
            .received()
            .upload_cancelled(),
        Ok(())
    );
    for keeps_method in [false, true] {
        let wire = Wire::from(Response::moved("/v2/".into(), keeps_method));
        let location = Location::parse("/v2/").unwrap();
        let redirect = ResponseError::Redirect {
            location,
            keeps_method,
        };
        assert_eq!(wire.received().blob(&digest), Err(redirect));
    }
    let scope = "repository:a/b:pull,push".parse().unwrap();
    let challenge = Challenge::bearer("https://auth".into(), "registry".into(), vec![scope], None);
    let error = Error::from(ErrorCode::Unauthorized).with_field("WWW-Authenticate", challenge.to_string());
    let refusal = refused(Wire::from(Response::from(error)).received().version());
    assert_eq!(
        (refusal.challenges.as_slice(), refusal.is_temporary()),
        (&[challenge][..], false)
    );
    let error = Error::from(ErrorCode::MethodNotAllowed).with_field("Allow", "GET, HEAD");
    let refusal = refused(Wire::from(Response::from(error)).received().blob_deleted());
    assert_eq!(refusal.allowed_methods.as_deref(), Some("GET, HEAD"));
}

/// What each response of another registry, or of a proxy in front of it, means.
mod others {
    use super::*;

    fn next(link: &str) -> Option<String> {
        let wire = Wire::new(200, &[("Link", link)], r#"{"tags":[]}"#);
        wire.received().tags().unwrap().next.map(|next| next.to_string())
    }

    #[test]
    fn a_session_has_any_url() {
        // registry:2, by default and with relative URLs; AWS and others have hosts and paths of their own.
        for location in [
            "https://registry.example/v2/a/blobs/uploads/6b3c?_state=aGVsbG8%3D%3D",
            "/v2/a/blobs/uploads/6b3c?_state=aGVsbG8%3D%3D",
            "https://bucket.example/upload/1?X-Signature=a%2Fb",
            "6b3c",
        ] {
            let fields = [
                ("Location", location),
                ("Range", "0-0"),
                ("OCI-Chunk-Min-Length", "5242880"),
            ];
            let started = Wire::new(202, &fields, "").received().upload_started().unwrap();
            assert_eq!((started.offset, started.minimum_chunk), (0, Some(5_242_880)));
            assert_eq!(started.append(None).target, location);
            let finish = started.finish(&known(), Some(0));
            let separator = if location.contains('?') { '&' } else { '?' };
            assert_eq!(finish.target, format!("{location}{separator}digest={}", known()));
            assert_eq!(finish.fields[1..], [("Content-Length", "0".into())]);
            let chunk = started.append(Some(10));
            assert_eq!(chunk.fields[1], ("Content-Range", "0-9".into()));
        }
        for fields in [&[][..], &[("Location", "")], &[("Location", "/a b")]] {
            let started = Wire::new(202, fields, "").received().upload_started();
            assert_eq!(started, Err(Malformed::Field("Location").into()));
        }
    }

    #[test]
    fn an_offset_is_what_the_range_says() {
        let before = session("/upload", 0);
        for (range, sent, offset) in [
            (Some("0-99"), 100, Some(100)),
            (Some("bytes=0-99"), 100, Some(100)),
            (Some("0-49"), 100, Some(50)),
            (Some("0-0"), 0, Some(0)),
            (Some("0-0"), 1, Some(1)),
            (Some("0-0"), 100, Some(0)),
            (Some("0--1"), 0, Some(0)),
            (Some("0-100"), 100, None),
            (Some("0-18446744073709551615"), 100, Some(100)),
            (Some("1-5"), 100, Some(100)),
            (Some("x"), 100, Some(100)),
            (None, 100, Some(100)),
        ] {
            let fields: Vec<_> = range.map(|range| ("Range", range)).into_iter().collect();
            let accepted = Wire::new(202, &fields, "")
                .received()
                .chunk_accepted(&before, sent);
            let found = accepted.map(|session| (session.offset, session.location));
            let expected = offset.map(|offset| (offset, before.location.clone()));
            assert_eq!(found.ok(), expected, "{range:?} {sent}");
        }
        // Without a range, a status says nothing.
        let status = Wire::new(204, &[("Location", "/upload")], "")
            .received()
            .upload_status(&before, 1);
        assert_eq!(status, Err(Malformed::Field("Range").into()));
    }

    #[test]
    fn content_needs_no_digest_and_no_size() {
        let digest = known();
        let blob = Wire::new(200, &[], "").received().blob(&digest).unwrap();
        assert_eq!((blob.size, blob.part), (None, BlobPart::Whole));
        let tag = Reference::Tag("v1".parse().unwrap());
        let manifest = Wire::new(200, &[], "").received().manifest(&tag).unwrap();
        assert_eq!(
            (
                manifest.digest.as_ref(),
                manifest.media_type.as_ref(),
                manifest.size
            ),
            (None, None, None)
        );
        assert_eq!(manifest.verify(b"content"), Ok(digest.clone()));
        // A proxy compresses.
        let fields = [("Content-Length", "9"), ("Content-Encoding", "gzip")];
        assert_eq!(
            Wire::new(200, &fields, "").received().blob(&digest).unwrap().size,
            None
        );
        // The media type is there with a parameter.
        let fields = [(
            "Content-Type",
            "application/vnd.oci.image.index.v1+json; charset=utf-8",
        )];
        let manifest = Wire::new(200, &fields, "").received().manifest(&tag).unwrap();
        assert_eq!(manifest.media_type.unwrap().as_str(), MediaType::OCI_INDEX);
    }

    #[test]
    fn another_digest_of_the_same_algorithm_is_other_content() {
        let (digest, other) = (known(), Digest::of(Algorithm::Sha256, b"other"));
        let stronger = Digest::of(Algorithm::Sha512, b"content");
        let is_refused = |stated: &Digest| {
            let wire = Wire::new(200, &[("Docker-Content-Digest", stated.as_str())], "");
            let results = [
                wire.received().blob(&digest).err(),
                wire.received().manifest(&Reference::Digest(digest.clone())).err(),
                wire.received().blob_created(&digest).err(),
                wire.received().manifest_created(&digest).err(),
            ];
            let refused = results
                .iter()
                .filter(|result| **result == Some(Malformed::OtherDigest(stated.clone()).into()));
            refused.count()
        };
        assert_eq!(
            (is_refused(&digest), is_refused(&stronger), is_refused(&other)),
            (0, 0, 4)
        );
    }

    #[test]
    fn a_part_says_which_it_is() {
        let digest = known();
        let part = |name: &str, value: &str| {
            let received = Wire::new(206, &[(name, value)], "");
            received
                .received()
                .blob(&digest)
                .map(|blob| (blob.part, blob.size))
        };
        assert_eq!(
            part("Content-Range", "bytes 5-9/10"),
            Ok((BlobPart::Range(5..10), Some(10)))
        );
        assert_eq!(
            part("Content-Range", "bytes 5-9/*"),
            Ok((BlobPart::Range(5..10), None))
        );
        for boundary in ["THIS", "\"THIS\""] {
            let value = format!("Multipart/ByteRanges; charset=x; Boundary={boundary}");
            let multipart = BlobPart::Multipart {
                boundary: "THIS".into(),
            };
            assert_eq!(part("Content-Type", &value), Ok((multipart, None)));
        }
        for (name, value) in [
            ("Content-Range", "bytes 9-5/10"),
            ("Content-Range", "bytes 5-10/10"),
            ("Content-Range", "bytes */10"),
            ("Content-Range", "bytes 0-18446744073709551615/*"),
            ("Content-Type", "application/octet-stream"),
            ("Content-Type", "multipart/byteranges; boundary="),
        ] {
            assert_eq!(
                part(name, value),
                Err(Malformed::Field("Content-Range").into()),
                "{value}"
            );
        }
        let wire = Wire::new(416, &[("Content-Range", "bytes */10")], "");
        assert_eq!(refused(wire.received().blob(&digest)).size, Some(10));
    }

    #[test]
    fn the_next_page_is_behind_any_form_of_link() {
        for (link, expected) in [
            (
                "</v2/a/tags/list?last=b&n=1>; rel=\"next\"",
                Some("/v2/a/tags/list?last=b&n=1"),
            ),
            ("<https://host/x>;rel=next", Some("https://host/x")),
            ("</x>", Some("/x")),
            ("</x>; REL = \"Next\"", Some("/x")),
            ("</x>; rel=\"prev next\"", Some("/x")),
            (
                "</0>; rel=\"prev\"; title=\"a, <b>\", </1,2>; rel=\"next\"",
                Some("/1,2"),
            ),
            ("</x>; rel=\"prev\"", None),
            ("</x; rel=\"next\"", None),
            ("/x; rel=\"next\"", None),
            ("", None),
        ] {
            assert_eq!(next(link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn a_list_may_be_null_and_have_what_is_none() {
        let tags = |body: &str| Wire::new(200, &[], body).received().tags().map(|page| page.items);
        assert_eq!(tags(r#"{"name":"a","tags":null}"#), Ok(vec![]));
        let expected: Tag = "v1".parse().unwrap();
        assert_eq!(
            tags(r#"{"tags":["v1","-","a/b"],"x":{"y":[]}}"#),
            Ok(vec![expected])
        );
        for body in [
            "",
            "{}",
            "[]",
            "<html>",
            r#"{"tags":[1]}"#,
            r#"{"message":"log in"}"#,
        ] {
            assert_eq!(tags(body), Err(Malformed::Body.into()), "{body}");
        }
        let received = Wire::new(200, &[], r#"{"repositories":["a","A"]}"#);
        let expected: RepositoryName = "a".parse().unwrap();
        assert_eq!(received.received().repositories().unwrap().items, [expected]);
        let digest = known();
        let index = format!(
            r#"{{"manifests":[{{"mediaType":"a/b","digest":"{digest}","size":1,"annotations":{{"a":1}},"x":2}},{{"size":2}}]}}"#
        );
        let received = Wire::new(200, &[], &index).received().referrers(None).unwrap();
        assert_eq!(received.items.len(), 1);
        assert_eq!(
            (
                &received.items[0].digest,
                received.items[0].annotations.is_empty()
            ),
            (&digest, true)
        );
    }

    #[test]
    fn what_is_larger_than_a_list_is_not_parsed() {
        let mut wire = Wire::new(200, &[], r#"{"tags":[]}"#);
        wire.body.resize(64 << 20, b' ');
        assert!(wire.received().tags().is_ok());
        wire.body.push(b' ');
        assert_eq!(wire.received().tags(), Err(Malformed::Body.into()));
        let mut wire = Wire::new(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#);
        wire.body.resize((64 << 10) + 1, b' ');
        assert!(refused(wire.received().tags()).errors.is_empty());
    }

    #[test]
    fn an_error_has_any_body() {
        let refusal =
            |status, body: &str| refused(Wire::new(status, &[], body).received().manifest_deleted());
        // quay has a detail that is an object, and Go writes `null` for none.
        let quay = refusal(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","detail":{"a":1},"message":"access"},{"code":"NEW","detail":null}]}"#,
        );
        assert_eq!(quay.errors[0].detail.as_deref(), Some(r#"{"a":1}"#));
        assert_eq!((quay.errors[1].code, &*quay.errors[1].code_text), (None, "NEW"));
        assert_eq!(
            quay.to_string(),
            "the registry answered 401: UNAUTHORIZED: access"
        );
        // The code decides rather than the status, and its status if several have its text.
        for (status, text, code) in [
            (400, "MANIFEST_UNKNOWN", ErrorCode::ManifestUnknown),
            (416, "BLOB_UPLOAD_INVALID", ErrorCode::RangeInvalid),
            (404, "BLOB_UPLOAD_INVALID", ErrorCode::BlobUploadInvalid),
            (405, "UNSUPPORTED", ErrorCode::MethodNotAllowed),
        ] {
            let body = format!(r#"{{"errors":[{{"code":"{text}"}}]}}"#);
            assert_eq!(refusal(status, &body).code(), Some(code), "{status} {text}");
        }
        for body in [
            "",
            "<html><h1>504 Gateway Time-out</h1>",
            "null",
            r#"{"errors":null}"#,
            r#"{"errors":{}}"#,
            r#"{"message":"x"}"#,
            &"[".repeat(10_000),
        ] {
            let refusal = refusal(504, body);
            assert_eq!(
                (refusal.errors.len(), refusal.code()),
                (0, Some(ErrorCode::Unavailable)),
                "{body}"
            );
            assert!(refusal.is_temporary());
        }
        for entry in ["1", "null", "[]", "{}", r#"{"code":7}"#] {
            let refusal = refusal(404, &format!(r#"{{"errors":[{entry}]}}"#));
            assert_eq!(
                (refusal.errors.len(), refusal.code()),
                (1, Some(ErrorCode::ManifestUnknown)),
                "{entry}"
            );
        }
        let line = refusal(400, r#"{"errors":[{"code":"A\nB","message":"\u001b[31m"}]}"#).to_string();
        assert_eq!(line, "the registry answered 400: A\\nB: \\u{1b}[31m");
    }

    #[test]
    fn a_missing_resource_is_the_one_that_was_requested() {
        for status in [404, 410] {
            let wire = Wire::new(status, &[], "");
            let received = wire.received();
            for (refusal, code) in [
                (refused(received.version()), ErrorCode::PathUnknown),
                (refused(received.tags()), ErrorCode::NameUnknown),
                (refused(received.blob(&known())), ErrorCode::BlobUnknown),
                (refused(received.blob_deleted()), ErrorCode::BlobUnknown),
                (refused(received.manifest_deleted()), ErrorCode::ManifestUnknown),
                (refused(received.upload_cancelled()), ErrorCode::BlobUploadUnknown),
            ] {
                assert_eq!(refusal.code(), Some(code));
            }
        }
    }

    #[test]
    fn a_client_waits_as_long_as_it_is_asked_to() {
        let now = Timestamp(784_111_777_000);
        let wait = |value: &str| {
            let wire = Wire::new(429, &[("Retry-After", value)], "");
            Some(
                refused(wire.received().version())
                    .retry_after?
                    .delay(now)
                    .as_secs(),
            )
        };
        assert_eq!(wait("60"), Some(60));
        assert_eq!(wait("99999999999999999999"), Some(u64::from(u32::MAX)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
        for text in [
            "",
            "-1",
            "1.5",
            "soon",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn a_status_that_answers_nothing_is_malformed() {
        for status in [0, 100, 206, 299, 300, 305, 600, 999] {
            let received = Wire::new(status, &[("Location", "/x")], "").received().version();
            assert_eq!(received, Err(Malformed::Status(status).into()));
        }
        let received = Wire::new(307, &[], "").received().version();
        assert_eq!(received, Err(Malformed::Field("Location").into()));
    }
}

#[test]
fn too_many_ranges_are_refused_with_the_size() {
    let ranges = vec!["0-0"; RangeHeader::MAXIMUM_PARTS + 1].join(",");
    let range = RangeHeader::parse(&format!("bytes={ranges}")).unwrap();
    let blob = Blob {
        size: 5,
        content: Arc::new(Memory(vec![7; 5])),
    };
    let response = Response::blob(&"a".parse().unwrap(), &known(), &blob, Some(&range), None);
    assert_eq!(
        refused(Wire::from(response).received().blob(&known())).size,
        Some(5)
    );
}
