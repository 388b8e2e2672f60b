use super::*;
use crate::admission::{DeletesDisabled, ReadOnly};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

#[test]
fn a_read_only_registry_refuses_whatever_changes_something() {
    let registry = registry(Tiny::default()).with_admission(Arc::new(ReadOnly));
    let digest = hello();
    let upload = format!("/v2/a/blobs/uploads/{}", id());
    for (method, target, allowed) in [
        ("PUT", "/v2/a/manifests/v1".to_owned(), "GET, HEAD"),
        ("DELETE", "/v2/a/manifests/v1".to_owned(), "GET, HEAD"),
        ("DELETE", format!("/v2/a/blobs/{digest}"), "GET, HEAD"),
        ("DELETE", "/v2/a/_registry/repository".to_owned(), ""),
        ("POST", "/v2/a/blobs/uploads/".to_owned(), ""),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}"), ""),
        ("POST", format!("/v2/a/blobs/uploads/?mount={digest}&from=b"), ""),
        ("PATCH", upload.clone(), "GET"),
        ("PUT", format!("{upload}?digest={digest}"), "GET"),
        ("DELETE", upload, "GET"),
    ] {
        let (response, _) = send(&registry, method, &target, &[], &[]);
        assert_eq!(response.status, 405, "{method} {target}");
        assert_eq!(response.field("allow"), Some(allowed), "{method} {target}");
    }
    assert_eq!(registry.storage.log(), "", "the storage was not asked");
    assert_eq!(get(&registry, &format!("/v2/a/blobs/{digest}")).status, 200);
}

#[test]
fn nothing_is_deleted_where_that_is_switched_off() {
    let digest = hello();
    let targets = [
        ("/v2/a/manifests/v1".to_string(), "delete tag;", "GET, HEAD, PUT"),
        (
            format!("/v2/a/manifests/{digest}"),
            "delete manifest;",
            "GET, HEAD, PUT",
        ),
        (format!("/v2/a/blobs/{digest}"), "delete blob;", "GET, HEAD"),
        ("/v2/a/_registry/repository".to_string(), "delete all;", ""),
    ];
    for (target, log, allow) in targets {
        let registry = registry(Tiny::default());
        assert_eq!(send(&registry, "DELETE", &target, &[], &[]).0.status, 202);
        assert_eq!(registry.storage.log(), log);
        let registry = registry.with_admission(Arc::new(DeletesDisabled));
        let response = send(&registry, "DELETE", &target, &[], &[]).0;
        assert_eq!(
            (
                response.status,
                response.field("allow"),
                registry.storage.log().as_str()
            ),
            (405, Some(allow), "")
        );
    }
    let registry = registry(Tiny::default());
    let (tag, manifest) = (
        "/v2/a/manifests/v1".to_string(),
        format!("/v2/a/manifests/{digest}"),
    );
    let (same, other) = (format!("\"{digest}\""), "\"x:y\"".to_string());
    for (target, condition, status) in [(&manifest, &same, 202), (&manifest, &other, 412)] {
        assert_eq!(
            send(&registry, "DELETE", target, &[("if-match", condition)], &[])
                .0
                .status,
            status
        );
    }
    registry.storage.log();
    for (condition, asked) in [
        ("*", "delete tag;"),
        (&*same, "delete tag if one of 1;"),
        ("\"other\"", "delete tag if one of 0;"),
    ] {
        send(&registry, "DELETE", &tag, &[("if-match", condition)], &[]);
        assert_eq!(registry.storage.log(), asked);
    }
}

/// Notes what it is asked, waits once, and refuses writes with an error.
#[derive(Debug)]
struct Gate {
    name: &'static str,
    log: Arc<Mutex<String>>,
    refusal: Option<Error>,
}

