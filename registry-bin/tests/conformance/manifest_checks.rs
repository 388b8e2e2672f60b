//! What a registry refuses as a manifest, and what it must not refuse.

use serde_json::{Value, json};

use crate::backend::behaviours;
use crate::support::client::Response;
use crate::support::content::{sha256, sha512};
use crate::support::repository::{
    CONFIG, DOCKER_IMAGE, EMPTY, IMAGE, INDEX, LAYER, Repository, descriptor, image, index,
};

behaviours![
    a_body_that_is_no_manifest_is_refused,
    a_media_type_that_contradicts_the_content_type_is_refused,
    schema_1_is_refused,
    a_document_that_is_image_and_index_is_refused,
    a_malformed_descriptor_is_refused,
    content_that_does_not_match_its_digest_is_refused,
    a_malformed_digest_is_never_a_tag,
    tags_follow_their_grammar,
    unknown_fields_and_types_are_accepted,
    empty_lists_are_accepted,
    lists_that_are_not_there_are_accepted,
    a_content_type_may_be_of_any_case,
    non_distributable_layers_may_be_missing,
    missing_content_is_accepted_or_named_as_the_reason,
    embedded_data_is_kept,
];

const MANIFEST: &[&str] = &["MANIFEST_INVALID"];

fn base(repository: &Repository) -> Value {
    repository.push_blob(b"{}");
    image(&descriptor(CONFIG, b"{}"), &[])
}

fn put(repository: &Repository, media_type: &str, manifest: &Value) -> Response {
    repository.put_manifest("latest", media_type, manifest.to_string().as_bytes())
}

fn a_body_that_is_no_manifest_is_refused(repository: &Repository) {
    let manifest = base(repository).to_string();
    let cut = &manifest[..manifest.len() - 1];
    let doubled = format!("{manifest}{manifest}");
    let bodies: [&[u8]; 9] = [
        b"",
        b"blablabla",
        b"null",
        b"[]",
        b"\"text\"",
        b"{\"schemaVersion\": 2, \"mediaType\": \"\xff\xfe\"}",
        cut.as_bytes(),
        doubled.as_bytes(),
        b"{\"schemaVersion\":2}",
    ];
    for body in bodies {
        repository
            .put_manifest("latest", IMAGE, body)
            .expect_error(&[400], MANIFEST);
    }
    let nested = "[".repeat(200_000);
    repository
        .put_manifest("latest", IMAGE, nested.as_bytes())
        .expect_error(&[400], MANIFEST);
    repository.get("manifests/latest").expect_status(404);
}

fn a_media_type_that_contradicts_the_content_type_is_refused(repository: &Repository) {
    put(repository, DOCKER_IMAGE, &base(repository)).expect_error(&[400], MANIFEST);
    put(repository, INDEX, &base(repository)).expect_error(&[400], MANIFEST);
    put(repository, IMAGE, &index(&[])).expect_error(&[400], MANIFEST);
}

fn schema_1_is_refused(repository: &Repository) {
    let first = json!({"schemaVersion": 1, "name": "a", "tag": "b", "architecture": "amd64", "fsLayers": [], "history": []});
    for kind in ["v1+json", "v1+prettyjws"] {
        let media_type = format!("application/vnd.docker.distribution.manifest.{kind}");
        put(repository, &media_type, &first).expect_error(&[400], &["MANIFEST_INVALID", "UNSUPPORTED"]);
    }
    let mut manifest = base(repository);
    manifest["schemaVersion"] = 1.into();
    put(repository, IMAGE, &manifest).expect_error(&[400], &["MANIFEST_INVALID", "UNSUPPORTED"]);
}

/// CVE-2021-41190
fn a_document_that_is_image_and_index_is_refused(repository: &Repository) {
    for media_type in [IMAGE, INDEX] {
        let mut manifest = base(repository);
        manifest["manifests"] = json!([]);
        for with_type in [true, false] {
            if with_type {
                manifest["mediaType"] = media_type.into();
            } else {
                manifest.as_object_mut().expect("an object").remove("mediaType");
            }
            put(repository, media_type, &manifest).expect_error(&[400], MANIFEST);
        }
    }
}

