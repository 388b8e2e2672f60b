//! How clients see the server, as configured.

use registry_http::{Locations, ProxyField, ProxyFields, ProxyOptions, TrustedProxies};

use crate::config::sections::http::{self, Http};
use crate::failure::Failure;

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
