//! Notifications: sends the events of a registry to other programs over HTTP.
//!
//! An event is written to an [`Outbox`] before the client is answered, and sent from there. So no push waits for a
//! receiver, and no event is forgotten if the server ends in between. Each endpoint gets the events in the order in
//! which they happened, each at least once: after a crash an event may be repeated, with the same `id`.
//!
//! Before the storage makes the change that an event describes, the outbox records the intent. After a kill, the next
//! server looks up what became of the recorded intents, in [`Notifier::recover`].

mod cloudevents;
mod distribution;
mod endpoint;
mod intent;
#[cfg(feature = "metrics")]
mod metrics;
mod options;
mod record;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use registry_core::event::EventAction;
use registry_core::{Event, Storage};
use registry_storage::outbox::{IntentName, Outbox, OutboxError};
use reqwest::redirect;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::endpoint::{Delivery, EventFilter};
pub use self::endpoint::{EndpointStatistics, NotificationEndpoint, NotificationFormat};
use self::intent::Intent;
pub use self::options::{NotificationOptions, NotifierError};
use self::record::EventRecord;
use crate::telemetry::{EventSink, RequestRecord};

/// How long the answer to a push waits for the outbox at most. Writing takes microseconds unless the disk hangs.
const APPEND_TIMEOUT: Duration = Duration::from_millis(250);

/// Notifies endpoints of the events of a registry. [`Notifier::shutdown`] ends it. Dropping it stops the delivery at
/// once; what was not sent stays in the outbox.
pub struct Notifier {
    options: NotificationOptions,
    instance: String,
    outbox: Outbox,
    wishes: Vec<EventFilter>,
    deliveries: Vec<Arc<Delivery>>,
    stop: watch::Sender<bool>,
    tasks: std::sync::Mutex<JoinSet<()>>,
    lost: AtomicU64,
    /// The storage in which outcomes are looked up.
    storage: OnceLock<Arc<dyn Storage>>,
}

impl Notifier {
    /// Starts to send what is in `outbox`, whose consumers are the names of the endpoints. Must be called within a
    /// tokio runtime.
    ///
    /// `client` configures the connections, such as certificates and proxies; redirects are not followed.
    ///
    /// # Errors
    /// [`Endpoint`](NotifierError::Endpoint) if a URL or a header field of an endpoint is malformed, and
    /// [`Client`](NotifierError::Client) if no client can be created.
    pub fn start(
        options: NotificationOptions,
        endpoints: Vec<NotificationEndpoint>,
        outbox: Outbox,
        client: reqwest::ClientBuilder,
    ) -> Result<Self, NotifierError> {
        let client = client
            .redirect(redirect::Policy::none())
            .build()
            .map_err(NotifierError::Client)?;
        let wishes = endpoints.iter().map(NotificationEndpoint::wishes).collect();
        let deliveries: Vec<Arc<Delivery>> = endpoints
            .into_iter()
            .map(|endpoint| Delivery::new(endpoint, client.clone(), outbox.clone()).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for delivery in &deliveries {
            tasks.spawn(Arc::clone(delivery).run(stopped.clone()));
        }
        Ok(Self {
            options,
            instance: uuid::Uuid::new_v4().to_string(),
            outbox,
            wishes,
            deliveries,
            stop,
            tasks: std::sync::Mutex::new(tasks),
            lost: AtomicU64::new(0),
            storage: OnceLock::new(),
        })
    }

    /// Looks up in `storage` what became of the intents that the last server on this outbox left, and sends the events
    /// of those that were carried out. It must complete before the first request.
    ///
    /// What cannot be looked up stays for the next start.
    pub async fn recover(&self, storage: Arc<dyn Storage>) {
        let storage = self.storage.get_or_init(|| storage);
        let (mut events, mut without_effect) = (0, 0);
        loop {
            let intents = match self.outbox.intents(None).await {
                Ok(intents) if intents.is_empty() => break,
                Ok(intents) => intents,
                Err(error) => {
                    tracing::error!(%error, "it cannot be read which events the last server did not tell of");
                    return;
                }
            };
            for (name, value) in intents {
                match self.look_up(name, &value, &**storage).await {
                    Ok(0) => without_effect += 1,
                    Ok(count) => events += count,
                    Err(error) => {
                        tracing::warn!(
                            error = %error,
                            "it cannot be looked up what the last server did without telling of it; the next one tries again"
                        );
                        return;
                    }
                }
            }
        }
        if events + without_effect > 0 {
            tracing::info!(
                told = events,
                other = without_effect,
                "requests were cut off by the end of the last server; events of what they did are told now, others did nothing"
            );
        }
    }

    /// Settles an intent according to the storage, and returns how many events it caused.
    async fn look_up(
        &self,
        name: IntentName,
        value: &[u8],
        storage: &dyn Storage,
    ) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let records = match serde_json::from_slice::<Intent>(value) {
            Ok(intent) => intent.happened(storage).await?,
            Err(error) => {
                tracing::error!(%error, "an intent of another version is in the outbox; it is not told of");
                Vec::new()
            }
        };
        self.outbox.settle(name, encode(&records)).await?;
        Ok(records.len())
    }

