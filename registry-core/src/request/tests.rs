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
fn every_method_of_every_path_is_an_endpoint_or_refused_with_allow() {
    let digest = sha256();
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "",
    ];
    // The path, and what GET, HEAD, POST, PUT, PATCH and DELETE of it are.
    let table: [(String, [&str; 6]); 12] = [
        ("/v2/".into(), ["Version", "Version", "", "", "", ""]),
        ("/v2".into(), ["Version", "Version", "", "", "", ""]),
        (
            "/v2/_catalog".into(),
            ["ListRepositories", "ListRepositories", "", "", "", ""],
        ),
        (
            "/v2/a/b/_registry/repository".into(),
            ["", "", "", "", "", "DeleteRepository"],
        ),
        (
            "/v2/a/b/_registry/tags/history".into(),
            ["ListTagHistory", "ListTagHistory", "", "", "", ""],
        ),
        (
            "/v2/a/b/_registry/tags/restore?tag=v1".into(),
            ["", "", "RestoreTag", "", "", ""],
        ),
        (
            "/v2/a/b/tags/list".into(),
            ["ListTags", "ListTags", "", "", "", ""],
        ),
        (
            format!("/v2/a/b/referrers/{digest}"),
            ["ListReferrers", "ListReferrers", "", "", "", ""],
        ),
        (
            format!("/v2/a/b/blobs/{digest}"),
            ["GetBlob", "HeadBlob", "", "", "", "DeleteBlob"],
        ),
        (
            "/v2/a/b/manifests/v1".into(),
            [
                "GetManifest",
                "HeadManifest",
                "",
                "PutManifest",
                "",
                "DeleteManifest",
            ],
        ),
        (
            "/v2/a/b/blobs/uploads/".into(),
            ["", "", "StartUpload", "", "", ""],
        ),
        (
            format!("/v2/a/b/blobs/uploads/{UPLOAD}?digest={digest}"),
            [
                "UploadStatus",
                "UploadStatus",
                "",
                "FinishUpload",
                "AppendUpload",
                "CancelUpload",
            ],
        ),
    ];
    for (target, kinds) in &table {
        let allowed: Vec<&str> = methods
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| !kind.is_empty())
            .map(|(method, _)| *method)
            .collect();
        for (at, method) in methods.iter().enumerate() {
            match kinds.get(at).filter(|kind| !kind.is_empty()) {
                Some(expected) => assert_eq!(&kind(&accepted(method, target)), expected, "{method} {target}"),
                None => {
                    let error = parse(method, target, &[]).unwrap_err();
                    assert_eq!(error.code(), ErrorCode::MethodNotAllowed, "{method} {target}");
                    let mut listed: Vec<&str> = error.fields()[0].1.split(", ").collect();
                    let mut allowed = [allowed.as_slice(), &["OPTIONS"]].concat();
                    listed.sort_unstable();
                    allowed.sort_unstable();
                    assert_eq!((error.fields()[0].0, listed), ("Allow", allowed), "{target}");
                }
            }
        }
    }
}

#[test]
fn options_has_the_methods_of_each_path_and_of_no_other() {
    for (target, methods) in [
        ("/v2/", Some("GET, HEAD, OPTIONS")),
        ("/v2/a/b/manifests/v1?x", Some("GET, HEAD, PUT, DELETE, OPTIONS")),
        ("/v2/a/blobs/uploads/", Some("POST, OPTIONS")),
        ("/", None),
        ("/v1/", None),
        ("/v2/a/%zz", None),
    ] {
        assert_eq!(allowed_methods(target), methods, "{target}");
    }
    assert_eq!(refused("OPTIONS", "/v2/"), ErrorCode::MethodNotAllowed);
}

