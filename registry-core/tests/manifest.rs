//! What is accepted as a manifest, what is refused, and what the registry learns from it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use registry_core::descriptor::Descriptor;
use registry_core::manifest::DEFAULT_SIZE_LIMIT;
use registry_core::referrers::referrers_index;
use registry_core::storage::ChildKind;
use registry_core::{Digest, Error, ErrorCode, ManifestView, MediaType, fuzzing};
use serde_json::{Value, json};

const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":7}"#;

fn document(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    fs::read(folder.join(name).with_extension("json")).unwrap()
}

fn documents() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn parse(bytes: impl AsRef<[u8]>, content_type: Option<&str>) -> Result<ManifestView, Error> {
    let content_type = content_type.map(|text| text.parse::<MediaType>().unwrap());
    ManifestView::parse(bytes.as_ref(), content_type.as_ref())
}

/// Parses what must be refused as an invalid manifest, and returns the message.
#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, content_type: Option<&str>) -> String {
    let error = parse(bytes, content_type).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ManifestInvalid);
    error.message().to_owned()
}

/// An image manifest with `fields` added to its object.
fn image(fields: &str) -> String {
    format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[]{fields}}}"#)
}

/// The digests at a path of the document, in order.
fn digests(bytes: &[u8], lists: &[&str]) -> Vec<String> {
    let document: Value = serde_json::from_slice(bytes).unwrap();
    let descriptors = lists.iter().flat_map(|key| match &document[*key] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    });
    descriptors
        .map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned())
        .collect()
}

fn child_digests(view: &ManifestView) -> Vec<String> {
    view.children()
        .iter()
        .map(|child| child.digest.to_string())
        .collect()
}

#[test]
fn documents_of_real_clients_are_accepted_with_every_child() {
    for (name, media_type, artifact_type) in [
        (
            "docker-schema2",
            MediaType::DOCKER_MANIFEST,
            Some("application/vnd.docker.container.image.v1+json"),
        ),
        ("docker-list", MediaType::DOCKER_LIST, None),
        ("index-with-attestations", MediaType::OCI_INDEX, None),
        (
            "attestation-manifest",
            MediaType::OCI_MANIFEST,
            Some("application/vnd.oci.image.config.v1+json"),
        ),
        ("buildkit-cache-index", MediaType::OCI_INDEX, None),
        (
            "artifact-with-subject",
            MediaType::OCI_MANIFEST,
            Some("application/vnd.example.sbom.v1"),
        ),
        (
            "cosign-signature",
            MediaType::OCI_MANIFEST,
            Some("application/vnd.oci.image.config.v1+json"),
        ),
        (
            "helm-chart",
            MediaType::OCI_MANIFEST,
            Some("application/vnd.cncf.helm.config.v1+json"),
        ),
        (
            "nested-index",
            MediaType::OCI_INDEX,
            Some("application/vnd.example.bundle"),
        ),
        ("sparse-index", MediaType::OCI_INDEX, None),
        (
            "custom-fields",
            MediaType::OCI_MANIFEST,
            Some("application/vnd.oci.image.config.v1+json"),
        ),
    ] {
        let bytes = document(name);
        let view = parse(&bytes, Some(media_type)).unwrap();
        assert_eq!(view.media_type().as_str(), media_type, "{name}");
        assert_eq!(view.artifact_type(), artifact_type, "{name}");
        let (lists, kind): (&[&str], _) = match media_type {
            MediaType::OCI_INDEX | MediaType::DOCKER_LIST => (&["manifests"], ChildKind::Manifest),
            _ => (&["config", "layers"], ChildKind::Blob),
        };
        assert_eq!(child_digests(&view), digests(&bytes, lists), "{name}");
        assert!(view.children().iter().all(|child| child.kind == kind), "{name}");
        assert_eq!(view.optional_children(), [], "{name}");
    }
}

