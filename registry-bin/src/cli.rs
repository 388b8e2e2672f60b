//! The commands of the command line. The arguments of each are in its own file.

use clap::{Parser, Subcommand};

use crate::commands::adopt::Adopt;
use crate::commands::backup::Backup;
use crate::commands::check::Check;
use crate::commands::collect::{Collect, GarbageCollect};
use crate::commands::config::ConfigCommand;
use crate::commands::copy::Copy;
use crate::commands::explain::Explain;
use crate::commands::export::Export;
use crate::commands::health::Health;
use crate::commands::htpasswd::HtpasswdCommand;
use crate::commands::import::Import;
use crate::commands::manual::Manual;
use crate::commands::repositories::RepositoriesCommand;
use crate::commands::restore::Restore;
use crate::commands::retention::RetentionCommand;
use crate::commands::serve::Serve;
use crate::commands::tags::TagsCommand;
use crate::commands::token_keys::TokenKeysCommand;
use crate::commands::usage::Usage;

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
    /// Take over the data of the distribution registry (registry:2) where it is; `serve` does so by itself.
    Adopt(Adopt),
    /// Export images as files that other programs read.
    Export(Export),
    /// Import images from files.
    Import(Import),
    /// Copy repositories from one registry's data to another's: from a folder to a bucket, and back.
    Copy(Copy),
    /// Check, show and describe configurations.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Find and repair damage in a registry's data.
    Check(Check),
    /// Free what no manifest names any more; a server does so by itself.
    Collect(Collect),
    /// Delete whole repositories.
    #[command(subcommand)]
    Repositories(RepositoriesCommand),
    /// Show what tags named before, and bring back what was moved or deleted.
    #[command(subcommand)]
    Tags(TagsCommand),
    /// Show what the policies of `retention` keep and drop.
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Show what repositories have, and how much of the quotas is used.
    Usage(Usage),
    /// Back up a registry's folder, in seconds and beside the running server.
    Backup(Backup),
    /// Restore a backup into an empty folder.
    Restore(Restore),
    /// Manage a file of users and passwords.
    #[command(subcommand)]
    Htpasswd(HtpasswdCommand),
    /// Make the keys that sign tokens, for servers that share a file of them.
    #[command(subcommand)]
    TokenKeys(TokenKeysCommand),
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
    /// Free what no manifest names any more, as jobs of registry:2 do.
    GarbageCollect(GarbageCollect),
}
