use super::*;
use crate::policy::{ImmutableTagRule, ImmutableTags};
use crate::response::ReceivedResponse;
use crate::storage::ManifestChild;

#[test]
fn a_manifest_is_compared_with_its_digest() {
    let pushed = |target: &str, body: &[&'static [u8]]| {
        let registry = registry(Tiny::default());
        let (response, _) = send(
            &registry,
            "PUT",
            target,
            &[("content-type", MediaType::OCI_INDEX)],
            body,
        );
        (response, registry.storage.pushed.lock().unwrap().pop())
    };
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, INDEX);
        let target = format!("/v2/a/manifests/{digest}?tag=x&tag=y&tag=x");
        let (response, manifest) = pushed(&target, &[&INDEX[..9], &INDEX[9..]]);
        assert_eq!(
            (response.status, response.field("docker-content-digest")),
            (201, Some(digest.as_str()))
        );
        let manifest = manifest.unwrap();
        assert_eq!(
            (manifest.manifest.digest, manifest.manifest.bytes),
            (digest, Bytes::from_static(INDEX))
        );
        assert_eq!(manifest.tags, ["x", "y"].map(|tag| tag.parse().unwrap()));
        assert_eq!(manifest.principal, "alice");
        assert!(
            !manifest.allow_missing,
            "children must be there unless the operator says otherwise"
        );
        let (response, manifest) = pushed(&target, &[INDEX, b" "]);
        assert_eq!(
            (code(&response), manifest.is_none()),
            (Some(ErrorCode::DigestInvalid), true)
        );
    }
    let (response, manifest) = pushed("/v2/a/manifests/v1", &[INDEX]);
    let digest = Digest::of(Algorithm::Sha256, INDEX).to_string();
    assert_eq!(
        response.field("location").unwrap(),
        format!("/v2/a/manifests/{digest}")
    );
    assert_eq!(response.field("oci-tag"), None);
    assert_eq!(manifest.unwrap().tags, vec!["v1".parse::<Tag>().unwrap()]);
    assert_eq!(
        code(&pushed("/v2/a/manifests/v1", &[b"blablabla"]).0),
        Some(ErrorCode::ManifestInvalid)
    );
    assert_eq!(
        code(&pushed("/v2/a/manifests/v1", &[]).0),
        Some(ErrorCode::ManifestInvalid)
    );
    assert_eq!(
        code(&pushed("/v2/a/manifests/x:y", &[INDEX]).0),
        Some(ErrorCode::DigestInvalid)
    );
}

#[test]
fn a_manifest_that_names_too_much_is_refused() {
    let mut registry = registry(Tiny::default());
    registry.options.manifest_descriptor_limit = 3;
    for (count, status) in [(0, 201), (3, 201), (4, 400)] {
        let entries = (0..count).flat_map(|number| {
            let digest = Digest::of(Algorithm::Sha256, &[number]);
            // A digest that is named twice counts once.
            let entry = format!("{{\"mediaType\":\"a/b\",\"digest\":\"{digest}\",\"size\":1}}");
            [entry.clone(), entry]
        });
        let entries: Vec<String> = entries.collect();
        let body = format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(","));
        let body: &'static str = Box::leak(body.into_boxed_str());
        let fields = [("content-type", MediaType::OCI_INDEX)];
        let (response, _) = send(
            &registry,
            "PUT",
            "/v2/a/manifests/v1",
            &fields,
            &[body.as_bytes()],
        );
        assert_eq!(response.status, status, "{count}");
        let expected = (status == 400).then_some(ErrorCode::ManifestInvalid);
        assert_eq!(code(&response), expected);
    }
}

#[test]
fn a_manifest_beyond_the_limit_is_not_read() {
    let mut registry = registry(Tiny::default());
    registry.options.manifest_size_limit = INDEX.len();
    let long: Vec<(&str, &str)> = vec![("content-length", "35")];
    for (fields, body, status, rest) in [
        (vec![], &[INDEX][..], 201, 0),
        (vec![], &[INDEX, b"", b""], 201, 0),
        (vec![], &[INDEX, b" ", b"x"], 413, 1),
        (vec![], &[&INDEX[..20], b"123456789012345", b"x"], 413, 1),
        (long, &[INDEX, b" "], 413, 2),
    ] {
        let (response, left) = send(&registry, "PUT", "/v2/a/manifests/v1", &fields, body);
        assert_eq!((response.status, left), (status, rest), "{body:?}");
    }
}

