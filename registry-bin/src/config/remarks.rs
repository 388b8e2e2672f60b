//! Remarks on keys that act differently, or not at all, because of another value. They are accepted and logged, because
//! the same file must start.

use registry_core::page::PageQuery;

use super::Configuration;
use super::sections::auth::Kind;
use super::sections::http::Prometheus;
use super::tree::Node;

/// Returns the keys that do not act as written, each with a sentence of which it is the subject.
pub(crate) fn remarks(configuration: &Configuration, tree: &Node) -> Vec<(&'static str, String)> {
    let mut remarks = limited(configuration);
    let http = &configuration.http;
    let (auth, token) = (&configuration.auth, configuration.auth.token.as_ref());
    let has_realm = token.is_some_and(|token| token.auto_redirect && token.realm.is_some());
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
            auth.kind() == Kind::Nobody && names_users_only(configuration),
            "access.rules",
            "lets nobody do anything: without `auth` nobody can log in, and no rule is for `anonymous`",
        ),
    ] {
        if is_so {
            remarks.push((key, remark.to_owned()));
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
fn limited(configuration: &Configuration) -> Vec<(&'static str, String)> {
    let most = PageQuery::LARGEST;
    let is_more = |wanted: i64| usize::try_from(wanted).is_ok_and(|wanted| wanted > most);
    [
        ("catalog.maxentries", configuration.catalog.most_entries),
        ("tags.maxtags", configuration.tags.most_tags.into()),
    ]
    .into_iter()
    .filter(|(_, wanted)| is_more(*wanted))
    .map(|(key, _)| {
        (
            key,
            format!("is limited: a page has at most {most}, and a link to the next one"),
        )
    })
    .collect()
}
