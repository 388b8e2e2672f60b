//! Remarks on keys that act differently, or not at all, because of another value, and on durations without a unit. They
//! are accepted and logged, because the same file must start.

use std::borrow::Cow;
use std::time::Duration;

use registry_core::page::PageQuery;
use serde_json::Value;

use super::Configuration;
use super::origin::Origin;
use super::sections::auth::AuthKind;
use super::sections::http::Prometheus;
use super::sections::{quotas, retention};
use super::tree::{self, Node};
use super::values::GoDuration;

/// A grace that is shorter deserves a remark.
const SHORT_GRACE: Duration = Duration::from_hours(1);

/// Returns the keys that do not act as written, each with a sentence of which it is the subject.
pub(crate) fn remarks(configuration: &Configuration, tree: &Node) -> Vec<(Cow<'static, str>, String)> {
    let mut remarks = limited(configuration);
    let of_policies = retention::remarks(&configuration.retention, &configuration.tags);
    let of_entries = of_policies
        .into_iter()
        .chain(quotas::remarks(&configuration.quotas));
    remarks.extend(of_entries.map(|(key, remark)| (key.into(), remark)));
    let http = &configuration.http;
    let (auth, token) = (&configuration.auth, configuration.auth.token.as_ref());
    let has_realm = token.is_some_and(|token| token.auto_redirect && token.realm.is_some());
    let (storage, redirect) = (&configuration.storage, &configuration.storage.redirect);
    let limits_redirects = redirect.networks.is_some() || redirect.minimum_size.0 > 0;
    let is_without_bucket = storage.filesystem.is_some() || storage.in_memory.is_some();
    let believes_nobody = http.trusted_proxies.as_ref().is_some_and(Vec::is_empty);
    for (is_so, key, remark) in [
        (
            http.debug.addr.is_none() && http.debug.prometheus != Prometheus::default(),
            "http.debug.prometheus",
            "has no effect without `http.debug.addr`, where metrics are served",
        ),
        (
            has_realm,
            "auth.token.realm",
            "has no effect with `autoredirect: true`, which sends clients to `autoredirectpath` of this registry",
        ),
        (
            believes_nobody && tree.has("http.proxyfields"),
            "http.proxyfields",
            "has no effect with `trustedproxies: []`, by which no proxy is believed",
        ),
        (
            redirect.disable == Some(true) && limits_redirects,
            "storage.redirect",
            "limits whom and what is sent to the bucket, and has no effect with `disable: true`",
        ),
        (
            is_without_bucket && (redirect.disable == Some(false) || limits_redirects),
            "storage.redirect",
            "has no effect: content comes from this server, because it is not in a bucket",
        ),
        (
            is_without_bucket && storage.cache.is_on(),
            "storage.cache",
            "has no effect: it is for a bucket, and the storage is none",
        ),
        (
            tree.has("storage.cache.folder") && storage.cache.folder.is_none(),
            "storage.cache.folder",
            "is empty, so no blobs are kept; name a folder, or remove the key",
        ),
        (
            !is_without_bucket && tree.has("storage.cache.size") && storage.cache.folder.is_none(),
            "storage.cache.size",
            "has no effect without `storage.cache.folder`",
        ),
        (
            redirect.disable == Some(true)
                && storage
                    .s3
                    .as_ref()
                    .is_some_and(|s3| s3.redirect_endpoint.is_some()),
            "storage.s3.redirectendpoint",
            "has no effect with `disable: true` of `storage.redirect`",
        ),
        (
            configuration.collector.enabled && configuration.collector.grace.0 < SHORT_GRACE,
            "collector.grace",
            "is shorter than a large push may take; such a push is refused, because a blob is gone before its manifest comes",
        ),
        (
            !configuration.collector.enabled && !configuration.retention.is_empty(),
            "retention",
            "is applied by the commands `collect` and `garbage-collect` only, because `collector.enabled` is false",
        ),
        (
            auth.kind() == AuthKind::Nobody && names_users_only(configuration),
            "access.rules",
            "lets nobody do anything: without `auth` nobody can log in, and no rule is for `anonymous`",
        ),
    ] {
        if is_so {
            remarks.push((key.into(), remark.to_owned()));
        }
    }
    remarks
}

/// Returns whether there are rules, but none for clients that are not logged in.
fn names_users_only(configuration: &Configuration) -> bool {
    let rules = &configuration.access.rules;
    let mut identities = rules.iter().flat_map(|rule| &rule.identities);
    !rules.is_empty() && identities.all(|identity| identity != "anonymous")
}

/// Returns the keys that exceed a limit.
fn limited(configuration: &Configuration) -> Vec<(Cow<'static, str>, String)> {
    let most = PageQuery::LARGEST_ITEMS;
    let is_more = |wanted: i64| usize::try_from(wanted).is_ok_and(|wanted| wanted > most);
    [
        ("catalog.maxentries", configuration.catalog.most_entries),
        ("tags.maxtags", configuration.tags.most_tags.into()),
    ]
    .into_iter()
    .filter(|(_, wanted)| is_more(*wanted))
    .map(|(key, _)| {
        (
            key.into(),
            format!("is limited: a page has at most {most}, and a link to the next one"),
        )
    })
    .collect()
}

/// A duration without a unit, which is nanoseconds although mostly seconds are meant: its key, where it was written, and its number.
pub(crate) type BareDuration = (String, Origin, u64);

/// Finds the durations that were written without a unit. 0 needs none.
pub(crate) fn bare_durations(configuration: &Configuration, tree: &Node) -> Vec<BareDuration> {
    let mut found = Vec::new();
    let read = serde_json::to_value(configuration).unwrap_or_default();
    find_bare_durations("", &read, tree, &mut found);
    found
}

fn find_bare_durations(path: &str, value: &Value, tree: &Node, found: &mut Vec<BareDuration>) {
    match value {
        Value::Object(below) => {
            for (key, value) in below {
                let separator = if path.is_empty() { "" } else { "." };
                find_bare_durations(&format!("{path}{separator}{key}"), value, tree, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                find_bare_durations(&format!("{path}[{index}]"), value, tree, found);
            }
        }
        // Other text of digits stays as it is. Reading a duration adds its unit.
        Value::String(read) if read.ends_with('s') => {
            let Some(node) = tree.find(path) else { return };
            let tree::Value::Scalar { text, .. } = &node.value else {
                return;
            };
            let (Ok(number), true) = (
                text.parse(),
                serde_json::from_value::<GoDuration>(value.clone()).is_ok(),
            ) else {
                return;
            };
            if number > 0 {
                found.push((path.to_owned(), node.origin.clone(), number));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests_support::loaded;

    #[test]
    fn durations_without_a_unit_are_found() {
        let text = "version: 0.1\nstorage: {inmemory: , maintenance: {uploadpurging: {age: 1h}}}\n\
                    http: {draintimeout: 30, secret: 10}\nhealth: {tcp: [{addr: 'a:1', timeout: 0, interval: 5000000}]}\n";
        let loaded = loaded(text, &[]);
        let found = bare_durations(&loaded.configuration, &loaded.tree);
        let expected = [
            ("health.tcp[0].interval", 4, 5_000_000),
            ("http.draintimeout", 3, 30),
        ];
        let expected = expected.map(|(key, line, number)| (key.to_owned(), Origin::Line(line), number));
        assert_eq!(found, expected);
    }
}
