//! What must hold between the values of a configuration.

use registry_http::tls::CipherSuites;
use registry_http::{Prefix, PublicUrl};

use super::Configuration;
use super::problem::{Problem, alternatives};
use super::sections::auth::{Auth, SigningAlgorithm, Token};
use super::sections::http::Network;
use super::sections::storage::AzureCredentialKind;
use super::supported;
use super::tree::Node;
use crate::access;

/// The kinds of storage, of which one is chosen.
pub(super) const DRIVERS: [&str; 7] = ["filesystem", "inmemory", "s3", "gcs", "azure", "swift", "oss"];

/// The kinds of authentication, of which at most one is chosen.
const AUTHENTICATORS: [&str; 4] = ["none", "silly", "htpasswd", "token"];

/// The kinds of storage that are named.
pub(super) fn drivers(tree: &Node) -> Vec<&'static str> {
    named(tree, "storage", &DRIVERS)
}

fn named(tree: &Node, section: &str, names: &[&'static str]) -> Vec<&'static str> {
    let section = tree.child(section);
    let is_named = |name: &&str| section.is_some_and(|section| section.child(name).is_some());
    names.iter().copied().filter(is_named).collect()
}

/// All that is wrong or not supported.
pub(super) fn problems(configuration: &Configuration, tree: &Node) -> Vec<Problem> {
    let mut problems = Problems {
        tree,
        found: Vec::new(),
    };
    let drivers = drivers(tree);
    if drivers.is_empty() {
        let usual: Vec<&str> = DRIVERS.iter().copied().take(5).collect();
        problems.add(
            "storage",
            format!(
                "where to store is missing; name {} below it",
                alternatives(&usual)
            ),
        );
    }
    problems.exclusive("storage", &drivers);
    problems.exclusive("auth", &named(tree, "auth", &AUTHENTICATORS));
    check_storage(configuration, &mut problems);
    check_auth(&configuration.auth, &mut problems);
    check_access(configuration, &mut problems);
    check_http(configuration, &mut problems);
    check_notifications(configuration, &mut problems);
    if problems.found.is_empty() {
        problems.found = supported::refusals(configuration, tree);
    }
    problems.found
}

struct Problems<'a> {
    tree: &'a Node,
    found: Vec<Problem>,
}

impl Problems<'_> {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(message).below(path);
        self.found.push(problem.at(&self.tree.origin_of(path)));
    }

    /// A value must not be empty.
    fn required(&mut self, path: &str, missing: bool, remedy: &str) {
        if missing {
            self.add(path, format!("is missing; {remedy}"));
        }
    }

    fn exclusive(&mut self, section: &str, names: &[&str]) {
        if names.len() < 2 {
            return;
        }
        let places: Vec<String> = names
            .iter()
            .map(|name| format!("`{name}` ({})", self.tree.origin_of(&format!("{section}.{name}"))))
            .collect();
        self.add(
            section,
            format!("{} exclude each other; keep one", places.join(" and ")),
        );
    }
}

fn check_storage(configuration: &Configuration, problems: &mut Problems<'_>) {
    let storage = &configuration.storage;
    let bucket = "name the bucket";
    if let Some(filesystem) = &storage.filesystem {
        let missing = filesystem.root.as_os_str().is_empty();
        problems.required("storage.filesystem.rootdirectory", missing, "name a folder");
    }
    if let Some(s3) = &storage.s3 {
        problems.required("storage.s3.bucket", s3.bucket.is_empty(), bucket);
        if s3.access_key.is_some() != s3.secret_key.is_some() {
            problems.add(
                "storage.s3",
                "`accesskey` and `secretkey` go together; give both, or none to take what the environment has",
            );
        }
        if s3.key_id.is_some() && !s3.encrypt {
            problems.add(
                "storage.s3.keyid",
                "has no effect without `encrypt: true`; add that or remove the key",
            );
        }
    }
    if let Some(gcs) = &storage.gcs {
        problems.required("storage.gcs.bucket", gcs.bucket.is_empty(), bucket);
    }
    if let Some(azure) = &storage.azure {
        problems.required(
            "storage.azure.container",
            azure.container.is_empty(),
            "name the container",
        );
        let login = &azure.credentials;
        let is_client = login.kind == Some(AzureCredentialKind::ClientSecret);
        if is_client && (login.client.is_none() || login.tenant.is_none() || login.secret.is_none()) {
            problems.add(
                "storage.azure.credentials",
                "a client logs in by `clientid`, `tenantid` and `secret`; give all three",
            );
        }
    }
    if configuration
        .storage
        .maintenance
        .upload_purging
        .interval
        .is_some_and(|interval| interval.0.is_zero())
    {
        problems.add(
            "storage.maintenance.uploadpurging.interval",
            "must be more than 0; write for example 24h",
        );
    }
}

