//! The delivery of events to one endpoint.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use registry_core::Event;
use registry_core::event::{EventAction, EventTarget};
use registry_core::printable::with_causes;
use registry_storage::outbox::Outbox;
use reqwest::Url;
use tokio::sync::watch;
use tokio::time::sleep;

use super::options::NotifierError;
use super::record::EventRecord;
use super::{cloudevents, distribution};

/// How many events are read from the outbox at once.
const EVENTS_PER_BATCH: usize = 32;

/// The base of the pause after a failure. It doubles with each failure, so that the first pause is 20 ms, up to
/// `backoff`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How events are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotificationFormat {
    /// The envelope of the distribution registry, with the media type of registry:3.
    #[default]
    Distribution,
    /// The same envelope with the media type of registry:2.
    DistributionVersion1,
    /// `CloudEvents` 1.0, structured JSON.
    CloudEvents,
}

/// A receiver of events by `POST`.
#[derive(Clone)]
pub struct NotificationEndpoint {
    /// Its name in the log, the metrics and the outbox.
    pub name: String,
    /// The URL. A user and password in it are sent as `Authorization: Basic`.
    pub url: String,
    /// Additional header fields of each request.
    pub headers: Vec<(String, String)>,
    /// How long a request may take. 1 second by default.
    pub timeout: Duration,
    /// After how many consecutive failures attempts are `backoff` apart. 10 by default.
    pub threshold: u32,
    /// The pause between attempts from then on. 1 second by default.
    pub backoff: Duration,
    /// Media types whose events are not sent.
    pub ignored_media_types: Vec<String>,
    /// Actions whose events are not sent: `pull`, `push`, `mount` or `delete`.
    pub ignored_actions: Vec<String>,
    /// How events are encoded.
    pub format: NotificationFormat,
}

impl NotificationEndpoint {
    /// Creates an endpoint with distribution's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            threshold: 10,
            backoff: Duration::from_secs(1),
            ignored_media_types: Vec::new(),
            ignored_actions: Vec::new(),
            format: NotificationFormat::default(),
        }
    }

    pub(super) fn wishes(&self) -> EventFilter {
        EventFilter {
            ignored_media_types: self.ignored_media_types.clone(),
            ignored_actions: self.ignored_actions.clone(),
        }
    }
}

impl fmt::Debug for NotificationEndpoint {
    /// Omits the URL and the header fields, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationEndpoint")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The events that an endpoint wants.
#[derive(Clone, Debug)]
pub(super) struct EventFilter {
    ignored_media_types: Vec<String>,
    ignored_actions: Vec<String>,
}

impl EventFilter {
    /// Returns whether an event is wanted.
    pub(super) fn contain(&self, event: &Event) -> bool {
        let media_type = match &event.target {
            EventTarget::Manifest { manifest, .. } => Some(manifest.media_type.as_str()),
            EventTarget::Blob { .. } if event.action != EventAction::Delete => {
                Some("application/octet-stream")
            }
            _ => None,
        };
        self.want(event.action.as_str(), media_type)
    }

    fn want(&self, action: &str, media_type: Option<&str>) -> bool {
        !self.ignored_actions.iter().any(|ignored| ignored == action)
            && !media_type.is_some_and(|kind| self.ignored_media_types.iter().any(|ignored| ignored == kind))
    }
}

/// Statistics of one endpoint since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatistics {
    /// The endpoint's name.
    pub name: String,
    /// Events that wait to be sent, including those that it ignores.
    pub pending: u64,
    /// Events whose delivery has begun.
    pub events: u64,
    /// Attempts that were answered 2xx or 3xx, and so the events that were delivered.
    pub successes: u64,
    /// Attempts that were answered with another status.
    pub failures: u64,
    /// Attempts that were not answered.
    pub errors: u64,
    /// How often each status was answered.
    pub statuses: BTreeMap<u16, u64>,
}

