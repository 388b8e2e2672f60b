//! Pushing and pulling manifests (end-3, end-7a, end-7b).

use serde_json::{Value, json};

use crate::backend::behaviours;
use crate::support::content::{sha256, sha512};
use crate::support::repository::{
    CONFIG, DOCKER_IMAGE, DOCKER_LIST, IMAGE, INDEX, Repository, descriptor, image, index,
};

behaviours![
    a_manifest_is_returned_as_it_was_pushed,
    a_push_names_where_the_manifest_is,
    head_has_the_headers_of_get_and_no_body,
    a_missing_manifest_is_404,
    a_manifest_of_an_unknown_repository_is_404,
    every_byte_is_kept,
    every_media_type_is_returned_without_parameters,
    a_manifest_without_a_media_type_field_takes_the_content_type,
    the_stored_type_is_returned_whatever_is_accepted,
    a_client_that_takes_no_list_gets_its_linux_image,
    an_oci_index_is_returned_to_who_takes_images_alone,
    a_manifest_of_unknown_length_can_be_pushed,
    a_tag_moves_and_the_old_manifest_stays,
    a_manifest_can_be_pushed_twice,
    a_manifest_can_be_pushed_under_its_sha512_digest,
    several_tags_are_set_at_once,
    a_tag_remembers_the_algorithm_of_its_digest,
    a_manifest_belongs_to_the_repository_it_was_pushed_to,
    a_manifest_that_did_not_change_is_304,
    a_manifest_of_4_mebibytes_is_accepted,
    a_manifest_beyond_the_limit_is_413,
    one_of_many_writers_of_a_tag_wins,
];

/// Pushes a config and returns an image of nothing else.
fn simple(repository: &Repository, seed: &str) -> Vec<u8> {
    let config = json!({"seed": seed}).to_string();
    repository.push_blob(config.as_bytes());
    image(&descriptor(CONFIG, config.as_bytes()), &[])
        .to_string()
        .into_bytes()
}

fn a_manifest_is_returned_as_it_was_pushed(repository: &Repository) {
    let content = simple(repository, "pull");
    let digest = repository.push_manifest("latest", IMAGE, &content);
    for reference in ["latest", &digest] {
        let response = repository.get(&format!("manifests/{reference}"));
        response.expect_status(200);
        response.expect_header("Content-Type", IMAGE);
        response.expect_header("Content-Length", &content.len().to_string());
        response.expect_header("Docker-Content-Digest", &digest);
        response.expect_header("Docker-Distribution-API-Version", "registry/2.0");
        assert_eq!(response.body, content);
    }
}

fn a_push_names_where_the_manifest_is(repository: &Repository) {
    let content = simple(repository, "location");
    let digest = sha256(&content);
    for reference in ["latest", &digest] {
        let response = repository.put_manifest(reference, IMAGE, &content);
        response.expect_status(201);
        response.expect_header("Docker-Content-Digest", &digest);
        let pulled = repository
            .follow("GET", &response.location())
            .header("Accept", IMAGE)
            .send();
        pulled.expect_header("Content-Type", IMAGE);
        assert_eq!(pulled.body, content);
    }
}

fn head_has_the_headers_of_get_and_no_body(repository: &Repository) {
    let digest = repository.push_manifest("latest", IMAGE, &simple(repository, "head"));
    for reference in ["latest", &digest] {
        let got = repository.get(&format!("manifests/{reference}"));
        let headed = repository.head(&format!("manifests/{reference}"));
        headed.expect_status(200);
        for name in ["Content-Length", "Content-Type", "Docker-Content-Digest", "ETag"] {
            assert!(headed.header(name).is_some(), "{name} of {}", headed.summary());
            assert_eq!(headed.header(name), got.header(name), "{name}");
        }
        assert_eq!(headed.body, b"");
    }
}

fn a_missing_manifest_is_404(repository: &Repository) {
    repository.push_image("present", "present");
    for reference in ["missing", &sha256(b"missing"), &sha512(b"missing")] {
        repository
            .get(&format!("manifests/{reference}"))
            .expect_error(&[404], &["MANIFEST_UNKNOWN"]);
        let headed = repository.head(&format!("manifests/{reference}"));
        headed.expect_status(404);
        assert_eq!(headed.body, b"");
    }
}

fn a_manifest_of_an_unknown_repository_is_404(repository: &Repository) {
    for reference in ["latest", &sha256(b"missing")] {
        let response = repository.get(&format!("manifests/{reference}"));
        response.expect_error(&[404], &["MANIFEST_UNKNOWN", "NAME_UNKNOWN"]);
    }
}

