//! The arguments that several commands share: how they find the registry's data.

use std::path::PathBuf;

use clap::Args;

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
