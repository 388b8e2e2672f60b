//! Referrers (end-12a, end-12b) and manifests with a subject.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::backend::behaviours;
use crate::support::client::{Response, with_query};
use crate::support::content::{sha256, sha512};
use crate::support::repository::{CONFIG, EMPTY, IMAGE, INDEX, Repository, descriptor, image, index};

behaviours![
    a_subject_that_nobody_knows_has_an_empty_index,
    a_malformed_digest_is_400,
    a_push_with_a_subject_says_so,
    a_push_without_a_subject_does_not,
    the_type_of_an_image_is_its_artifact_type_or_that_of_its_config,
    an_index_can_refer_and_has_a_type_only_if_it_says_so,
    annotations_are_those_of_the_manifest,
    the_list_can_be_filtered_by_type,
    a_type_with_a_plus_can_be_asked_for,
    a_subject_may_come_later_or_never,
    a_deleted_referrer_is_listed_no_more,
    referrers_belong_to_their_repository,
    a_referrer_that_is_pushed_twice_is_listed_once,
    the_subject_may_have_a_sha512_digest,
    a_hundred_referrers_are_all_listed,
    a_malformed_subject_is_refused,
];

const THING: &str = "application/vnd.example.thing.v1+json";

fn subject(seed: &str) -> Value {
    descriptor(IMAGE, seed.as_bytes())
}

fn digest_of(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().expect("a descriptor has a digest")
}

/// Returns an artifact that refers to `subject`.
fn artifact(repository: &Repository, subject: &Value, artifact_type: &str, seed: &str) -> Value {
    repository.push_blob(b"{}");
    let empty = descriptor(EMPTY, b"{}");
    let mut manifest = image(&empty, std::slice::from_ref(&empty));
    manifest["artifactType"] = artifact_type.into();
    manifest["subject"] = subject.clone();
    manifest["annotations"] = json!({"seed": seed});
    manifest
}

fn push(repository: &Repository, media_type: &str, manifest: &Value) -> Response {
    let content = manifest.to_string();
    let response = repository.put_manifest(&sha256(content.as_bytes()), media_type, content.as_bytes());
    response.expect_status(201);
    response
}

fn list(repository: &Repository, digest: &str) -> Vec<Value> {
    let response = repository.get(&format!("referrers/{digest}"));
    entries(&response)
}

#[track_caller]
fn entries(response: &Response) -> Vec<Value> {
    response.expect_status(200);
    response.expect_header("Content-Type", INDEX);
    let body = response.json();
    assert_eq!(body["schemaVersion"], 2);
    assert_eq!(body["mediaType"], INDEX);
    body["manifests"].as_array().expect("a list of manifests").clone()
}

fn a_subject_that_nobody_knows_has_an_empty_index(repository: &Repository) {
    for digest in [sha256(b"nothing"), sha512(b"nothing")] {
        assert!(list(repository, &digest).is_empty());
    }
    let image = repository.push_image("latest", "no referrers");
    assert!(list(repository, &image.digest).is_empty());
}

fn a_malformed_digest_is_400(repository: &Repository) {
    repository.push_blob(b"{}");
    for digest in ["sha256:abc", "latest", "sha256:"] {
        repository
            .get(&format!("referrers/{digest}"))
            .expect_error(&[400], &["DIGEST_INVALID"]);
    }
}

fn a_push_with_a_subject_says_so(repository: &Repository) {
    let subject = subject("said");
    let mut referring = index(&[]);
    referring["subject"] = subject.clone();
    let image = artifact(repository, &subject, THING, "said");
    for (media_type, manifest) in [(IMAGE, image), (INDEX, referring)] {
        push(repository, media_type, &manifest).expect_header("OCI-Subject", digest_of(&subject));
        let tagged = repository.put_manifest("tagged", media_type, manifest.to_string().as_bytes());
        tagged.expect_header("OCI-Subject", digest_of(&subject));
    }
}

fn a_push_without_a_subject_does_not(repository: &Repository) {
    let image = repository.push_image("latest", "plain");
    let response = repository.put_manifest("latest", IMAGE, &image.content);
    response.expect_status(201);
    assert_eq!(response.header("OCI-Subject"), None);
}

fn the_type_of_an_image_is_its_artifact_type_or_that_of_its_config(repository: &Repository) {
    let subject = subject("types");
    let typed = artifact(repository, &subject, THING, "typed");
    let mut untyped = image(&descriptor(CONFIG, b"{}"), &[]);
    untyped["subject"] = subject.clone();
    for (manifest, expected) in [(typed, THING), (untyped, CONFIG)] {
        push(repository, IMAGE, &manifest);
        let content = manifest.to_string();
        let listed = list(repository, digest_of(&subject));
        let digest = sha256(content.as_bytes());
        let entry = listed
            .iter()
            .find(|entry| entry["digest"] == digest.as_str())
            .expect("it is listed");
        assert_eq!(entry["artifactType"], expected);
        assert_eq!(entry["mediaType"], IMAGE);
        assert_eq!(entry["size"], content.len());
    }
}

fn an_index_can_refer_and_has_a_type_only_if_it_says_so(repository: &Repository) {
    let subject = subject("index");
    let mut referring = index(&[]);
    referring["subject"] = subject.clone();
    push(repository, INDEX, &referring);
    let listed = list(repository, digest_of(&subject));
    assert_eq!(listed, [descriptor(INDEX, referring.to_string().as_bytes())]);
    referring["artifactType"] = THING.into();
    push(repository, INDEX, &referring);
    let mut expected = descriptor(INDEX, referring.to_string().as_bytes());
    expected["artifactType"] = THING.into();
    assert!(list(repository, digest_of(&subject)).contains(&expected));
}

