//! A mirror of two registries: a namespace chooses the upstream, over real HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::challenge::ChallengeError;
use registry_core::operation::Operation;
use registry_core::registry::Options;
use registry_core::storage::{
    Blob, BlobStorage, ListStorage, Manifest, ManifestStorage, NewManifest, Page, PageRequest,
    ReferrersRequest, TagFilter,
};
use registry_core::{
    Authorizer, Challenge, Descriptor, Digest, Error, ErrorCode, Event, Principal, Reference, Registry,
    RepositoryName, Scope, Storage, Tag, forward_storage,
};
use registry_http::testing::TestRegistry;
use registry_http::{
    AccessControl, Authenticator, EventSink, Limits, RegistryService, ReplaceableAccess, RequestRecord,
    Server,
};
use registry_storage::{ObjectStoreBackend, Store};

use crate::Records;
use crate::client::{Client, push_blob};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Reads from the upstream that the first component of a repository's name chooses, and writes to its own storage.
struct PullThrough {
    own: Arc<dyn Storage>,
    upstreams: BTreeMap<&'static str, Arc<dyn Storage>>,
}

impl PullThrough {
    /// Returns the storage that has a repository, and the repository's name there.
    fn choose(&self, repository: &RepositoryName) -> (&dyn Storage, RepositoryName) {
        let upstream = repository.as_str().split_once('/').and_then(|(host, name)| {
            let storage = self.upstreams.get(host)?;
            Some((&**storage, name.parse().ok()?))
        });
        upstream.unwrap_or_else(|| (&*self.own, repository.clone()))
    }
}

macro_rules! own {
    ($self:ident.$method:ident($($argument:expr),*)) => { $self.own.$method($($argument),*).await };
}

forward_storage!(UploadStorage for [] PullThrough => own);

#[async_trait]
impl BlobStorage for PullThrough {
    async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
        let (storage, name) = self.choose(repository);
        storage.stat_blob(&name, digest).await
    }

    async fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        let (storage, name) = self.choose(repository);
        storage.open_blob(&name, digest).await
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        self.own.mount_blob(from, to, digest).await
    }

    async fn list_blob_repositories(
        &self,
        digest: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error> {
        self.own.list_blob_repositories(digest, page).await
    }

    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        self.own.delete_blob(repository, digest, immutable).await
    }
}

#[async_trait]
impl ManifestStorage for PullThrough {
    async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        let (storage, name) = self.choose(repository);
        storage.get_manifest(&name, reference).await
    }

    async fn stat_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        let (storage, name) = self.choose(repository);
        storage.stat_manifest(&name, reference).await
    }

    async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<(), Error> {
        self.own.put_manifest(repository, manifest).await
    }

    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        self.own
            .delete_manifest(repository, digest, may_delete, immutable)
            .await
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        if_match: Option<&[Digest]>,
    ) -> Result<(), Error> {
        self.own.delete_tag(repository, tag, if_match).await
    }
}

#[async_trait]
impl ListStorage for PullThrough {
    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error> {
        let (storage, name) = self.choose(repository);
        storage.list_tags(&name, page).await
    }

    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error> {
        let (storage, name) = self.choose(repository);
        storage.list_referrers(&name, subject, request).await
    }

    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        self.own.list_repositories(page).await
    }
}

/// Lets all clients in, and asks for a token if a rule wants one.
#[derive(Debug)]
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(std::future::ready(Ok(Principal::new("alice"))))
    }

    fn challenge(&self, _: &Parts, scopes: Vec<Scope>, error: Option<ChallengeError>) -> Option<Challenge> {
        let (realm, service) = ("http://tokens".to_owned(), "registry".to_owned());
        Some(Challenge::bearer(realm, service, scopes, error))
    }
}

/// Needs a token for `ghcr.io/private`.
#[derive(Debug)]
struct Rules;

impl Authorizer for Rules {
    fn authorize(&self, _: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        match operation.repository.map(RepositoryName::as_str) {
            Some("ghcr.io/private") => Err(ErrorCode::Unauthorized.into()),
            _ => Ok(()),
        }
    }
}

/// Keeps the repositories of events.
#[derive(Clone, Debug, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl EventSink for Events {
    fn accept<'a>(&'a self, event: &'a Event, _: &'a RequestRecord) -> BoxFuture<'a, ()> {
        self.0.lock().unwrap().push(event.repository.to_string());
        Box::pin(std::future::ready(()))
    }
}