#[test]
fn a_subject_is_no_child() {
    for name in ["artifact-with-subject", "nested-index"] {
        let bytes = document(name);
        let view = parse(&bytes, None).unwrap();
        let subject = view.subject().unwrap().to_string();
        assert_eq!(digests(&bytes, &["subject"]), std::slice::from_ref(&subject));
        assert!(!child_digests(&view).contains(&subject));
    }
    let view = parse(image(r#","subject":null"#), None).unwrap();
    assert_eq!(view.subject(), None);
}

#[test]
fn a_digest_that_is_named_twice_is_one_child() {
    let bytes = document("empty-descriptor-artifact");
    assert_eq!(digests(&bytes, &["config", "layers"]).len(), 2);
    assert_eq!(parse(&bytes, None).unwrap().children().len(), 1);
}

#[test]
fn layers_that_may_come_from_elsewhere_are_optional() {
    let bytes = document("non-distributable-layers");
    let all = digests(&bytes, &["config", "layers"]);
    let view = parse(&bytes, None).unwrap();
    assert_eq!(child_digests(&view), [all[0].clone(), all[4].clone()]);
    let optional = view.optional_children().iter();
    let optional: Vec<_> = optional.map(|child| child.digest.to_string()).collect();
    assert_eq!(optional, all[1..4]);

    let bytes = document("docker-foreign-layer");
    let all = digests(&bytes, &["config", "layers"]);
    let view = parse(&bytes, None).unwrap();
    assert_eq!(child_digests(&view), [all[0].clone(), all[2].clone()]);
    assert_eq!(view.optional_children()[0].digest.as_str(), all[1]);
}

#[test]
fn content_that_is_optional_and_required_is_required() {
    let foreign = CONFIG.replace("image.config.v1+json", "image.layer.nondistributable.v1.tar+gzip");
    for layers in [format!("[{foreign},{CONFIG}]"), format!("[{CONFIG},{foreign}]")] {
        let view = parse(format!(r#"{{"config":{CONFIG},"layers":{layers}}}"#), None).unwrap();
        assert_eq!(view.children().len(), 1);
        assert_eq!(view.optional_children(), []);
    }
    let other = foreign.replace("0000\"", "0001\"");
    let view = parse(
        format!(r#"{{"config":{CONFIG},"layers":[{other},{other}]}}"#),
        None,
    )
    .unwrap();
    assert_eq!(view.optional_children().len(), 1);
}

#[test]
fn empty_lists_may_be_written_as_null() {
    for layers in ["[]", "null"] {
        let text = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":{layers}}}"#);
        let view = parse(text, None).unwrap();
        assert_eq!(view.media_type().as_str(), MediaType::OCI_MANIFEST);
        assert_eq!(view.children().len(), 1);
    }
    for manifests in ["[]", "null"] {
        let view = parse(format!(r#"{{"manifests":{manifests}}}"#), None).unwrap();
        assert_eq!(view.media_type().as_str(), MediaType::OCI_INDEX);
        assert_eq!(view.children(), []);
    }
    let view = parse(image(r#","annotations":null"#), None).unwrap();
    assert!(view.annotations().is_empty());
}

/// registry:2 takes and serves both.
#[test]
fn a_list_that_is_not_there_is_empty() {
    let config = format!(r#"{{"schemaVersion":2,"config":{CONFIG}}}"#);
    for (header, media_type) in [
        (None, MediaType::OCI_MANIFEST),
        (Some(MediaType::OCI_MANIFEST), MediaType::OCI_MANIFEST),
        (Some(MediaType::DOCKER_MANIFEST), MediaType::DOCKER_MANIFEST),
    ] {
        let view = parse(&config, header).unwrap();
        assert_eq!(view.media_type().as_str(), media_type);
        assert_eq!(view.children().len(), 1);
    }
    for media_type in [MediaType::OCI_INDEX, MediaType::DOCKER_LIST] {
        let field = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}"}}"#);
        for (text, header) in [
            (field.as_str(), None),
            (r#"{"schemaVersion":2}"#, Some(media_type)),
        ] {
            let view = parse(text, header).unwrap();
            assert_eq!(view.media_type().as_str(), media_type);
            assert_eq!(view.children(), []);
        }
    }
}

#[test]
fn the_header_may_be_of_any_case_and_the_type_is_as_it_is_written() {
    for (document, media_type) in [
        (image(""), MediaType::OCI_MANIFEST),
        (image(""), MediaType::DOCKER_MANIFEST),
        (r#"{"manifests":[]}"#.to_owned(), MediaType::OCI_INDEX),
        (r#"{"manifests":[]}"#.to_owned(), MediaType::DOCKER_LIST),
    ] {
        for header in [
            media_type.to_uppercase(),
            media_type.replace("vnd", "VND") + "; charset=UTF-8",
        ] {
            let view = parse(&document, Some(&header)).unwrap();
            assert_eq!(view.media_type().as_str(), media_type);
        }
        let with_field = document.replacen('{', &format!(r#"{{"mediaType":"{media_type}","#), 1);
        for header in [media_type.to_uppercase(), "Application/JSON".to_owned()] {
            let view = parse(&with_field, Some(&header)).unwrap();
            assert_eq!(view.media_type().as_str(), media_type);
        }
        // Clients compare the field as it stands.
        let field_of_other_case = with_field.replace("vnd", "VND");
        refused(&field_of_other_case, Some(media_type));
        refused(&field_of_other_case, None);
    }
    let schema_1 = MediaType::DOCKER_SCHEMA_1.to_uppercase();
    assert!(refused(image(""), Some(&schema_1)).contains("schema 1"));
}

#[test]
fn the_type_is_that_of_the_header_the_field_or_the_shape() {
    let accepted = [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST];
    for media_type in accepted {
        let with_field = image(&format!(r#","mediaType":"{media_type}""#));
        for header in [
            None,
            Some(media_type),
            Some("application/octet-stream"),
            Some("application/json"),
        ] {
            assert_eq!(
                parse(&with_field, header).unwrap().media_type().as_str(),
                media_type
            );
        }
        // Go wrote the empty string before the field was optional.
        for fields in ["", r#","mediaType":"""#, r#","mediaType":null"#] {
            let view = parse(image(fields), Some(media_type)).unwrap();
            assert_eq!(view.media_type().as_str(), media_type);
        }
    }
    let view = parse(image(""), Some("application/json")).unwrap();
    assert_eq!(view.media_type().as_str(), MediaType::OCI_MANIFEST);
    let view = parse(
        r#"{"manifests":[]}"#,
        Some("application/vnd.oci.image.index.v1+json; charset=utf-8"),
    )
    .unwrap();
    assert_eq!(view.media_type().as_str(), MediaType::OCI_INDEX);
}

#[test]
fn a_field_that_differs_from_the_header_is_refused() {
    let message = refused(document("docker-schema2"), Some(MediaType::OCI_MANIFEST));
    assert!(message.contains("Content-Type"), "{message}");
    refused(document("docker-list"), Some(MediaType::DOCKER_MANIFEST));
    refused(
        image(r#","mediaType":"application/json""#),
        Some(MediaType::OCI_MANIFEST),
    );
}

#[test]
fn other_types_are_refused_with_the_accepted_ones() {
    let other = image(r#","mediaType":"application/vnd.oci.artifact.manifest.v1+json""#);
    for message in [
        refused(image(""), Some("text/plain")),
        refused(document("docker-schema2"), Some("text/plain")),
        refused(&other, None),
        refused(&other, Some("application/vnd.oci.artifact.manifest.v1+json")),
        refused("{}", None),
    ] {
        for accepted in [
            MediaType::OCI_MANIFEST,
            MediaType::OCI_INDEX,
            MediaType::DOCKER_MANIFEST,
            MediaType::DOCKER_LIST,
        ] {
            assert!(message.contains(accepted), "{message}");
        }
    }
}

#[test]
fn schema_1_is_refused_by_name() {
    let bytes = document("docker-schema1");
    for message in [
        refused(&bytes, None),
        refused(&bytes, Some(MediaType::DOCKER_SCHEMA_1)),
        refused(&bytes, Some(MediaType::DOCKER_MANIFEST)),
        // The type is enough: the document is not even read.
        refused("not JSON", Some(MediaType::DOCKER_SCHEMA_1_SIGNED)),
        refused(image("").replace(":2,", ":1,"), None),
        refused(image(r#","fsLayers":[]"#), None),
        refused(
            image(&format!(r#","mediaType":"{}""#, MediaType::DOCKER_SCHEMA_1)),
            None,
        ),
    ] {
        assert!(message.contains("schema 1"), "{message}");
    }
}

#[test]
fn what_is_an_image_and_an_index_is_refused() {
    for fields in [
        r#""layers":[]"#,
        r#""layers":null"#,
        r#""fsLayers":[]"#,
        &format!(r#""config":{CONFIG}"#),
    ] {
        for manifests in ["[]", "null"] {
            for header in [
                None,
                Some(MediaType::OCI_INDEX),
                Some(MediaType::OCI_MANIFEST),
                Some(MediaType::DOCKER_LIST),
            ] {
                let text = format!(r#"{{"schemaVersion":2,"manifests":{manifests},{fields}}}"#);
                let message = refused(text, header);
                assert!(message.contains("both an image and an index"), "{message}");
            }
        }
    }
}

#[test]
fn a_manifest_has_the_content_of_its_type() {
    refused(r#"{"manifests":[]}"#, Some(MediaType::OCI_MANIFEST));
    refused(image(""), Some(MediaType::OCI_INDEX));
    refused(format!(r#"{{"config":{CONFIG}}}"#), Some(MediaType::OCI_INDEX));
    refused(r#"{"layers":[]}"#, Some(MediaType::OCI_MANIFEST));
    refused(r#"{"layers":null}"#, Some(MediaType::DOCKER_LIST));
    refused(r#"{"config":null,"layers":[]}"#, Some(MediaType::DOCKER_MANIFEST));
    refused("{}", Some(MediaType::DOCKER_MANIFEST));
}

#[test]
fn keys_stand_once_and_in_their_case() {
    for field in [
        r#""schemaVersion":2"#,
        r#""mediaType":null,"mediaType":null"#,
        r#""artifactType":"a","artifactType":"a""#,
        r#""layers":[]"#,
        r#""annotations":{},"annotations":{}"#,
        r#""subject":null,"subject":null"#,
    ] {
        let message = refused(image(&format!(",{field}")), None);
        assert!(message.contains("duplicate field"), "{message}");
    }
    // Go folds the letter U+017F to `s`, and reads the escape of `M` as that letter.
    for field in [
        "Layers",
        "Manifests",
        "MEDIATYPE",
        "layer\u{17f}",
        "\\u004danifests",
    ] {
        let message = refused(image(&format!(r#","{field}":[]"#)), None);
        assert!(message.contains("is written"), "{message}");
    }
    let twice = CONFIG.replace("{", r#"{"size":7,"#);
    refused(format!(r#"{{"config":{twice},"layers":[]}}"#), None);
    let other_case = CONFIG.replace("{", r#"{"Digest":"sha256:00","#);
    refused(format!(r#"{{"config":{other_case},"layers":[]}}"#), None);
    // What nobody here reads may stand twice.
    parse(image(r#","x":1,"x":2"#), None).unwrap();
}

#[test]
fn descriptors_have_a_type_a_digest_and_a_size() {
    for (from, to, ok) in [
        (":7", ":0", true),
        (":7", ":9223372036854775807", true),
        (":7", ":9223372036854775808", false),
        (":7", ":-1", false),
        (":7", ":1.5", false),
        (":7", ":\"7\"", false),
        (":7", ":null", false),
        ("\"size\"", "\"length\"", false),
        ("\"digest\"", "\"hash\"", false),
        ("\"mediaType\"", "\"type\"", false),
        ("sha256:0", "sha256:g", false),
        ("sha256:", "", false),
        ("sha256:", "future+v2:", true),
        ("application/vnd.oci.image.config.v1+json", "anything", true),
    ] {
        let config = CONFIG.replace(from, to);
        assert_ne!(config, CONFIG);
        for text in [
            format!(r#"{{"config":{config},"layers":[]}}"#),
            format!(r#"{{"config":{CONFIG},"layers":[{config}]}}"#),
            format!(r#"{{"manifests":[{config}]}}"#),
            image(&format!(r#","subject":{config}"#)),
        ] {
            let result = parse(&text, None);
            assert_eq!(result.is_ok(), ok, "{text}: {result:?}");
        }
    }
    refused(
        r#"{"manifests":[["application/json","sha256:00",7]]}"#,
        Some(MediaType::OCI_INDEX),
    );
}

#[test]
fn annotations_are_strings() {
    let view = parse(image(r#","annotations":{"a":"1","b":""}"#), None).unwrap();
    assert_eq!(&view.annotations().as_json()[..], br#"{"a":"1","b":""}"#);
    for none in ["{}", "{ }", "null"] {
        let view = parse(image(&format!(r#","annotations":{none}"#)), None).unwrap();
        assert!(view.annotations().is_empty());
    }
    for text in [
        r#"{"a":"\ud800"}"#,
        r#"{"\ud800":""}"#,
        "{\"a\":\"\n\"}",
        r#"{"a"}"#,
        r#"{"a":"",}"#,
    ] {
        refused(image(&format!(r#","annotations":{text}"#)), None);
    }
    for value in ["1", "null", "true", "[]", "{}"] {
        refused(image(&format!(r#","annotations":{{"a":{value}}}"#)), None);
    }
    refused(image(r#","annotations":[]"#), None);
    refused(image(r#","annotations":"a""#), None);
}

#[test]
fn a_document_is_one_json_object_in_utf_8() {
    for bytes in [
        &b""[..],
        b"[]",
        b"null",
        b"\"a\"",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
    ] {
        refused(bytes, Some(MediaType::OCI_INDEX));
    }
    let mut bytes = image(r#","x":"?""#).into_bytes();
    parse(&bytes, None).unwrap();
    let place = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[place] = 0xff;
    assert!(refused(&bytes, None).contains("UTF-8"));
    for version in ["0", "3", "null", "\"2\"", "2.5"] {
        refused(image("").replace(":2,", &format!(":{version},")), None);
    }
}

#[test]
fn nesting_has_a_limit_also_where_nobody_reads() {
    let nested = |levels: usize| image(&format!(r#","x":{}{}"#, "[".repeat(levels), "]".repeat(levels)));
    parse(nested(126), None).unwrap();
    let message = refused(nested(127), None);
    assert!(message.contains("recursion"), "{message}");
    refused(nested(1_000_000), None);
    refused(image(&format!(r#","x":{}"#, r#"{"a":"#.repeat(500_000))), None);
}

#[test]
fn a_message_does_not_repeat_a_large_document() {
    let text = "a".repeat(DEFAULT_SIZE_LIMIT / 2);
    for fields in [
        format!(r#","annotations":"{text}""#),
        format!(r#","subject":"{text}""#),
    ] {
        assert!(refused(image(&fields), None).len() < 300);
    }
}

#[test]
fn a_large_manifest_is_read() {
    let annotations: serde_json::Map<String, Value> = (0..390)
        .map(|number| (format!("key{number}"), Value::from("x".repeat(10_000))))
        .collect();
    let fields = format!(r#","annotations":{}"#, Value::from(annotations));
    let text = image(&fields);
    assert!(text.len() < DEFAULT_SIZE_LIMIT);
    let view = parse(text, None).unwrap();
    let read: Value = serde_json::from_slice(view.annotations().as_json()).unwrap();
    assert_eq!(read.as_object().unwrap().len(), 390);
}

#[test]
fn the_list_of_referrers_has_their_own_annotations_and_types() {
    let bytes = document("artifact-with-subject");
    let digest = Digest::of(registry_core::Algorithm::Sha256, &bytes);
    let view = parse(&bytes, None).unwrap();
    let first = view.referrer_descriptor(&digest, bytes.len() as u64);
    let index = document("nested-index");
    let index_digest = Digest::of(registry_core::Algorithm::Sha512, &index);
    let second = parse(&index, None).unwrap().referrer_descriptor(&index_digest, 5);
    let bare = parse(r#"{"manifests":[]}"#, None)
        .unwrap()
        .referrer_descriptor(&index_digest, 6);
    assert_eq!(
        bare.artifact_type, None,
        "an index without a type of its own has none"
    );

    let descriptors = vec![first, second, bare];
    let body: Value = serde_json::from_slice(&referrers_index(&descriptors).unwrap().concat()).unwrap();
    assert_eq!(
        body,
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest.as_str(),
                    "size": bytes.len(),
                    "artifactType": "application/vnd.example.sbom.v1",
                    "annotations": {
                        "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
                        "org.example.sbom.format": "json",
                    },
                },
                {
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "digest": index_digest.as_str(),
                    "size": 5,
                    "artifactType": "application/vnd.example.bundle",
                },
                {
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "digest": index_digest.as_str(),
                    "size": 6,
                },
            ],
        })
    );
    let empty: Vec<Descriptor> = Vec::new();
    let body: Value = serde_json::from_slice(&referrers_index(&empty).unwrap().concat()).unwrap();
    assert_eq!(body["manifests"], json!([]));
}

#[test]
fn large_annotations_are_not_copied_into_a_list_of_referrers() {
    let digest = Digest::of(registry_core::Algorithm::Sha256, b"");
    let descriptors = ["x", "y"].map(|padding| {
        let text = format!(r#","annotations":{{"a":"{}"}}"#, padding.repeat(100_000));
        let view = parse(image(&text), None).unwrap();
        view.referrer_descriptor(&digest, 1)
    });
    let index = referrers_index(&descriptors).unwrap();
    let places: Vec<_> = index.iter().map(|piece| piece.as_ptr()).collect();
    for descriptor in &descriptors {
        assert!(places.contains(&descriptor.annotations.as_json().as_ptr()));
    }
    let body: Value = serde_json::from_slice(&index.concat()).unwrap();
    assert_eq!(body["manifests"][1]["annotations"]["a"], "y".repeat(100_000));
}

#[test]
fn annotations_stand_in_the_list_of_referrers_as_they_were_written() {
    let text = "{ \"a\" : \"\\u0041\\/\",\n\t\"a\":\"\u{e9}\" }";
    let view = parse(image(&format!(r#","annotations":{text}"#)), None).unwrap();
    let digest = Digest::of(registry_core::Algorithm::Sha256, b"");
    let index = referrers_index(&[view.referrer_descriptor(&digest, 1)])
        .unwrap()
        .concat();
    let index = core::str::from_utf8(&index).unwrap();
    assert!(
        index.ends_with(&format!(r#","annotations":{text}}}]}}"#)),
        "{index}"
    );
}

#[test]
fn an_empty_artifact_type_is_none() {
    let view = parse(r#"{"manifests":[],"artifactType":""}"#, None).unwrap();
    assert_eq!(view.artifact_type(), None);
    let view = parse(image(r#","artifactType":"""#), None).unwrap();
    assert_eq!(
        view.artifact_type(),
        Some("application/vnd.oci.image.config.v1+json"),
        "the type of an image is that of its config"
    );
}

/// A document of the folder, with bytes of it replaced, removed, doubled, or a known key put into it.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (
        any::<prop::sample::Index>(),
        0..8_usize,
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            prop::sample::select(vec![
                b"\"layers\":null,".to_vec(),
                b"\"manifests\":[],".to_vec(),
                b"\"subject\":null,".to_vec(),
                b"{".to_vec(),
                b"[]".to_vec(),
                b"null".to_vec(),
            ]),
        ],
    );
    let edits = prop::collection::vec(edit, 0..4);
    (prop::sample::select(documents()), edits).prop_map(|(mut bytes, edits)| {
        for (place, length, text) in edits {
            let start = place.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, text);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzzing::manifest(&bytes);
    }

    #[test]
    fn a_mutated_document_is_read_as_it_is_or_refused(choice: u8, document in mutated()) {
        fuzzing::manifest(&[&[choice][..], &document].concat());
    }
}

#[test]
fn every_document_but_schema_1_passes_the_fuzz_body_accepted() {
    // Without this, the properties above could hold because everything is refused.
    let accepted = documents()
        .iter()
        .filter(|bytes| parse(bytes, None).is_ok())
        .count();
    assert_eq!(accepted, documents().len() - 1);
    let names: BTreeSet<_> = documents().into_iter().collect();
    assert_eq!(names.len(), documents().len());
    for bytes in documents() {
        fuzzing::manifest(&[&[7][..], &bytes].concat());
    }
}
