//! What is told of each request when it is over.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Version};
use registry_core::{Error, RepositoryName};
use tokio::sync::OwnedSemaphorePermit;

use crate::address::PeerAddress;

/// A request that is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The method.
    pub method: Method,
    /// The path, as sent, without the query.
    pub path: String,
    /// The protocol's version.
    pub version: Version,
    /// Who sent it, where the server said so.
    pub peer: Option<PeerAddress>,
    /// Who the client is; empty for the anonymous principal.
    pub principal: String,
    /// The repository, where the request is about one.
    pub repository: Option<RepositoryName>,
    /// The status of the response, where there was one.
    pub status: Option<u16>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body that were handed to the connection.
    pub sent: u64,
    /// The time from the header of the request to the end of the response's body.
    pub duration: Duration,
    /// Whether the whole response was handed to the connection. If not, the client went away, or see `error`.
    pub is_complete: bool,
    /// Why the request was refused or failed, with the cause.
    pub error: Option<Error>,
}

/// Is told of each request once, when its response was sent or given up.
///
/// It is called where responses are sent, so it must not block.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// A request is over.
    fn finished(&self, record: &RequestRecord);
}

/// Writes one line per request to [`tracing`], target `registry_http::access`, and one with the causes for each failure
/// of the registry itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLog;

impl Observer for AccessLog {
    fn finished(&self, record: &RequestRecord) {
        tracing::info!(
            target: "registry_http::access",
            method = %record.method,
            path = %record.path,
            status = record.status,
            peer = record.peer.map(tracing::field::display),
            principal = (!record.principal.is_empty()).then_some(&*record.principal),
            repository = record.repository.as_ref().map(tracing::field::display),
            received = record.received,
            sent = record.sent,
            milliseconds = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
            complete = record.is_complete,
            "request"
        );
        let Some(error) = record.error.as_ref().filter(|error| error.code().status() >= 500) else {
            return;
        };
        let causes = Causes(error);
        if error.code() == registry_core::ErrorCode::Unavailable {
            // It comes in floods.
            tracing::warn!(method = %record.method, path = %record.path, "{causes}");
        } else {
            tracing::error!(method = %record.method, path = %record.path, "{causes}");
        }
    }
}

/// An error with all that caused it.
struct Causes<'a>(&'a Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A request that goes on: its record, which is told when this is dropped, and its turn.
pub(crate) struct Exchange {
    record: RequestRecord,
    received: Arc<AtomicU64>,
    begin: Instant,
    observer: Arc<dyn Observer>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Exchange {
    pub(crate) fn begin(
        parts: &http::request::Parts,
        peer: Option<PeerAddress>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            record: RequestRecord {
                method: parts.method.clone(),
                path: parts.uri.path().to_owned(),
                version: parts.version,
                peer,
                principal: String::new(),
                repository: None,
                status: None,
                received: 0,
                sent: 0,
                duration: Duration::ZERO,
                is_complete: false,
                error: None,
            },
            received: Arc::default(),
            begin: Instant::now(),
            observer,
            turn: None,
        }
    }

    /// Returns the count of bytes that arrived.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    pub(crate) fn take_turn(&mut self, turn: OwnedSemaphorePermit) {
        self.turn = Some(turn);
    }

    pub(crate) fn set_principal(&mut self, name: &str) {
        name.clone_into(&mut self.record.principal);
    }

    pub(crate) fn set_repository(&mut self, repository: Option<&RepositoryName>) {
        self.record.repository = repository.cloned();
    }

    pub(crate) fn answered(&mut self, status: u16, error: Option<Error>) {
        self.record.status = Some(status);
        self.record.error = error;
    }

    pub(crate) fn sent(&mut self, length: u64) {
        self.record.sent = self.record.sent.saturating_add(length);
    }

    pub(crate) fn complete(&mut self) {
        self.record.is_complete = true;
    }

    pub(crate) fn fail(&mut self, error: Error) {
        self.record.is_complete = false;
        self.record.error = Some(error);
    }

    /// Tells whether the body failed while it was sent.
    pub(crate) fn is_failed(&self) -> bool {
        self.record.error.is_some() && !self.record.is_complete
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.turn = None;
        self.record.received = self.received.load(Ordering::Relaxed);
        self.record.duration = self.begin.elapsed();
        self.observer.finished(&self.record);
    }
}
