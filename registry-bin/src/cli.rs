//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A container registry: push, pull and keep images, on one disk, in one bucket or in memory.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves a registry until it gets SIGTERM or SIGINT.
    Serve(Serve),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin serve                                      127.0.0.1:5000, stored in ./registry-data
  registry-bin serve --listen 0.0.0.0:5000 --storage /srv/registry
  registry-bin serve --storage s3://bucket/prefix         credentials from AWS_* variables or the instance
  registry-bin serve /etc/docker/registry/config.yml      the configuration of registry:2

The first of SIGTERM or SIGINT lets running requests end, for as long as --drain allows; the second one does not.")]
pub(crate) struct Serve {
    /// A configuration file in the form of the distribution registry (registry:2). Deletes are off unless it says
    /// `storage.delete.enabled: true`; without a file they are on.
    pub(crate) config: Option<PathBuf>,

    /// Where to listen: ADDRESS:PORT. Port 0 takes a free one. [default: http.addr of CONFIG, or 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,

    /// Where to store: `memory`, a folder, or `s3://BUCKET/PREFIX`. [default: what CONFIG says, or ./registry-data]
    #[arg(long, value_name = "WHERE")]
    pub(crate) storage: Option<String>,

    /// Wait for another server that has the folder to end, instead of failing.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Accept manifests that name content which the repository does not have.
    #[arg(long)]
    pub(crate) allow_missing_content: bool,

    /// How long running requests may go on after the first signal, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain: u64,

    /// The form of the log, which goes to the standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// The least level that is logged. [default: log.level of CONFIG, or info]
    #[arg(long, value_enum)]
    pub(crate) log_level: Option<LogLevel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines to read.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Failures of the registry.
    Error,
    /// What needs attention.
    #[serde(alias = "warning")]
    Warn,
    /// One line for each request, and what changes.
    #[default]
    Info,
    /// What helps to find a fault.
    Debug,
}