/// Starts an upstream whose only image is an index with this annotation; returns it with the digest of a blob.
async fn upstream(text: &str) -> (TestRegistry, String) {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let blob = push_blob(client, "library/alpine", text.as_bytes()).await;
    let index = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"from":"{text}"}}}}"#);
    let target = "/v2/library/alpine/manifests/3";
    let answer = client
        .call("PUT", target, &[("Content-Type", INDEX)], index.as_bytes())
        .await;
    assert_eq!(answer.status, 201);
    (registry, blob)
}

#[tokio::test]
async fn a_pull_through_storage_chooses_its_upstream_by_the_resolved_name() {
    let (docker, docker_blob) = upstream("docker").await;
    let (github, github_blob) = upstream("github").await;
    let storage = PullThrough {
        own: Arc::new(Store::new(ObjectStoreBackend::memory())),
        upstreams: BTreeMap::from([
            (
                "docker.io",
                Arc::clone(docker.registry().storage()) as Arc<dyn Storage>,
            ),
            (
                "ghcr.io",
                Arc::clone(github.registry().storage()) as Arc<dyn Storage>,
            ),
        ]),
    };
    let registry =
        Registry::new(Arc::new(storage), Options::default()).with_namespaces(Arc::new(|namespace, name| {
            let is_known = matches!(namespace.as_str(), "docker.io" | "ghcr.io");
            is_known.then(|| namespace.full_name(name))?
        }));
    let (records, events) = (Records::default(), Events::default());
    let service = RegistryService::new(registry, Limits::default())
        .with_access(Arc::new(ReplaceableAccess::new(AccessControl {
            authenticator: Arc::new(Tokens),
            authorizer: Arc::new(Rules),
            endpoints: Vec::new(),
        })))
        .with_observer(Arc::new(records.clone()))
        .with_event_sink(Arc::new(events.clone()));
    let server = Server::bind("127.0.0.1:0", service, Limits::default())
        .await
        .unwrap();
    let client = &mut Client::connect(server.addresses()[0].tcp().unwrap()).await;

    for (host, text, blob) in [
        ("docker.io", "docker", &docker_blob),
        ("ghcr.io", "github", &github_blob),
    ] {
        for (path, query, echo) in [
            ("library/alpine".to_owned(), format!("?ns={host}"), Some(host)),
            (format!("{host}/library/alpine"), String::new(), None),
        ] {
            let answer = client.get(&format!("/v2/{path}/manifests/3{query}")).await;
            assert_eq!(answer.status, 200, "{path}{query}");
            assert!(String::from_utf8_lossy(&answer.body).contains(text), "{answer:?}");
            assert_eq!(
                answer
                    .header
                    .get("OCI-Namespace")
                    .map(|value| value.to_str().unwrap()),
                echo
            );
            let answer = client.get(&format!("/v2/{path}/blobs/{blob}{query}")).await;
            assert_eq!((answer.status.as_u16(), &*answer.body), (200, text.as_bytes()));
            let answer = client.get(&format!("/v2/{path}/tags/list{query}")).await;
            assert_eq!(
                answer.body,
                format!(r#"{{"name":"{host}/library/alpine","tags":["3"]}}"#)
            );
        }
        let name = format!("{host}/library/alpine");
        let record = records
            .wait(|record| record.query.as_deref() == Some(&format!("ns={host}")))
            .await;
        assert_eq!(record.path, "/v2/library/alpine/manifests/3", "as it was sent");
        assert_eq!(record.repository.unwrap().as_str(), name);
        let seen = std::mem::take(&mut *events.0.lock().unwrap());
        assert_eq!(seen, vec![name; 4], "two manifests and two blobs");
    }

    // Neither upstream is asked for what is no namespace of the mirror.
    let answer = client.get("/v2/library/alpine/manifests/3?ns=quay.io").await;
    assert_eq!(answer.status, 404);
    assert!(!answer.header.contains_key("OCI-Namespace"));

    // The challenge names the repository as the rules see it.
    let answer = client.get("/v2/private/manifests/1?ns=ghcr.io").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.field("OCI-Namespace"), "ghcr.io");
    let challenge = answer.field("WWW-Authenticate");
    assert!(
        challenge.contains(r#"scope="repository:ghcr.io/private:pull""#),
        "{challenge}"
    );
}