#[test]
fn a_subject_is_answered_and_described() {
    let subject = hello();
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[],"artifactType":"a/b","annotations":{{"k":"v"}},
            "subject":{{"mediaType":"x/y","digest":"{subject}","size":5}}}}"#
    );
    let text: &'static str = String::leak(text);
    let registry = registry(Tiny::default());
    let (response, _) = send(
        &registry,
        "PUT",
        "/v2/a/manifests/v1",
        &[("content-type", MediaType::OCI_INDEX)],
        &[text.as_bytes()],
    );
    assert_eq!(
        (response.status, response.field("oci-subject")),
        (201, Some(subject.as_str()))
    );
    let (of, descriptor) = registry.storage.pushed.lock().unwrap().remove(0).subject.unwrap();
    assert_eq!(
        (of, descriptor.size, descriptor.artifact_type.as_deref()),
        (subject, text.len() as u64, Some("a/b"))
    );
    assert_eq!(descriptor.digest, Digest::of(Algorithm::Sha256, text.as_bytes()));
}

#[test]
fn foreign_layers_are_kept_but_never_required() {
    let layer = |digest: &Digest| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{digest}","size":5}}"#
        )
    };
    let other = Digest::of(Algorithm::Sha256, b"other");
    let config = Digest::of(Algorithm::Sha256, b"{}");
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{config}","size":2}},"layers":[{},{}]}}"#,
        layer(&hello()),
        layer(&other)
    );
    let text: &'static str = String::leak(text);
    for allow in [true, false] {
        let mut registry = registry(Tiny::default());
        registry.options.allow_missing_children = allow;
        let fields = [("content-type", MediaType::OCI_MANIFEST)];
        send(
            &registry,
            "PUT",
            "/v2/a/manifests/v1",
            &fields,
            &[text.as_bytes()],
        );
        let pushed = registry.storage.pushed.lock().unwrap().remove(0);
        let digests = |children: &[ManifestChild]| {
            let digests = children.iter().map(|child| child.digest.clone());
            digests.collect::<Vec<_>>()
        };
        assert_eq!(digests(&pushed.children), core::slice::from_ref(&config));
        assert_eq!(digests(&pushed.optional_children), [hello(), other.clone()]);
        assert_eq!(pushed.allow_missing, allow);
    }
}

#[test]
fn a_repository_is_deleted_unless_a_tag_of_it_has_to_stay() {
    let target = "/v2/a/_registry/repository";
    let registry = registry(Tiny::default()).with_events();
    let (response, _) = send(&registry, "DELETE", target, &[], &[]);
    assert_eq!(response.status, 202);
    let body = text_of(response.body.into_stream());
    let received = ReceivedResponse::new(202, &[("", ""); 0][..], body.as_bytes()).repository_deleted();
    assert_eq!(
        received.map(|deleted| (deleted.tags, deleted.is_gone)),
        Ok((3, true))
    );
    // Something was pushed meanwhile, so it still exists.
    let (response, _) = send(&registry, "DELETE", "/v2/busy/_registry/repository", &[], &[]);
    assert_eq!((response.status, response.event), (202, None));
    let (response, _) = send(&registry, "DELETE", "/v2/none/_registry/repository", &[], &[]);
    assert_eq!(code(&response), Some(ErrorCode::NameUnknown));
    let is_protected =
        |operation: &Operation<'_>| matches!(operation.target, Target::Tag(tag) if tag.as_str() == "v1");
    let registry = registry.with_authorizer(Arc::new(Refuse(is_protected)));
    let (response, _) = send(&registry, "DELETE", target, &[], &[]);
    assert_eq!(
        (response.status, code(&response)),
        (409, Some(ErrorCode::TagConflict))
    );
}