fn check_auth(auth: &Auth, problems: &mut Problems<'_>) {
    if let Some(token) = &auth.token {
        check_token(token, problems);
    }
    if let Some(htpasswd) = &auth.htpasswd {
        problems.required(
            "auth.htpasswd.realm",
            htpasswd.realm.is_empty(),
            "write for example `realm: Registry`",
        );
        problems.required(
            "auth.htpasswd.path",
            htpasswd.path.as_os_str().is_empty(),
            "name the file of users",
        );
    }
}

fn check_token(token: &Token, problems: &mut Problems<'_>) {
    let empty = |value: &Option<String>| value.as_ref().is_none_or(String::is_empty);
    problems.required(
        "auth.token.service",
        empty(&token.service),
        "write this registry's name, such as its host",
    );
    if token.builtin.is_none() {
        let realm = empty(&token.realm) && !token.auto_redirect;
        problems.required(
            "auth.token.realm",
            realm,
            "write the URL that clients get tokens from",
        );
        problems.required(
            "auth.token.issuer",
            empty(&token.issuer),
            "write what the tokens' `iss` says",
        );
        if token.root_certificates.is_none() && empty(&token.jwks) {
            problems.add(
                "auth.token",
                "there is no key to verify tokens with; give `rootcertbundle` or `jwks`, or `builtin` to issue tokens here",
            );
        }
    } else {
        for (path, given) in [
            ("auth.token.rootcertbundle", token.root_certificates.is_some()),
            ("auth.token.jwks", !empty(&token.jwks)),
        ] {
            if given {
                problems.add(
                    path,
                    "is for tokens from elsewhere, but `builtin` issues them here; keep one",
                );
            }
        }
    }
    for (index, algorithm) in token.signing_algorithms.iter().enumerate() {
        if *algorithm == SigningAlgorithm::ES512 {
            problems.add(
                &format!("auth.token.signingalgorithms[{index}]"),
                "is not supported; use ES256 or ES384",
            );
        }
        if matches!(
            algorithm,
            SigningAlgorithm::HS256 | SigningAlgorithm::HS384 | SigningAlgorithm::HS512
        ) {
            problems.add(
                &format!("auth.token.signingalgorithms[{index}]"),
                "is a shared secret: whoever verifies tokens by it could issue them; use ES256, RS256 or EdDSA",
            );
        }
    }
}

fn check_access(configuration: &Configuration, problems: &mut Problems<'_>) {
    for (path, message) in [
        access::rules(configuration).err(),
        access::immutable_tags(configuration).err(),
    ]
    .into_iter()
    .flatten()
    {
        problems.add(&path, message);
    }
    let access = &configuration.access;
    let tokens_name_groups = configuration
        .auth
        .token
        .as_ref()
        .is_some_and(|token| token.builtin.is_none());
    for (index, rule) in access.rules.iter().enumerate() {
        let path = format!("access.rules[{index}]");
        for (key, is_empty) in [
            ("repositories", rule.repositories.is_empty()),
            ("identities", rule.identities.is_empty()),
            ("actions", rule.actions.is_empty()),
        ] {
            problems.required(
                &format!("{path}.{key}"),
                is_empty,
                "a rule without any matches nothing",
            );
        }
        for (position, identity) in rule.identities.iter().enumerate() {
            let group = identity.strip_prefix("group:").filter(|_| !tokens_name_groups);
            if let Some(group) = group.filter(|group| !access.groups.contains_key(*group)) {
                let groups: Vec<&String> = access.groups.keys().collect();
                let known = if groups.is_empty() {
                    "add it to `access.groups`".to_owned()
                } else {
                    format!("there is {}", alternatives(&groups))
                };
                problems.add(
                    &format!("{path}.identities[{position}]"),
                    format!("there is no group {group:?}; {known}"),
                );
            }
        }
    }
    for (index, rule) in configuration.tags.immutable.iter().enumerate() {
        let path = format!("tags.immutable[{index}]");
        problems.required(
            &format!("{path}.repositories"),
            rule.repositories.is_empty(),
            "write `[\"**\"]` for all",
        );
        problems.required(
            &format!("{path}.tags"),
            rule.tags.is_empty(),
            "write `[\"*\"]` for all",
        );
    }
}