#[test]
fn an_unclean_path_leads_to_the_clean_one_of_an_endpoint() {
    for (target, clean) in [
        ("//v2/", Some("/v2/")),
        ("/v2//", Some("/v2/")),
        ("//v2", Some("/v2/")),
        ("/v2/_catalog/?n=1", Some("/v2/_catalog?n=1")),
        ("/v2/a//b/tags/list/", Some("/v2/a/b/tags/list")),
        ("/v2/a/manifests/v1/", Some("/v2/a/manifests/v1")),
        ("/v2/./_catalog?n=1", Some("/v2/_catalog?n=1")),
        ("/v2/../v2/", Some("/v2/")),
        ("/v2/a/../../../v2/b/./tags/list", Some("/v2/b/tags/list")),
        ("/v2/a/./tags/list", Some("/v2/a/tags/list")),
        ("/v2/%2e/_catalog", Some("/v2/_catalog")),
        ("/v2/a%2F%2Fb/tags/list", Some("/v2/a/b/tags/list")),
        ("//v2/a/tags/list%3Fx?y", None),
        (
            "//v2/a/manifests/x%3F%20%0D?y=%20",
            Some("/v2/a/manifests/x%3F%20%0D?y=%20"),
        ),
        ("//", Some("/")),
        ("//?a=b", Some("/?a=b")),
        ("/..", Some("/")),
        ("/v2/../", Some("/")),
        // Never another host.
        ("//evil.example", None),
        ("//evil.example/v2/", None),
        ("/.//evil.example/", None),
        ("/v2/..//evil.example/v2/", None),
        ("//evil.example/../v2/", Some("/v2/")),
        ("//evil.example/..", Some("/")),
        ("/%5Cevil.example/../v2/", Some("/v2/")),
        ("/", None),
        ("*", None),
        ("", None),
        ("/v2/", None),
        ("/v2/_catalog", None),
        ("/v2/a/blobs/uploads/", None),
        ("/v2/a/blobs/uploads", None),
        ("/v2/a/manifests/.v1", None),
        ("/v2/a%2fb/tags/list", None),
        ("/v3//", None),
        ("/v3/./", None),
        ("//v2/%zz", None),
    ] {
        assert_eq!(clean_target(target).as_deref(), clean, "{target}");
    }
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
fn names_may_hold_the_words_of_the_endpoints() {
    let digest = sha256();
    for (method, target, kind_of, repository) in [
        (
            "GET",
            "/v2/a/manifests/tags/list".into(),
            "ListTags",
            "a/manifests",
        ),
        ("GET", "/v2/a/tags/manifests/list".into(), "GetManifest", "a/tags"),
        (
            "GET",
            "/v2/tags/list/manifests/blobs".into(),
            "GetManifest",
            "tags/list",
        ),
        (
            "POST",
            "/v2/a/manifests/blobs/uploads".into(),
            "StartUpload",
            "a/manifests",
        ),
        (
            "POST",
            "/v2/blobs/uploads/blobs/uploads/".into(),
            "StartUpload",
            "blobs/uploads",
        ),
        (
            "GET",
            "/v2/a/blobs/uploads/tags/list".into(),
            "ListTags",
            "a/blobs/uploads",
        ),
        (
            "GET",
            "/v2/a/blobs/uploads/manifests/uploads".into(),
            "GetManifest",
            "a/blobs/uploads",
        ),
        (
            "PUT",
            "/v2/a/blobs/manifests/uploads".into(),
            "PutManifest",
            "a/blobs",
        ),
        ("GET", format!("/v2/blobs/blobs/{digest}"), "GetBlob", "blobs"),
        (
            "GET",
            format!("/v2/a/blobs/uploads/blobs/uploads/{UPLOAD}/"),
            "UploadStatus",
            "a/blobs/uploads",
        ),
        (
            "GET",
            format!("/v2/referrers/referrers/{digest}"),
            "ListReferrers",
            "referrers",
        ),
        (
            "GET",
            format!("/v2/a%2Fb/blobs/{}", digest.replace(':', "%3A")),
            "GetBlob",
            "a/b",
        ),
    ] {
        let request = accepted(method, &target);
        assert_eq!(
            (kind(&request).as_str(), repository_of(&request).as_str()),
            (kind_of, repository),
            "{target}"
        );
    }
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
fn if_range_decides_whether_the_range_counts() {
    let digest = sha256();
    let quoted = format!("\"{digest}\"");
    for (condition, is_kept) in [
        (None, true),
        (Some(quoted.clone()), true),
        (Some(format!("W/{quoted}")), false),
        (Some("\"other\"".into()), false),
        (Some(digest.clone()), false),
        (Some("Wed, 21 Oct 2015 07:28:00 GMT".into()), false),
    ] {
        let mut fields = vec![("range", "bytes=0-1")];
        fields.extend(condition.as_deref().map(|value| ("if-range", value)));
        let request = parse("GET", &format!("/v2/a/blobs/{digest}"), &fields).unwrap();
        let Request::GetBlob { range, .. } = request else {
            panic!("not a read")
        };
        assert_eq!(range.is_some(), is_kept, "{condition:?}");
    }
}

#[test]
fn conditions_name_digests() {
    let (digest, other) = (sha256(), format!("sha256:{}", "0".repeat(64)));
    let read = |value: &str, weak| EntityTags::parse(value, weak);
    let both = EntityTags::Digests(vec![digest.parse().unwrap(), other.parse().unwrap()]);
    assert_eq!(read(" * ", true), EntityTags::Any);
    assert_eq!(read(&format!("W/\"{digest}\", \"x\",\"{other}\""), true), both);
    assert_eq!(
        read(&format!("W/\"{digest}\""), false),
        EntityTags::Digests(vec![])
    );
    // Without quotes it is no entity tag, but scripts send what `Docker-Content-Digest` says, and registry:2 takes it.
    assert_eq!(read(&format!("{digest}, {other}"), true), both);
    assert_eq!(read(&format!("{digest},\"{other}\""), false), both);
    for half in [format!("\"{digest}"), format!("{digest}\"")] {
        assert_eq!(read(&half, true), EntityTags::Digests(vec![]));
    }
    // Several lines of one field are one list.
    let fields = [
        ("If-None-Match", format!("\"{digest}\"")),
        ("if-none-match", format!("\"{other}\"")),
    ];
    let request = Request::parse("HEAD", "/v2/a/manifests/v1", fields.as_slice()).unwrap();
    let Request::HeadManifest { if_none_match, .. } = request else {
        panic!("not a HEAD")
    };
    assert_eq!(if_none_match, Some(both));
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

pub(crate) fn repository() -> impl Strategy<Value = RepositoryName> {
    let component = prop_oneof![
        "[a-z0-9]{1,4}([._-][a-z0-9]{1,4}){0,2}",
        prop::sample::select(vec![
            "blobs",
            "manifests",
            "tags",
            "list",
            "uploads",
            "referrers",
            "a__b",
            "v2"
        ])
        .prop_map(String::from),
    ];
    prop::collection::vec(component, 1..5).prop_map(|parts| parts.join("/").parse().unwrap())
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        "sha256:[a-f0-9]{64}",
        "sha512:[a-f0-9]{128}",
        "[a-z0-9]{1,5}[+._-][a-z]{1,3}:[A-Za-z0-9=_-]{1,20}"
    ]
    .prop_map(|text| text.parse().unwrap())
}

pub(crate) fn tag() -> impl Strategy<Value = Tag> {
    prop_oneof![
        "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        prop::sample::select(vec!["list", "uploads", "tags"]).prop_map(String::from)
    ]
    .prop_map(|text| text.parse().unwrap())
}

pub(crate) fn upload() -> impl Strategy<Value = UploadId> {
    any::<u128>().prop_map(UploadId::from_random)
}

fn entity_tags() -> impl Strategy<Value = Option<EntityTags>> {
    let list = prop::collection::vec(digest(), 0..3).prop_map(EntityTags::Digests);
    prop::option::of(prop_oneof![Just(EntityTags::Any), list])
}

fn namespace() -> impl Strategy<Value = Option<Namespace>> {
    prop::option::of("[a-z0-9.-]{1,20}(:[0-9]{1,5})?|\\[::1\\]:5000".prop_map(|text| text.parse().unwrap()))
}

pub(crate) fn page() -> impl Strategy<Value = PageQuery> {
    (prop::option::of(any::<u64>()), prop::option::of(".{1,10}"))
        .prop_map(|(limit, last)| PageQuery { limit, last })
}

fn chunk() -> impl Strategy<Value = (Option<ContentRange>, Option<u64>)> {
    let range =
        (0..u64::MAX, 0..u64::MAX).prop_map(|(start, end)| ContentRange::new(start.min(end), start.max(end)));
    (range, any::<bool>(), any::<Option<u64>>())
        .prop_map(|(range, has, length)| (range.filter(|_| has), length))
}

fn reference() -> impl Strategy<Value = Reference> {
    prop_oneof![
        tag().prop_map(Reference::Tag),
        digest().prop_map(Reference::Digest)
    ]
}

fn read() -> impl Strategy<Value = Request> {
    let range = prop::option::of(crate::range::tests::any_range());
    prop_oneof![
        Just(Request::Version),
        page().prop_map(|page| Request::ListRepositories { page }),
        (repository(), prop::option::of(tag()), page()).prop_map(|(repository, tag, page)| {
            Request::ListTagHistory {
                repository,
                tag,
                page,
            }
        }),
        (repository(), page(), namespace()).prop_map(|(repository, page, namespace)| Request::ListTags {
            repository,
            page,
            namespace
        }),
        (
            repository(),
            digest(),
            prop::option::of("[a-z+./]{1,20}"),
            page(),
            namespace()
        )
            .prop_map(|(repository, subject, artifact_type, page, namespace)| {
                Request::ListReferrers {
                    repository,
                    subject,
                    artifact_type,
                    page,
                    namespace,
                }
            }),
        (repository(), digest(), range, entity_tags(), namespace()).prop_map(
            |(repository, digest, range, if_none_match, namespace)| Request::GetBlob {
                repository,
                digest,
                range,
                if_none_match,
                namespace
            }
        ),
        (repository(), digest(), entity_tags(), namespace()).prop_map(
            |(repository, digest, if_none_match, namespace)| Request::HeadBlob {
                repository,
                digest,
                if_none_match,
                namespace
            }
        ),
        (
            repository(),
            reference(),
            accepted_manifests(),
            entity_tags(),
            namespace()
        )
            .prop_map(|(repository, reference, accepted, if_none_match, namespace)| {
                Request::GetManifest {
                    repository,
                    reference,
                    accepted,
                    if_none_match,
                    namespace,
                }
            }),
        (
            repository(),
            reference(),
            accepted_manifests(),
            entity_tags(),
            namespace()
        )
            .prop_map(|(repository, reference, accepted, if_none_match, namespace)| {
                Request::HeadManifest {
                    repository,
                    reference,
                    accepted,
                    if_none_match,
                    namespace,
                }
            }),
        (repository(), upload()).prop_map(|(repository, id)| Request::UploadStatus { repository, id }),
    ]
}

fn accepted_manifests() -> impl Strategy<Value = AcceptedManifests> {
    prop::sample::select(vec![AcceptedManifests::Any, AcceptedManifests::Images])
}

fn offset() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(any::<u64>())
}

fn write() -> impl Strategy<Value = Request> {
    let algorithm = prop::option::of(prop::sample::select(Algorithm::ALL.to_vec()));
    let media_type =
        prop::option::of("[a-z]{1,5}/[a-z+.]{1,9}".prop_filter_map("a media type", |text| text.parse().ok()));
    let conditions = (entity_tags(), entity_tags());
    let tags = prop::collection::vec(tag(), 0..4);
    prop_oneof![
        (repository(), algorithm).prop_map(|(repository, algorithm)| Request::StartUpload {
            repository,
            algorithm
        }),
        (repository(), digest(), any::<Option<u64>>()).prop_map(|(repository, digest, length)| {
            Request::UploadBlob {
                repository,
                digest,
                length,
            }
        }),
        (repository(), digest(), prop::option::of(repository())).prop_map(|(repository, digest, from)| {
            Request::MountBlob {
                repository,
                digest,
                from,
            }
        }),
        (repository(), upload(), offset(), chunk()).prop_map(|(repository, id, offset, (range, length))| {
            Request::AppendUpload {
                repository,
                id,
                offset,
                range,
                length,
            }
        }),
        (repository(), upload(), digest(), offset(), chunk()).prop_map(
            |(repository, id, digest, offset, (range, length))| {
                Request::FinishUpload {
                    repository,
                    id,
                    digest,
                    offset,
                    range,
                    length,
                }
            }
        ),
        (repository(), upload()).prop_map(|(repository, id)| Request::CancelUpload { repository, id }),
        (repository(), digest()).prop_map(|(repository, digest)| Request::DeleteBlob { repository, digest }),
        repository().prop_map(|repository| Request::DeleteRepository { repository }),
        (repository(), tag(), prop::option::of(digest())).prop_map(|(repository, tag, digest)| {
            Request::RestoreTag {
                repository,
                tag,
                digest,
            }
        }),
        (repository(), reference(), entity_tags()).prop_map(|(repository, reference, if_match)| {
            Request::DeleteManifest {
                repository,
                reference,
                if_match,
            }
        }),
        (
            repository(),
            reference(),
            tags,
            media_type,
            any::<Option<u64>>(),
            conditions
        )
            .prop_map(
                |(repository, reference, tags, media_type, length, (if_match, if_none_match))| {
                    Request::PutManifest {
                        repository,
                        tags: if matches!(reference, Reference::Digest(_)) {
                            tags
                        } else {
                            vec![]
                        },
                        reference,
                        media_type,
                        length,
                        if_match,
                        if_none_match,
                    }
                }
            ),
    ]
}

proptest! {
    #[test]
    fn a_request_survives_being_written(request in prop_oneof![read(), write()]) {
        let parts = request.build();
        prop_assert_eq!(Request::parse(parts.method, &parts.target, parts.fields.as_slice()).unwrap(), request);
    }

    #[test]
    fn no_request_makes_parsing_panic(
        method in "GET|HEAD|PUT|POST|PATCH|DELETE|[A-Z]{0,3}",
        target in prop_oneof![
            any::<String>(),
            "(/v2)?(/(a|blobs|uploads|manifests|tags|list|referrers|_registry|repository|history|restore|sha256:|%2[fF]|%|_catalog|[.-]|é|)){0,6}[?]?((n|tag|last|mount|from|digest|ns)?=?[a%&0-9]?){0,4}",
        ],
        value: String,
    ) {
        for name in ["range", "if-range", "if-match", "if-none-match", "content-range", "content-length", "content-type"] {
            drop(Request::parse(&method, &target, [(name, &value)].as_slice()));
        }
    }
}
