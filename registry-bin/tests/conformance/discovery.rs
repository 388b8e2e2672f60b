//! The version check (end-1), the catalog, errors, and paths and methods that no endpoint has.

use crate::backend::behaviours;
use crate::support::client::{Request, target_of};
use crate::support::content::sha256;
use crate::support::repository::Repository;

behaviours![
    the_version_check_is_200,
    a_path_of_no_endpoint_is_404,
    a_method_of_no_endpoint_is_405_and_names_those_allowed,
    errors_are_json_with_a_message,
    the_catalog_pages_through_all_repositories,
    the_namespace_of_a_proxied_pull_is_accepted,
    unknown_query_parameters_are_ignored,
];

fn the_version_check_is_200(repository: &Repository) {
    for method in ["GET", "HEAD"] {
        let response = Request::new(repository.address, method, "/v2/").send();
        response.expect_status(200);
        response.expect_header("Docker-Distribution-API-Version", "registry/2.0");
    }
}

fn a_path_of_no_endpoint_is_404(repository: &Repository) {
    for path in [
        "/v2/x",
        "/v2/a/b/c",
        "/v2/a/blob/x",
        "/v2/a/tags",
        "/v2/a/tags/list/x",
        "/v2/_oci/ext/discover",
        "/v3/",
        "/v2/a/manifests/",
    ] {
        let response = Request::new(repository.address, "GET", path).send();
        assert_eq!(response.status, 404, "{path}: {}", response.summary());
        assert!(response.json()["errors"].is_array(), "{}", response.summary());
    }
}

fn a_method_of_no_endpoint_is_405_and_names_those_allowed(repository: &Repository) {
    let digest = repository.push_blob(b"methods");
    for (method, rest, allowed) in [
        ("POST", "tags/list", "GET"),
        ("PATCH", "manifests/latest", "PUT"),
        ("POST", "manifests/latest", "DELETE"),
        ("PUT", &format!("blobs/{digest}"), "DELETE"),
        ("DELETE", &format!("referrers/{digest}"), "GET"),
        ("PUT", "blobs/uploads/", "POST"),
    ] {
        let response = repository.request(method, rest).send();
        assert_eq!(response.status, 405, "{method} {rest}: {}", response.summary());
        response.expect_error(&[405], &["UNSUPPORTED"]);
        assert!(
            response.list("Allow").contains(&allowed),
            "{}",
            response.summary()
        );
    }
}

fn errors_are_json_with_a_message(repository: &Repository) {
    let missing = sha256(b"missing");
    repository.push_blob(b"present");
    for rest in [
        "manifests/missing",
        &format!("blobs/{missing}"),
        "blobs/sha256:abc",
        &format!("manifests/{missing}"),
    ] {
        let response = repository.get(rest);
        let kind = response.header("Content-Type").expect("a type").to_owned();
        assert!(
            kind == "application/json" || kind.starts_with("application/json;"),
            "{kind}"
        );
        response.expect_header("Content-Length", &response.body.len().to_string());
        let message = response.json()["errors"][0]["message"].clone();
        assert!(
            message.as_str().is_some_and(|message| !message.is_empty()),
            "{}",
            response.summary()
        );
    }
}

fn the_catalog_pages_through_all_repositories(repository: &Repository) {
    let mut expected = Vec::new();
    for name in ["a", "a-b", "a/b", "b"] {
        let repository = repository.sibling(name);
        repository.push_image("latest", name);
        expected.push(repository.name);
    }
    expected.sort_unstable();
    let mut seen = Vec::new();
    let mut next = Some("/v2/_catalog?n=3".to_owned());
    while let Some(target) = next {
        let response = Request::new(repository.address, "GET", &target).send();
        let page = response.received().repositories().expect("a page of the catalog");
        assert!(
            page.items.len() <= 3 && seen.len() < 5000,
            "{}",
            response.summary()
        );
        seen.extend(page.items.iter().map(ToString::to_string));
        next = page.next.map(|next| target_of(next.as_str()));
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.retain(|name| expected.contains(name));
    assert_eq!(seen, expected);
}

fn the_namespace_of_a_proxied_pull_is_accepted(repository: &Repository) {
    let image = repository.push_image("latest", "namespace");
    for rest in ["manifests/latest", &format!("blobs/{}", image.layer)] {
        repository.get(&format!("{rest}?ns=docker.io")).expect_status(200);
    }
}

fn unknown_query_parameters_are_ignored(repository: &Repository) {
    let image = repository.push_image("latest", "query");
    for rest in ["manifests/latest", &format!("blobs/{}", image.layer), "tags/list"] {
        repository
            .get(&format!("{rest}?unknown=1&x&=y&%zz"))
            .expect_status(200);
    }
}
