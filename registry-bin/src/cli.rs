//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::adopt::Adopt;
use crate::commands::backup::Backup;
use crate::commands::check::Check;
use crate::commands::export::Export;
use crate::commands::garbage_collect::GarbageCollect;
use crate::commands::health::Health;
use crate::commands::import::Import;
use crate::commands::restore::Restore;
use crate::config::Flag;
use crate::config::sections::log::{LogFormat, LogLevel};

/// A container registry: push, pull and keep images, on one disk, in one bucket or in memory.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a registry until SIGTERM or SIGINT.
    Serve(Serve),
    /// Take over a folder of the distribution registry (registry:2) without copying; `serve` does so by itself.
    Adopt(Adopt),
    /// Export images as files that other programs read.
    Export(Export),
    /// Import images from files.
    Import(Import),
    /// Check, show and describe configurations.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Find and repair damage in a registry's data.
    Check(Check),
    /// Back up a registry's folder, in seconds and beside the running server.
    Backup(Backup),
    /// Restore a backup into an empty folder.
    Restore(Restore),
    /// Manage a file of users and passwords.
    #[command(subcommand)]
    Htpasswd(HtpasswdCommand),
    /// Show which rule of `access` allows an action, or that none does.
    Explain(Explain),
    /// Check that a server answers: exit code 0 if it does, 1 if not. For container health checks.
    Health(Health),
    /// Print the completion script of a shell: `source <(registry-bin completion bash)`.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for `man -l -`, or write one for each command.
    Man(Manual),
    /// Explain what frees space here. Kept for jobs of registry:2; collects nothing itself.
    GarbageCollect(GarbageCollect),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, and say which keys have no effect.
    Check(ConfigArguments),
    /// Print the configuration in effect, each value with the line, variable or default it comes from. Secrets are
    /// masked.
    Show(ConfigArguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HtpasswdCommand {
    /// Add a user or change a password. The command prompts for the password, or reads it from standard input.
    Add {
        /// The file; created if missing.
        file: PathBuf,
        /// The user.
        user: String,
    },
    /// Remove a user.
    Remove {
        /// The file.
        file: PathBuf,
        /// The user.
        user: String,
    },
    /// List the users.
    List {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Manual {
    /// An existing folder to write the pages of all commands to, such as /usr/local/share/man/man1.
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The repository.
    pub(crate) repository: String,

    /// The user. [default: a client that is not logged in]
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// A group named by the user's token, in addition to those of `access.groups`.
    #[arg(long)]
    pub(crate) group: Vec<String>,

    /// The action.
    #[arg(long, value_enum)]
    pub(crate) action: ExplainedAction,

    #[command(flatten)]
    pub(crate) configuration: ConfigArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainedAction {
    /// Read content.
    Pull,
    /// Add content and new tags.
    Push,
    /// Move a tag.
    Overwrite,
    /// Delete content or a tag.
    Delete,
    /// List tags, and see the repository in the catalog.
    List,
}

impl ExplainedAction {
    /// Returns the name of the action.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin serve                                      127.0.0.1:5000, stored in ./registry-data
  registry-bin serve --listen 0.0.0.0:5000 --storage /srv/registry
  registry-bin serve --storage s3://bucket/prefix         credentials from AWS_* variables or the instance
  registry-bin serve /etc/docker/registry/config.yml      the configuration of registry:2
  registry-bin serve --tls-self-signed registry.lan       HTTPS with a certificate of its own

The first SIGTERM or SIGINT lets running requests finish, for as long as --drain allows; the second cuts them off.")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) configuration: ConfigArguments,

    /// The address to listen on. Port 0 picks a free one. [default: http.addr of CONFIG, or 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,

    /// Serve HTTPS with a certificate for this machine's names and these, signed by an authority created once; both are
    /// kept in the data folder. The start prints how to make clients trust it. If no address is configured, listen on
    /// the one that the first NAME of this machine leads to.
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(crate) tls_self_signed: Option<Vec<String>>,

    /// The address that a name of `tls_self_signed` leads to, which is listened on where nothing else is said.
    #[arg(skip)]
    pub(crate) named_address: Option<String>,

    /// If another server has the folder, wait for it to end instead of failing.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Accept manifests that name content the repository does not have. [default: validation.allowmissingcontent of
    /// CONFIG]
    #[arg(long)]
    pub(crate) allow_missing_content: bool,

    /// How long running requests may take to finish after the first signal. [default: http.draintimeout of CONFIG,
    /// or 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<u64>,

    /// The format of the log, written to standard error. [default: log.formatter of CONFIG, or text]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// The lowest level to log. [default: log.level of CONFIG, or info]
    #[arg(long, value_enum)]
    pub(crate) log_level: Option<LogLevel>,
}

impl Serve {
    /// Returns the flags that override keys of the configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let flag = |path, name, value: Option<String>| value.map(|value| Flag { path, name, value });
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        [
            flag("http.addr", "--tls-self-signed", self.named_address.clone()),
            flag("http.addr", "--listen", self.listen.clone()),
            flag(
                "http.draintimeout",
                "--drain",
                self.drain.map(|seconds| format!("{seconds}s")),
            ),
            flag(
                "validation.allowmissingcontent",
                "--allow-missing-content",
                self.allow_missing_content.then(|| "true".to_owned()),
            ),
            flag(
                "log.formatter",
                "--log-format",
                word(self.log_format.and_then(|format| format.to_possible_value())),
            ),
            flag(
                "log.level",
                "--log-level",
                word(self.log_level.and_then(|level| level.to_possible_value())),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

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
