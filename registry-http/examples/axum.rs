//! A registry below `/registry` in an axum application, whose users and rights decide who may do what.
//!
//! ```console
//! cargo run -p registry-http --example axum                                  # tries itself out, and ends
//! cargo run -p registry-http --example axum -- /srv/registry 127.0.0.1:8080  # serves until Ctrl-C
//! ```
//!
//! A client of the second form pushes to `http://127.0.0.1:8080/registry/v2/`. Docker and podman look for `/v2/` at the
//! root of a host; for them, mount the registry there, or give it a host name of its own.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod client;

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any_service, get};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::request::Parts;
use hyper_util::service::TowerToHyperService;
use registry_core::challenge::ChallengeError;
use registry_core::operation::{Action, Operation};
use registry_core::registry::Options;
use registry_core::{
    Algorithm, Authorizer, Challenge, Digest, Error, ErrorCode, Principal, Registry, RepositoryName, Scope,
    Tag,
};
use registry_http::{Authenticator, Limits, Proxied, ProxyOptions, RegistryService, Server};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::{CollectOptions, Collector, Maintenance, Store, Sweeper};

use crate::client::{Client, Result};

/// The path that the registry is below.
const PREFIX: &str = "/registry";

/// How often what nothing needs any more is looked for.
const HOUR: Duration = Duration::from_hours(1);

/// The users of the application, and the digests of their keys. A key is long and random, so one hash is enough; for
/// passwords that people choose, use [`registry_http::auth::BasicAuthenticator`].
#[derive(Debug)]
struct Users(BTreeMap<String, Digest>);

impl Users {
    /// Returns the user whose name and key a request carries as `Authorization: Basic …`; `None` if they are wrong.
    fn user_of(&self, authorization: &str) -> Option<&str> {
        let decoded = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
        let (name, key) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        let (name, expected) = self.0.get_key_value(name)?;
        (Digest::of(Algorithm::Sha256, key.as_bytes()) == *expected).then_some(name)
    }
}

impl Authenticator for Users {
    fn authenticate<'a>(
        &'a self,
        request: &'a Parts,
    ) -> BoxFuture<'a, std::result::Result<Principal, Error>> {
        let principal = match request.headers.get("Authorization") {
            None => Ok(Principal::anonymous()),
            Some(value) => match value.to_str().ok().and_then(|value| self.user_of(value)) {
                Some(name) => Ok(Principal::new(name)),
                None => Err(Error::new(
                    ErrorCode::Unauthorized,
                    "the name or the key is wrong",
                )),
            },
        };
        Box::pin(ready(principal))
    }

    /// Makes `docker login` ask for a name and a password.
    fn challenge(&self, _: &Parts, _: Vec<Scope>, _: Option<ChallengeError>) -> Option<Challenge> {
        Some(Challenge::Basic {
            realm: "application".to_owned(),
        })
    }
}

/// Each user has the repositories below its own name, and everyone may pull what is below `public/`. All other
/// repositories are hidden.
#[derive(Debug)]
struct OwnRepositories;

impl Authorizer for OwnRepositories {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> std::result::Result<(), Error> {
        let Some(repository) = operation.repository else {
            // `/v2/`, and the list of repositories, of which each entry is asked for separately.
            return Ok(());
        };
        let owner = repository.as_str().split('/').next();
        let is_public = owner == Some("public") && matches!(operation.action, Action::Pull | Action::List);
        if is_public || (!principal.is_anonymous() && owner == Some(principal.name())) {
            Ok(())
        } else if principal.is_anonymous() {
            Err(ErrorCode::Unauthorized.into())
        } else {
            Err(ErrorCode::NameUnknown.into())
        }
    }
}