#[async_trait]
impl Admission for Gate {
    async fn admit(&self, principal: &Principal, request: &Request) -> Result<(), Error> {
        let repository = request.repository().map_or("-", RepositoryName::as_str);
        let asked = format!("{} {} {repository};", self.name, principal.name());
        self.log.lock().unwrap().push_str(&asked);
        let mut has_waited = false;
        poll_fn(|context| {
            if core::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        match &self.refusal {
            Some(refusal) if request.is_write() => Err(refusal.clone()),
            _ => Ok(()),
        }
    }
}

/// Returns a registry with two gates, of which the first refuses with `refusal`, and what they are asked.
fn gated(refusal: Option<Error>) -> (Registry<Tiny>, Arc<Mutex<String>>) {
    let log = Arc::new(Mutex::default());
    let gate = |name, refusal| Gate {
        name,
        log: Arc::clone(&log),
        refusal,
    };
    let registry = registry(Tiny::default())
        .with_admission(Arc::new(gate("first", refusal)))
        .with_admission(Arc::new(gate("second", None)));
    (registry, log)
}

/// Sends a request, and polls the answer until it is there.
fn poll_until_answered(registry: &Registry<Tiny>, method: &str, target: &str) -> (Response, usize) {
    let fields: [(&str, &str); 0] = [];
    let request = Request::parse(method, target, fields.as_slice()).unwrap();
    let principal = Principal::new("alice");
    let mut body = pin!(Items::of(&[b"hello"]));
    let mut answer = pin!(registry.handle(&principal, request, body.as_mut()));
    let mut context = Context::from_waker(Waker::noop());
    for polls in 1..10 {
        if let Poll::Ready(response) = answer.as_mut().poll(&mut context) {
            return (response, polls);
        }
    }
    panic!("no answer")
}

#[test]
fn admissions_are_asked_in_their_order_and_may_wait() {
    let (registry, log) = gated(None);
    let (response, polls) = poll_until_answered(&registry, "GET", "/v2/a/manifests/v1");
    assert_eq!((response.status, polls), (200, 3), "each gate waited once");
    assert_eq!(*log.lock().unwrap(), "first alice a;second alice a;");
    log.lock().unwrap().clear();
    assert_eq!(poll_until_answered(&registry, "GET", "/v2/").0.status, 200);
    assert_eq!(*log.lock().unwrap(), "first alice -;second alice -;");
}

#[test]
fn a_refusal_is_the_answer_and_nobody_is_asked_after_it() {
    for (refused, status) in [(ErrorCode::TooManyRequests, 429), (ErrorCode::StorageFull, 507)] {
        let refusal = Error::new(refused, "the quota of a is used up").with_field("Retry-After", "60");
        let (registry, log) = gated(Some(refusal));
        let target = format!("/v2/a/blobs/uploads/?digest={}", hello());
        let (response, _) = poll_until_answered(&registry, "POST", &target);
        assert_eq!((response.status, code(&response)), (status, Some(refused)));
        assert_eq!(response.field("retry-after"), Some("60"));
        assert_eq!(*log.lock().unwrap(), "first alice a;");
        assert_eq!(registry.storage.log(), "", "the storage was not asked");
    }
}

#[test]
fn what_the_authorizer_refuses_is_asked_of_no_admission() {
    let (registry, log) = gated(None);
    let registry = registry.with_authorizer(Arc::new(Refuse(|operation| operation.action == Action::Pull)));
    let (response, polls) = poll_until_answered(&registry, "GET", "/v2/a/manifests/v1");
    assert_eq!((response.status, polls), (403, 1));
    assert_eq!(*log.lock().unwrap(), "");
    assert_eq!(
        poll_until_answered(&registry, "GET", "/v2/a/tags/list").0.status,
        200
    );
    assert_eq!(*log.lock().unwrap(), "first alice a;second alice a;");
}

#[test]
fn without_an_admission_nothing_waits() {
    let registry = registry(Tiny::default());
    assert_eq!(poll_until_answered(&registry, "GET", "/v2/a/manifests/v1").1, 1);
}
