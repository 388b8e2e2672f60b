use super::*;

fn items(response: Response, key: &str) -> Vec<String> {
    let document: serde_json::Value =
        serde_json::from_slice(&read_all(response.body.into_stream()).unwrap()).unwrap();
    document[key]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap().to_string())
        .collect()
}

fn target_of(link: &str) -> &str {
    link.strip_prefix('<')
        .unwrap()
        .strip_suffix(">; rel=\"next\"")
        .unwrap()
}

#[test]
fn a_list_has_the_form_that_the_specification_says() {
    let empty = registry(Tiny::default());
    assert_eq!(
        text_of(get(&empty, "/v2/a/b/tags/list").body.into_stream()),
        r#"{"name":"a/b","tags":[]}"#
    );
    assert_eq!(
        text_of(get(&empty, "/v2/_catalog").body.into_stream()),
        r#"{"repositories":[]}"#
    );
    let some = registry(Tiny {
        names: vec!["x".into(), "y".into()],
        largest_page: 1,
        ..Tiny::default()
    });
    let response = get(&some, "/v2/a/tags/list");
    assert!(matches!(response.body, crate::response::ResponseBody::Stream(_)));
    assert_eq!(
        text_of(response.body.into_stream()),
        r#"{"name":"a","tags":["x","y"]}"#
    );
    let none = get(&some, "/v2/a/tags/list?n=0");
    assert_eq!(none.field("link"), None);
    assert_eq!(items(none, "tags").len(), 0);
    for query in ["", "?n=0", "?n=5"] {
        assert_eq!(
            code(&get(&some, &format!("/v2/none/tags/list{query}"))),
            Some(ErrorCode::NameUnknown)
        );
    }
    let huge = get(&some, "/v2/a/tags/list?n=99999999999999999999");
    assert_eq!(huge.field("link"), None);
    assert_eq!(items(huge, "tags").len(), 2);
}

#[test]
fn a_catalog_has_what_its_reader_may_see() {
    let names: Vec<String> = (0..40)
        .map(|at| format!("{}{at:02}", if at % 10 == 7 { "seen" } else { "hidden" }))
        .collect();
    let hide = |operation: &Operation<'_>| {
        operation
            .repository
            .is_some_and(|name| name.as_str().starts_with("hidden"))
    };
    let registry = registry(Tiny {
        names,
        largest_page: 5,
        ..Tiny::default()
    })
    .with_authorizer(Arc::new(Refuse(hide)));
    let whole = get(&registry, "/v2/_catalog");
    let expected = ["seen07", "seen17", "seen27", "seen37"];
    assert_eq!(items(whole, "repositories"), expected);
    // A page continues after what it shows, although the storage's ends later: a link names nothing that is hidden.
    let (mut target, mut seen) = ("/v2/_catalog?n=2".to_string(), vec![]);
    for page in 0.. {
        assert!(page < 10, "no progress");
        let response = get(&registry, &target);
        let link = response.field("link").map(|link| target_of(link).to_string());
        let listed = items(response, "repositories");
        assert!(listed.len() <= 2);
        if let (Some(link), Some(last)) = (&link, listed.last()) {
            assert_eq!(*link, format!("/v2/_catalog?n=2&last={last}"));
        }
        assert!(link.is_none() || !listed.is_empty());
        seen.push(listed);
        match link {
            Some(link) => target = link,
            None => break,
        }
    }
    assert_eq!(seen.concat(), expected);
}

/// Returns a catalog of which the client may see one repository near the end, behind many that it may not.
fn hidden(key: Option<CatalogKey>) -> Registry<Tiny> {
    let mut names: Vec<String> = (0..400).map(|at| format!("hidden{at:03}")).collect();
    names.push("seen".into());
    let mut registry = registry(Tiny {
        names,
        largest_page: 3,
        ..Tiny::default()
    });
    registry.options.catalog_key = key;
    registry.with_authorizer(Arc::new(Refuse(|operation| {
        operation.repository.is_some_and(|name| name.as_str() != "seen")
    })))
}

