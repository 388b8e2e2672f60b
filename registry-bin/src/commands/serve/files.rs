//! What a start would fail at, found without anything being started, made or fetched: files that the configuration names,
//! addresses of this machine, places that cannot be written to, and what cannot go together with where it stores.

use super::token_keys::{KeySource, SigningKeyFile};
use super::traces::Traces;
pub(crate) use super::users::read as users;
use super::{listen, places, tls};
use crate::config::Configuration;
use crate::config::sections::http::Network;
use crate::failure::Failure;
use crate::storage::StorageLocation;

/// Reads each file, resolves each name and looks at each place as a server does at its start, and returns what is wrong. Files
/// that it would make may be missing.
pub(crate) fn failures(configuration: &Configuration) -> Vec<Failure> {
    let (http, auth) = (&configuration.http, &configuration.auth);
    let mut results = vec![Traces::check()];
    if http.net == Network::Tcp {
        results.push(listen::check("http.addr", &http.addr));
    } else {
        results.push(listen::check_unix(&http.unix));
    }
    if let Some(address) = &http.debug.addr {
        results.push(listen::check("http.debug.addr", address));
    }
    if http.tls.certificate.is_some() {
        results.push(tls::config(http, None).map(drop));
    }
    for (key, path) in auth.files_of_users() {
        if path.exists() {
            results.push(users(key, path).map(drop));
        }
    }
    if let Some(token) = &auth.token {
        results.push(KeySource::of(token).read_files().map(drop));
        let builtin = token.builtin.as_ref();
        if let (Some(builtin), Ok(location)) = (builtin, StorageLocation::of(&configuration.storage)) {
            results.push(SigningKeyFile::of(builtin.keys.as_deref(), &location).map(drop));
        }
        let keys = builtin.and_then(|builtin| builtin.keys.clone());
        if let Some(path) = keys.filter(|path| path.exists()) {
            results.push(SigningKeyFile::Shared(path.to_path_buf()).read().map(drop));
        }
    }
    results.extend(places::failures(configuration));
    results.into_iter().filter_map(Result::err).collect()
}
