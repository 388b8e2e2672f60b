use super::*;

/// Returns the event of a request with events enabled: action, repository, target.
fn event(method: &str, target: &str, body: &[&'static [u8]]) -> Option<Event> {
    let storage = Tiny {
        sources: vec!["a"],
        ..Tiny::default()
    };
    let registry = registry(storage).with_events();
    let fields: &[(&str, &str)] = match method {
        "PUT" if target.contains("manifests") => &[("content-type", MediaType::OCI_INDEX)],
        _ => &[],
    };
    send(&registry, method, target, fields, body)
        .0
        .event
        .map(|event| *event)
}

fn index() -> Manifest {
    Manifest {
        digest: Digest::of(Algorithm::Sha256, INDEX),
        media_type: MediaType::OCI_INDEX.parse().unwrap(),
        bytes: Bytes::from_static(INDEX),
    }
}

#[test]
fn what_was_done_is_told() {
    let blob = |size| EventTarget::Blob {
        digest: hello(),
        size,
    };
    let manifest = |tags: &[&str]| EventTarget::Manifest {
        manifest: index(),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
    };
    let digest = hello();
    let of_index = index().digest;
    let from = |name: &str| EventAction::Mount {
        from: name.parse().unwrap(),
    };
    let hello: &[&[u8]] = &[b"hel", b"lo"];
    for (method, target, body, action, expected) in [
        (
            "GET",
            format!("/v2/b/blobs/{digest}"),
            &[][..],
            EventAction::Pull,
            blob(Some(5)),
        ),
        (
            "HEAD",
            format!("/v2/b/blobs/{digest}"),
            &[],
            EventAction::Pull,
            blob(Some(5)),
        ),
        (
            "DELETE",
            format!("/v2/b/blobs/{digest}"),
            &[],
            EventAction::Delete,
            blob(None),
        ),
        (
            "POST",
            format!("/v2/b/blobs/uploads/?digest={digest}"),
            hello,
            EventAction::Push,
            blob(Some(5)),
        ),
        (
            "PUT",
            format!("/v2/b/blobs/uploads/{}?digest={digest}", id()),
            hello,
            EventAction::Push,
            blob(Some(5)),
        ),
        (
            "POST",
            format!("/v2/b/blobs/uploads/?mount={digest}&from=a"),
            &[],
            from("a"),
            blob(Some(5)),
        ),
        (
            "POST",
            format!("/v2/b/blobs/uploads/?mount={digest}"),
            &[],
            from("a"),
            blob(Some(5)),
        ),
        (
            "GET",
            "/v2/b/manifests/v1".into(),
            &[],
            EventAction::Pull,
            manifest(&["v1"]),
        ),
        (
            "HEAD",
            format!("/v2/b/manifests/{of_index}"),
            &[],
            EventAction::Pull,
            manifest(&[]),
        ),
        (
            "PUT",
            "/v2/b/manifests/v1".into(),
            &[INDEX],
            EventAction::Push,
            manifest(&["v1"]),
        ),
        (
            "PUT",
            format!("/v2/b/manifests/{of_index}?tag=x&tag=y"),
            &[INDEX],
            EventAction::Push,
            manifest(&["x", "y"]),
        ),
        (
            "DELETE",
            "/v2/b/manifests/v1".into(),
            &[],
            EventAction::Delete,
            EventTarget::DeletedTag("v1".parse().unwrap()),
        ),
        (
            "DELETE",
            format!("/v2/b/manifests/{of_index}"),
            &[],
            EventAction::Delete,
            EventTarget::DeletedManifest(of_index),
        ),
        (
            "DELETE",
            "/v2/b/_registry/repository".into(),
            &[],
            EventAction::Delete,
            EventTarget::DeletedRepository,
        ),
    ] {
        let event = event(method, &target, body).unwrap_or_else(|| panic!("{method} {target}"));
        assert_eq!(
            (&event.action, &event.target),
            (&action, &expected),
            "{method} {target}"
        );
        assert_eq!(event.repository.as_str(), "b");
    }
}

#[test]
fn what_did_not_happen_is_not_told() {
    let digest = hello();
    let cases: [(&str, String, &[&[u8]]); 7] = [
        ("GET", "/v2/".to_owned(), &[]),
        ("GET", "/v2/b/tags/list".to_owned(), &[]),
        ("POST", "/v2/b/blobs/uploads/".to_owned(), &[]),
        // The source does not have it: a session is started instead.
        ("POST", format!("/v2/b/blobs/uploads/?mount={digest}&from=c"), &[]),
        (
            "POST",
            format!("/v2/b/blobs/uploads/?digest={digest}"),
            &[b"other"],
        ),
        ("PATCH", format!("/v2/b/blobs/uploads/{}", id()), &[b"hello"]),
        ("PUT", "/v2/b/manifests/v1".to_owned(), &[b"no manifest"]),
    ];
    for (method, target, body) in cases {
        assert_eq!(event(method, &target, body), None, "{method} {target}");
    }
    let registry = registry(Tiny::default()).with_events();
    let known = format!("\"{}\"", index().digest);
    let (response, _) = send(
        &registry,
        "GET",
        "/v2/b/manifests/v1",
        &[("if-none-match", &known)],
        &[],
    );
    assert_eq!((response.status, response.event), (304, None));
}

#[test]
fn nothing_is_told_or_looked_up_where_nobody_asked() {
    let storage = Tiny {
        sources: vec!["a"],
        ..Tiny::default()
    };
    let registry = registry(storage);
    let target = format!("/v2/b/blobs/uploads/?mount={}&from=a", hello());
    let (response, _) = send(&registry, "POST", &target, &[], &[]);
    assert_eq!((response.status, response.event), (201, None));
    assert_eq!(registry.storage.log(), "mount a b;", "its size is of no interest");
}
