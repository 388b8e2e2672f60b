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
    /// Serves a registry until it gets SIGTERM or SIGINT.
    Serve(Serve),
    /// Takes over what the distribution registry (registry:2) left in a folder, without copying it; `serve` does so too.
    Adopt(Adopt),
    /// Writes what a registry has as files that another program understands.
    Export(Export),
    /// Stores images from files.
    Import(Import),
    /// Checks, shows and describes configurations.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Looks for what is broken in a registry's data, and repairs it.
    Check(Check),
    /// Makes a backup of a registry's folder, beside the running server and in seconds.
    Backup(Backup),
    /// Brings a backup back into an empty folder.
    Restore(Restore),
    /// Changes or shows a file of users and passwords.
    #[command(subcommand)]
    Htpasswd(HtpasswdCommand),
    /// Says which rule of `access` lets somebody do something, or that none does.
    Explain(Explain),
    /// Asks a running server whether it answers: 0 if it does, else 1. For health checks of containers.
    Health(Health),
    /// Prints what a shell needs to complete command lines: `source <(registry-bin completion bash)`.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, for `man -l -`, or writes one for each command.
    Man(Manual),
    /// Is there for the jobs of registry:2, and collects nothing: it says what is so.
    GarbageCollect(GarbageCollect),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Says whether a configuration is good, and what of it has no effect.
    Check(ConfigArguments),
    /// Prints all that is in force, each value with the line, variable or default that it comes from. Secrets are
    /// masked.
    Show(ConfigArguments),
    /// Prints the JSON Schema of a configuration, for editors.
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HtpasswdCommand {
    /// Adds a user or sets the password of one. The password is asked for, or read from the standard input.
    Add {
        /// The file; it is made if it is not there.
        file: PathBuf,
        /// The user.
        user: String,
    },
    /// Removes a user.
    Remove {
        /// The file.
        file: PathBuf,
        /// The user.
        user: String,
    },
    /// Lists the users.
    List {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Manual {
    /// A folder that is there, for pages of all commands, such as /usr/local/share/man/man1.
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The repository.
    pub(crate) repository: String,

    /// The user. [default: the one who is not logged in]
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// A group that the user's token names, beside those of `access.groups`.
    #[arg(long)]
    pub(crate) group: Vec<String>,

    /// What the user wants to do.
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
    /// List tags, and stand in the catalog.
    List,
}

impl ExplainedAction {
    /// The word for it.
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
  registry-bin serve --tls-self-signed registry.lan       HTTPS, by a certificate of its own

The first of SIGTERM or SIGINT lets running requests end, for as long as --drain allows; the second one does not.")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) configuration: ConfigArguments,

    /// Where to listen: ADDRESS:PORT. Port 0 takes a free one. [default: http.addr of CONFIG, or 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,

    /// Encrypt by a certificate that is made for this machine's names and these, by an authority that is made once;
    /// both are kept in the data folder. What is printed says how clients come to trust it.
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(crate) tls_self_signed: Option<Vec<String>>,

    /// Wait for another server that has the folder to end, instead of failing.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Accept manifests that name content which the repository does not have. [default: validation.allowmissingcontent of
    /// CONFIG]
    #[arg(long)]
    pub(crate) allow_missing_content: bool,

    /// How long running requests may go on after the first signal, in seconds. [default: http.draintimeout of CONFIG,
    /// or 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<u64>,

    /// The form of the log, which goes to the standard error. [default: log.formatter of CONFIG, or text]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// The least level that is logged. [default: log.level of CONFIG, or info]
    #[arg(long, value_enum)]
    pub(crate) log_level: Option<LogLevel>,
}

impl Serve {
    /// The flags that stand for keys of the configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let flag = |path, name, value: Option<String>| value.map(|value| Flag { path, name, value });
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        [
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
    /// A configuration file in the form of the distribution registry (registry:2). [env:
    /// `REGISTRY_CONFIGURATION_PATH`]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where to store: `memory`, a folder, or `s3://BUCKET/PREFIX`. [default: what the configuration says, or
    /// ./registry-data]
    #[arg(long, value_name = "WHERE")]
    pub(crate) storage: Option<String>,
}

/// The same, with the file as the command's only argument.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArguments {
    /// A configuration file in the form of the distribution registry (registry:2). Each key can also be given by the
    /// environment: `REGISTRY_HTTP_ADDR` is `http.addr`. [env: `REGISTRY_CONFIGURATION_PATH`]
    #[arg(value_name = "CONFIG", conflicts_with = "config")]
    file: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArguments,
}

impl ConfigArguments {
    /// The arguments, wherever the file was given.
    pub(crate) fn store(&self) -> StoreArguments {
        StoreArguments {
            config: self.file.clone().or_else(|| self.store.config.clone()),
            storage: self.store.storage.clone(),
        }
    }
}