    /// Returns the statistics of each endpoint.
    #[must_use]
    pub fn statistics(&self) -> Vec<EndpointStatistics> {
        self.deliveries
            .iter()
            .map(|delivery| delivery.statistics())
            .collect()
    }

    /// Returns how many events were lost since the start because the outbox was full or could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.outbox
            .dropped()
            .saturating_add(self.lost.load(Ordering::Relaxed))
    }

    /// Sends what is queued, for at most `limit`, and stops. What cannot be sent stays in the outbox, which is not
    /// closed.
    pub async fn shutdown(&self, limit: Duration) {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks());
        if timeout(limit, async { while tasks.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            tasks.shutdown().await;
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn keep(&self, event: &Event, request: &RequestRecord, settles: bool) {
        let records = EventRecord::of(event, request, &self.options, &self.instance);
        let count = records.len() as u64;
        let values = encode(&records);
        let result = if event.action == EventAction::Pull {
            // Nothing depends on a pull, so its answer does not wait.
            self.outbox.append_later(values)
        } else {
            // Even after the timeout, the event is on its way to the file.
            let appended = async {
                if settles && self.outbox.outlives_process() {
                    self.outbox.settle(request.id.into_bytes(), values).await
                } else {
                    self.outbox.append(values).await
                }
            };
            match timeout(APPEND_TIMEOUT, appended).await {
                Ok(result) => result,
                Err(_) => {
                    tracing::warn!("the outbox is slow; a push was answered before its event was safe");
                    Ok(())
                }
            }
        };
        if let Err(error) = result {
            self.lost.fetch_add(count, Ordering::Relaxed);
            if !matches!(error, OutboxError::File(_)) {
                tracing::error!(%error, action = %event.action, repository = %event.repository, "an event is lost");
            }
        }
    }
}

fn encode(records: &[EventRecord]) -> Vec<Vec<u8>> {
    let values = records.iter().map(serde_json::to_vec);
    values.filter_map(Result::ok).collect()
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier")
            .field("options", &self.options)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl EventSink for Notifier {
    fn intend<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if !self.outbox.outlives_process() || !self.wishes.iter().any(|wishes| wishes.contain(event)) {
                return;
            }
            let records = EventRecord::of(event, request, &self.options, &self.instance);
            let Ok(value) = serde_json::to_vec(&Intent::new(event, records)) else {
                return;
            };
            let noted = timeout(APPEND_TIMEOUT, self.outbox.intend(request.id.into_bytes(), value)).await;
            if !matches!(noted, Ok(Ok(()))) {
                tracing::warn!("the outbox is slow; a kill just now would lose an event");
            }
        })
    }

    fn abandon<'a>(&'a self, request: &'a RequestRecord, is_unclear: bool) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if !self.outbox.outlives_process() {
                return;
            }
            let name = request.id.into_bytes();
            let settled = async {
                match self.storage.get() {
                    Some(storage) if is_unclear => {
                        for (name, value) in self.outbox.intents(Some(name)).await? {
                            self.look_up(name, &value, &**storage).await?;
                        }
                        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
                    }
                    _ => Ok(self.outbox.settle(name, Vec::new()).await?),
                }
            };
            if !matches!(timeout(APPEND_TIMEOUT, settled).await, Ok(Ok(()))) {
                tracing::debug!("what became of a request is looked up at the next start");
            }
        })
    }

    fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        if self.wishes.iter().any(|wishes| wishes.contain(event)) {
            Box::pin(self.keep(event, request, true))
        } else {
            Box::pin(std::future::ready(()))
        }
    }

    fn accept_another<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        if self.wishes.iter().any(|wishes| wishes.contain(event)) {
            Box::pin(self.keep(event, request, false))
        } else {
            Box::pin(std::future::ready(()))
        }
    }
}
