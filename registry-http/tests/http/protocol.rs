//! What every request gets.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::{Error, ErrorCode, Principal};
use registry_http::testing::TestRegistry;
use registry_http::{Authenticator, Limits};

use crate::Records;
use crate::client::{Client, push_blob};
use crate::client_http2::{Pieces, connect, request};

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_with_the_documents_of_the_specification() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let answer = client.get("/v3/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (404, "NAME_UNKNOWN")
    );
    assert_eq!(answer.field("Content-Type"), "application/json");
    let answer = client.call("DELETE", "/v2/a/tags/list", &[], b"").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (405, "UNSUPPORTED")
    );
    assert_eq!(answer.field("Allow"), "GET, HEAD, OPTIONS");
    let answer = client.get("/v2/a/manifests/missing").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (404, "NAME_UNKNOWN")
    );
    assert_eq!(answer.field("Docker-Distribution-API-Version"), "registry/2.0");
    // Nothing is wrong with the connection.
    assert_eq!(client.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn content_is_never_transformed() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let target = format!("/v2/a/blobs/{}", push_blob(client, "a", &[b' '; 10_000]).await);
    let answer = client
        .call("GET", &target, &[("Accept-Encoding", "zstd, gzip, deflate")], b"")
        .await;
    assert_eq!(answer.field("Content-Length"), "10000");
    assert!(!answer.header.contains_key("Content-Encoding"));
    assert!(answer.body == [b' '; 10_000][..]);
}

#[tokio::test]
async fn headers_have_a_bound_in_number_and_size() {
    let mut limits = Limits::default();
    limits.fields = 20;
    limits.buffer = 8 * 1024;
    limits.header = 8 * 1024;
    let registry = TestRegistry::builder().limits(limits).start().await;
    let many: Vec<String> = (0..30).map(|number| format!("X-{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (&**name, "1")).collect();
    let long = "x".repeat(10_000);
    for fields in [&*many, &[("X", &*long)]] {
        let client = &mut Client::connect(registry.address()).await;
        client.head("GET", "/v2/", fields).await;
        assert_eq!(client.answer("GET").await.status, 431);
        let (mut sender, _connection) = connect(registry.address()).await;
        let mut request = request("GET", "/v2/", Pieces::empty());
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let is_refused = sender
            .send_request(request)
            .await
            .map_or(true, |answer| answer.status() == 431);
        // HTTP/2 bounds the size alone.
        assert_eq!(is_refused, fields.len() == 1);
    }
}

/// Knows one user.
#[derive(Debug)]
struct OneUser;

impl Authenticator for OneUser {
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(async move {
            match request.headers.get("Authorization") {
                Some(value) if value == "Basic YW5uYTpzZWNyZXQ=" => Ok(Principal::new("anna")),
                _ => Err(Error::from(ErrorCode::Unauthorized)
                    .with_field("WWW-Authenticate", "Basic realm=\"registry\"")),
            }
        })
    }
}

#[tokio::test]
async fn a_client_is_asked_who_it_is() {
    let records = Records::default();
    let registry = TestRegistry::builder()
        .authenticator(Arc::new(OneUser))
        .observer(Arc::new(records.clone()))
        .start()
        .await;
    let client = &mut Client::connect(registry.address()).await;
    let answer = client.get("/v2/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (401, "UNAUTHORIZED")
    );
    assert_eq!(answer.field("WWW-Authenticate"), "Basic realm=\"registry\"");
    // Who may not ask does not learn what there is.
    assert_eq!(client.get("/nonsense").await.status, 401);
    let credentials = [("Authorization", "Basic YW5uYTpzZWNyZXQ=")];
    assert_eq!(client.call("GET", "/v2/", &credentials, b"").await.status, 200);
    let record = records.wait(|record| record.status == Some(200)).await;
    assert_eq!(record.principal, "anna");
}
