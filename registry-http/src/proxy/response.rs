//! Rewrites the paths in responses.

use http::header::{HeaderMap, HeaderValue, LINK, LOCATION};

use super::options::ProxyOptions;
use super::public_url::PublicUrl;

/// Turns the paths in a response into those that clients see: full URLs below `url`, if there is one.
pub(super) fn finish(header: &mut HeaderMap, options: &ProxyOptions, url: Option<&PublicUrl>) {
    let base = match url {
        Some(url) => url.to_string(),
        None => options.prefix.as_str().to_owned(),
    };
    if !base.is_empty() {
        change(header, LOCATION, |location| {
            is_path(location).then(|| format!("{base}{location}"))
        });
    }
    if !options.prefix.as_str().is_empty() {
        // `Link` is always a path, as in other registries.
        change(header, LINK, |link| {
            let path = link.strip_prefix('<')?;
            is_path(path).then(|| format!("<{}{path}", options.prefix.as_str()))
        });
    }
}

/// Returns whether this is a path on this server, not a URL of another.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.starts_with("//")
}

fn change(header: &mut HeaderMap, name: http::HeaderName, change: impl Fn(&str) -> Option<String>) {
    if let Some(value) = header.get_mut(name)
        && let Some(changed) = value.to_str().ok().and_then(change)
        && let Ok(changed) = HeaderValue::try_from(changed)
    {
        *value = changed;
    }
}