#[test]
fn a_page_of_the_catalog_reads_a_few_pages_of_repositories_that_may_not_be_seen() {
    let registry = hidden(Some(CatalogKey::new(b"secret")));
    for query in ["", "?n=5", "?n=1000"] {
        let (mut target, mut seen, mut pages) = (format!("/v2/_catalog{query}"), vec![], 0);
        loop {
            registry.storage().log();
            let response = get(&registry, &target);
            let asked = registry.storage().log().matches("repositories").count();
            assert!(
                (1..=10).contains(&asked),
                "{asked} pages of the storage were read"
            );
            let link = response.field("link").map(|link| target_of(link).to_string());
            seen.extend(items(response, "repositories"));
            pages += 1;
            match link {
                Some(link) => {
                    assert!(!link.contains("hidden"), "{link}");
                    target = link;
                }
                None => break,
            }
        }
        assert_eq!((seen, pages), (vec!["seen".to_string()], 14));
    }
}

#[test]
fn a_place_that_another_key_hid_is_refused() {
    let link = get(&hidden(Some(CatalogKey::new(b"one"))), "/v2/_catalog?n=5");
    let target = target_of(link.field("link").unwrap()).to_string();
    for key in [None, Some(CatalogKey::new(b"other"))] {
        assert_eq!(code(&get(&hidden(key), &target)), Some(ErrorCode::Unsupported));
    }
}

#[test]
fn without_a_key_the_catalog_is_read_on_until_there_is_something_to_show() {
    let response = get(&hidden(None), "/v2/_catalog?n=5");
    assert_eq!(response.field("link"), None);
    assert_eq!(items(response, "repositories"), ["seen"]);
}

#[test]
fn a_page_of_thousands_comes_whole_where_the_operator_allows_it_and_is_never_in_memory_whole() {
    let names: Vec<String> = (0..7000).map(|at| format!("name{at:04}")).collect();
    let mut registry = registry(Tiny {
        names: names.clone(),
        largest_page: 1000,
        ..Tiny::default()
    });
    registry.options.tags_page_limit = 2500;
    registry.options.catalog_page_limit = 2500;
    for (target, key) in [("/v2/a/tags/list", "tags"), ("/v2/_catalog", "repositories")] {
        for (query, expected, link) in [
            ("?n=2500", &names[..2500], Some("?n=2500&last=name2499")),
            ("?n=9000", &names[..2500], Some("?n=9000&last=name2499")),
            (
                "?n=2500&last=name2499",
                &names[2500..5000],
                Some("?n=2500&last=name4999"),
            ),
            ("?n=2500&last=name4999", &names[5000..], None),
            ("?n=1001&last=name5998", &names[5999..], None),
            (
                "?n=1001&last=name5997",
                &names[5998..6999],
                Some("?n=1001&last=name6998"),
            ),
            ("", &names[..], None),
        ] {
            let response = get(&registry, &format!("{target}{query}"));
            let link = link.map(|link| format!("{target}{link}"));
            assert_eq!(
                response.field("link").map(target_of),
                link.as_deref(),
                "{target}{query}"
            );
            let mut stream = response.body.into_stream();
            let mut document = Vec::new();
            while let Some(piece) = now(core::future::poll_fn(|context| {
                stream.as_mut().poll_next(context)
            })) {
                let piece = piece.unwrap();
                assert!(piece.len() < 16 * 1024, "{} bytes at once", piece.len());
                document.extend_from_slice(&piece);
            }
            let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
            assert_eq!(document[key], serde_json::json!(expected), "{target}{query}");
        }
    }
    // A client that does not ask for a number gets at least what the options allow.
    registry.options.catalog_page_limit = 20_000;
    assert_eq!(items(get(&registry, "/v2/_catalog"), "repositories").len(), 7000);
}

