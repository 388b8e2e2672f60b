//! What is notified of requests and of events.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use registry_core::Event;

use super::record::RequestRecord;

/// Is notified of each request once, when its response was sent or given up.
///
/// Its methods are called where responses are sent, so they must not block.
///
/// ```
/// use std::sync::Arc;
///
/// use registry_core::Storage;
/// use registry_core::operation::Action;
/// use registry_http::{AccessLog, RegistryService, RequestObserver, RequestRecord};
///
/// /// Logs who pushed which image.
/// #[derive(Debug)]
/// struct PushLog;
///
/// impl RequestObserver for PushLog {
///     fn finished(&self, record: &RequestRecord) {
///         let is_push = record.handler == "manifest" && record.action == Some(Action::Push);
///         if let (true, Some(201), Some(repository)) = (is_push, record.status, &record.repository) {
///             let tag = record.tag.as_ref().map(tracing::field::display);
///             let digest = record.digest.as_ref().map(tracing::field::display);
///             tracing::info!(user = record.principal, %repository, tag, digest, "pushed");
///         }
///     }
/// }
///
/// /// Adds it to the access log, which a service has by default.
/// fn with_push_log<S: Storage>(service: RegistryService<S>) -> RegistryService<S> {
///     let observers: Vec<Arc<dyn RequestObserver>> = vec![Arc::new(AccessLog), Arc::new(PushLog)];
///     service.with_observer(Arc::new(observers))
/// }
/// ```
pub trait RequestObserver: fmt::Debug + Send + Sync + 'static {
    /// A request with this header has begun. [`finished`](Self::finished) always follows.
    fn began(&self, _record: &mut RequestRecord, _header: &HeaderMap) {}

    /// A request has ended.
    fn finished(&self, record: &RequestRecord);
}

/// Notifies several observers, in their order.
impl RequestObserver for Vec<Arc<dyn RequestObserver>> {
    fn began(&self, record: &mut RequestRecord, header: &HeaderMap) {
        for observer in self {
            observer.began(record, header);
        }
    }

    fn finished(&self, record: &RequestRecord) {
        for observer in self {
            observer.finished(record);
        }
    }
}

/// Receives the events of a registry, for example to notify other services.
///
/// A process that is killed may have changed something without reporting it. A sink that must not miss that records the
/// intent: [`intend`](Self::intend) is followed by [`accept`](Self::accept) or [`abandon`](Self::abandon), unless the
/// process ends.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use registry_core::Event;
/// use registry_http::{EventSink, RequestRecord};
/// use tokio::sync::mpsc;
///
/// /// Passes on what happened, and who did it, to a task that keeps an index of images.
/// #[derive(Debug)]
/// struct ToIndex(mpsc::Sender<(Event, String)>);
///
/// impl EventSink for ToIndex {
///     fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
///         Box::pin(async move {
///             // A client waits for this. If the task cannot keep up, the index misses an event, and is built anew.
///             if self.0.try_send((event.clone(), request.principal.clone())).is_err() {
///                 tracing::warn!(repository = %event.repository, "the index misses an event");
///             }
///         })
///     }
/// }
/// ```
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Records what a request is about to do. It is called before the storage is, and the request waits for it. If a
    /// request calls it several times, the last one counts. Pulls have no intent.
    fn intend<'a>(&'a self, _event: &'a Event, _request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Records that a request was answered without having done what it intended. If the storage failed (`is_unclear`),
    /// it may have done it anyway.
    fn abandon<'a>(&'a self, _request: &'a RequestRecord, _is_unclear: bool) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Accepts an event after the storage has done what it describes, and before the client is answered. The client
    /// waits for the future: anything that must survive the end of the process must be durable when it completes, and
    /// it must complete soon. It cannot fail, because the event has already happened.
    ///
    /// `request` is the request that caused the event, as far as it is known by then.
    fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()>;

    /// Accepts an event of a request that has another one, which follows and has the intent: a restore brings back several
    /// manifests.
    fn accept_another<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        self.accept(event, request)
    }
}
