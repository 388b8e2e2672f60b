//! Keys that have no effect, and keys that are refused.
//!
//! The rule: a key that only tunes something that ours does without is accepted with a notice, because the same file
//! must start. A key that would change what a user sees or is protected by is refused, with the reason and a remedy.

use serde_json::Value;

use super::Configuration;
use super::problem::Problem;
use super::sections::middleware::Middleware;
use super::sections::storage::S3;
use super::sections::validation::Platforms;
use super::tree::Node;
use super::values::shown;

/// The keys that distribution does not have.
#[cfg(test)]
pub(crate) const OURS: &[&str] = &[
    "access",
    "auth.token.builtin",
    "backup",
    "collector",
    "http.debug.prometheus.repositories",
    "http.draindelay",
    "http.limits",
    "http.proxyfields",
    "http.ratelimit",
    "http.timeouts",
    "http.trustedproxies",
    "http.unix",
    "log.accesslog.format",
    "log.audit",
    "notifications.endpoints[].format",
    "notifications.outbox",
    "quotas",
    "retention",
    "scrub",
    "storage.cache.folder",
    "storage.cache.maxage",
    "storage.cache.size",
    "storage.maintenance.uploadpurging.maxopen",
    "storage.redirect.minimumsize",
    "storage.redirect.networks",
    "storage.s3.sessiontoken",
    "storage.s3.singlewriter",
    "storage.s3.conditionaldeletes",
    "tags.immutable",
    "validation.allowmissingcontent",
    "validation.manifests.maxdescriptors",
];

/// The keys that have no effect, and why they need none.
pub(crate) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("redis", "records need no cache beside the storage"),
    (
        "storage.cache.blobdescriptor",
        "what is known of a blob is in its records",
    ),
    (
        "storage.cache.blobdescriptorsize",
        "what is known of a blob is in its records",
    ),
    ("storage.tag", "each tag has a record, so none is searched for"),
    ("storage.filesystem.maxthreads", "the number of threads is fixed"),
    ("storage.s3.multipartcopychunksize", "nothing is copied"),
    ("storage.s3.multipartcopymaxconcurrency", "nothing is copied"),
    ("storage.s3.multipartcopythresholdsize", "nothing is copied"),
    ("storage.s3.loglevel", "failed requests are in the log"),
    ("storage.gcs.chunksize", "parts are as large as the upload needs"),
    (
        "storage.gcs.maxconcurrency",
        "memory for parts is bounded instead",
    ),
    ("storage.gcs.useragent", "the service is told the library's name"),
    (
        "storage.azure.max_retries",
        "failed requests are repeated for some seconds",
    ),
    (
        "storage.azure.retry_delay",
        "failed requests are repeated for some seconds",
    ),
    (
        "log.reportcaller",
        "messages say what happened, not in which line of code",
    ),
    (
        "compatibility.schema1.signingkeyfile",
        "manifests of schema 1 are not accepted",
    ),
    (
        "validation.manifests.indexes.platformlist",
        "only `platforms: list` asks for it, which is not supported",
    ),
    ("reporting", "failures are in the log"),
];

/// The keys that are refused if they differ from their default: why, and what to do.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    (
        "proxy",
        "a registry that mirrors another one comes with a later version; until then keep registry:2 for this one",
    ),
    (
        "auth.silly",
        "takes any credentials, which protects nothing; use `htpasswd` or `token`, or remove `auth`",
    ),
    (
        "http.tls.letsencrypt",
        "certificates are not fetched; let certbot, lego or cert-manager do it, and name the files in `certificate` and `key`, which are read again when they change",
    ),
    (
        "policy.repository.classes",
        "content of any kind may be pushed; remove the key, and say in `access.rules` who may push",
    ),
    (
        "compatibility.schema1.enabled",
        "manifests of schema 1 are not accepted, as in registry:3; push the images again with any client since 2017",
    ),
    (
        "storage.swift",
        "is not supported, as in registry:3; copy the data to S3 or to a disk",
    ),
    (
        "storage.oss",
        "is not supported, as in registry:3; use `s3` with the service's S3 endpoint",
    ),
];

/// Returns the keys that are set and have no effect, in the order above.
pub(crate) fn without_effect(tree: &Node) -> Vec<&'static str> {
    let given = |(path, _): &(&'static str, &str)| tree.has(path).then_some(*path);
    WITHOUT_EFFECT.iter().filter_map(given).collect()
}

/// Returns whether neither the key nor one above it is in [`WITHOUT_EFFECT`].
pub(crate) fn has_effect(key: &str) -> bool {
    WITHOUT_EFFECT.iter().all(|(path, _)| {
        let below = key.strip_prefix(path);
        below.is_none_or(|rest| !rest.is_empty() && !rest.starts_with('.'))
    })
}

/// Returns why a key of [`WITHOUT_EFFECT`] needs no effect.
pub(crate) fn reason(key: &str) -> &'static str {
    let found = WITHOUT_EFFECT.iter().find(|(path, _)| *path == key);
    found.map_or("", |(_, reason)| reason)
}

