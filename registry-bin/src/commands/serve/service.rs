//! The registry's service, built from the configuration.

use std::sync::Arc;

use registry_core::Storage;
use registry_core::registry::Registry;
use registry_http::{EventSink, Limits, Rate, RateLimits, RegistryService};

use super::authentication::Authentication;
use super::notifications::Notifications;
use super::rules::rules;
use super::telemetry::Telemetry;
use crate::config::Configuration;
use crate::config::sections::http::{self, RateLimit};
use crate::storage::{OpenStorage, StorageLocation};

/// What wraps each request besides the registry.
pub(super) struct RequestHooks<'a> {
    pub(super) authentication: &'a Authentication,
    pub(super) telemetry: &'a Telemetry,
    pub(super) notifications: Option<&'a Notifications>,
}

/// Creates the service of a registry.
pub(super) fn service(
    configuration: &Configuration,
    (location, storage): (&StorageLocation, &OpenStorage),
    hooks: &RequestHooks<'_>,
    limits: Limits,
) -> RegistryService<impl Storage + use<>> {
    let metered = hooks.telemetry.meter(&storage.storage, location.kind());
    let registry = Registry::new(Arc::new(metered), rules(configuration));
    let mut service = RegistryService::new(registry, limits)
        .with_fields(configuration.http.headers.to_map())
        .with_observer(Arc::new(hooks.telemetry.observers.clone()))
        .with_access(Arc::clone(&hooks.authentication.access))
        .with_rate_limits(rate_limits(&configuration.http.rate_limit));
    if let Some(notifications) = hooks.notifications {
        let notifier = Arc::clone(&notifications.notifier);
        hooks.telemetry.metrics.add_notifier(Arc::clone(&notifier));
        service = service.with_event_sink(notifier as Arc<dyn EventSink>);
    }
    service
}

fn rate_limits(limits: &RateLimit) -> RateLimits {
    let rate = |rate: &Option<http::Rate>| {
        rate.as_ref().map(|rate| Rate {
            requests: rate.requests,
            per: rate.per.0,
            burst: rate.burst.unwrap_or(rate.requests),
        })
    };
    RateLimits::new(rate(&limits.address), rate(&limits.identity))
}
