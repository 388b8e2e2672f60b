//! What must hold in `http`.

use std::time::Duration;

use registry_http::{Prefix, PublicUrl};

use super::Problems;
use crate::config::sections::http::{Http, Network, ProxyField, UnixSocket};
use crate::config::values::split_address;

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
    for (kind, rate) in [
        ("address", &http.rate_limit.address),
        ("identity", &http.rate_limit.identity),
    ] {
        if rate.as_ref().is_some_and(|rate| rate.per.0.is_zero()) {
            problems.add(
                &format!("http.ratelimit.{kind}.per"),
                "must be more than 0; write for example 1s",
            );
        }
    }
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
}

/// The least memory that a manifest of the largest size fits into, three times as much as is free being one client's.
const LEAST_MEMORY: usize = 8 << 20;

/// Less is no time for a client that is far away.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// What a header is read in.
const LEAST_HEADER: u32 = 16 << 10;
