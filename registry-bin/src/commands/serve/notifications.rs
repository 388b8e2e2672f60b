//! Notifications as configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry_http::ListenAddress;
use registry_http::notify::{NotificationEndpoint, NotificationFormat, NotificationOptions, Notifier};
use registry_storage::outbox::{Outbox, OutboxLimits};

use crate::config::Configuration;
use crate::config::sections::notifications::{EventAction, EventEndpoint, EventFormat};
use crate::config::values::GoDuration;
use crate::failure::Failure;
use crate::host_name::host_name;
use crate::places::outbox_file;
use crate::places::writable::{cannot_use_outbox, check_outbox_files};
use crate::storage::{OpenStorage, StorageLocation};

/// The delivery of notifications, and the outbox.
pub(super) struct Notifications {
    pub(super) notifier: Arc<Notifier>,
    outbox: Outbox,
}

impl Notifications {
    /// Starts the delivery, if there are endpoints.
    pub(super) async fn start(
        configuration: &Configuration,
        (location, storage): (&StorageLocation, &OpenStorage),
        address: Option<&ListenAddress>,
    ) -> Result<Option<Self>, Failure> {
        let section = &configuration.notifications;
        let enabled = section.endpoints.iter().filter(|endpoint| !endpoint.disabled);
        let endpoints: Vec<NotificationEndpoint> = enabled.map(map).collect();
        if endpoints.is_empty() {
            return Ok(None);
        }
        let names = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let limits = OutboxLimits {
            entries: section.outbox.limit.into(),
            bytes: section.outbox.bytes.0,
        };
        let path = match (&section.outbox.path, location) {
            (Some(path), _) => Some(path.to_path_buf()),
            (None, StorageLocation::Folder(root)) if !storage.store.write_state().is_read_only => {
                Some(outbox_file(root))
            }
            (None, _) => None,
        };
        let outbox = open(path, limits, names).await?;
        let mut options = NotificationOptions::default();
        options.include_references = section.events.include_references;
        options.source = match address.and_then(ListenAddress::tcp) {
            Some(address) => format!("{}:{}", host_name(), address.port()),
            None => host_name(),
        };
        let client =
            reqwest::Client::builder().user_agent(concat!("registry-bin/", env!("CARGO_PKG_VERSION")));
        let notifier = Notifier::start(options, endpoints, outbox.clone(), client)
            .map_err(|cause| Failure::of("notifications.endpoints", "cannot be used").because(cause))?;
        notifier.recover(Arc::clone(&storage.storage)).await;
        Ok(Some(Self {
            notifier: Arc::new(notifier),
            outbox,
        }))
    }

    /// Sends what is queued, for at most `limit`; the next server on this data sends the rest.
    pub(super) async fn shutdown(self, limit: Duration) {
        self.notifier.shutdown(limit).await;
        let waiting: u64 = self
            .notifier
            .statistics()
            .iter()
            .map(|endpoint| endpoint.pending)
            .max()
            .unwrap_or(0);
        if waiting > 0 {
            tracing::warn!(waiting, "notifications were not taken; they wait in the outbox");
        }
        let outbox = self.outbox;
        // This joins a thread.
        if let Err(error) = tokio::task::spawn_blocking(move || outbox.close()).await {
            tracing::error!(%error, "the outbox was not closed in order");
        }
    }
}

/// Opens the outbox in a file or in memory.
async fn open(path: Option<PathBuf>, limits: OutboxLimits, names: Vec<String>) -> Result<Outbox, Failure> {
    if path.is_none() {
        tracing::warn!(
            "notifications that wait are kept in memory, and are lost when the server ends; name a file for them in \
             notifications.outbox.path"
        );
    }
    let opening = tokio::task::spawn_blocking(move || {
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        match path {
            Some(path) => {
                check_outbox_files(&path)?;
                Outbox::open(&path, limits, &names).map_err(|cause| cannot_use_outbox(&path).because(cause))
            }
            None => Outbox::in_memory(limits, &names)
                .map_err(|cause| Failure::new("cannot keep notifications").because(cause)),
        }
    });
    opening
        .await
        .map_err(|cause| Failure::new("cannot open the outbox of notifications").because(cause))?
}

fn map(endpoint: &EventEndpoint) -> NotificationEndpoint {
    let mut mapped = NotificationEndpoint::new(&endpoint.name, endpoint.url.reveal());
    let headers = endpoint.headers.revealed();
    mapped.headers = headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // As in distribution, zero means the default.
    if endpoint.timeout != GoDuration::default() {
        mapped.timeout = endpoint.timeout.0;
    }
    if endpoint.backoff != GoDuration::default() {
        mapped.backoff = endpoint.backoff.0;
    }
    if endpoint.threshold != 0 {
        mapped.threshold = endpoint.threshold;
    }
    let ignored = endpoint
        .ignored_media_types
        .iter()
        .chain(&endpoint.ignore.media_types);
    mapped.ignored_media_types = ignored.cloned().collect();
    mapped.ignored_actions = endpoint
        .ignore
        .actions
        .iter()
        .map(|action| word(*action).to_owned())
        .collect();
    mapped.format = match endpoint.format {
        EventFormat::Distribution => NotificationFormat::Distribution,
        EventFormat::DistributionVersion1 => NotificationFormat::DistributionVersion1,
        EventFormat::CloudEvents => NotificationFormat::CloudEvents,
    };
    mapped
}

const fn word(action: EventAction) -> &'static str {
    match action {
        EventAction::Pull => "pull",
        EventAction::Push => "push",
        EventAction::Mount => "mount",
        EventAction::Delete => "delete",
    }
}
