pub(crate) mod any_request;
mod conditions;
mod paths;

use super::*;
use crate::error::{Error, ErrorCode};
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;
use proptest::prelude::*;

const UPLOAD: &str = "0c9f3d8a-1c1d-4a4e-8f51-0b6a1d0c2e3f";

fn sha256() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

fn parse(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<Request, Error> {
    Request::parse(method, target, fields)
}

fn accepted(method: &str, target: &str) -> Request {
    parse(method, target, &[]).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

fn refused(method: &str, target: &str) -> ErrorCode {
    parse(method, target, &[]).unwrap_err().code()
}

/// The variant's name.
fn kind(request: &Request) -> String {
    let text = format!("{request:?}");
    text.split([' ', '{']).next().unwrap().to_string()
}

fn repository_of(request: &Request) -> String {
    let text = format!("{request:?}");
    let (_, rest) = text.split_once("repository: \"").unwrap();
    rest.split('"').next().unwrap().to_string()
}

#[test]
fn a_mount_from_what_can_be_no_source_is_the_start_of_an_upload() {
    for query in [
        "mount=x",
        "mount=x&from=b",
        &format!("mount={}&from=base:v3", sha256()),
    ] {
        let request = accepted("POST", &format!("/v2/a/blobs/uploads/?{query}"));
        assert_eq!(kind(&request), "StartUpload", "{query}");
    }
}

#[test]
fn a_digest_is_appended_to_a_location_by_either_sign() {
    let expected = accepted(
        "PUT",
        &format!("/v2/a/blobs/uploads/{UPLOAD}?digest={}&_state=5", sha256()),
    );
    assert!(matches!(expected, Request::FinishUpload { offset: Some(5), .. }));
    for sign in ['?', '&'] {
        let target = format!("/v2/a/blobs/uploads/{UPLOAD}?_state=5{sign}digest={}", sha256());
        assert_eq!(accepted("PUT", &target), expected, "{target}");
    }
    let target = format!("/v2/a/blobs/uploads/{UPLOAD}?_state=x&digest={}", sha256());
    assert_eq!(refused("PUT", &target), ErrorCode::BlobUploadInvalid);
}

#[test]
fn what_is_malformed_is_refused_with_its_code() {
    use ErrorCode::*;
    let digest = sha256();
    for (method, target, code) in [
        ("GET", "/".into(), PathUnknown),
        ("GET", String::new(), PathUnknown),
        ("GET", "/v3/".into(), PathUnknown),
        ("GET", "/v2x/".into(), PathUnknown),
        ("GET", "/v2/_oci/ext/discover".into(), PathUnknown),
        ("GET", "/v2/a".into(), PathUnknown),
        ("DELETE", "/v2/_registry/repository".into(), PathUnknown),
        ("DELETE", "/v2/a/_registry/".into(), PathUnknown),
        ("DELETE", "/v2/a/_registry/repository/".into(), PathUnknown),
        ("DELETE", "/v2/a/_registry/manifests/v1".into(), PathUnknown),
        ("DELETE", "/v2/a/_other/repository".into(), PathUnknown),
        ("GET", "/v2/a/_registry/tags".into(), PathUnknown),
        ("GET", "/v2/a/_registry/tags/list".into(), PathUnknown),
        ("GET", "/v2/a/_registry/tags/history?n=x".into(), Unsupported),
        (
            "GET",
            "/v2/a/_registry/tags/history?tag=.".into(),
            ManifestInvalid,
        ),
        ("POST", "/v2/a/_registry/tags/restore".into(), Unsupported),
        (
            "POST",
            "/v2/a/_registry/tags/restore?tag=v1&digest=".into(),
            Unsupported,
        ),
        (
            "POST",
            "/v2/a/_registry/tags/restore?tag=v1&digest".into(),
            Unsupported,
        ),
        ("POST", "/v2/a/_registry/tags/restore?tag=".into(), Unsupported),
        ("GET", "/v2/a/_registry/tags/history?tag=".into(), Unsupported),
        (
            "POST",
            "/v2/a/_registry/tags/restore?tag=v1&digest=v1".into(),
            DigestInvalid,
        ),
        ("GET", "/v2/a/manifests/".into(), PathUnknown),
        ("GET", "/v2/a/tags/list/".into(), PathUnknown),
        ("GET", "/v2/tags/list".into(), PathUnknown),
        ("POST", "/v2/blobs/uploads/".into(), PathUnknown),
        ("GET", "/v2/%zz/tags/list".into(), PathUnknown),
        ("GET", "/v2/%ff/tags/list".into(), PathUnknown),
        ("GET", "/v2//tags/list".into(), NameInvalid),
        ("DELETE", "/v2/A/_registry/repository".into(), NameInvalid),
        ("GET", "/v2/A/tags/list".into(), NameInvalid),
        ("GET", "/v2/../../etc/tags/list".into(), NameInvalid),
        ("GET", "/v2/a%00/tags/list".into(), NameInvalid),
        ("GET", format!("/v2/_x/blobs/{digest}"), NameInvalid),
        ("GET", format!("/v2/{}/tags/list", "a".repeat(256)), NameInvalid),
        ("GET", "/v2/a/blobs/latest".into(), DigestInvalid),
        ("GET", "/v2/a/blobs/sha256:totallywrong".into(), DigestInvalid),
        (
            "DELETE",
            format!("/v2/a/blobs/{}", digest.to_uppercase()),
            DigestInvalid,
        ),
        ("GET", "/v2/a/referrers/sha256:1".into(), DigestInvalid),
        ("GET", "/v2/a/manifests/sha256:totallywrong".into(), DigestInvalid),
        (
            "HEAD",
            "/v2/a/manifests/sha256%3Atotallywrong".into(),
            DigestInvalid,
        ),
        ("PUT", "/v2/a/manifests/sha256:totallywrong".into(), DigestInvalid),
        ("DELETE", "/v2/a/manifests/:".into(), DigestInvalid),
        (
            "GET",
            "/v2/a/manifests/.INVALID_MANIFEST_NAME".into(),
            ManifestUnknown,
        ),
        (
            "HEAD",
            "/v2/a/manifests/.INVALID_MANIFEST_NAME".into(),
            ManifestUnknown,
        ),
        ("DELETE", "/v2/a/manifests/-x".into(), ManifestUnknown),
        (
            "PUT",
            "/v2/a/manifests/.INVALID_MANIFEST_NAME".into(),
            ManifestInvalid,
        ),
        (
            "PUT",
            format!("/v2/a/manifests/{}", "t".repeat(129)),
            ManifestInvalid,
        ),
        ("PUT", format!("/v2/a/manifests/{digest}?tag=-"), ManifestInvalid),
        ("PUT", "/v2/a/manifests/v1?tag=v2".into(), Unsupported),
        ("GET", "/v2/a/tags/list?n=many".into(), Unsupported),
        ("GET", "/v2/a/tags/list?last=%".into(), Unsupported),
        ("GET", "/v2/_catalog?n=-1".into(), Unsupported),
        ("GET", "/v2/a/blobs/uploads/1".into(), BlobUploadUnknown),
        (
            "PATCH",
            format!("/v2/a/blobs/uploads/{}", UPLOAD.to_uppercase()),
            BlobUploadUnknown,
        ),
        ("PUT", format!("/v2/a/blobs/uploads/{UPLOAD}"), DigestInvalid),
        (
            "PUT",
            format!("/v2/a/blobs/uploads/{UPLOAD}?digest=sha256:1"),
            DigestInvalid,
        ),
        ("POST", "/v2/a/blobs/uploads/?digest=x".into(), DigestInvalid),
        (
            "POST",
            "/v2/a/blobs/uploads/?digest-algorithm=md5".into(),
            DigestInvalid,
        ),
    ] {
        assert_eq!(refused(method, &target), code, "{method} {target}");
    }
    for (field, value, code) in [
        ("Content-Range", "bytes=0-1", BlobUploadInvalid),
        ("content-length", "-1", SizeInvalid),
        ("content-length", "+1", SizeInvalid),
        ("content-length", "", SizeInvalid),
        ("content-length", "1, 1", SizeInvalid),
    ] {
        let error = parse(
            "PATCH",
            &format!("/v2/a/blobs/uploads/{UPLOAD}"),
            &[(field, value)],
        )
        .unwrap_err();
        assert_eq!(error.code(), code, "{field}: {value}");
    }
    let error = parse("PUT", "/v2/a/manifests/v1", &[("content-type", "json")]).unwrap_err();
    assert_eq!(error.code(), ManifestInvalid);
}

#[test]
fn tags_are_repeated_up_to_a_limit() {
    let target = |count: usize| {
        let tags: Vec<String> = (0..count).map(|at| format!("tag=t{at}")).collect();
        format!("/v2/a/manifests/{}?{}", sha256(), tags.join("&"))
    };
    let Request::PutManifest { tags, .. } = accepted("PUT", &target(MAXIMUM_TAGS)) else {
        panic!("not a push")
    };
    assert_eq!((tags.len(), tags[63].as_str()), (64, "t63"));
    let code = refused("PUT", &target(MAXIMUM_TAGS + 1));
    assert_eq!((code.as_str(), code.status()), ("UNSUPPORTED", 414));
}

#[test]
fn parameters_without_a_value_or_a_meaning_are_ignored() {
    for target in [
        "/v2/a/blobs/uploads/?digest=",
        "/v2/a/blobs/uploads?mount&from=b",
        "/v2/a/blobs/uploads/?x=1&&=&",
    ] {
        assert_eq!(kind(&accepted("POST", target)), "StartUpload", "{target}");
    }
    let Request::MountBlob { from: None, .. } =
        accepted("POST", &format!("/v2/a/blobs/uploads/?mount={}&from=", sha256()))
    else {
        panic!("not a mount from anywhere")
    };
    for ns in ["ns=", "ns=a%0d%0ab", "ns=a/b"] {
        let target = format!("/v2/a/blobs/{}?{ns}", sha256());
        let Request::GetBlob { namespace: None, .. } = accepted("GET", &target) else {
            panic!("a namespace: {ns}")
        };
    }
}

#[test]
fn a_plus_sign_in_an_artifact_type_arrives_however_it_is_sent() {
    for sent in [
        "application/a%2Bjson",
        "application/a+json",
        "application/a%20json",
    ] {
        let target = format!("/v2/a/referrers/{}?artifactType={sent}", sha256());
        let Request::ListReferrers { artifact_type, .. } = accepted("GET", &target) else {
            panic!("not a list of referrers")
        };
        assert_eq!(artifact_type.as_deref(), Some("application/a+json"));
    }
}

#[test]
fn only_a_client_that_names_images_and_nothing_else_takes_no_index() {
    let (image, docker) = (MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST);
    let images = [
        image.to_owned(),
        format!("{docker};q=0.5"),
        docker.to_uppercase(),
        format!("{docker}, {image}"),
        format!("text/html, ,{docker}"),
        format!("{},{docker}", MediaType::DOCKER_SCHEMA_1),
    ];
    for text in images {
        assert_eq!(
            AcceptedManifests::parse(&text),
            AcceptedManifests::Images,
            "{text}"
        );
    }
    let any = ["", "text/html", "application/json", MediaType::DOCKER_LIST, "*/*"];
    let wide = [
        "*/*",
        "application/*;q=0.1",
        MediaType::OCI_INDEX,
        MediaType::DOCKER_LIST,
    ];
    let wide = wide.map(|name| format!("{docker}, {name}"));
    for text in any.map(String::from).into_iter().chain(wide) {
        assert_eq!(AcceptedManifests::parse(&text), AcceptedManifests::Any, "{text}");
    }
}