#[test]
fn a_tag_is_restored_as_it_is_pushed() {
    let target = "/v2/a/_registry/tags/restore?tag=v1";
    let registry = registry(Tiny::default()).with_events();
    let (response, _) = send(&registry, "POST", target, &[], &[]);
    assert_eq!(response.status, 201);
    let log = registry.storage.log();
    assert!(log.contains("restore v1"), "{log}");
    let event = response.event.clone().unwrap();
    assert_eq!(event.action, EventAction::Push);
    assert!(matches!(&event.target, EventTarget::Manifest { tags, .. } if tags.len() == 1));
    let digest = Digest::of(Algorithm::Sha256, INDEX);
    assert_eq!(response.field("Docker-Content-Digest"), Some(digest.as_str()));
    let body = text_of(response.body.into_stream());
    let received = ReceivedResponse::new(201, &[("", ""); 0][..], body.as_bytes()).tag_restored();
    assert_eq!(
        received.map(|restored| (restored.digest, restored.manifests)),
        Ok((digest, 2))
    );
    let (response, _) = send(
        &registry,
        "POST",
        "/v2/none/_registry/tags/restore?tag=v1",
        &[],
        &[],
    );
    assert_eq!(code(&response), Some(ErrorCode::ManifestUnknown));
    // Without the right to move it, it is immutable.
    let registry = registry.with_authorizer(Arc::new(Refuse(|operation: &Operation<'_>| {
        operation.action == Action::Overwrite
    })));
    let (response, _) = send(&registry, "POST", target, &[], &[]);
    assert_eq!(code(&response), Some(ErrorCode::TagConflict));
}

#[test]
fn the_history_of_tags_is_told_page_by_page() {
    let registry = registry(Tiny::default());
    let response = get(&registry, "/v2/a/_registry/tags/history?n=2&tag=t");
    let log = registry.storage.log();
    assert!(log.contains("history 2 None"), "{log}");
    let link = response.field("Link").map(str::to_owned);
    assert_eq!(
        link.as_deref(),
        Some("</v2/a/_registry/tags/history?tag=t&n=2&last=v1/2>; rel=\"next\"")
    );
    let body = text_of(response.body.into_stream());
    assert!(!body.contains("alice") && !body.contains("bob"), "{body}");
    let fields = [("Link", link.as_deref().unwrap())];
    let received = ReceivedResponse::new(200, &fields[..], body.as_bytes()).tag_history();
    let received = received.unwrap();
    assert_eq!(received.items[0].tag.as_str(), "t");
    assert!(received.next.is_some());
    let response = get(&registry, "/v2/a/_registry/tags/history?n=0");
    assert_eq!(
        text_of(response.body.into_stream()),
        r#"{"name":"a","values":[]}"#
    );
}

