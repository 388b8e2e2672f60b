use super::*;

const NO_FIELDS: &[(&str, &str)] = &[];

proptest! {
    #[test]
    fn a_list_is_what_was_built(
        tags in prop::collection::vec(tag(), 0..5), repositories in prop::collection::vec(repository(), 0..5),
        descriptors in prop::collection::vec(descriptor(), 0..5), query in page(), has_next: bool, repository in repository(),
    ) {
        let page = PageQuery { last: Some("x".into()), ..query };
        let next = Request::ListTags { repository, page, namespace: None };
        let wire = |response: Response| Wire::from(response.with_next_page(Some(&next).filter(|_| has_next)));
        let check = |location: Option<Location>| {
            let parse = |location: Location| Request::parse("GET", location.target().unwrap(), NO_FIELDS).unwrap();
            assert_eq!(location.map(parse).as_ref(), Some(&next).filter(|_| has_next));
        };
        let json = |value: serde_json::Value| Response::json(value.to_string().into());
        let list = wire(json(serde_json::json!({"name": "a", "tags": tags}))).received().tags().unwrap();
        prop_assert_eq!(list.items, tags);
        check(list.next);
        let list = wire(json(serde_json::json!({"repositories": repositories}))).received().repositories().unwrap();
        prop_assert_eq!(list.items, repositories);
        check(list.next);
        let index = referrers_index(&descriptors).unwrap();
        for is_filtered in [false, true] {
            let wire = wire(Response::referrers(index.clone(), is_filtered));
            let list = wire.received().referrers(None).unwrap();
            prop_assert_eq!(&list.items, &descriptors);
            check(list.next);
            // The client filters if the registry did not.
            let list = wire.received().referrers(Some("a/a")).unwrap();
            let is_wanted = |item: &&Descriptor| is_filtered || item.artifact_type.as_deref() == Some("a/a");
            prop_assert_eq!(list.items.iter().collect::<Vec<_>>(), descriptors.iter().filter(is_wanted).collect::<Vec<_>>());
        }
    }
}

fn next(link: &str) -> Option<String> {
    let wire = Wire::new(200, &[("Link", link)], r#"{"tags":[]}"#);
    wire.received().tags().unwrap().next.map(|next| next.to_string())
}

#[test]
fn the_next_page_is_behind_any_form_of_link() {
    for (link, expected) in [
        (
            "</v2/a/tags/list?last=b&n=1>; rel=\"next\"",
            Some("/v2/a/tags/list?last=b&n=1"),
        ),
        ("<https://host/x>;rel=next", Some("https://host/x")),
        ("</x>", Some("/x")),
        ("</x>; REL = \"Next\"", Some("/x")),
        ("</x>; rel=\"prev next\"", Some("/x")),
        (
            "</0>; rel=\"prev\"; title=\"a, <b>\", </1,2>; rel=\"next\"",
            Some("/1,2"),
        ),
        ("</x>; rel=\"prev\"", None),
        ("</x; rel=\"next\"", None),
        ("/x; rel=\"next\"", None),
        ("", None),
    ] {
        assert_eq!(next(link).as_deref(), expected, "{link}");
    }
}

#[test]
fn a_list_may_be_null_and_have_what_is_none() {
    let tags = |body: &str| Wire::new(200, &[], body).received().tags().map(|page| page.items);
    assert_eq!(tags(r#"{"name":"a","tags":null}"#), Ok(vec![]));
    let expected: Tag = "v1".parse().unwrap();
    assert_eq!(
        tags(r#"{"tags":["v1","-","a/b"],"x":{"y":[]}}"#),
        Ok(vec![expected])
    );
    for body in [
        "",
        "{}",
        "[]",
        "<html>",
        r#"{"tags":[1]}"#,
        r#"{"message":"log in"}"#,
    ] {
        assert_eq!(tags(body), Err(Malformed::Body.into()), "{body}");
    }
    let received = Wire::new(200, &[], r#"{"repositories":["a","A"]}"#);
    let expected: RepositoryName = "a".parse().unwrap();
    assert_eq!(received.received().repositories().unwrap().items, [expected]);
    let digest = known();
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"a/b","digest":"{digest}","size":1,"annotations":{{"a":1}},"x":2}},{{"size":2}}]}}"#
    );
    let received = Wire::new(200, &[], &index).received().referrers(None).unwrap();
    assert_eq!(received.items.len(), 1);
    assert_eq!(
        (
            &received.items[0].digest,
            received.items[0].annotations.is_empty()
        ),
        (&digest, true)
    );
}

#[test]
fn what_is_larger_than_a_list_is_not_parsed() {
    let mut wire = Wire::new(200, &[], r#"{"tags":[]}"#);
    wire.body.resize(64 << 20, b' ');
    assert!(wire.received().tags().is_ok());
    wire.body.push(b' ');
    assert_eq!(wire.received().tags(), Err(Malformed::Body.into()));
    let mut wire = Wire::new(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#);
    wire.body.resize((64 << 10) + 1, b' ');
    assert!(refused(wire.received().tags()).errors.is_empty());
}
