//! Listing tags (end-8a, end-8b).

use std::collections::BTreeSet;

use crate::backend::behaviours;
use crate::support::client::{Connection, Response};
use crate::support::repository::{IMAGE, Repository, strings};

behaviours![
    tags_are_listed_in_the_order_of_their_bytes,
    n_limits_the_page,
    n_of_0_is_an_empty_page_without_a_link,
    last_is_excluded_and_need_not_exist,
    pages_follow_each_other_by_link,
    a_page_that_holds_everything_has_no_link,
    a_malformed_n_is_400,
    the_tags_of_an_unknown_repository_are_404,
    a_repository_without_tags_has_an_empty_list,
    a_thousand_tags_come_on_one_page,
    a_tag_is_listed_as_soon_as_it_was_pushed,
];

const TAGS: [&str; 7] = ["0", "B", "TEST0", "_", "a", "test0", "test1"];

fn filled(repository: &Repository) {
    let image = repository.push_image("test1", "tags");
    for tag in TAGS.iter().rev() {
        repository.push_manifest(tag, IMAGE, &image.content);
    }
}

fn page(repository: &Repository, query: &str) -> (Vec<String>, Response) {
    let response = repository.get(&format!("tags/list?{query}"));
    response.expect_status(200);
    (strings(&response.json()["tags"]), response)
}

fn tags_are_listed_in_the_order_of_their_bytes(repository: &Repository) {
    filled(repository);
    let response = repository.get("tags/list");
    response.expect_status(200);
    let kind = response.header("Content-Type").expect("a list has a type");
    assert!(kind.starts_with("application/json"), "{kind}");
    assert_eq!(response.json()["name"], repository.name.as_str());
    assert_eq!(strings(&response.json()["tags"]), TAGS);
}

fn n_limits_the_page(repository: &Repository) {
    filled(repository);
    for n in 1..=9 {
        let (tags, _) = page(repository, &format!("n={n}"));
        assert_eq!(tags, TAGS[..n.min(TAGS.len())], "{n}");
    }
}

fn n_of_0_is_an_empty_page_without_a_link(repository: &Repository) {
    filled(repository);
    let (tags, response) = page(repository, "n=0");
    assert!(tags.is_empty(), "{}", response.summary());
    assert_eq!(response.header("Link"), None);
}

fn last_is_excluded_and_need_not_exist(repository: &Repository) {
    filled(repository);
    assert_eq!(page(repository, "last=TEST0").0, TAGS[3..]);
    assert_eq!(page(repository, "last=TEST00").0, TAGS[3..]);
    assert_eq!(page(repository, "last=test1").0, [""; 0]);
    assert_eq!(page(repository, "n=2&last=B").0, TAGS[2..4]);
    assert_eq!(page(repository, "last=B&n=2").0, TAGS[2..4]);
}

fn pages_follow_each_other_by_link(repository: &Repository) {
    filled(repository);
    for n in 1..=4 {
        let mut seen = Vec::new();
        let mut next = Some(repository.path(&format!("tags/list?n={n}")));
        while let Some(target) = next {
            let response = repository.follow("GET", &target).send();
            response.expect_status(200);
            let tags = strings(&response.json()["tags"]);
            assert!(
                tags.len() <= n && seen.len() <= TAGS.len(),
                "{}",
                response.summary()
            );
            seen.extend(tags);
            next = response.header("Link").map(|link| {
                // Docker's client takes what stands before the first semicolon and trims the brackets.
                let (target, relation) = link.split_once(';').expect("a link has a relation");
                assert_eq!(relation.trim(), "rel=\"next\"");
                assert!(target.starts_with('<') && target.ends_with('>'), "{link}");
                target.trim_matches(['<', '>']).to_owned()
            });
        }
        assert_eq!(seen, TAGS, "{n}");
    }
}

fn a_page_that_holds_everything_has_no_link(repository: &Repository) {
    filled(repository);
    for query in ["n=7", "n=8", "n=2&last=a", ""] {
        assert_eq!(page(repository, query).1.header("Link"), None, "{query}");
    }
}

fn a_malformed_n_is_400(repository: &Repository) {
    filled(repository);
    for n in ["abc", "-1", "1.5"] {
        let response = repository.get(&format!("tags/list?n={n}"));
        assert_eq!(response.status, 400, "{n}: {}", response.summary());
        assert!(response.json()["errors"].is_array(), "{}", response.summary());
    }
}

fn the_tags_of_an_unknown_repository_are_404(repository: &Repository) {
    repository
        .get("tags/list")
        .expect_error(&[404], &["NAME_UNKNOWN"]);
    repository.sibling("below").push_image("latest", "below");
    repository
        .get("tags/list")
        .expect_error(&[404], &["NAME_UNKNOWN"]);
}

fn a_repository_without_tags_has_an_empty_list(repository: &Repository) {
    let image = repository.push_image("latest", "untagged");
    repository.delete("manifests/latest").expect_status(202);
    assert_eq!(repository.tags(), [""; 0]);
    repository
        .delete(&format!("manifests/{}", image.digest))
        .expect_status(202);
    assert_eq!(repository.tags(), [""; 0]);
}

fn a_thousand_tags_come_on_one_page(repository: &Repository) {
    let image = repository.push_image("tag0", "thousand");
    let mut connection = Connection::open(repository.address).expect("the server listens");
    let mut expected = BTreeSet::from(["tag0".to_owned()]);
    for number in 1..1001 {
        let tag = format!("tag{number}");
        let request = repository
            .request("PUT", &format!("manifests/{tag}"))
            .header("Content-Type", IMAGE);
        let incoming = connection
            .exchange(request.body(&image.content))
            .expect("an answer");
        incoming.collect().expect("an answer").expect_status(201);
        expected.insert(tag);
    }
    assert_eq!(repository.tags(), expected.into_iter().collect::<Vec<_>>());
}

fn a_tag_is_listed_as_soon_as_it_was_pushed(repository: &Repository) {
    let mut expected = Vec::new();
    for tag in ["a", "b", "c", "d"] {
        repository.push_image(tag, tag);
        expected.push(tag);
        assert_eq!(repository.tags(), expected);
    }
}
