//! `registry-bin config check`.

use std::fs::File;

use crate::config::Loaded;
use crate::config::supported::{reason, without_effect};
use crate::failure::Failure;
use crate::storage::StorageLocation;

/// Says what a configuration means, and opens the files that it names.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn report(loaded: &Loaded) -> Result<String, Failure> {
    let configuration = &loaded.configuration;
    let unreadable: Vec<String> = configuration
        .files()
        .iter()
        .filter(|file| !configuration.may_be_missing(file))
        .filter_map(|file| {
            let error = File::open(file).err()?;
            Some(format!("{} cannot be read: {error}", file.display()))
        })
        .collect();
    if !unreadable.is_empty() {
        return Err(Failure::new(unreadable.join("\nerror: ")));
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
    let listen = configuration.http.addr.as_deref().unwrap_or("127.0.0.1:5000");
    line(format!(
        "It listens on {listen} and stores in {}.",
        StorageLocation::of(&configuration.storage)?
    ));
    for key in without_effect(&loaded.tree) {
        line(format!("{key} has no effect: {}.", reason(key)));
    }
    for variable in &loaded.variables.used {
        line(format!(
            "{variable} is set in the environment and goes before the file."
        ));
    }
    for variable in &loaded.variables.unknown {
        line(format!(
            "{variable} is set in the environment and names no key: it has no effect."
        ));
    }
    Ok(report)
}