/// The delivery to one endpoint.
pub(super) struct Delivery {
    endpoint: NotificationEndpoint,
    wishes: EventFilter,
    url: Url,
    headers: HeaderMap,
    client: reqwest::Client,
    outbox: Outbox,
    /// All events up to this sequence number were sent.
    sent: AtomicU64,
    counts: Mutex<EndpointStatistics>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The server stops, and what is left in the outbox is for the next one.
struct Stopped;

impl Delivery {
    pub(super) fn new(
        endpoint: NotificationEndpoint,
        client: reqwest::Client,
        outbox: Outbox,
    ) -> Result<Self, NotifierError> {
        let failed = |reason: String| NotifierError::Endpoint {
            name: endpoint.name.clone(),
            reason,
        };
        let url =
            Url::parse(&endpoint.url).map_err(|error| failed(format!("its URL is malformed: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(failed(
                "its URL must begin with http:// or https:// and a host".into(),
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &endpoint.headers {
            let field = HeaderName::try_from(name.as_str())
                .map_err(|_| failed(format!("{name:?} is no name of a header field")))?;
            let mut value = HeaderValue::try_from(value.as_str())
                .map_err(|_| failed(format!("the value of {name} cannot stand in a header")))?;
            value.set_sensitive(true);
            headers.append(field, value);
        }
        Ok(Self {
            wishes: endpoint.wishes(),
            url,
            headers,
            client,
            outbox,
            sent: AtomicU64::new(0),
            counts: Mutex::default(),
            endpoint,
        })
    }

    pub(super) fn statistics(&self) -> EndpointStatistics {
        EndpointStatistics {
            name: self.endpoint.name.clone(),
            pending: self.outbox.pending(self.sent.load(Ordering::Relaxed)),
            ..self.counts().clone()
        }
    }

    /// Sends what is in the outbox and what is added to it, until `stop` is set and everything that can be sent was
    /// sent.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut end = self.outbox.end();
        loop {
            let known_end = *end.borrow_and_update();
            let after = self.sent.load(Ordering::Relaxed);
            let batch = match self
                .outbox
                .read(&self.endpoint.name, after, EVENTS_PER_BATCH)
                .await
            {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%error, endpoint = self.endpoint.name, "events cannot be read");
                    if self.pause(self.endpoint.backoff, &mut stop).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            if batch.is_empty() {
                // Everything up to the end known before has been sent.
                self.sent.fetch_max(known_end, Ordering::Relaxed);
                if *stop.borrow() {
                    // What was added while the outbox was read is sent too.
                    if *end.borrow() == known_end {
                        return;
                    }
                    continue;
                }
                tokio::select! {
                    changed = end.changed() => if changed.is_err() { return },
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                continue;
            }
            for entry in batch {
                if self.deliver(&entry.value, &mut stop).await.is_err() {
                    return;
                }
                self.sent.fetch_max(entry.sequence, Ordering::Relaxed);
                if let Err(error) = self.outbox.acknowledge(&self.endpoint.name, entry.sequence) {
                    tracing::debug!(%error, "an event may be sent again after a restart");
                }
            }
        }
    }

    /// Sends one event repeatedly until the endpoint accepts it.
    async fn deliver(&self, value: &[u8], stop: &mut watch::Receiver<bool>) -> Result<(), Stopped> {
        let Some(body) = self.encode(value) else {
            return Ok(());
        };
        self.counts().events += 1;
        let mut failures: u32 = 0;
        loop {
            match self.try_once(body.clone()).await {
                Ok(()) => {
                    if failures >= self.endpoint.threshold {
                        tracing::info!(
                            endpoint = self.endpoint.name,
                            failures,
                            "the endpoint takes notifications again"
                        );
                    }
                    return Ok(());
                }
                Err(reason) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(
                        endpoint = self.endpoint.name,
                        reason,
                        failures,
                        "a notification was not taken"
                    );
                    if failures == self.endpoint.threshold {
                        tracing::warn!(
                            endpoint = self.endpoint.name,
                            reason,
                            failures,
                            "the endpoint does not take notifications; they wait in the outbox"
                        );
                    }
                }
            }
            if *stop.borrow() {
                return Err(Stopped);
            }
            let pause = if failures < self.endpoint.threshold {
                let doubled = FIRST_PAUSE.saturating_mul(1 << failures.min(10));
                doubled.min(self.endpoint.backoff)
            } else {
                self.endpoint.backoff
            };
            self.pause(pause, stop).await?;
        }
    }

    /// Encodes an event for the endpoint. Returns `None` if the endpoint does not want it, or if it cannot be read.
    fn encode(&self, value: &[u8]) -> Option<bytes::Bytes> {
        let record: EventRecord = match serde_json::from_slice(value) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "an event of another version is in the outbox; it is not sent");
                return None;
            }
        };
        let media_type = record.target.media_type.as_deref();
        if !self.wishes.want(&record.action, media_type) {
            return None;
        }
        let encoded = match self.endpoint.format {
            NotificationFormat::Distribution | NotificationFormat::DistributionVersion1 => {
                distribution::envelope(&record)
            }
            NotificationFormat::CloudEvents => cloudevents::event(&record),
        };
        encoded.ok().map(bytes::Bytes::from)
    }

    /// Sends a request. The reason of a failure contains no secret, because errors omit the URL.
    async fn try_once(&self, body: bytes::Bytes) -> Result<(), String> {
        let content_type = match self.endpoint.format {
            NotificationFormat::Distribution => distribution::MEDIA_TYPE,
            NotificationFormat::DistributionVersion1 => distribution::MEDIA_TYPE_1,
            NotificationFormat::CloudEvents => cloudevents::MEDIA_TYPE,
        };
        let request = self
            .client
            .post(self.url.clone())
            .timeout(self.endpoint.timeout)
            .header(CONTENT_TYPE, content_type)
            .headers(self.headers.clone())
            .body(body);
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                let is_taken = status.is_success() || status.is_redirection();
                let mut counts = self.counts();
                *counts.statuses.entry(status.as_u16()).or_default() += 1;
                if is_taken {
                    counts.successes += 1;
                    Ok(())
                } else {
                    counts.failures += 1;
                    Err(format!("it answered {status}"))
                }
            }
            Err(error) => {
                self.counts().errors += 1;
                let error = error.without_url();
                Err(with_causes(error.to_string(), error.source()))
            }
        }
    }

    async fn pause(&self, pause: Duration, stop: &mut watch::Receiver<bool>) -> Result<(), Stopped> {
        tokio::select! {
            () = sleep(pause) => Ok(()),
            _ = stop.wait_for(|stop| *stop) => Err(Stopped),
        }
    }

    fn counts(&self) -> MutexGuard<'_, EndpointStatistics> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
