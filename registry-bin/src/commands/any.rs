//! The commands that a server runs when it is asked through its socket.

use registry_storage::Maintenance;
use serde::Deserialize;

use super::adopt::AdoptRequest;
use super::backup::BackupRequest;
use super::check::CheckRequest;
use super::collect::CollectRequest;
use super::copy::CopyRequest;
use super::export::{ExportDistribution, ExportOci};
use super::import::ImportOci;
use super::repositories::DeleteRepository;
use super::retention::ExplainRetention;
use super::tags::{RestoreRequest, TagHistory};
use super::usage::ShowUsage;
use crate::control::{Bounds, Command, Outcome, Reporter};
use crate::failure::Failure;

/// Any of them. The names are those with which each serializes itself.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(super) enum AnyCommand {
    Check(CheckRequest),
    Collect(CollectRequest),
    Copy(CopyRequest),
    DeleteRepository(DeleteRepository),
    Backup(BackupRequest),
    Adopt(AdoptRequest),
    ExportDistribution(ExportDistribution),
    ExportOci(ExportOci),
    ImportOci(ImportOci),
    ExplainRetention(ExplainRetention),
    TagHistory(TagHistory),
    RestoreTag(RestoreRequest),
    ShowUsage(ShowUsage),
}

impl Command for AnyCommand {
    fn changes_content(&self) -> bool {
        match self {
            Self::Copy(command) => command.changes_content(),
            Self::DeleteRepository(command) => command.changes_content(),
            Self::ImportOci(command) => command.changes_content(),
            Self::RestoreTag(command) => command.changes_content(),
            Self::Check(_)
            | Self::Collect(_)
            | Self::Backup(_)
            | Self::Adopt(_)
            | Self::ExportDistribution(_)
            | Self::ExportOci(_)
            | Self::ExplainRetention(_)
            | Self::TagHistory(_)
            | Self::ShowUsage(_) => false,
        }
    }

    fn bound_by(self, server: &Bounds) -> Self {
        match self {
            Self::Collect(command) => Self::Collect(command.bound_by(server)),
            Self::Copy(command) => Self::Copy(command.bound_by(server)),
            Self::DeleteRepository(command) => Self::DeleteRepository(command.bound_by(server)),
            Self::ExplainRetention(command) => Self::ExplainRetention(command.bound_by(server)),
            Self::RestoreTag(command) => Self::RestoreTag(command.bound_by(server)),
            // An import moves tags on purpose, and none of the others moves or deletes one.
            other @ (Self::Check(_)
            | Self::Backup(_)
            | Self::Adopt(_)
            | Self::ExportDistribution(_)
            | Self::ExportOci(_)
            | Self::ImportOci(_)
            | Self::TagHistory(_)
            | Self::ShowUsage(_)) => other,
        }
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        match self {
            Self::Check(command) => command.run(store, reporter).await,
            Self::Collect(command) => command.run(store, reporter).await,
            Self::Copy(command) => command.run(store, reporter).await,
            Self::DeleteRepository(command) => command.run(store, reporter).await,
            Self::Backup(command) => command.run(store, reporter).await,
            Self::Adopt(command) => command.run(store, reporter).await,
            Self::ExportDistribution(command) => command.run(store, reporter).await,
            Self::ExportOci(command) => command.run(store, reporter).await,
            Self::ImportOci(command) => command.run(store, reporter).await,
            Self::ExplainRetention(command) => command.run(store, reporter).await,
            Self::TagHistory(command) => command.run(store, reporter).await,
            Self::RestoreTag(command) => command.run(store, reporter).await,
            Self::ShowUsage(command) => command.run(store, reporter).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(command: &AnyCommand) -> String {
        let text = match command {
            AnyCommand::Check(command) => serde_json::to_string(command),
            AnyCommand::Collect(command) => serde_json::to_string(command),
            AnyCommand::Copy(command) => serde_json::to_string(command),
            AnyCommand::DeleteRepository(command) => serde_json::to_string(command),
            AnyCommand::Backup(command) => serde_json::to_string(command),
            AnyCommand::Adopt(command) => serde_json::to_string(command),
            AnyCommand::ExportDistribution(command) => serde_json::to_string(command),
            AnyCommand::ExportOci(command) => serde_json::to_string(command),
            AnyCommand::ImportOci(command) => serde_json::to_string(command),
            AnyCommand::ExplainRetention(command) => serde_json::to_string(command),
            AnyCommand::TagHistory(command) => serde_json::to_string(command),
            AnyCommand::RestoreTag(command) => serde_json::to_string(command),
            AnyCommand::ShowUsage(command) => serde_json::to_string(command),
        };
        text.unwrap()
    }

    #[test]
    fn a_server_knows_each_command_by_the_name_with_which_it_is_sent() {
        for text in [
            r#"{"command":"check","repair":true,"verify_content":false,"bytes_per_second":1}"#,
            r#"{"command":"collect","grace":0,"dry_run":false,"repeat":true,"full":false,"json":false,"empty_repositories":false}"#,
            r#"{"command":"copy","other":{"config":"/c.yml","storage":null,"folder":null},"is_to_other":true,"repositories":["a"],"immutable":[],"json":false}"#,
            r#"{"command":"delete-repository","repository":"a/b","immutable":[{"repositories":["a/*"],"tags":["v*"]}],"purge":false,"json":false}"#,
            r#"{"command":"backup","target":"/b"}"#,
            r#"{"command":"adopt","verify":false,"again":true,"dry_run":false}"#,
            r#"{"command":"export-distribution","target":"/b"}"#,
            r#"{"command":"export-oci","target":"/b.tar","repositories":["a/b"]}"#,
            r#"{"command":"import-oci","source":"/b","repositories":[]}"#,
            r#"{"command":"explain-retention","repositories":["a"],"grace":1,"json":true,"retention":{"policies":[],"immutable":[]}}"#,
            r#"{"command":"tag-history","repository":"a/b","tag":"1","json":true}"#,
            r#"{"command":"restore-tag","repository":"a/b","tag":"1","digest":null,"is_immutable":true,"allow_missing":false,"allow_sparse_indexes":false,"json":false}"#,
            r#"{"command":"show-usage","repositories":["a"],"collects":true,"now":false,"shared":false,"json":true,"quotas":[{"repositories":["a/*"],"bytes":1,"manifests":null,"tags":2}]}"#,
        ] {
            let command: AnyCommand = serde_json::from_str(text).unwrap();
            assert_eq!(sent(&command), text);
            // A newer client may mean something else by it.
            let with_more = format!(r#"{},"more":1}}"#, text.strip_suffix('}').unwrap());
            serde_json::from_str::<AnyCommand>(&with_more).unwrap_err();
        }
    }
}