fn every_byte_is_kept(repository: &Repository) {
    let compact = String::from_utf8(simple(repository, "bytes")).expect("JSON is UTF-8");
    let spaced = compact.replace(':', " : ").replace(',', ",\r\n\t") + "\n\n";
    let spaced = spaced.replace("sha256 : ", "sha256:");
    let escaped = compact.replace("schemaVersion", "schema\\u0056ersion");
    for content in [spaced, escaped] {
        let digest = repository.push_manifest("latest", IMAGE, content.as_bytes());
        assert_eq!(repository.get("manifests/latest").body, content.as_bytes());
        assert_eq!(
            repository.get(&format!("manifests/{digest}")).body,
            content.as_bytes()
        );
    }
}

fn every_media_type_is_returned_without_parameters(repository: &Repository) {
    for media_type in [IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST] {
        let mut manifest = if [IMAGE, DOCKER_IMAGE].contains(&media_type) {
            serde_json::from_slice(&simple(repository, "types")).expect("JSON")
        } else {
            index(&[])
        };
        manifest["mediaType"] = media_type.into();
        let content = manifest.to_string();
        for suffix in ["", "; charset=utf-8", ";charset=UTF-8"] {
            let sent = format!("{media_type}{suffix}");
            repository.push_manifest("latest", &sent, content.as_bytes());
            repository
                .get("manifests/latest")
                .expect_header("Content-Type", media_type);
            repository
                .head("manifests/latest")
                .expect_header("Content-Type", media_type);
        }
    }
}

fn a_manifest_without_a_media_type_field_takes_the_content_type(repository: &Repository) {
    let config = b"{}";
    repository.push_blob(config);
    let image = json!({"schemaVersion": 2, "config": descriptor(CONFIG, config), "layers": []}).to_string();
    let index = json!({"schemaVersion": 2, "manifests": []}).to_string();
    for (media_type, content) in [(IMAGE, image), (INDEX, index)] {
        let digest = repository.push_manifest("latest", media_type, content.as_bytes());
        for reference in ["latest", &digest] {
            repository
                .get(&format!("manifests/{reference}"))
                .expect_header("Content-Type", media_type);
        }
    }
}

fn the_stored_type_is_returned_whatever_is_accepted(repository: &Repository) {
    let content = simple(repository, "accept");
    repository.push_manifest("latest", IMAGE, &content);
    for accept in [
        "*/*",
        DOCKER_IMAGE,
        INDEX,
        "text/html",
        &format!("{INDEX}, {IMAGE}"),
    ] {
        let response = repository
            .request("GET", "manifests/latest")
            .header("Accept", accept)
            .send();
        response.expect_status(200);
        response.expect_header("Content-Type", IMAGE);
        assert_eq!(response.body, content);
    }
    let request = repository
        .request("GET", "manifests/latest")
        .header("Accept", INDEX);
    request
        .header("Accept", IMAGE)
        .send()
        .expect_header("Content-Type", IMAGE);
}

