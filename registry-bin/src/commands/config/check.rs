//! `registry-bin config check`.

use registry_http::auth::Htpasswd;

use crate::commands::serve::files;
use crate::commands::serve::files::users;
use crate::config::Loaded;
use crate::config::protection;
use crate::config::supported::{limited, reason, without_effect};
use crate::failure::Failure;
use crate::storage::StorageLocation;

/// Says what a configuration means, and reads the files that it names.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn report(loaded: &Loaded) -> Result<String, Failure> {
    let configuration = &loaded.configuration;
    let failures: Vec<String> = files::failures(configuration)
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
    for (key, limit) in limited(configuration) {
        line(format!("{key} is limited: {limit}."));
    }
    for (key, origin) in protection::empty(&loaded.tree) {
        line(format!(
            "{key} ({origin}) is empty and protects nothing; write `~` if that is meant."
        ));
    }
    for (key, path) in configuration.auth.files_of_users() {
        for unusable in users(key, path).iter().flat_map(Htpasswd::unusable) {
            line(format!("{key}: {}: {unusable}.", path.display()));
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
