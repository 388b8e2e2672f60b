//! Constraints on `http`.

use std::time::Duration;

use registry_http::DebugService;
use registry_http::{Prefix, PublicUrl};

use super::Problems;
use crate::config::sections::http::{Http, Network, Prometheus, ProxyField, RateLimit, UnixSocket};
use crate::config::values::{is_url_path, no_path, plain_path, shown, split_address};

pub(super) fn check(http: &Http, problems: &mut Problems<'_>) {
    let is_unix = http.net == Network::Unix;
    let is_missing = !problems.tree.has("http.addr");
    problems.required(
        "http.addr",
        is_unix && is_missing,
        "name the path of the unix socket",
    );
    if !is_unix && http.unix != UnixSocket::default() {
        problems.add(
            "http.unix",
            "says who may connect to a unix socket; add `net: unix` and its path as `addr`, or remove the key",
        );
    }
    // Connecting to a socket needs the permission to write.
    if let Some(mode) = http.unix.mode.filter(|mode| mode.0 & 0o222 == 0) {
        problems.add(
            "http.unix.mode",
            format!("is {mode}, by which nobody can connect; write for example 0660"),
        );
    }
    if is_unix && !is_missing && no_path(&http.addr).is_some() {
        problems.add(
            "http.addr",
            "takes the path of a unix socket with `net: unix`, such as /run/registry.sock, and this is none",
        );
    }
    for (path, address) in [
        ("http.addr", Some(http.addr.as_str()).filter(|_| !is_unix)),
        ("http.debug.addr", http.debug.addr.as_deref()),
    ] {
        if let Some(Err(problem)) = address.map(split_address) {
            problems.add(path, problem);
        }
    }
    if let Some(Err(problem)) = http.host.as_deref().map(str::parse::<PublicUrl>) {
        problems.add("http.host", problem.to_string());
    }
    if let Some(Err(problem)) = http.prefix.as_deref().map(str::parse::<Prefix>) {
        problems.add("http.prefix", problem.to_string());
    }
    let fields = http.proxy_fields.as_deref().unwrap_or_default();
    if fields.contains(&ProxyField::Forwarded) && fields.iter().any(|field| *field != ProxyField::Forwarded) {
        problems.add(
            "http.proxyfields",
            "`forwarded` tells all that the others tell; keep what the proxy writes, because it passes the rest on as the client wrote it",
        );
    }
    check_rates(&http.rate_limit, problems);
    check_metrics(&http.debug.prometheus, problems);
    let timeouts = &http.timeouts;
    for (key, time) in [
        ("handshake", timeouts.handshake),
        ("header", timeouts.header),
        ("body", timeouts.body),
        ("answer", timeouts.answer),
        ("idle", timeouts.idle),
    ] {
        // A number without a unit is nanoseconds.
        if time.0 < LEAST_TIME {
            problems.add(
                &format!("http.timeouts.{key}"),
                format!("is {time}, and must be at least 100ms; write for example 90s"),
            );
        }
    }
    if http.limits.memory.get() < LEAST_MEMORY {
        problems.add(
            "http.limits.memory",
            format!("is in bytes, at least {LEAST_MEMORY}, which is 8 MiB: a manifest may have 4 MiB"),
        );
    }
    if http.limits.header.get() < LEAST_HEADER {
        problems.add(
            "http.limits.header",
            format!("is in bytes, at least {LEAST_HEADER}: tokens are long"),
        );
    }
    let most_header = http.limits.memory.get() / HEADERS;
    if usize::try_from(http.limits.header.get()).is_ok_and(|header| header > most_header) {
        problems.add(
            "http.limits.header",
            format!(
                "is {}, and must be at most a quarter of `http.limits.memory`, which is {most_header}: it is held in that \
                 memory",
                http.limits.header
            ),
        );
    }
}

fn check_rates(limits: &RateLimit, problems: &mut Problems<'_>) {
    for (kind, rate) in [("address", &limits.address), ("identity", &limits.identity)] {
        let Some(rate) = rate else { continue };
        let path = format!("http.ratelimit.{kind}");
        if rate.per.0.is_zero() {
            problems.add(
                &format!("{path}.per"),
                "must be more than 0; write for example 1s",
            );
        } else if rate.per.0.as_nanos() < rate.requests.get().into() {
            problems.add(
                &path,
                format!(
                    "{} requests in {} are more than one in a nanosecond, which limits nothing; write for example `per: 1s`",
                    rate.requests, rate.per
                ),
            );
        }
    }
}

fn check_metrics(prometheus: &Prometheus, problems: &mut Problems<'_>) {
    let path = &prometheus.path;
    if !prometheus.enabled {
        return;
    }
    if !is_url_path(path) {
        problems.add(
            "http.debug.prometheus.path",
            "takes a path without escapes that begins with a slash, such as /metrics",
        );
    } else if DebugService::has_health_at(&plain_path(path)) {
        problems.add(
            "http.debug.prometheus.path",
            format!(
                "is {}, where the health is served; write for example /metrics",
                shown(path)
            ),
        );
    }
}

/// The least memory that the largest manifest fits into, because one client may hold three times what is free.
const LEAST_MEMORY: usize = 8 << 20;

/// The shortest timeout; less is too short for a distant client.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// How many of the largest headers must fit into the memory.
const HEADERS: usize = 4;

/// The size of the buffer for a header.
const LEAST_HEADER: u32 = 16 << 10;