fn referrer(at: usize, size: usize, kind: &str) -> Descriptor {
    Descriptor {
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        digest: format!("sha256:{at:064x}").parse().unwrap(),
        size: 1,
        artifact_type: Some(kind.into()),
        annotations: Annotations::from_json(format!(r#"{{"k":"{}"}}"#, "v".repeat(size)).into()),
    }
}

/// Follows the links of a list of referrers; returns what was listed, and the number of pages.
fn all_referrers(registry: &Registry<Tiny>, query: &str) -> (Vec<String>, usize) {
    let mut target = format!("/v2/none/referrers/{}{query}", hello());
    let mut digests = vec![];
    for pages in 1.. {
        let response = get(registry, &target);
        assert_eq!(
            (response.status, response.field("content-type")),
            (200, Some(MediaType::OCI_INDEX))
        );
        assert_eq!(
            response.field("oci-filters-applied"),
            target.contains("artifactType").then_some("artifactType")
        );
        let link = response.field("link").map(|link| target_of(link).to_string());
        let bytes = read_all(response.body.into_stream()).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        digests.extend(
            index["manifests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["digest"].as_str().unwrap().to_string()),
        );
        match link {
            Some(link) => target = link,
            None => return (digests, pages),
        }
    }
    unreachable!("the pages never end");
}

#[test]
fn referrers_are_listed_even_where_there_is_nothing() {
    let registry = registry(Tiny::default());
    assert_eq!(all_referrers(&registry, "").0.len(), 0);
    let body = text_of(
        get(&registry, &format!("/v2/a/referrers/{}", hello()))
            .body
            .into_stream(),
    );
    assert_eq!(
        body,
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
    );
}

proptest! {
    #[test]
    fn referrers_come_once_each_though_the_pages_of_the_storage_are_short(
        sizes in prop::collection::vec(0..600_usize, 0..60),
        largest_page in 1..50_usize,
        filter: bool,
        limit in prop::option::of(1..30_usize),
    ) {
        let kinds = ["a/b+c", "x/y"];
        let referrers: Vec<_> = sizes.iter().enumerate().map(|(at, size)| referrer(at, *size, kinds[at % 2])).collect();
        let expected: Vec<String> = referrers
            .iter()
            .filter(|one| !filter || one.artifact_type.as_deref() == Some(kinds[0]))
            .map(|one| one.digest.to_string())
            .collect();
        let mut registry = registry(Tiny { referrers, largest_page, ..Tiny::default() });
        registry.options.referrers_size_limit = 2000;
        let mut query: Vec<String> = limit.iter().map(|limit| format!("n={limit}")).collect();
        query.extend(filter.then(|| "artifactType=a/b%2Bc".to_string()));
        let (listed, pages) = all_referrers(&registry, &format!("?{}", query.join("&")));
        prop_assert_eq!(listed, expected);
        // The storage is asked once for each page, whatever it has.
        let asked = format!("referrers {} 2000;", limit.unwrap_or(10_000));
        prop_assert_eq!(registry.storage().log(), asked.repeat(pages));
    }

    #[test]
    fn pages_join_to_the_whole_list(
        names in prop::collection::btree_set("[a-z0-9]{1,3}", 0..40),
        largest_page in 1..50_usize,
        limit in 1..50_usize,
        last in prop::option::of("[a-z0-9]{1,3}"),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let expected: Vec<String> = names.iter().filter(|name| last.as_ref().is_none_or(|last| *name > last)).cloned().collect();
        let registry = registry(Tiny { names, largest_page, ..Tiny::default() });
        for (path, key) in [("/v2/_catalog", "repositories"), ("/v2/a/tags/list", "tags")] {
            let page = |limit: Option<usize>| PageQuery { limit: limit.map(|limit| limit as u64), last: last.clone() };
            let request = |page| match key {
                "tags" => Request::ListTags { repository: "a".parse().unwrap(), page, namespace: None },
                _ => Request::ListRepositories { page },
            };
            if key == "tags" || largest_page > 3 {
                let whole = get(&registry, &request(page(None)).build().target);
                prop_assert_eq!(whole.field("link"), None);
                prop_assert_eq!(items(whole, key), expected.clone());
            }
            let mut target = request(page(Some(limit))).build().target;
            let mut listed = vec![];
            loop {
                prop_assert!(target.starts_with(path));
                let response = get(&registry, &target);
                let link = response.field("link").map(|link| target_of(link).to_string());
                let items = items(response, key);
                // Full, unless it is the last page or the storage's pages were too short.
                prop_assert!(items.len() <= limit && (link.is_none() || items.len() == limit.min(10 * largest_page)));
                listed.extend(items);
                match link {
                    Some(link) => target = link,
                    None => break,
                }
            }
            prop_assert_eq!(&listed, &expected);
        }
    }
}
