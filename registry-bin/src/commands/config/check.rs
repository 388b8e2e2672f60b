//! `registry-bin config check`.

use registry_http::auth::Htpasswd;

use crate::commands::serve::checks;
use crate::commands::serve::credentials::read_users;
use crate::config::sections::notifications::EventFormat;
use crate::config::supported::{reason, without_effect};
use crate::config::{Loaded, bare_durations, protection, remarks};
use crate::failure::Failure;
use crate::storage::StorageLocation;

/// Reports what a configuration means, and reads the files that it names.
///
/// # Errors
/// Everything that a start would fail at.
pub(super) fn report(loaded: &Loaded) -> Result<String, Failure> {
    let configuration = &loaded.configuration;
    let failures: Vec<String> = checks::failures(loaded)
        .into_iter()
        .map(|failure| loaded.locate(failure).to_string())
        .collect();
    if !failures.is_empty() {
        return Err(Failure::new(failures.join("\nerror: ")));
    }
    let mut report = String::new();
    let mut line = |text: String| {
        report.push_str(&text);
        report.push('\n');
    };
    match &loaded.file {
        Some(file) => line(format!("{} is good.", file.display())),
        None => line("There is no file; the environment and the defaults are good.".to_owned()),
    }
    let listen = &configuration.http.addr;
    line(format!(
        "It listens on {listen} and stores in {}.",
        StorageLocation::of(&configuration.storage)?
    ));
    for key in without_effect(&loaded.tree) {
        line(format!("{key} has no effect: {}.", reason(key)));
    }
    for (key, remark) in remarks(configuration, &loaded.tree) {
        line(format!("{key} {remark}."));
    }
    for remark in checks::remarks(configuration) {
        line(format!("{remark}."));
    }
    for (key, origin, number) in bare_durations(configuration, &loaded.tree) {
        line(format!(
            "{key} ({origin}) is {number} nanoseconds, as in Go; write {number}s if seconds are meant."
        ));
    }
    for (key, difference) in differences(loaded) {
        line(format!("{key}: {difference}."));
    }
    for (key, origin) in protection::empty(&loaded.tree) {
        line(format!(
            "{key} ({origin}) is empty and protects nothing; write `~` if that is meant."
        ));
    }
    for (key, path) in configuration.auth.files_of_users() {
        for defect in read_users(key, path).iter().flat_map(Htpasswd::defects) {
            line(format!("{key}: {}: {defect}.", path.display()));
        }
    }
    for variable in &loaded.variables.used {
        line(format!(
            "{variable} is set in the environment and goes before the file."
        ));
    }
    for variable in &loaded.variables.unused {
        line(format!(
            "{} is set in the environment and has no effect: {}",
            variable.name, variable.reason
        ));
    }
    Ok(report)
}

/// Returns how the server will differ from registry:2 with the same keys, for scripts, probes and proxies that expect
/// that.
fn differences(loaded: &Loaded) -> Vec<(&'static str, &'static str)> {
    let configuration = &loaded.configuration;
    let endpoints = &configuration.notifications.endpoints;
    let of_registry_3 = endpoints
        .iter()
        .any(|endpoint| !endpoint.disabled && endpoint.format == EventFormat::Distribution);
    let http = &configuration.http;
    let is_behind_proxy =
        http.tls.certificate.is_none() && http.host.is_some() && http.trusted_proxies.is_none();
    let has_checks = loaded.tree.has("health");
    [
        (
            of_registry_3,
            "notifications.endpoints",
            "events have the content type of registry:3; `format: distribution-v1` gives them that of registry:2",
        ),
        (
            is_behind_proxy,
            "http.trustedproxies",
            "what proxies tell (X-Forwarded-For) is believed from this machine only; name those on others",
        ),
        (
            has_checks,
            "health",
            "a failing check refuses no request, unlike at registry:2; it shows at /ready",
        ),
    ]
    .into_iter()
    .filter_map(|(is_so, key, difference)| is_so.then_some((key, difference)))
    .collect()
}