/// Pushes a list of two platforms by `tag` and returns its digest and that of the image for `linux/amd64`.
fn push_list(repository: &Repository, tag: &str, list: &str, image: &str) -> (String, String) {
    let entries = ["arm64", "amd64"].map(|architecture| {
        let mut content: Value = serde_json::from_slice(&simple(repository, architecture)).expect("JSON");
        content["mediaType"] = json!(image);
        let content = content.to_string();
        repository.push_manifest(&sha256(content.as_bytes()), image, content.as_bytes());
        let mut entry = descriptor(image, content.as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    });
    let mut content = index(&entries);
    content["mediaType"] = json!(list);
    let digest = repository.push_manifest(tag, list, content.to_string().as_bytes());
    let [_, amd64] = entries;
    (digest, amd64["digest"].as_str().expect("a digest").to_owned())
}

fn a_client_that_takes_no_list_gets_its_linux_image(repository: &Repository) {
    let (list, amd64) = push_list(repository, "many", DOCKER_LIST, DOCKER_IMAGE);
    let ask = |method, reference: &str, accept: &str, known: &str| {
        let request = repository.request(method, &format!("manifests/{reference}"));
        let request = request.header("Accept", accept);
        request.header("If-None-Match", &format!("\"{known}\"")).send()
    };
    for method in ["GET", "HEAD"] {
        let found = ask(method, "many", DOCKER_IMAGE, "");
        found.expect_status(200);
        found.expect_header("Content-Type", DOCKER_IMAGE);
        found.expect_header("Docker-Content-Digest", &amd64);
        found.expect_header("ETag", &format!("\"{amd64}\""));
        found.expect_header("Vary", "Accept");
        // What is the same is what would be sent, and not what the tag names.
        ask(method, "many", DOCKER_IMAGE, &amd64).expect_status(304);
        ask(method, "many", DOCKER_IMAGE, &list).expect_status(200);
        ask(method, "many", DOCKER_LIST, &list).expect_status(304);
        for accept in [DOCKER_LIST, "*/*", &format!("{DOCKER_IMAGE}, {DOCKER_LIST}")] {
            ask(method, "many", accept, "").expect_header("Docker-Content-Digest", &list);
        }
        // What is asked for by digest has that digest.
        ask(method, &list, DOCKER_IMAGE, "").expect_header("Docker-Content-Digest", &list);
    }
    let got = ask("GET", "many", DOCKER_IMAGE, "");
    assert_eq!(sha256(&got.body), amd64);
    assert!(got.json()["config"]["digest"].is_string(), "scripts read it");
    repository
        .delete(&format!("manifests/{amd64}"))
        .expect_status(202);
    ask("GET", "many", DOCKER_IMAGE, "").expect_error(&[404], &["MANIFEST_UNKNOWN"]);
    ask("GET", "many", DOCKER_LIST, "").expect_status(200);
}

fn an_oci_index_is_returned_to_who_takes_images_alone(repository: &Repository) {
    let (index, _) = push_list(repository, "many", INDEX, IMAGE);
    for method in ["GET", "HEAD"] {
        let request = repository.request(method, "manifests/many");
        let found = request
            .header("Accept", &format!("{IMAGE}, {DOCKER_IMAGE}"))
            .send();
        found.expect_header("Docker-Content-Digest", &index);
        found.expect_header("Content-Type", INDEX);
    }
}

fn a_manifest_of_unknown_length_can_be_pushed(repository: &Repository) {
    let content = simple(repository, "chunked");
    let request = repository
        .request("PUT", "manifests/latest")
        .header("Content-Type", IMAGE);
    request.chunked(content.as_slice()).send().expect_status(201);
    assert_eq!(repository.get("manifests/latest").body, content);
}

fn a_tag_moves_and_the_old_manifest_stays(repository: &Repository) {
    let first = repository.push_image("latest", "first");
    let second = repository.push_image("latest", "second");
    assert_eq!(repository.get("manifests/latest").body, second.content);
    assert_eq!(
        repository.get(&format!("manifests/{}", first.digest)).body,
        first.content
    );
    assert_eq!(repository.tags(), ["latest"]);
    repository
        .put_manifest("latest", IMAGE, &first.content)
        .expect_status(201);
    assert_eq!(repository.get("manifests/latest").body, first.content);
}

fn a_manifest_can_be_pushed_twice(repository: &Repository) {
    let content = simple(repository, "twice");
    for reference in ["one", "one", "two", &sha256(&content)] {
        repository.push_manifest(reference, IMAGE, &content);
    }
    assert_eq!(repository.tags(), ["one", "two"]);
}

fn a_manifest_can_be_pushed_under_its_sha512_digest(repository: &Repository) {
    let content = simple(repository, "sha512");
    let digest = sha512(&content);
    let response = repository.put_manifest(&digest, IMAGE, &content);
    response.expect_status(201);
    response.expect_header("Docker-Content-Digest", &digest);
    for method in ["GET", "HEAD"] {
        let pulled = repository
            .request(method, &format!("manifests/{digest}"))
            .header("Accept", IMAGE)
            .send();
        pulled.expect_status(200);
        pulled.expect_header("Docker-Content-Digest", &digest);
    }
    repository
        .delete(&format!("manifests/{digest}"))
        .expect_status(202);
    repository.get(&format!("manifests/{digest}")).expect_status(404);
}

/// end-7b
fn several_tags_are_set_at_once(repository: &Repository) {
    let content = simple(repository, "tags");
    let mut tags: Vec<_> = (0..10).map(|number| format!("tag{number}")).collect();
    let query: Vec<_> = tags.iter().map(|tag| format!("tag={tag}")).collect();
    let reference = format!("{}?{}", sha256(&content), query.join("&"));
    let response = repository.put_manifest(&reference, IMAGE, &content);
    response.expect_status(201);
    let mut accepted = response.list("OCI-Tag");
    accepted.sort_unstable();
    assert_eq!(accepted, tags, "{}", response.summary());
    for tag in &tags {
        assert_eq!(repository.get(&format!("manifests/{tag}")).body, content);
    }
    tags.sort_unstable();
    assert_eq!(repository.tags(), tags);
    let refused = repository.put_manifest(&format!("{}?tag=.bad", sha256(&content)), IMAGE, &content);
    refused.expect_error(&[400], &["MANIFEST_INVALID", "NAME_INVALID", "UNSUPPORTED"]);
}

fn a_tag_remembers_the_algorithm_of_its_digest(repository: &Repository) {
    let content = simple(repository, "algorithm");
    let digest = sha512(&content);
    let response = repository.put_manifest(&format!("{digest}?tag=long"), IMAGE, &content);
    response.expect_status(201);
    assert_eq!(response.list("OCI-Tag"), ["long"]);
    repository.push_manifest("short", IMAGE, &content);
    repository
        .get("manifests/long")
        .expect_header("Docker-Content-Digest", &digest);
    repository
        .get("manifests/short")
        .expect_header("Docker-Content-Digest", &sha256(&content));
}

fn a_manifest_belongs_to_the_repository_it_was_pushed_to(repository: &Repository) {
    let other = repository.sibling("other");
    other.push_image("other", "other");
    let image = repository.push_image("latest", "mine");
    for reference in ["latest", &image.digest] {
        other.get(&format!("manifests/{reference}")).expect_status(404);
        other.head(&format!("manifests/{reference}")).expect_status(404);
    }
}

fn a_manifest_that_did_not_change_is_304(repository: &Repository) {
    repository.push_image("latest", "before");
    let etag = repository
        .get("manifests/latest")
        .header("ETag")
        .expect("an ETag")
        .to_owned();
    let ask = || {
        repository
            .request("GET", "manifests/latest")
            .header("If-None-Match", &etag)
            .send()
    };
    let unchanged = ask();
    unchanged.expect_status(304);
    assert_eq!(unchanged.body, b"");
    repository.push_image("latest", "after");
    ask().expect_status(200);
}

/// Returns an image manifest of exactly `length` bytes.
fn sized(repository: &Repository, length: usize) -> Vec<u8> {
    let mut manifest = simple(repository, "sized");
    let open = manifest.pop();
    assert_eq!(open, Some(b'}'));
    manifest.extend_from_slice(br#","annotations":{"filler":""#);
    manifest.resize(length - 3, b'x');
    manifest.extend_from_slice(br#""}}"#);
    manifest
}

fn a_manifest_of_4_mebibytes_is_accepted(repository: &Repository) {
    for length in [(2 << 20) + 1, 4 << 20] {
        let content = sized(repository, length);
        assert_eq!(content.len(), length);
        repository.push_manifest("latest", IMAGE, &content);
        assert!(repository.get("manifests/latest").body == content);
    }
}

fn a_manifest_beyond_the_limit_is_413(repository: &Repository) {
    let content = sized(repository, 32 << 20);
    let refused = repository.put_manifest("large", IMAGE, &content);
    refused.expect_error(&[413], &["SIZE_INVALID", "MANIFEST_INVALID"]);
    let request = repository
        .request("PUT", "manifests/large")
        .header("Content-Type", IMAGE);
    request
        .chunked(content.as_slice())
        .send()
        .expect_error(&[413], &["SIZE_INVALID", "MANIFEST_INVALID"]);
    repository.get("manifests/large").expect_status(404);
}

fn one_of_many_writers_of_a_tag_wins(repository: &Repository) {
    let contents: Vec<_> = (0..8)
        .map(|number| simple(repository, &number.to_string()))
        .collect();
    std::thread::scope(|scope| {
        for content in &contents {
            scope.spawn(|| {
                for _ in 0..5 {
                    repository.push_manifest("contested", IMAGE, content);
                }
            });
        }
    });
    let winner = repository.get("manifests/contested");
    assert!(contents.contains(&winner.body), "{}", winner.summary());
    winner.expect_header("Docker-Content-Digest", &sha256(&winner.body));
    for content in &contents {
        assert_eq!(
            repository.get(&format!("manifests/{}", sha256(content))).body,
            *content
        );
    }
    assert_eq!(repository.tags(), ["contested"]);
}