fn check_http(configuration: &Configuration, problems: &mut Problems<'_>) {
    let http = &configuration.http;
    if http.net != Some(Network::Unix) {
        for (path, address) in [("http.addr", &http.addr), ("http.debug.addr", &http.debug.addr)] {
            if address.as_ref().is_some_and(|address| !has_port(address)) {
                problems.add(
                    path,
                    "takes ADDRESS:PORT with a port from 0 to 65535, such as 127.0.0.1:5000 or :5000",
                );
            }
        }
    }
    if let Some(Err(problem)) = http
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .map(str::parse::<PublicUrl>)
    {
        problems.add("http.host", problem.to_string());
    }
    if let Some(Err(problem)) = http.prefix.as_deref().map(str::parse::<Prefix>) {
        problems.add("http.prefix", problem.to_string());
    }
    let tls = &http.tls;
    if let Err(problem) = CipherSuites::from_names(&tls.cipher_suites) {
        problems.add("http.tls.ciphersuites", problem.to_string());
    }
    if tls.certificate.is_some() && tls.client_authentication.is_some() && tls.client_authorities.is_empty() {
        problems.add(
            "http.tls.clientauth",
            "has no effect without `clientcas`; add that",
        );
    }
    for (given, other) in [("certificate", "key"), ("key", "certificate")] {
        let has = |key: &str| {
            if key == "key" {
                tls.key.is_some()
            } else {
                tls.certificate.is_some()
            }
        };
        if has(given) && !has(other) {
            problems.add(
                &format!("http.tls.{given}"),
                format!("takes `{other}` beside it; add that"),
            );
        }
    }
    if tls.certificate.is_none() {
        for (path, given) in [
            ("http.tls.clientcas", !tls.client_authorities.is_empty()),
            ("http.tls.clientauth", tls.client_authentication.is_some()),
        ] {
            if given {
                problems.add(path, "has no effect without TLS; add `certificate` and `key`");
            }
        }
    }
    for (kind, rate) in [
        ("address", &configuration.http.rate_limit.address),
        ("identity", &configuration.http.rate_limit.identity),
    ] {
        if rate.as_ref().is_some_and(|rate| rate.per.0.is_zero()) {
            problems.add(
                &format!("http.ratelimit.{kind}.per"),
                "must be more than 0; write for example 1s",
            );
        }
    }
}

/// No address at all means the default.
fn has_port(address: &str) -> bool {
    address.is_empty()
        || address
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn check_notifications(configuration: &Configuration, problems: &mut Problems<'_>) {
    let endpoints = &configuration.notifications.endpoints;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = format!("notifications.endpoints[{index}]");
        if endpoint.disabled {
            continue;
        }
        problems.required(
            &format!("{path}.name"),
            endpoint.name.is_empty(),
            "the log and the metrics need one",
        );
        let url = endpoint.url.reveal();
        let is_url = url.starts_with("http://") || url.starts_with("https://");
        if !is_url {
            problems.add(
                &format!("{path}.url"),
                "takes a URL that begins with http:// or https://",
            );
        }
        if endpoints
            .iter()
            .take(index)
            .any(|other| other.name == endpoint.name)
        {
            problems.add(
                &format!("{path}.name"),
                format!(
                    "{:?} is the name of another endpoint; give it its own",
                    endpoint.name
                ),
            );
        }
    }
}
