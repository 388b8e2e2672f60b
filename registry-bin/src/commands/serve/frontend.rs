//! What clients see of the server, as the configuration states it.

use registry_http::{FrontendOptions, TrustedProxies};

use crate::config::sections::http::Http;
use crate::failure::Failure;

/// Without `http.host`, URLs in responses are paths: they are right behind every proxy. `relativeurls` decides where it
/// is given.
pub(super) fn frontend(http: &Http) -> Result<FrontendOptions, Failure> {
    let mut options = FrontendOptions::default();
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
    options.is_absolute = !http.relative_urls.unwrap_or_else(|| options.url.is_none());
    if let Some(trusted) = &http.trusted_proxies {
        options.trusted_proxies = if trusted.is_empty() {
            TrustedProxies::none()
        } else {
            TrustedProxies::new(trusted.iter().map(|range| range.0))
        };
    }
    Ok(options)
}
