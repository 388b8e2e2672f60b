//! Repository names: the grammar of distribution-spec 1.1, "Pulling manifests", and paths that look like endpoints.

use crate::backend::behaviours;
use crate::support::repository::{IMAGE, Repository};

behaviours![
    every_name_of_the_grammar_can_be_pushed_to_and_pulled_from,
    names_outside_the_grammar_are_refused,
    a_name_may_have_255_characters_and_no_more,
    names_may_contain_the_words_of_endpoints,
    a_repository_may_live_below_another,
    the_path_is_percent_decoded,
];

fn every_name_of_the_grammar_can_be_pushed_to_and_pulled_from(repository: &Repository) {
    for name in [
        "a",
        "0",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a--b",
        "a---b",
        "a.b_c-d/e__f",
        "1/2/3/4/5/6/7/8/9",
    ] {
        let repository = repository.sibling(name);
        let image = repository.push_image("latest", name);
        for reference in ["latest", &image.digest] {
            let pulled = repository.get(&format!("manifests/{reference}"));
            pulled.expect_status(200);
            assert_eq!(pulled.body, image.content, "{name}");
        }
        repository
            .get(&format!("blobs/{}", image.layer))
            .expect_status(200);
        assert_eq!(repository.tags(), ["latest"], "{name}");
    }
}

fn names_outside_the_grammar_are_refused(repository: &Repository) {
    for name in [
        "A", "a/B", "-a", "a-", ".a", "a.", "_a", "a_", "a..b", "a___b", "a._b", "a/-b", "a%20b", "%C3%A4",
    ] {
        let repository = repository.sibling(name);
        for (method, rest) in [
            ("POST", "blobs/uploads/"),
            ("GET", "tags/list"),
            ("GET", "manifests/latest"),
        ] {
            let response = repository.request(method, rest).send();
            response.expect_error(&[400, 404], &["NAME_INVALID", "NAME_UNKNOWN"]);
        }
        repository
            .put_manifest("latest", IMAGE, b"{}")
            .expect_error(&[400, 404], &["NAME_INVALID", "NAME_UNKNOWN"]);
    }
}

fn a_name_may_have_255_characters_and_no_more(repository: &Repository) {
    let filled = |length: usize| {
        let rest = length - repository.name.len() - 1;
        let name: String = "abcdefg/".chars().cycle().take(rest - 1).chain(['z']).collect();
        repository.sibling(&name)
    };
    let longest = filled(255);
    assert_eq!(longest.name.len(), 255);
    longest.push_image("latest", "long");
    assert_eq!(longest.tags(), ["latest"]);
    for length in [256, 300, 2000] {
        let response = filled(length).request("POST", "blobs/uploads/").send();
        response.expect_error(&[400, 404], &["NAME_INVALID", "NAME_UNKNOWN"]);
    }
}

fn names_may_contain_the_words_of_endpoints(repository: &Repository) {
    for name in [
        "blobs",
        "manifests",
        "tags",
        "tags/list",
        "blobs/uploads",
        "manifests/latest",
        "referrers",
        "v2",
    ] {
        let repository = repository.sibling(name);
        let image = repository.push_image("latest", name);
        assert_eq!(repository.get("manifests/latest").body, image.content, "{name}");
        repository
            .get(&format!("blobs/{}", image.layer))
            .expect_status(200);
        assert_eq!(repository.tags(), ["latest"], "{name}");
        repository.delete("manifests/latest").expect_status(202);
    }
}

fn a_repository_may_live_below_another(repository: &Repository) {
    let parent = repository.sibling("a");
    let child = repository.sibling("a/b");
    let child_image = child.push_image("child", "child");
    parent
        .get(&format!("manifests/{}", child_image.digest))
        .expect_status(404);
    let parent_image = parent.push_image("parent", "parent");
    assert_eq!(parent.tags(), ["parent"]);
    assert_eq!(child.tags(), ["child"]);
    child
        .get(&format!("blobs/{}", parent_image.layer))
        .expect_status(404);
    parent
        .delete(&format!("manifests/{}", parent_image.digest))
        .expect_status(202);
    assert_eq!(child.get("manifests/child").body, child_image.content);
}

fn the_path_is_percent_decoded(repository: &Repository) {
    let image = repository.push_image("latest", "percent");
    let encoded = image.digest.replace(':', "%3A");
    assert_eq!(
        repository.get(&format!("manifests/{encoded}")).body,
        image.content
    );
    repository
        .head(&format!("blobs/{}", image.layer.replace(':', "%3a")))
        .expect_status(200);
    repository.get("manifests/l%61test").expect_status(200);
}
