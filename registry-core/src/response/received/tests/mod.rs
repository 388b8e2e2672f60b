mod lists;
mod others;

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
use crate::request::tests::any_request::{digest, page, repository, tag, upload};
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
