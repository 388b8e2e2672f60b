use super::*;
use alloc::string::ToString;

/// Returns a registry that acts for docker.io.
fn mirror() -> Registry<Tiny> {
    registry(Tiny {
        names: ["a", "b"].map(String::from).into(),
        largest_page: 1,
        ..Tiny::default()
    })
    .with_namespaces(Arc::new(|namespace, repository| {
        (namespace.as_str() == "docker.io").then(|| namespace.full_name(repository))?
    }))
}

fn reads() -> [(&'static str, String); 6] {
    let digest = hello();
    [
        ("GET", "/v2/library/a/manifests/v1".to_owned()),
        ("HEAD", "/v2/library/a/manifests/v1".to_owned()),
        ("GET", format!("/v2/library/a/blobs/{digest}")),
        ("HEAD", format!("/v2/library/a/blobs/{digest}")),
        ("GET", "/v2/library/a/tags/list?n=1".to_owned()),
        ("GET", format!("/v2/library/a/referrers/{digest}?n=1")),
    ]
}

fn with_namespace(target: &str, namespace: &str) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}ns={namespace}")
}

/// Notes the names of repositories.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, repository: Option<&RepositoryName>) {
        self.0.lock().unwrap().extend(repository.map(ToString::to_string));
    }

    fn take(&self) -> Vec<String> {
        core::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Authorizer for Seen {
    fn authorize(&self, _: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        self.note(operation.repository);
        Ok(())
    }
}

#[async_trait]
impl Admission for Seen {
    async fn admit(&self, _: &Principal, request: &Request) -> Result<(), Error> {
        self.note(request.repository());
        assert_eq!(request.namespace(), None, "there is nothing to resolve any more");
        Ok(())
    }
}

#[test]
fn a_namespace_becomes_part_of_the_name_before_any_rule_sees_it() {
    let seen = Seen::default();
    let registry = mirror()
        .with_events()
        .with_authorizer(Arc::new(seen.clone()))
        .with_admission(Arc::new(seen.clone()));
    for (method, target) in reads() {
        let (response, _) = send(&registry, method, &with_namespace(&target, "docker.io"), &[], &[]);
        assert_eq!(response.status, 200, "{method} {target}");
        assert_eq!(
            response.field("oci-namespace"),
            Some("docker.io"),
            "{method} {target}"
        );
        assert_eq!(seen.take(), ["docker.io/library/a"; 2], "{method} {target}");
        if let Some(event) = response.event {
            assert_eq!(event.repository.as_str(), "docker.io/library/a");
        }
        // The path that says the same names the same repository, and a client that repeats `ns` on it too.
        let full = target.replace("/library/", "/docker.io/library/");
        assert_eq!(
            send(&registry, method, &full, &[], &[]).0.field("oci-namespace"),
            None
        );
        assert_eq!(seen.take(), ["docker.io/library/a"; 2], "{full}");
        send(&registry, method, &with_namespace(&full, "docker.io"), &[], &[]);
        assert_eq!(seen.take(), ["docker.io/library/a"; 2], "{full}");
    }
    let event = get(&registry, "/v2/library/a/manifests/v1?ns=docker.io")
        .event
        .unwrap();
    assert_eq!(event.repository.as_str(), "docker.io/library/a");
}

#[test]
fn a_namespace_that_is_not_resolved_is_ignored() {
    for (registry, namespace) in [(registry(Tiny::default()), "docker.io"), (mirror(), "ghcr.io")] {
        let seen = Seen::default();
        let registry = registry.with_authorizer(Arc::new(seen.clone()));
        for (method, target) in reads() {
            let (response, _) = send(&registry, method, &with_namespace(&target, namespace), &[], &[]);
            assert_eq!((response.status, response.field("oci-namespace")), (200, None));
            assert_eq!(seen.take(), ["library/a"]);
        }
    }
}

#[test]
fn a_refusal_repeats_the_namespace_and_a_push_has_none() {
    let registry = mirror().with_authorizer(Arc::new(Refuse(|operation| {
        operation
            .repository
            .is_some_and(|name| name.as_str() == "docker.io/b")
    })));
    let response = get(&registry, "/v2/b/manifests/v1?ns=docker.io");
    assert_eq!(
        (response.status, response.field("oci-namespace")),
        (403, Some("docker.io"))
    );
    let (response, _) = send(&registry, "POST", "/v2/b/blobs/uploads/?ns=docker.io", &[], &[]);
    assert_eq!((response.status, response.field("oci-namespace")), (202, None));
    assert!(
        response
            .field("location")
            .unwrap()
            .starts_with("/v2/b/blobs/uploads/")
    );
}

#[test]
fn a_link_leads_to_the_next_page_of_the_same_repository() {
    let response = get(&mirror(), "/v2/library/a/tags/list?n=1&ns=docker.io");
    let link = response.field("link").unwrap();
    assert_eq!(
        link,
        "</v2/docker.io/library/a/tags/list?n=1&last=a>; rel=\"next\""
    );
}

#[test]
fn a_resolved_request_is_not_resolved_again() {
    let registry = mirror();
    let fields: [(&str, &str); 0] = [];
    let request = Request::parse("GET", "/v2/a/manifests/v1?ns=docker.io", fields.as_slice()).unwrap();
    let resolved = registry.resolve(request);
    assert_eq!(
        resolved.namespace().map(ToString::to_string).as_deref(),
        Some("docker.io")
    );
    let again = registry.resolve(resolved.request().clone());
    assert_eq!(again.request(), resolved.request());
    assert_eq!(again.namespace(), None);
}
