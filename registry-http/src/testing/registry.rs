//! An in-memory registry that lives for one test.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use registry_core::registry::Options;
use registry_core::{Admission, Authorizer, Registry};
use tokio::net::TcpListener;

use super::TestStorage;
use super::endpoint::RegistryEndpoint;
use super::script::{Fault, JournalEntry, Script};
use super::service::ScriptedService;
use crate::authenticate::Authenticator;
use crate::limits::Limits;
use crate::server::{Listener, Server};
use crate::service::RegistryService;
use crate::telemetry::{EventSink, RequestObserver};

/// An in-memory registry on a free port of the loopback interface. Dropping it ends it and all its connections.
///
/// ```
/// use registry_http::testing::TestRegistry;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let registry = TestRegistry::start().await;
/// let url = registry.url(); // give it to what is tested: http://127.0.0.1:PORT
/// # assert!(url.starts_with("http://127.0.0.1:"));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// You can inspect its requests, and make them fail:
/// ```
/// use registry_http::testing::{RegistryEndpoint, TestRegistry};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let registry = TestRegistry::start().await;
/// registry.fail(RegistryEndpoint::GetBlob, 2).status(503); // the second call from now on
/// registry.fail(RegistryEndpoint::PutManifest, 1).reset();
/// assert!(registry.requests().is_empty());
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TestRegistry {
    server: Server,
    address: SocketAddr,
    registry: Registry<TestStorage>,
    script: Script,
}

impl TestRegistry {
    /// Starts a test registry with the defaults. Must be called within a tokio runtime. Cancel safe: a future that is
    /// dropped leaves nothing.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Returns a builder, for other settings than the defaults.
    #[must_use]
    pub fn builder() -> TestRegistryBuilder {
        TestRegistryBuilder::default()
    }

    /// Returns the host and port, which image names begin with.
    #[must_use]
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// Returns `http://` with the host and port, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns the socket address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the registry itself, to inspect or change its content directly.
    #[must_use]
    pub const fn registry(&self) -> &Registry<TestStorage> {
        &self.registry
    }

    /// Returns the requests so far, in the order of their arrival, at most the last 10 000.
    #[must_use]
    pub fn requests(&self) -> Vec<JournalEntry> {
        self.script.journal()
    }

    /// Clears the journal of requests.
    pub fn clear_requests(&self) {
        self.script.clear_journal();
    }

    /// Plans a fault for the `nth` call of an endpoint from now on; the next call is the first.
    pub const fn fail(&self, endpoint: RegistryEndpoint, nth: usize) -> Fault<'_> {
        Fault::new(&self.script, endpoint, nth)
    }

    pub(super) const fn script(&self) -> &Script {
        &self.script
    }

    /// Shuts it down gracefully. Not cancel safe: see [`Server::shutdown`].
    pub async fn shutdown(self, limit: Duration) {
        self.server.shutdown(limit).await;
    }
}

/// A builder for [`TestRegistry`].
#[derive(Debug, Default)]
pub struct TestRegistryBuilder {
    limits: Limits,
    options: Options,
    authorizer: Option<Arc<dyn Authorizer>>,
    admissions: Vec<Arc<dyn Admission>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    observer: Option<Arc<dyn RequestObserver>>,
    events: Option<Arc<dyn EventSink>>,
}

impl TestRegistryBuilder {
    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the rules of the registry.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets the authorizer. By default, everything is allowed.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Adds an admission: see [`Registry::with_admission`].
    #[must_use]
    pub fn admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admissions.push(admission);
        self
    }

    /// Sets the authenticator. By default, every client is the anonymous principal.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// Sets the observer of requests.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn RequestObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Sets the sink of events.
    #[must_use]
    pub fn event_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.events = Some(sink);
        self
    }

    /// Starts the registry. Must be called within a tokio runtime. Cancel safe: a future that is dropped leaves nothing.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(self) -> TestRegistry {
        match self.try_start().await {
            Ok(registry) => registry,
            Err(error) => panic!("a test registry cannot listen on the loopback interface: {error}"),
        }
    }

    pub(super) async fn try_start(self) -> io::Result<TestRegistry> {
        let storage = TestStorage::new(registry_storage::ObjectStoreBackend::memory());
        let mut registry = Registry::new(Arc::new(storage), self.options);
        if let Some(authorizer) = self.authorizer {
            registry = registry.with_authorizer(authorizer);
        }
        for admission in self.admissions {
            registry = registry.with_admission(admission);
        }
        let mut service = RegistryService::new(registry.clone(), self.limits.clone());
        if let Some(authenticator) = self.authenticator {
            service = service.with_authenticator(authenticator);
        }
        if let Some(observer) = self.observer {
            service = service.with_observer(observer);
        }
        if let Some(events) = self.events {
            service = service.with_event_sink(events);
        }
        let script = Script::default();
        let scripted = ScriptedService {
            service,
            script: script.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = Server::serve([Listener::tcp(listener)?], scripted, self.limits)?;
        Ok(TestRegistry {
            server,
            address,
            registry,
            script,
        })
    }
}
