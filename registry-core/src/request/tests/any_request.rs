//! Any request, and what holds for all of them.

use super::*;

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
