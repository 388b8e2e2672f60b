use super::*;
use crate::response::{ReceivedResponse, ResponseError};
use core::time::Duration;

const URL: &str = "https://bucket.example/bytes/1?X-Amz-Signature=canary";

/// Returns a registry that sends clients to [`URL`] for blobs of this size and more.
fn redirecting(from_size: u64) -> Registry<Tiny> {
    let mut registry = registry(Tiny {
        signed_url: SignedUrl::new(URL, Duration::from_mins(20)),
        ..Tiny::default()
    });
    registry.options.redirect_from_size = Some(from_size);
    registry
}

fn blob(registry: &Registry<Tiny>, method: &str, fields: &[(&str, &str)]) -> Response {
    let target = format!("/v2/a/blobs/{}", hello());
    send(registry, method, &target, fields, &[]).0
}

#[test]
fn a_client_is_sent_to_where_it_can_read_a_blob() {
    let registry = redirecting(5);
    for fields in [&[][..], &[("range", "bytes=2-")], &[("range", "bytes=1-1")]] {
        let response = blob(&registry, "GET", fields);
        let digest = hello().to_string();
        assert_eq!(
            response.fields[2..],
            [
                ("Content-Length", "0".to_owned()),
                ("Location", URL.to_owned()),
                ("Docker-Content-Digest", digest),
                ("Cache-Control", "private, max-age=300".to_owned()),
            ]
        );
        assert_eq!((response.status, response.body.length()), (307, Some(0)));
        assert!(!format!("{response:?}").contains("canary"), "{response:?}");
        let received = ReceivedResponse::new(307, &response.fields[..], b"").blob(&hello());
        let Err(ResponseError::Redirect {
            location,
            keeps_method: true,
        }) = received
        else {
            panic!("{received:?}")
        };
        assert_eq!(location.as_str(), URL);
    }
}

#[test]
fn what_the_url_does_not_answer_as_well_the_registry_answers() {
    let registry = redirecting(5);
    let tag = format!("\"{}\"", hello());
    for (method, fields, status) in [
        ("HEAD", &[][..], 200),
        // S3 sends all of the blob for several ranges.
        ("GET", &[("range", "bytes=0-0,2-2")], 206),
        ("GET", &[("range", "bytes=5-")], 416),
        ("GET", &[("if-none-match", &tag)], 304),
    ] {
        assert_eq!(
            blob(&registry, method, fields).status,
            status,
            "{method} {fields:?}"
        );
    }
    assert_eq!(get(&registry, "/v2/a/manifests/v1").status, 200);
}

#[test]
fn only_what_is_large_enough_is_read_elsewhere_if_there_is_a_url_and_the_client_can_reach_it() {
    let mut without_url = registry(Tiny::default());
    without_url.options.redirect_from_size = Some(0);
    let mut by_default = redirecting(0);
    by_default.options = Options::default();
    for registry in [
        redirecting(6),
        without_url,
        by_default,
        redirecting(0).without_redirects(),
    ] {
        let response = blob(&registry, "GET", &[]);
        assert_eq!((response.status, response.body.length()), (200, Some(5)));
    }
}

#[test]
fn a_client_that_is_sent_elsewhere_pulls() {
    let response = blob(&redirecting(0).with_events(), "GET", &[]);
    let event = response.event.map(|event| (event.action, event.target));
    let target = EventTarget::Blob {
        digest: hello(),
        size: Some(5),
    };
    assert_eq!((response.status, event), (307, Some((EventAction::Pull, target))));
}

#[test]
fn nobody_is_sent_to_what_it_may_not_read() {
    let registry = redirecting(0).with_authorizer(Arc::new(Refuse(|_: &Operation<'_>| true)));
    let response = blob(&registry, "GET", &[]);
    assert_eq!((response.status, response.field("location")), (403, None));
}
