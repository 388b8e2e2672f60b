//! Responses that a client receives.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use crate::digest::{Algorithm, Digest};
use crate::printable::is_printable;
use crate::reference::Reference;
use crate::request::Fields;
use crate::response::{
    BlobPart, Location, PostedBlob, ReceivedPage, ReceivedResponse, ResponseError, UploadSession,
};

/// The URL of the request.
const BASE: &str = "https://registry.example:5000/v2/a/blobs/uploads/";

/// How many bytes the client sent.
const SENT_BYTES: u64 = 1000;

/// Any response is parsed for every endpoint, and what it says can be used: sizes and offsets are in order, URLs can stand in a
/// request, and an error is a line of text.
///
/// The first line is the status, each further one a field `name: value`; after an empty line comes the body.
pub fn response(bytes: &[u8]) {
    let end = bytes.windows(2).position(|window| window == b"\n\n");
    let (head, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let Ok(head) = core::str::from_utf8(head) else {
        return;
    };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.parse().ok());
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let body = body.get(2..).unwrap_or_default();
    let received = ReceivedResponse::new(status.unwrap_or(200), fields.as_slice(), body);
    let digest = Digest::of(Algorithm::Sha256, b"content");

    check(received.version());
    check(received.manifest_deleted());
    check(received.blob_deleted());
    check(received.upload_cancelled());
    check_uploads(&received, &digest);
    if let Some(blob) = check(received.blob(&digest)) {
        if let (BlobPart::Range(range), size) = (&blob.part, blob.size) {
            assert!(range.start < range.end && size.is_none_or(|size| range.end <= size));
        }
        assert!(blob.digest == digest || blob.digest.parts().0 != "sha256");
    }
    let tag = "v1".parse().map(Reference::Tag);
    for reference in tag.into_iter().chain([Reference::Digest(digest)]) {
        if let Some(manifest) = check(received.manifest(&reference)) {
            let verified = manifest.verify(body);
            assert!(verified.is_err() || manifest.digest.is_none_or(|stated| verified.ok() == Some(stated)));
        }
    }
    check(received.tags()).map(check_page);
    check(received.repositories()).map(check_page);
    check(received.referrers(None)).map(check_page);
    for descriptor in check(received.referrers(Some("a/b")))
        .into_iter()
        .flat_map(check_page)
    {
        let annotations = descriptor.annotations.as_json();
        assert!(annotations.is_empty() || annotations.starts_with(b"{"));
    }
}

fn check_uploads<F: Fields>(received: &ReceivedResponse<'_, F>, digest: &Digest) {
    let Some(session) = check(received.upload_started()) else {
        return;
    };
    assert_eq!(session.offset, 0);
    check_session(&session, digest);
    for next in [
        check(received.chunk_accepted(&session, SENT_BYTES)),
        check(received.upload_status(&session, SENT_BYTES)),
    ]
    .into_iter()
    .flatten()
    {
        assert!(next.offset <= SENT_BYTES);
        check_session(&next, digest);
    }
    match check(received.blob_posted(digest)) {
        Some(PostedBlob::Upload(session)) => check_session(&session, digest),
        Some(PostedBlob::Created(created)) => created.location.iter().for_each(check_location),
        None => {}
    }
    check(received.blob_created(digest));
    check(received.manifest_created(digest));
}

fn check_session(session: &UploadSession, digest: &Digest) {
    check_location(&session.location);
    let finish = session.finish(digest, Some(0));
    assert!(finish.target.starts_with(session.location.as_str()) && finish.target.ends_with(digest.as_str()));
    assert_eq!(session.append(None).target, session.location.as_str());
}

fn check_page<T>(page: ReceivedPage<T>) -> Vec<T> {
    page.next.iter().for_each(check_location);
    page.items
}

fn check_location(location: &Location) {
    assert!(location.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(Location::parse(location.as_str()).as_ref(), Some(location));
    assert!(location.target().is_none_or(|target| target.starts_with('/')));
    let Some(url) = location.resolve(BASE) else {
        assert!(!location.is_same_origin(BASE));
        return;
    };
    let absolute = Location::parse(&url);
    let again = absolute
        .as_ref()
        .and_then(|absolute| absolute.resolve("http://elsewhere/"));
    // The URL of the request makes it longer.
    assert!(again.as_deref() == Some(&url) || url.len() > Location::MAXIMUM_BYTES);
    assert!(url.starts_with("http://") || url.starts_with("https://"), "{url}");
}

/// Checks an error, and returns the value if there is none.
fn check<T>(result: Result<T, ResponseError>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    match &error {
        ResponseError::Redirect { location, .. } => check_location(location),
        ResponseError::Refused(refusal) => {
            assert!((400..600).contains(&refusal.status), "{}", refusal.status);
            assert!(refusal.to_string().chars().all(is_printable), "{refusal}");
            if let Some(session) = &refusal.upload {
                check_location(&session.location);
            }
        }
        ResponseError::NotModified { .. } | ResponseError::Malformed(_) => {}
    }
    None
}
