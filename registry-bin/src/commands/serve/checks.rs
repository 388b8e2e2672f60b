//! Finds what a start would fail at, without starting or creating anything: missing files, addresses of other machines,
//! places that cannot be written, and options that do not work with the storage.

use std::time::{Duration, SystemTime};

use registry_http::auth::TokenKeys;
use registry_http::check_clock;
use tokio::runtime;

use super::credentials::{KeySource, may_create_users, read_users};
use super::listeners::{self, OpenFiles};
use super::signing_keys::SigningKeyPlace;
use super::tls;
use crate::config::sections::http::Network;
use crate::config::{Configuration, Loaded};
use crate::control;
use crate::failure::Failure;
use crate::places::{claims, writable};
use crate::storage::StorageLocation;
use crate::traces::Traces;

/// Reads each file, resolves each name and checks each place as a server does at its start, and returns what is wrong.
/// Files that a server would create may be missing.
#[expect(clippy::disallowed_methods, reason = "the start looks at the clock")]
pub(crate) fn failures(loaded: &Loaded) -> Vec<Failure> {
    let configuration = &loaded.configuration;
    let (http, auth) = (&configuration.http, &configuration.auth);
    let inherited = listeners::inherited();
    let has_own_sockets = inherited.as_ref().is_ok_and(|sockets| !sockets.is_empty());
    let mut results = vec![
        check_clock(SystemTime::now()).map_err(|cause| Failure::new("cannot serve").because(cause)),
        Traces::check(),
        inherited.map(drop),
        OpenFiles::of(http).map(drop),
    ];
    if has_own_sockets {
        // They are used in place of `http.addr`.
    } else if http.net == Network::Tcp {
        results.push(listeners::check("http.addr", &http.addr));
        results.push(listeners::require_apart(http));
    } else {
        results.push(listeners::check_unix(&http.unix));
    }
    if let Some(address) = &http.debug.addr {
        results.push(listeners::check("http.debug.addr", address));
    }
    if http.tls.certificate.is_some() {
        results.push(tls::config(http, None).map(drop));
    }
    let location = StorageLocation::of(&configuration.storage);
    for (key, path) in auth.files_of_users() {
        if path.exists() {
            results.push(read_users(key, path).map(drop));
        } else if let Ok(location) = &location {
            results.push(may_create_users(key, path, location));
        }
    }
    if let Some(token) = &auth.token {
        results.push(KeySource::of(token).read_files().map(drop));
        let builtin = token.builtin.as_ref();
        if let (Some(builtin), Ok(location)) = (builtin, &location) {
            results.push(SigningKeyPlace::of(builtin.keys.as_deref(), location).check());
        }
    }
    if let Ok(StorageLocation::Bucket(bucket)) = &location {
        results.push(bucket.open().map(drop));
    }
    results.extend(writable::failures(configuration));
    let mut failures = claims::failures(loaded);
    failures.extend(results.into_iter().filter_map(Result::err));
    failures
}

/// How long `config check` waits for keys from a URL.
const KEY_SET_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns what only a start can find out, because it is on another machine that may only be reachable from the server.
/// Blocks for some seconds.
pub(crate) fn remarks(configuration: &Configuration) -> Vec<String> {
    let mut remarks = Vec::new();
    match StorageLocation::of(&configuration.storage) {
        Ok(StorageLocation::Bucket(_)) => {
            remarks
                .push("Whether the bucket answers, and lets this server in, is seen at the start".to_owned());
        }
        Ok(StorageLocation::Folder(root)) => {
            let checked = control::check_socket(&root).err();
            remarks.extend(checked.map(|cause| {
                format!("check, backup and other commands cannot work while the server runs: {cause}")
            }));
        }
        _ => {}
    }
    let files = OpenFiles::of(&configuration.http).ok();
    let shortage = files.and_then(|files| files.shortage(&configuration.http));
    remarks.extend(shortage.map(|shortage| format!("http.limits.connections: {shortage}")));
    let Some(source) = configuration.auth.token.as_ref().map(KeySource::of) else {
        return remarks;
    };
    let left_out = |keys: &TokenKeys| -> Vec<String> {
        let left_out = keys.left_out().iter();
        left_out.map(|key| format!("auth.token.jwks: {key}")).collect()
    };
    // Files that cannot be read are reported as failures.
    remarks.extend(source.read_files().iter().flat_map(left_out));
    let Some(url) = source.url() else {
        return remarks;
    };
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let fetched = runtime
        .map_err(|cause| Failure::new("cannot start threads").because(cause))
        .and_then(|runtime| {
            let _entered = runtime.enter();
            source.fetch_within(KEY_SET_TIMEOUT)
        });
    remarks.extend(fetched.iter().flat_map(left_out));
    remarks.push(match fetched {
        Ok(_) => format!("auth.token.jwks: {url} has keys; the server fetches them at its start"),
        Err(failure) => format!("{failure}; where the server cannot reach it either, it does not start"),
    });
    remarks
}