fn a_malformed_descriptor_is_refused(repository: &Repository) {
    let changes = [
        ("digest", json!("sha256:abc")),
        ("digest", json!("nonsense")),
        ("digest", json!(5)),
        ("digest", Value::Null),
        ("size", json!(-1)),
        ("size", json!("5")),
        ("size", json!(1.5)),
        ("size", Value::Null),
        ("mediaType", Value::Null),
    ];
    for (field, value) in changes {
        let mut manifest = base(repository);
        let config = manifest["config"].as_object_mut().expect("a descriptor");
        if value.is_null() {
            config.remove(field);
        } else {
            config.insert(field.to_owned(), value.clone());
        }
        let response = put(repository, IMAGE, &manifest);
        assert_eq!(response.status, 400, "{field} {value}: {}", response.summary());
        response.expect_error(&[400], &["MANIFEST_INVALID", "DIGEST_INVALID", "SIZE_INVALID"]);
    }
    let mut manifest = base(repository);
    manifest["layers"] = json!({});
    put(repository, IMAGE, &manifest).expect_error(&[400], MANIFEST);
    put(repository, INDEX, &index(&[json!("text")])).expect_error(&[400], MANIFEST);
    let mut manifest = base(repository);
    manifest.as_object_mut().expect("an object").remove("config");
    put(repository, IMAGE, &manifest).expect_error(&[400], MANIFEST);
}

fn content_that_does_not_match_its_digest_is_refused(repository: &Repository) {
    let content = base(repository).to_string();
    for digest in [sha256(b"another"), sha512(b"another")] {
        let response = repository.put_manifest(&digest, IMAGE, content.as_bytes());
        response.expect_error(&[400], &["DIGEST_INVALID"]);
        repository.get(&format!("manifests/{digest}")).expect_status(404);
    }
    repository
        .get(&format!("manifests/{}", sha256(content.as_bytes())))
        .expect_status(404);
}

fn a_malformed_digest_is_never_a_tag(repository: &Repository) {
    let content = base(repository).to_string();
    repository.push_manifest("latest", IMAGE, content.as_bytes());
    for reference in ["sha256:baddigeststring", "sha256:totallywrong", "sha256:", "a:b"] {
        let response = repository.put_manifest(reference, IMAGE, content.as_bytes());
        response.expect_error(&[400], &["DIGEST_INVALID"]);
        let response = repository.get(&format!("manifests/{reference}"));
        response.expect_error(&[400, 404], &["DIGEST_INVALID", "MANIFEST_UNKNOWN"]);
    }
    assert_eq!(repository.tags(), ["latest"]);
}

fn tags_follow_their_grammar(repository: &Repository) {
    let content = base(repository).to_string();
    let longest = "x".repeat(128);
    for tag in ["a", "_", "0", "A.b_c-d", "latest", "v1.0.0", &longest] {
        repository.push_manifest(tag, IMAGE, content.as_bytes());
        repository.get(&format!("manifests/{tag}")).expect_status(200);
    }
    for tag in [
        ".INVALID_MANIFEST_NAME",
        "-a",
        "a+b",
        "a%20b",
        "a~b",
        "%C3%A4",
        &format!("{longest}x"),
    ] {
        let refused = repository.put_manifest(tag, IMAGE, content.as_bytes());
        assert_eq!(refused.status, 400, "{tag}: {}", refused.summary());
        refused.expect_error(&[400], &["MANIFEST_INVALID", "NAME_INVALID", "TAG_INVALID"]);
        repository
            .get(&format!("manifests/{tag}"))
            .expect_error(&[404], &["MANIFEST_UNKNOWN"]);
        repository.head(&format!("manifests/{tag}")).expect_status(404);
    }
}