fn annotations_are_those_of_the_manifest(repository: &Repository) {
    let subject = subject("annotations");
    let with = artifact(repository, &subject, THING, "with");
    let mut without = artifact(repository, &subject, THING, "without");
    without.as_object_mut().expect("an object").remove("annotations");
    push(repository, IMAGE, &with);
    push(repository, IMAGE, &without);
    let listed = list(repository, digest_of(&subject));
    for manifest in [with, without] {
        let mut expected = descriptor(IMAGE, manifest.to_string().as_bytes());
        expected["artifactType"] = THING.into();
        if let Some(annotations) = manifest.get("annotations") {
            expected["annotations"] = annotations.clone();
        }
        assert!(listed.contains(&expected), "{expected} in {listed:?}");
    }
    assert_eq!(listed.len(), 2);
}

fn the_list_can_be_filtered_by_type(repository: &Repository) {
    let subject = subject("filter");
    for (artifact_type, seed) in [(THING, "1"), (THING, "2"), ("application/vnd.other", "3")] {
        push(
            repository,
            IMAGE,
            &artifact(repository, &subject, artifact_type, seed),
        );
    }
    let mut untyped = index(&[]);
    untyped["subject"] = subject.clone();
    push(repository, INDEX, &untyped);
    let target = format!("referrers/{}", digest_of(&subject));
    assert_eq!(entries(&repository.get(&target)).len(), 4);
    assert_eq!(repository.get(&target).header("OCI-Filters-Applied"), None);
    for (asked, count) in [
        (THING.replace('+', "%2B"), 2),
        ("application%2Fvnd.other".into(), 1),
        ("no/such".into(), 0),
    ] {
        let response = repository.get(&with_query(&target, "artifactType", &asked));
        response.expect_header("OCI-Filters-Applied", "artifactType");
        assert_eq!(entries(&response).len(), count, "{asked}");
    }
}

fn a_type_with_a_plus_can_be_asked_for(repository: &Repository) {
    let subject = subject("plus");
    push(repository, IMAGE, &artifact(repository, &subject, THING, "plus"));
    let target = format!("referrers/{}?artifactType={THING}", digest_of(&subject));
    assert_eq!(entries(&repository.get(&target)).len(), 1);
}

fn a_subject_may_come_later_or_never(repository: &Repository) {
    let image = repository.sibling("elsewhere").push_image("latest", "later");
    let subject = descriptor(IMAGE, &image.content);
    push(repository, IMAGE, &artifact(repository, &subject, THING, "early"));
    assert_eq!(list(repository, &image.digest).len(), 1);
    repository.push_image("latest", "later");
    assert_eq!(list(repository, &image.digest).len(), 1);
}

fn a_deleted_referrer_is_listed_no_more(repository: &Repository) {
    let subject = subject("deleted");
    let manifests = ["1", "2"].map(|seed| artifact(repository, &subject, THING, seed));
    for manifest in &manifests {
        push(repository, IMAGE, manifest);
    }
    let digest = sha256(manifests[0].to_string().as_bytes());
    repository
        .delete(&format!("manifests/{digest}"))
        .expect_status(202);
    let listed = list(repository, digest_of(&subject));
    assert_eq!(listed.len(), 1);
    assert_ne!(listed[0]["digest"], digest.as_str());
    push(repository, IMAGE, &manifests[0]);
    assert_eq!(list(repository, digest_of(&subject)).len(), 2);
}

fn referrers_belong_to_their_repository(repository: &Repository) {
    let subject = subject("apart");
    push(repository, IMAGE, &artifact(repository, &subject, THING, "apart"));
    assert!(list(&repository.sibling("other"), digest_of(&subject)).is_empty());
}

fn a_referrer_that_is_pushed_twice_is_listed_once(repository: &Repository) {
    let subject = subject("twice");
    let manifest = artifact(repository, &subject, THING, "twice");
    for _ in 0..3 {
        push(repository, IMAGE, &manifest);
    }
    repository.push_manifest("tagged", IMAGE, manifest.to_string().as_bytes());
    assert_eq!(list(repository, digest_of(&subject)).len(), 1);
}

fn the_subject_may_have_a_sha512_digest(repository: &Repository) {
    let mut subject = subject("sha512");
    subject["digest"] = sha512(b"sha512").into();
    let response = push(
        repository,
        IMAGE,
        &artifact(repository, &subject, THING, "sha512"),
    );
    response.expect_header("OCI-Subject", digest_of(&subject));
    assert_eq!(list(repository, digest_of(&subject)).len(), 1);
}

fn a_hundred_referrers_are_all_listed(repository: &Repository) {
    let subject = subject("hundred");
    let mut expected = BTreeSet::new();
    for number in 0..100 {
        let manifest = artifact(repository, &subject, THING, &number.to_string());
        push(repository, IMAGE, &manifest);
        expected.insert(sha256(manifest.to_string().as_bytes()));
    }
    let listed = list(repository, digest_of(&subject));
    let listed: BTreeSet<_> = listed.iter().map(|entry| digest_of(entry).to_owned()).collect();
    assert_eq!(listed, expected);
}

fn a_malformed_subject_is_refused(repository: &Repository) {
    for subject in [
        json!("text"),
        json!({"mediaType": IMAGE, "size": 5, "digest": "sha256:abc"}),
        json!({}),
    ] {
        let manifest = artifact(repository, &subject, THING, "malformed").to_string();
        let response = repository.put_manifest("latest", IMAGE, manifest.as_bytes());
        response.expect_error(&[400], &["MANIFEST_INVALID", "DIGEST_INVALID"]);
    }
}
