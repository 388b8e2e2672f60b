//! The paths in responses.

use http::header::{HeaderMap, HeaderValue, LINK, LOCATION};

use super::ProxyOptions;
use super::public_url::PublicUrl;

/// Makes the paths in a response those that clients see: whole URLs below `url`, where there is one.
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
        // `Link` is a path always, as that of other registries.
        change(header, LINK, |link| {
            let path = link.strip_prefix('<')?;
            is_path(path).then(|| format!("<{}{path}", options.prefix.as_str()))
        });
    }
}

/// Tells whether this is a path of the server, and not a URL of another.
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