/// Creates the application: its own routes, and the registry.
fn application(store: Arc<dyn Maintenance>, users: Users, limits: &Limits) -> Result<Router> {
    let registry = Registry::new(store, Options::default()).with_authorizer(Arc::new(OwnRepositories));
    let service = RegistryService::new(registry, limits.clone()).with_authenticator(Arc::new(users));
    // axum leaves the path of a request to the services of a route as it is. This removes the prefix from it, and adds
    // it to the URLs of the answers.
    let mut options = ProxyOptions::default();
    options.prefix = PREFIX.parse()?;
    let registry = any_service(Proxied::new(service, options));
    Ok(Router::new()
        .route("/", get(|| ready("an application with a registry")))
        .route(&format!("{PREFIX}/v2/"), registry.clone())
        .route(&format!("{PREFIX}/v2/{{*rest}}"), registry))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let users = BTreeMap::from([(
        "alice".to_owned(),
        Digest::of(Algorithm::Sha256, b"correct-horse"),
    )]);
    let Some(folder) = arguments.next() else {
        return try_it(Users(users)).await;
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let running = Running::start(Path::new(&folder), &address, Users(users)).await?;
    println!(
        "serving {folder} at {:?}; Ctrl-C ends it",
        running.server.addresses()
    );
    tokio::signal::ctrl_c().await?;
    running.stop().await
}

/// The application and what runs beside its requests.
struct Running {
    server: Server,
    collector: Collector,
    sweeper: Sweeper,
    store: Arc<dyn Maintenance>,
}

impl Running {
    /// Serves the application with [`Server`], which bounds connections, silence and memory for all of its routes.
    ///
    /// `axum::serve` works too. Then the application inserts a [`registry_http::Connection`] into each request if rate
    /// limits, logs or the authenticator need the client's address, and waits for
    /// [`RegistryService::finish_interrupted`] at the end.
    async fn start(folder: &Path, address: &str, users: Users) -> Result<Self> {
        let store: Arc<dyn Maintenance> = Arc::new(Store::new(FilesystemBackend::open(folder).await?));
        let collector = Collector::start(Arc::clone(&store), CollectOptions::new(), HOUR);
        let sweeper = Sweeper::start(Arc::clone(&store), HOUR);
        let limits = Limits::default();
        let application = application(Arc::clone(&store), users, &limits)?;
        let server = Server::bind(address, TowerToHyperService::new(application), limits).await?;
        Ok(Self {
            server,
            collector,
            sweeper,
            store,
        })
    }

    /// Ends in the reverse order: first the requests, last the store that they use.
    async fn stop(self) -> Result<()> {
        self.server.shutdown(Duration::from_secs(30)).await;
        self.collector.shutdown().await;
        self.sweeper.shutdown().await;
        self.store.close().await?;
        Ok(())
    }
}

/// Uses the application, and pushes and pulls as one of its users.
async fn try_it(users: Users) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let running = Running::start(folder.path(), "127.0.0.1:0", users).await?;
    let address = running.server.addresses()[0].tcp().ok_or("no TCP address")?;
    let (own, other): (RepositoryName, RepositoryName) = ("alice/app".parse()?, "bob/app".parse()?);
    let tag: Tag = "1".parse()?;
    let layer = b"the only layer";

    let mut stranger = Client::connect(address).await?;
    stranger.prefix = PREFIX;
    let refusal = stranger.push(&own, &tag, layer).await.err();
    println!("without credentials: {}", refusal.ok_or("a stranger may push")?);

    let mut alice = Client::connect(address).await?;
    alice.prefix = PREFIX;
    alice.authorization = Some(format!("Basic {}", STANDARD.encode("alice:correct-horse")));
    let manifest = alice.push(&own, &tag, layer).await?;
    println!("alice pushed {own}:{tag} as {manifest}");
    let blobs = alice.pull(&own, &tag).await?;
    assert_eq!(blobs, [&b"{}"[..], layer]);
    println!("alice pulled {own}:{tag}");
    let refusal = alice.pull(&other, &tag).await.err();
    println!("alice at {other}: {}", refusal.ok_or("alice sees what is bob's")?);
    running.stop().await
}