/// Returns the refused values that are set.
pub(super) fn refusals(configuration: &Configuration, tree: &Node) -> Vec<Problem> {
    let mut refusals = Refusals {
        given: serde_json::to_value(configuration).unwrap_or_default(),
        default: serde_json::to_value(Configuration::default()).unwrap_or_default(),
        tree,
        found: Vec::new(),
    };
    for (path, reason) in REFUSED {
        refusals.unless_default(path, reason);
    }
    if let Some(s3) = &configuration.storage.s3 {
        refuse_of_s3(s3, &mut refusals);
    }
    refuse_unbuilt(configuration, &mut refusals);
    if configuration.validation.manifests.indexes.platforms == Platforms::List {
        refusals.add(
            "validation.manifests.indexes.platforms",
            "which platforms must be there cannot be chosen; use `all`, or `none` to accept any index",
        );
    }
    let urls = &configuration.validation.manifests.urls;
    if !urls.deny.is_empty()
        || !(urls.allow.is_empty() || urls.allow.iter().any(|allow| takes_any_url(allow)))
    {
        refusals.add(
            "validation.manifests.urls",
            "URLs of layers are not checked: any are accepted; remove the key, or set `allow: ['^https?://']`, which says so",
        );
    }
    for (index, hook) in configuration.log.hooks.iter().enumerate() {
        if !hook.disabled {
            refusals.add(
                &format!("log.hooks[{index}]"),
                "no mail is sent; let what collects the log tell you, and set `disabled: true`",
            );
        }
    }
    let middleware = &configuration.middleware;
    for (part, list) in [
        ("registry", &middleware.registry),
        ("repository", &middleware.repository),
        ("storage", &middleware.storage),
    ] {
        refusals.refuse_middleware(part, list);
    }
    refusals.found
}

/// Refuses what this build does not include.
fn refuse_unbuilt(configuration: &Configuration, refusals: &mut Refusals<'_>) {
    if configuration.storage.gcs.is_some() && !cfg!(feature = "gcs") {
        refusals.add(
            "storage.gcs",
            "this program was built without it; build it with `--features gcs`",
        );
    }
    if let Some(azure) = &configuration.storage.azure {
        if !cfg!(feature = "azure") {
            refusals.add(
                "storage.azure",
                "this program was built without it; build it with `--features azure`",
            );
        }
        if azure.connection_string.is_some() {
            refusals.add(
                "storage.azure.connectionstring",
                "is not taken apart; give what it says as `accountname`, `accountkey` and `serviceurl`",
            );
        }
    }
}

fn refuse_of_s3(s3: &S3, refusals: &mut Refusals<'_>) {
    let usual = |value: &Option<String>, usual: &[&str]| {
        let is_usual = |value: &str| usual.iter().any(|usual| usual.eq_ignore_ascii_case(value));
        value.as_deref().is_none_or(is_usual)
    };
    if !usual(&s3.storage_class, &["STANDARD", "NONE"]) {
        refusals.add(
            "storage.s3.storageclass",
            "objects are written with the bucket's own class; remove the key, and add a lifecycle rule to the bucket",
        );
    }
    if !usual(&s3.object_acl, &["private"]) {
        refusals.add(
            "storage.s3.objectacl",
            "objects are private to the bucket's owner; remove the key, and say who may read in the bucket's policy",
        );
    }
    if !s3.v4_auth {
        refusals.add(
            "storage.s3.v4auth",
            "requests are signed by version 4; remove the key",
        );
    }
}

/// Returns whether a regular expression is known to match every URL that a client could fetch.
fn takes_any_url(expression: &str) -> bool {
    matches!(
        expression,
        "" | ".*" | "^.*" | "^.*$" | "^https?://" | "^https?://.*" | "^https?://.*$"
    )
}

struct Refusals<'a> {
    given: Value,
    default: Value,
    tree: &'a Node,
    found: Vec<Problem>,
}

impl Refusals<'_> {
    fn add(&mut self, path: &str, reason: &str) {
        let problem = Problem::new(reason).below(path);
        self.found.push(problem.at(&self.tree.origin_of(path)));
    }

    fn unless_default(&mut self, path: &str, reason: &str) {
        let pointer = format!("/{}", path.replace('.', "/"));
        let value = |configuration: &Value| configuration.pointer(&pointer).cloned().unwrap_or_default();
        if value(&self.given) != value(&self.default) {
            self.add(path, reason);
        }
    }

    fn refuse_middleware(&mut self, part: &str, list: &[Middleware]) {
        for (index, middleware) in list.iter().enumerate() {
            if !middleware.disabled {
                let reason = format!(
                    "{} is not supported: content comes from this server, or from the bucket (`storage.redirect`); set `disabled: true`, and put a cache or a CDN in front of either",
                    shown(&middleware.name)
                );
                self.add(&format!("middleware.{part}[{index}]"), &reason);
            }
        }
    }
}
