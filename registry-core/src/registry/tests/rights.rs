use super::*;

/// Grants one action.
#[derive(Debug)]
struct Only(Action);

impl Authorizer for Only {
    fn authorize(&self, _: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        if operation.action == self.0 {
            Ok(())
        } else {
            Err(ErrorCode::Denied.into())
        }
    }
}

#[test]
fn what_is_refused_is_neither_read_nor_done() {
    use Action::{Connect, Delete, List, Overwrite, Pull, Push};
    let digest = hello();
    let upload = format!("/v2/a/blobs/uploads/{}", id());
    // Method, target, and the only action whose refusal must stop it.
    let table = [
        ("GET", "/v2/".to_string(), Connect),
        ("GET", "/v2/_catalog".into(), List),
        ("GET", "/v2/a/tags/list".into(), List),
        ("GET", format!("/v2/a/referrers/{digest}"), List),
        ("GET", format!("/v2/a/blobs/{digest}"), Pull),
        ("HEAD", format!("/v2/a/blobs/{digest}"), Pull),
        ("GET", "/v2/a/manifests/v1".into(), Pull),
        ("HEAD", "/v2/a/manifests/v1".into(), Pull),
        ("PUT", "/v2/a/manifests/v1".into(), Push),
        ("POST", "/v2/a/blobs/uploads/".into(), Push),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}"), Push),
        ("POST", format!("/v2/a/blobs/uploads/?mount={digest}"), Push),
        ("PATCH", upload.clone(), Push),
        ("PUT", format!("{upload}?digest={digest}"), Push),
        ("GET", upload.clone(), Push),
        ("DELETE", upload, Push),
        ("DELETE", "/v2/a/manifests/v1".into(), Delete),
        ("DELETE", format!("/v2/a/manifests/{digest}"), Delete),
        ("DELETE", format!("/v2/a/blobs/{digest}"), Delete),
        ("DELETE", "/v2/a/_registry/repository".into(), Delete),
    ];
    for (method, target, needed) in &table {
        for granted in [Connect, Pull, Push, Overwrite, Delete, List] {
            let registry = registry(Tiny {
                upload: b"hello".to_vec().into(),
                ..Tiny::default()
            })
            .with_authorizer(Arc::new(Only(granted)));
            let (response, rest) = send(&registry, method, target, &[], &[b""]);
            let is_denied = code(&response) == Some(ErrorCode::Denied);
            assert_eq!(
                is_denied,
                granted != *needed,
                "{method} {target} with {granted:?}"
            );
            if is_denied {
                assert_eq!(
                    (registry.storage.log().as_str(), rest),
                    ("", 1),
                    "{method} {target}"
                );
            }
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    let registry = registry(Tiny::default());
    for (target, log) in [
        ("/v2/a/manifests/v1".to_string(), "stat;get;"),
        (format!("/v2/a/blobs/{}", hello()), "stat;"),
    ] {
        let get = get(&registry, &target);
        registry.storage.log();
        let (head, _) = send(&registry, "HEAD", &target, &[], &[]);
        assert_eq!((head.status, &head.fields), (200, &get.fields));
        assert_eq!(
            (head.body.length(), registry.storage.log().as_str()),
            (Some(0), log)
        );
    }
}

/// The storage may have kept the answer for a client that pulls, which must decide nothing else.
#[test]
fn only_a_get_reads_as_a_client_that_pulls() {
    let manifest = format!("/v2/a/manifests/{}", Digest::of(Algorithm::Sha256, INDEX));
    let blob = format!("/v2/a/blobs/{}", hello());
    for (method, target, pulls) in [
        ("GET", "/v2/a/manifests/v1", true),
        ("GET", &manifest, true),
        ("GET", &blob, true),
        ("HEAD", "/v2/a/manifests/v1", false),
        ("HEAD", &blob, false),
        ("DELETE", "/v2/a/manifests/v1", false),
        ("DELETE", &manifest, false),
        ("DELETE", &blob, false),
        ("POST", "/v2/a/_registry/tags/restore?tag=v1", false),
    ] {
        let registry = registry(Tiny::default()).with_events();
        send(&registry, method, target, &[], &[]);
        let log = registry.storage.log();
        assert!(!log.is_empty());
        assert_eq!(log.contains("pull"), pulls, "{method} {target}: {log}");
    }
}

#[test]
fn each_further_tag_needs_the_right_to_push_it() {
    let is_protected = |operation: &Operation<'_>| {
        operation.action == Action::Push
            && matches!(operation.target, Target::Tag(tag) if tag.as_str() == "protected")
    };
    let registry = registry(Tiny::default()).with_authorizer(Arc::new(Refuse(is_protected)));
    let digest = Digest::of(Algorithm::Sha256, INDEX);
    for (query, status, rest) in [("tag=free", 201, 0), ("tag=free&tag=protected", 403, 1)] {
        let target = format!("/v2/a/manifests/{digest}?{query}");
        let (response, left) = send(&registry, "PUT", &target, &[], &[INDEX]);
        assert_eq!((response.status, left), (status, rest), "{query}");
    }
    assert_eq!(registry.storage.pushed.lock().unwrap().len(), 1);
}
