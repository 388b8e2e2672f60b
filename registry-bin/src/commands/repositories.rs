//! `registry-bin repositories`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use registry_core::operation::{AllowAll, Authorizer as _};
use registry_core::policy::{ImmutableTagRule, ImmutableTags};
use registry_core::storage::RepositoryDeleted;
use registry_core::{ErrorCode, RepositoryName};
use registry_storage::{DeleteRepositoryOptions, Maintenance};
use serde::{Deserialize, Serialize};

use crate::arguments::{ConfigArguments, NamedStore};
use crate::config::load;
use crate::control::{Bounds, Command, Outcome, Reporter, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::times::second;

#[derive(Debug, Subcommand)]
pub(crate) enum RepositoriesCommand {
    /// Delete a repository: its tags, manifests, referrers, uploads in progress, and its right to read blobs.
    Delete(Delete),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin repositories delete team/app /etc/docker/registry/config.yml
  registry-bin repositories delete team/app --storage /srv/registry

Repositories below it (team/app/tools) are others and stay. What is pushed to it meanwhile is refused, or stays as a new repository.
Its tags can be restored for `collector.keepdeleted` (7 days), one by one, with `tags restore`; the blobs that they need stay until then. With
--purge they cannot, and bytes that no repository has any more are freed by the next sweep, within an hour; `collect` does one at once.

If the repository has a tag that `tags.immutable` of the configuration names, or of a server that has the folder, nothing is deleted and
the exit code is 1. Without a server and the configuration file (--storage alone), no tag is immutable. The exit code is 1, too, if there is no such repository, or if something
of it stays. Nothing is asked, no rule of `access` counts, and no notification is sent.")]
pub(crate) struct Delete {
    /// The repository.
    #[arg(value_name = "REPOSITORY")]
    repository: RepositoryName,

    #[command(flatten)]
    configuration: ConfigArguments,

    /// Delete immutable tags, too.
    #[arg(long)]
    force: bool,

    /// Keep nothing of it: it cannot be restored, not even what was deleted before.
    #[arg(long)]
    purge: bool,

    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Deletes a repository. Returns `false` if something of it stays.
pub(crate) fn run(command: &RepositoriesCommand) -> Result<bool, Failure> {
    let RepositoriesCommand::Delete(delete) = command;
    let arguments = delete.configuration.store();
    let loaded = load(&arguments, &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let request = DeleteRepository {
        repository: delete.repository.clone(),
        immutable: loaded.configuration.tags.immutable_rules()?,
        force: delete.force,
        purge: delete.purge,
        json: delete.json,
        store: arguments.named(),
    };
    execute(&loaded.configuration, request)
}

/// The delete of a repository as it is sent to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "delete-repository", deny_unknown_fields)]
pub(super) struct DeleteRepository {
    repository: RepositoryName,
    immutable: Vec<ImmutableTagRule>,
    /// Immutable tags go, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    force: bool,
    purge: bool,
    json: bool,
    #[serde(default, skip_serializing_if = "NamedStore::is_empty")]
    store: NamedStore,
}

impl Command for DeleteRepository {
    fn changes_content(&self) -> bool {
        true
    }

    fn bound_by(mut self, server: &Bounds) -> Self {
        self.immutable.extend_from_slice(&server.immutable);
        self
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let Self {
            repository,
            immutable,
            force,
            purge,
            json,
            store: named,
        } = self;
        let immutable = ImmutableTags::new(immutable, Arc::new(AllowAll)).immutable_tags(&repository);
        let immutable = immutable.filter(|_| !force);
        let options = DeleteRepositoryOptions::new().immutable(immutable).purge(purge);
        let deleted = store.delete_repository(&repository, &options, &reporter).await;
        let deleted = deleted.map_err(|cause| match cause.code() {
            ErrorCode::NameUnknown => Failure::new(format!("there is no repository {repository}")),
            ErrorCode::TagConflict => Failure::new(format!("{repository} was not deleted")).because(cause),
            _ => Failure::new(format!(
                "{repository} was not deleted as a whole; the command can be repeated"
            ))
            .because(cause),
        })?;
        Ok(Outcome {
            text: if json {
                serde_json::to_string(&deleted)
                    .map_err(|cause| Failure::new("the report cannot be written").because(cause))?
            } else {
                text(&repository, &deleted, &named)
            },
            is_success: deleted.is_gone,
        })
    }
}

fn text(repository: &RepositoryName, deleted: &RepositoryDeleted, store: &NamedStore) -> String {
    let mut text = format!(
        "Deleted {}, {} and {} ({}) of {repository}",
        count(deleted.tags, "tag"),
        count(deleted.manifests, "manifest"),
        count(deleted.blobs, "blob"),
        HumanBytes(deleted.bytes)
    );
    if deleted.cancelled_uploads > 0 {
        text += &format!(", and cancelled {}", count(deleted.cancelled_uploads, "upload"));
    }
    text += ".";
    if let Some(until) = deleted.restorable_until {
        text += &format!(
            "\nIts tags can be restored until {}, and the blobs that they need stay until then: `tags history {repository}{store}` shows \
             them, and `repositories delete --purge {repository}{store}` gives them up.",
            second(until)
        );
    }
    if !deleted.is_gone {
        text += &format!(
            "\n{} stayed, so the repository stays with them: they were pushed or asked for meanwhile, or their time is later than this machine's. Repeat the command to delete them.",
            count(deleted.manifests_left, "manifest")
        );
    }
    text
}
