//! What must hold in `http`.

use registry_http::{Prefix, PublicUrl};

use super::Problems;
use crate::config::sections::http::{Http, Network, ProxyField};
use crate::config::values::split_address;

pub(super) fn check(http: &Http, problems: &mut Problems<'_>) {
    let is_unix = http.net == Network::Unix;
    let is_missing = !problems.tree.has("http.addr");
    problems.required(
        "http.addr",
        is_unix && is_missing,
        "name the path of the unix socket",
    );
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

/// What a header is read in.
const LEAST_HEADER: u32 = 16 << 10;
