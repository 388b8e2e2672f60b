//! Listings: pages, order, places that do not exist.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use registry_core::{ErrorCode, Storage};

use super::fixtures::{
    With as _, all_tags, assert_code, content, manifest, page, push_blob, repository, tag,
};
use super::random::Random;

/// Tags are listed in the order of their bytes, in pages, like a sorted set, while tags come and go.
pub async fn tags_like_a_sorted_set(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let mut random = Random::new(1);
    let mut model: BTreeSet<String> = BTreeSet::new();
    for round in 0..60 {
        let name = random_tag(&mut random);
        match random.below(4) {
            0 => {
                if let Some(gone) = model.iter().nth(random.below(model.len() + 1)).cloned() {
                    storage.delete_tag(&repository, &tag(&gone), None).await.unwrap();
                    model.remove(&gone);
                }
            }
            _ => {
                storage
                    .put_manifest(&repository, manifest("image").with_tag(&tag(&name)))
                    .await
                    .unwrap();
                model.insert(name);
            }
        }
        if round % 5 == 4 {
            let limit = 1 + random.below(model.len() + 2);
            assert!(
                all_tags(&*storage, &repository, limit).await.iter().eq(&model),
                "pages of {limit}"
            );
        }
        let last = random_tag(&mut random);
        let limit = random.below(8);
        let listed = storage
            .list_tags(&repository, page(Some(&last), limit))
            .await
            .unwrap();
        let mut after = model.range::<String, _>((Bound::Excluded(&last), Bound::Unbounded));
        let expected: Vec<&String> = after.by_ref().take(limit).collect();
        let items: Vec<String> = listed.items.iter().map(ToString::to_string).collect();
        assert!(items.iter().eq(expected), "{limit} tags after {last}");
        if limit > 0 {
            assert_eq!(
                listed.next.is_some(),
                after.next().is_some(),
                "there are more tags or there are not"
            );
        }
    }
}

fn random_tag(random: &mut Random) -> String {
    let first: Vec<char> = "azAZ09_".chars().collect();
    let rest: Vec<char> = "azAZ09_.-".chars().collect();
    let mut name = String::from(first[random.below(first.len())]);
    for _ in 0..random.below(3) {
        name.push(rest[random.below(rest.len())]);
    }
    name
}

/// A page of no items is empty and is the last; a `last` need not be a tag.
pub async fn odd_pages(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let new = manifest("image").with_tag(&tag("b")).with_tag(&tag("d"));
    storage.put_manifest(&repository, new).await.unwrap();
    for (last, limit, expected) in [
        (None, 0, &[][..]),
        (Some("a"), 0, &[]),
        (None, 1, &["b"]),
        (None, usize::MAX, &["b", "d"]),
        (Some(""), 5, &["b", "d"]),
        (Some("b"), 5, &["d"]),
        (Some("c"), 5, &["d"]),
        (Some("d"), 5, &[]),
        (Some("zzz"), 5, &[]),
        (Some("~"), 5, &[]),
        (Some("not/a tag!"), 5, &[]),
    ] {
        let listed = storage.list_tags(&repository, page(last, limit)).await.unwrap();
        let items: Vec<String> = listed.items.iter().map(ToString::to_string).collect();
        assert_eq!(items, expected, "{limit} tags after {last:?}");
        let has_more = limit == 1;
        assert_eq!(listed.next.is_some(), has_more, "{limit} tags after {last:?}");
    }
}

/// A repository without a manifest has no list of tags; one whose tags were deleted has an empty one.
pub async fn tags_of_no_repository(storage: Arc<dyn Storage>) {
    let a = repository("a");
    assert_code(storage.list_tags(&a, page(None, 5)).await, ErrorCode::NameUnknown);
    push_blob(&*storage, &a, &content(1, 3)).await;
    storage
        .put_manifest(&repository("a/b"), manifest("image").with_tag(&tag("1")))
        .await
        .unwrap();
    assert_code(storage.list_tags(&a, page(None, 5)).await, ErrorCode::NameUnknown);
    storage.put_manifest(&a, manifest("image")).await.unwrap();
    assert!(all_tags(&*storage, &a, 5).await.is_empty());
    storage
        .put_manifest(&a, manifest("image").with_tag(&tag("1")))
        .await
        .unwrap();
    storage.delete_tag(&a, &tag("1"), None).await.unwrap();
    assert!(all_tags(&*storage, &a, 5).await.is_empty());
    assert_eq!(all_tags(&*storage, &repository("a/b"), 5).await, ["1"]);
}

/// Repositories are listed in the order of the bytes of their names, in pages, from any place.
pub async fn catalog(storage: Arc<dyn Storage>) {
    assert!(
        storage
            .list_repositories(page(None, 5))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let long = "l".repeat(255);
    // Some stores cannot have a file name for all of such a component.
    let folder = "m".repeat(200);
    let beside =
        ["", "/c", "-b", ".b", "_b", "0", "b", "m", "m/c", "m-b"].map(|end| format!("{folder}{end}"));
    let mut names = vec![
        "a", "a/b", "a-b", "a.b", "a_b", "a__b", "a--b", "a/b/c", "a/b-c", "aa", "ab", "b", "0", "a0",
        "z9/z", &long,
    ];
    names.extend(beside.iter().map(String::as_str));
    for name in &names {
        storage
            .put_manifest(&repository(name), manifest("image"))
            .await
            .unwrap();
    }
    let model: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    for limit in [1, 2, 5, 15, 16, 17, 1000] {
        let mut listed = Vec::new();
        let mut last: Option<String> = None;
        loop {
            let page = storage
                .list_repositories(page(last.as_deref(), limit))
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            listed.extend(page.items.iter().map(ToString::to_string));
            last = page.next;
            if last.is_none() {
                break;
            }
        }
        assert!(listed.iter().eq(&model), "pages of {limit}: {listed:?}");
    }
    for last in [
        "", "a", "a/", "a-", "A", "a/a", "a/b", "a/bb", "aaa", "l", "m", "z9/z", "z9/zz", "~", "a b",
        &folder, &beside[1], &beside[2], &beside[6],
    ] {
        let listed = storage.list_repositories(page(Some(last), 1000)).await.unwrap();
        let items: Vec<String> = listed.items.iter().map(ToString::to_string).collect();
        let expected: Vec<String> = model
            .iter()
            .filter(|name| name.as_str() > last)
            .cloned()
            .collect();
        assert_eq!(items, expected, "after {last}");
    }
    let none = storage.list_repositories(page(None, 0)).await.unwrap();
    assert!(none.items.is_empty() && none.next.is_none());
}
