//! The service of requests, as configured: the registry's options, proxies and rate limits.

use std::sync::Arc;

use bytes::Bytes;
use registry_core::admission::{DeletesDisabled, ReadOnly};
use registry_core::page::PageQuery;
use registry_core::registry::{CatalogKey, Options, Registry};
use registry_core::{Admission, Storage};
use registry_http::{
    EventSink, Limits, Locations, ProxyField, ProxyFields, ProxyOptions, Rate, RateLimits, RegistryService,
    TrustedProxies,
};
use registry_storage::{Maintenance, QuotaAdmission, SecretName};
use uuid::Uuid;

use super::authentication::Authentication;
use super::notifications::Notifications;
use super::telemetry::Telemetry;
use crate::config::Configuration;
use crate::config::sections::http::{self, Http, RateLimit};
use crate::failure::Failure;
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
    catalog_key: CatalogKey,
    limits: Limits,
) -> RegistryService<impl Storage + use<>> {
    let metered = hooks.telemetry.meter(&storage.storage, location.kind());
    let mut options = options(configuration, catalog_key);
    options.redirect_from_size = storage.redirects.as_ref().map(|redirects| redirects.from_size);
    let registry = Registry::new(Arc::new(metered), options);
    let quotas = Arc::new(QuotaAdmission::new(Arc::clone(&storage.store)));
    let registry = admissions(configuration)
        .into_iter()
        .chain([quotas as _])
        .fold(registry, Registry::with_admission);
    let mut service = RegistryService::new(registry, limits)
        .with_fields(configuration.http.headers.to_map())
        .with_observer(Arc::new(hooks.telemetry.observers.clone()))
        .with_access(Arc::clone(&hooks.authentication.access))
        .with_rate_limits(rate_limits(&configuration.http.rate_limit));
    if let Some(networks) = storage
        .redirects
        .as_ref()
        .and_then(|redirects| redirects.networks.clone())
    {
        service = service.with_redirected_networks(networks);
    }
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

/// Returns the options of a registry.
fn options(configuration: &Configuration, catalog_key: CatalogKey) -> Options {
    let validation = &configuration.validation;
    let mut options = Options::default();
    options.allow_sparse_indexes = validation.allows_sparse_indexes();
    options.allow_missing_children = validation.allow_missing_content;
    options.manifest_descriptor_limit = match usize::try_from(validation.manifests.most_descriptors) {
        Ok(limit @ 1..) => limit,
        _ => options.manifest_descriptor_limit,
    };
    options.catalog_page_limit = match usize::try_from(configuration.catalog.most_entries) {
        Ok(limit @ 1..) => limit.min(PageQuery::LARGEST_ITEMS),
        _ => options.catalog_page_limit,
    };
    options.tags_page_limit = match usize::try_from(configuration.tags.most_tags) {
        Ok(limit @ 1..) => limit.min(PageQuery::LARGEST_ITEMS),
        _ => options.tags_page_limit,
    };
    options.catalog_key = Some(catalog_key);
    options
}

/// Returns what refuses requests that their client is allowed to make.
fn admissions(configuration: &Configuration) -> Vec<Arc<dyn Admission>> {
    let storage = &configuration.storage;
    let read_only = storage
        .maintenance
        .read_only
        .enabled
        .then(|| Arc::new(ReadOnly) as _);
    let deletes = (!storage.delete.enabled).then(|| Arc::new(DeletesDisabled) as _);
    read_only.into_iter().chain(deletes).collect()
}

/// Returns the key that hides positions in the catalog: the configured secret, or otherwise one that is in the storage, so
/// that another replica, or this server after a restart, takes the links of this one. If it cannot be there, it is a random
/// one of this process.
pub(super) async fn catalog_key(configuration: &Configuration, store: &dyn Maintenance) -> CatalogKey {
    if let Some(secret) = &configuration.http.secret {
        return CatalogKey::new(secret.reveal().as_bytes());
    }
    let random = [Uuid::new_v4(), Uuid::new_v4()];
    let random = Bytes::from(random.map(Uuid::into_bytes).concat());
    match shared_secret(store, &random).await {
        Ok(shared) => CatalogKey::new(&shared),
        Err(error) => {
            tracing::warn!(
                %error,
                "the secret of links to pages of the catalog cannot be kept in the storage, so other servers refuse the links of \
                 this one; `http.secret` sets one"
            );
            CatalogKey::new(&random)
        }
    }
}

/// Returns the secret in the storage, which is `new` if there was none and it can be written.
async fn shared_secret(store: &dyn Maintenance, new: &Bytes) -> Result<Bytes, registry_core::Error> {
    let read = || store.secret(SecretName::Catalog);
    if let Some(secret) = read().await? {
        return Ok(secret.value);
    }
    let is_written = !store.write_state().is_read_only
        && store.write_secret(SecretName::Catalog, new.clone(), None).await?;
    let faster = if is_written { None } else { read().await? };
    Ok(faster.map_or_else(|| new.clone(), |secret| secret.value))
}

/// Returns the options of the configuration. Without `http.host`, URLs in responses are paths for most clients, because
/// those are correct behind any proxy. `relativeurls` overrides that.
pub(super) fn proxy_options(http: &Http) -> Result<ProxyOptions, Failure> {
    let mut options = ProxyOptions::default();
    if let Some(host) = &http.host {
        let url = host.parse();
        options.url =
            Some(url.map_err(|cause| Failure::of("http.host", format!("{host:?}")).because(cause))?);
    }
    if let Some(prefix) = &http.prefix {
        let parsed = prefix.parse();
        options.prefix =
            parsed.map_err(|cause| Failure::of("http.prefix", format!("{prefix:?}")).because(cause))?;
    }
    options.locations = match (http.relative_urls, &options.url) {
        (Some(true), _) => Locations::Paths,
        (Some(false), _) | (None, Some(_)) => Locations::Urls,
        (None, None) => Locations::ByClient,
    };
    if let Some(trusted) = &http.trusted_proxies {
        options.trusted_proxies = if trusted.is_empty() {
            TrustedProxies::none()
        } else {
            TrustedProxies::new(trusted.iter().map(|range| range.0))
        };
    }
    if let Some(fields) = &http.proxy_fields {
        options.proxy_fields = ProxyFields::new(fields.iter().copied().map(proxy_field));
    }
    Ok(options)
}

const fn proxy_field(field: http::ProxyField) -> ProxyField {
    match field {
        http::ProxyField::XForwardedFor => ProxyField::XForwardedFor,
        http::ProxyField::XForwardedProto => ProxyField::XForwardedProto,
        http::ProxyField::XForwardedHost => ProxyField::XForwardedHost,
        http::ProxyField::XForwardedPort => ProxyField::XForwardedPort,
        http::ProxyField::Forwarded => ProxyField::Forwarded,
    }
}

#[cfg(test)]
mod tests {
    use registry_storage::testing::Faulty;
    use registry_storage::testing::faulty::Fault;
    use registry_storage::{ObjectStoreBackend, Store};

    use super::*;

    #[tokio::test]
    async fn replicas_that_start_at_once_hide_positions_with_the_same_secret() {
        let bucket = ObjectStoreBackend::memory();
        let [one, other, broken] = [(); 3].map(|()| Store::new(Faulty::new(bucket.clone())));
        // It reads, begins a transaction, and writes.
        broken.backend().fault_at(2, Fault::Fail);
        shared_secret(&broken, &"broken".into()).await.unwrap_err();
        for store in [&one, &other] {
            store.backend().delay_write(0, 10);
        }
        let (first, second) = ("one".into(), "other".into());
        let (first, second) = tokio::join!(shared_secret(&one, &first), shared_secret(&other, &second));
        let secret = first.unwrap();
        assert_eq!(second.unwrap(), secret);
        assert_eq!([&one, &other].map(|store| store.backend().writes()), [1, 1]);
        assert_eq!(shared_secret(&broken, &"broken".into()).await.unwrap(), secret);
    }
}