#[test]
fn conditions_and_rights_become_a_condition_and_immutable_tags() {
    let allowed: fn(&Operation<'_>) -> bool = |_| false;
    let refused: fn(&Operation<'_>) -> bool = |operation| operation.action == Action::Overwrite;
    let by_digest = format!("/v2/a/manifests/{}", Digest::of(Algorithm::Sha256, INDEX));
    let by_digest_with_tag = format!("{by_digest}?tag=x");
    let matches = format!("\"{}\"", hello());
    let some = TagCondition::Matches(vec![hello()]);
    let list = format!("/v2/a/manifests/sha256-{}", "ab".repeat(32));
    let cases = [
        (
            "/v2/a/manifests/v1",
            vec![],
            allowed,
            false,
            Ok((TagCondition::Any, false)),
        ),
        (
            "/v2/a/manifests/v1",
            vec![],
            allowed,
            true,
            Ok((TagCondition::Any, true)),
        ),
        (
            "/v2/a/manifests/v1",
            vec![],
            refused,
            false,
            Ok((TagCondition::Any, true)),
        ),
        (
            &by_digest_with_tag,
            vec![],
            refused,
            false,
            Ok((TagCondition::Any, true)),
        ),
        (&by_digest, vec![], refused, true, Ok((TagCondition::Any, false))),
        (
            "/v2/a/manifests/v1",
            vec![("if-none-match", "*")],
            allowed,
            false,
            Ok((TagCondition::Absent, false)),
        ),
        (
            "/v2/a/manifests/v1",
            vec![("if-none-match", "*")],
            refused,
            true,
            Ok((TagCondition::Absent, true)),
        ),
        (
            "/v2/a/manifests/v1",
            vec![("if-match", &matches)],
            allowed,
            false,
            Ok((some.clone(), false)),
        ),
        (
            "/v2/a/manifests/v1",
            vec![("if-match", &matches)],
            refused,
            false,
            Err(ErrorCode::Denied),
        ),
        (
            "/v2/a/manifests/v1",
            vec![("if-match", &matches)],
            allowed,
            true,
            Err(ErrorCode::TagConflict),
        ),
        // Whether it only gains entries is known when it is written.
        (
            &list,
            vec![("if-match", &matches)],
            refused,
            true,
            Ok((some, true)),
        ),
        (
            "/v2/a/manifests/v1",
            vec![("if-match", "*")],
            allowed,
            false,
            Err(ErrorCode::Unsupported),
        ),
        (
            "/v2/a/manifests/v1",
            vec![("if-none-match", &matches)],
            allowed,
            false,
            Err(ErrorCode::Unsupported),
        ),
        (
            &by_digest,
            vec![("if-none-match", "*")],
            allowed,
            false,
            Err(ErrorCode::Unsupported),
        ),
    ];
    for (target, fields, rule, immutable, expected) in cases {
        let mut authorizer: Arc<dyn Authorizer> = Arc::new(Refuse(rule));
        if immutable {
            let all = ImmutableTagRule {
                repositories: vec!["**".parse().unwrap()],
                tags: vec!["*".parse().unwrap()],
            };
            authorizer = Arc::new(ImmutableTags::new(vec![all], authorizer));
        }
        let registry = registry(Tiny::default()).with_authorizer(authorizer);
        let (response, rest) = send(&registry, "PUT", target, &fields, &[INDEX]);
        let pushed = registry.storage.pushed.lock().unwrap().pop();
        match expected {
            Ok((condition, is_immutable)) => {
                let pushed = pushed.unwrap();
                let immutable_tags = if is_immutable { pushed.tags } else { vec![] };
                assert_eq!(
                    (pushed.condition, pushed.immutable_tags),
                    (condition, immutable_tags),
                    "{target} {fields:?}"
                );
            }
            Err(expected) => {
                assert_eq!(
                    (code(&response), pushed.is_none(), rest),
                    (Some(expected), true, 1),
                    "{target} {fields:?}"
                );
            }
        }
    }
}

#[test]
fn an_image_of_a_list_is_found_by_its_platform() {
    use crate::manifest::default_image;
    let digest = |seed: &[u8]| Digest::of(Algorithm::Sha256, seed);
    let entry = |seed: &[u8], platform: &str| {
        let digest = digest(seed);
        format!("{{\"mediaType\":\"a/b\",\"size\":1,\"digest\":\"{digest}\"{platform}}}")
    };
    let amd64 = r#","platform":{"architecture":"amd64","os":"linux","os.version":"1"}"#;
    let windows = r#","platform":{"architecture":"amd64","os":"windows"}"#;
    let escaped = r#","platform":{"os":"linu\u0078","architecture":"am\u006464"}"#;
    for (entries, expected) in [
        (vec![], None),
        (vec![entry(b"a", ""), entry(b"b", windows)], None),
        (
            vec![
                entry(b"a", windows),
                entry(b"b", r#","platform":null"#),
                entry(b"c", amd64),
                entry(b"d", amd64),
            ],
            Some(digest(b"c")),
        ),
        (vec![entry(b"a", escaped)], Some(digest(b"a"))),
        (vec![entry(b"a", r#","platform":7"#), entry(b"b", amd64)], None),
    ] {
        let list = format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(","));
        assert_eq!(default_image(list.as_bytes()), expected, "{list}");
    }
    assert_eq!(default_image(b"{}"), None);
    assert_eq!(default_image(b"no JSON"), None);
}