fn unknown_fields_and_types_are_accepted(repository: &Repository) {
    let mut manifest = base(repository);
    manifest["org.example.custom"] = json!({"nested": [1, 2.5, null, "\u{e4}\u{1F600}"]});
    manifest["config"]["mediaType"] = "application/vnd.example.config.v9+json".into();
    manifest["config"]["custom"] = true.into();
    manifest["artifactType"] = "application/vnd.example.thing".into();
    manifest["annotations"] = json!({"com.example.key": "", "": "value"});
    repository.push_blob(b"any bytes");
    manifest["layers"] = json!([descriptor(
        "application/vnd.cncf.model.weight.v1.raw",
        b"any bytes"
    )]);
    put(repository, IMAGE, &manifest).expect_status(201);
    assert_eq!(
        repository.get("manifests/latest").body,
        manifest.to_string().into_bytes()
    );
    let mut list = index(&[]);
    list["custom"] = json!([]);
    put(repository, INDEX, &list).expect_status(201);
    assert_eq!(
        repository.get("manifests/latest").body,
        list.to_string().into_bytes()
    );
}

fn empty_lists_are_accepted(repository: &Repository) {
    put(repository, IMAGE, &base(repository)).expect_status(201);
    put(repository, INDEX, &index(&[])).expect_status(201);
}

/// registry:2 takes and serves them.
fn lists_that_are_not_there_are_accepted(repository: &Repository) {
    let mut manifest = base(repository);
    manifest.as_object_mut().expect("an object").remove("layers");
    let mut list = index(&[]);
    list.as_object_mut().expect("an object").remove("manifests");
    let mut docker = manifest.clone();
    docker["mediaType"] = DOCKER_IMAGE.into();
    for (media_type, manifest) in [(IMAGE, manifest), (INDEX, list), (DOCKER_IMAGE, docker)] {
        put(repository, media_type, &manifest).expect_status(201);
        let found = repository.get("manifests/latest");
        found.expect_status(200);
        assert_eq!(found.header("content-type"), Some(media_type));
    }
}

fn a_content_type_may_be_of_any_case(repository: &Repository) {
    let header = IMAGE.replace("application/vnd", "Application/VND") + "; charset=utf-8";
    put(repository, &header, &base(repository)).expect_status(201);
    let found = repository.get("manifests/latest");
    assert_eq!(found.header("content-type"), Some(IMAGE));
}

fn non_distributable_layers_may_be_missing(repository: &Repository) {
    let kinds = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ];
    for kind in kinds {
        let mut manifest = base(repository);
        let mut layer = descriptor(kind, kind.as_bytes());
        layer["urls"] = json!(["https://example.com/layer"]);
        manifest["layers"] = json!([layer]);
        put(repository, IMAGE, &manifest).expect_status(201);
    }
}

fn missing_content_is_accepted_or_named_as_the_reason(repository: &Repository) {
    let mut manifest = base(repository);
    manifest["layers"] = json!([descriptor(LAYER, b"a layer that was never pushed")]);
    let list = index(&[descriptor(IMAGE, b"an image that was never pushed")]);
    for (media_type, manifest) in [(IMAGE, manifest), (INDEX, list)] {
        let response = put(repository, media_type, &manifest);
        if response.status == 201 {
            repository.get("manifests/latest").expect_status(200);
        } else {
            response.expect_error(&[400, 404], &["MANIFEST_BLOB_UNKNOWN"]);
        }
    }
}

fn embedded_data_is_kept(repository: &Repository) {
    repository.push_blob(b"{}");
    let mut empty = descriptor(EMPTY, b"{}");
    empty["data"] = "e30=".into();
    let mut manifest = image(&empty, std::slice::from_ref(&empty));
    manifest["artifactType"] = "application/vnd.example.thing".into();
    put(repository, IMAGE, &manifest).expect_status(201);
    assert_eq!(
        repository.get("manifests/latest").body,
        manifest.to_string().into_bytes()
    );
}
