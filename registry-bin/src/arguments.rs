//! The arguments that several commands share: how they find the registry's data.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::ownership::shell_line;

/// How a command finds the registry's data: a file, `--storage`, or the environment.
///
/// For commands with arguments of their own; the others take [`ConfigArguments`].
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct StoreArguments {
    /// A configuration file in registry:2's format. [env:
    /// `REGISTRY_CONFIGURATION_PATH`]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where the data is: `memory`, a folder, or `s3://BUCKET/PREFIX`. [default: the configuration's storage, or
    /// ./registry-data]
    #[arg(long, value_name = "WHERE")]
    pub(crate) storage: Option<String>,
}

impl StoreArguments {
    /// Returns how the store was named, for the commands that an answer advises.
    pub(crate) fn named(&self) -> NamedStore {
        let config = self
            .config
            .clone()
            .map(|file| ("--config", file.into_os_string()));
        let storage = self.storage.clone().map(|place| ("--storage", place.into()));
        let named = config.into_iter().chain(storage);
        let words = named.flat_map(|(flag, value): (&str, OsString)| [flag.into(), value]);
        let line = shell_line(words);
        NamedStore(if line.is_empty() { line } else { format!(" {line}") })
    }
}

/// How the caller of a command named the store, to be appended to another command: ` --storage WHERE`, or empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NamedStore(String);

impl NamedStore {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for NamedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The same, with the file as the command's only argument.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArguments {
    /// A configuration file in registry:2's format. Environment variables override its keys: `REGISTRY_HTTP_ADDR` is
    /// `http.addr`. [env: `REGISTRY_CONFIGURATION_PATH`]
    #[arg(value_name = "CONFIG", conflicts_with = "config")]
    file: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArguments,
}

impl ConfigArguments {
    /// Returns the arguments, wherever the file was given.
    pub(crate) fn store(&self) -> StoreArguments {
        StoreArguments {
            config: self.file.clone().or_else(|| self.store.config.clone()),
            storage: self.store.storage.clone(),
        }
    }
}
