//! The files that a configuration names, read without anything being started, made or fetched.

use super::tls;
use super::token_keys::{KeySource, SigningKeyFile};
pub(crate) use super::users::read as users;
use crate::config::Configuration;
use crate::failure::Failure;

/// Reads each file as a server does at its start and returns what is wrong. Files that it would make may be missing.
pub(crate) fn failures(configuration: &Configuration) -> Vec<Failure> {
    let (http, auth) = (&configuration.http, &configuration.auth);
    let mut results = Vec::new();
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
        let keys = token.builtin.as_ref().and_then(|builtin| builtin.keys.clone());
        if let Some(path) = keys.filter(|path| path.exists()) {
            results.push(SigningKeyFile::Shared(path.to_path_buf()).read().map(drop));
        }
    }
    results.into_iter().filter_map(Result::err).collect()
}
