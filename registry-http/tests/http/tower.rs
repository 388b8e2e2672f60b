//! The service without a server.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http::request::Parts;
use http_body_util::{BodyExt as _, Empty, Full};
use registry_core::operation::Operation;
use registry_core::registry::Options;
use registry_core::storage::{UploadKey, UploadStorage as _};
use registry_core::{Authorizer, Error, ErrorCode, Principal, Registry};
use registry_http::testing::TestStorage;
use registry_http::{AccessControl, Anonymous, Authenticator, Limits, RegistryService, ReplaceableAccess};
use registry_storage::ObjectStoreBackend;
use tower_service::Service as _;

use crate::client_http2::Pieces;
use crate::{digest, eventually, noise};

fn service() -> (RegistryService<TestStorage>, Arc<TestStorage>) {
    let storage = Arc::new(TestStorage::new(ObjectStoreBackend::memory()));
    let registry = Registry::new(Arc::clone(&storage), Options::default());
    (RegistryService::new(registry, Limits::default()), storage)
}

#[tokio::test]
async fn it_takes_any_body() {
    let (mut service, _) = service();
    let target = format!("/v2/a/blobs/uploads/?digest={}", digest(b"hello"));
    let push = Request::post(target)
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    poll_fn(|context| tower_service::Service::<Request<Full<Bytes>>>::poll_ready(&mut service, context))
        .await
        .unwrap();
    let answer = service.call(push).await.unwrap();
    assert_eq!(answer.status(), 201);
    let location = answer.headers()["Location"].to_str().unwrap().to_owned();
    let pull = Request::get(location).body(Empty::<Bytes>::new()).unwrap();
    let answer = service.call(pull).await.unwrap();
    assert_eq!(http_body::Body::size_hint(answer.body()).exact(), Some(5));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn fields_of_the_operator_are_in_every_response_beside_those_of_the_registry() {
    let (service, _) = service();
    let mut fields = http::HeaderMap::new();
    fields.append("X-Content-Type-Options", "nosniff".parse().unwrap());
    fields.append("X-Frame-Options", "deny".parse().unwrap());
    fields.append("X-Frame-Options", "really".parse().unwrap());
    fields.append("Docker-Distribution-API-Version", "registry/2.0".parse().unwrap());
    let mut service = service.with_fields(fields);
    for (target, status) in [("/v2/", 200), ("/v2/a/manifests/none", 404), ("/elsewhere", 404)] {
        let request = Request::get(target).body(Empty::<Bytes>::new()).unwrap();
        let answer = service.call(request).await.unwrap();
        assert_eq!(answer.status(), status, "{target}");
        let values = |name| answer.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("x-content-type-options"), ["nosniff"]);
        assert_eq!(values("x-frame-options"), ["deny", "really"]);
        assert_eq!(values("docker-distribution-api-version"), ["registry/2.0"]);
    }
}

#[tokio::test]
async fn it_works_without_a_storage_type() {
    let (_, storage) = service();
    let storage: Arc<dyn registry_core::Storage> = storage;
    let registry = Registry::new(storage, Options::default());
    let mut service = RegistryService::new(registry, Limits::default());
    let request = Request::get("/v2/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(service.call(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_is_dropped_notes_how_far_it_came() {
    let (mut service, storage) = service();
    let start = Request::post("/v2/a/blobs/uploads/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = service.call(start).await.unwrap();
    let location = answer.headers()["Location"].to_str().unwrap();
    let location = location.split('?').next().unwrap().to_owned();
    drop(answer);
    let (pieces, body) = Pieces::new();
    let mut patch = Box::pin(service.call(Request::patch(&location).body(body).unwrap()));
    for _ in 0..3 {
        let sent = pieces.send(noise(1000).into());
        tokio::select! {
            _ = &mut patch => panic!("the body has not ended"),
            sent = sent => sent.unwrap(),
        }
    }
    // The last piece is taken.
    let taken = eventually(async || {
        assert!(futures_util::poll!(&mut patch).is_pending());
        (pieces.capacity() == 1).then_some(())
    });
    taken.await;
    drop(patch);
    // A server drops the body's other side too.
    drop(pieces);
    service.finish_interrupted().await;
    let upload = UploadKey {
        repository: "a".parse().unwrap(),
        id: location.rsplit('/').next().unwrap().parse().unwrap(),
        principal: String::new(),
    };
    assert_eq!(storage.upload_status(&upload).await.unwrap(), 3000);
}

/// Refuses everything, or nothing.
#[derive(Debug)]
struct All {
    is_allowed: bool,
}

impl Authorizer for All {
    fn authorize(&self, _: &Principal, _: &Operation<'_>) -> Result<(), Error> {
        match self.is_allowed {
            true => Ok(()),
            false => Err(ErrorCode::Denied.into()),
        }
    }
}

/// Finds out who makes a request, and meanwhile everything is replaced.
#[derive(Debug)]
struct Replacing(Arc<OnceLock<Arc<ReplaceableAccess>>>);

impl Authenticator for Replacing {
    fn authenticate<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(async {
            let access = self.0.get().unwrap();
            access.replace(access_control(Arc::new(Anonymous), true));
            Ok(Principal::new("anna"))
        })
    }
}

fn access_control(authenticator: Arc<dyn Authenticator>, is_allowed: bool) -> AccessControl {
    AccessControl {
        authenticator,
        authorizer: Arc::new(All { is_allowed }),
        endpoints: Vec::new(),
    }
}

#[tokio::test]
async fn who_was_known_by_the_old_users_is_not_judged_by_the_new_rules() {
    let (service, _) = service();
    let known = Arc::new(OnceLock::new());
    let old = access_control(Arc::new(Replacing(Arc::clone(&known))), false);
    let access = Arc::new(ReplaceableAccess::new(old));
    known.set(Arc::clone(&access)).unwrap();
    let mut service = service.with_access(access);
    for status in [403, 404] {
        let request = Request::get("/v2/a/manifests/none")
            .body(Empty::<Bytes>::new())
            .unwrap();
        assert_eq!(service.call(request).await.unwrap().status(), status);
    }
}
