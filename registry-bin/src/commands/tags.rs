//! `registry-bin tags`: what tags named before, and bringing it back.

use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand};
use registry_core::operation::{AllowAll, Authorizer as _};
use registry_core::policy::{ImmutableTagRule, ImmutableTags};
use registry_core::storage::{
    EndReason, PageRequest, RestoreTag, RestoredTag, TagEnd, TagRestored, TagValue,
};
use registry_core::{Digest, ErrorCode, RepositoryName, Tag, Timestamp};
use registry_storage::Maintenance;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::{Bounds, Command, Outcome, Reporter, execute};
use crate::count::count;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::times::second;

#[derive(Debug, Subcommand)]
pub(crate) enum TagsCommand {
    /// Show what tags named before, and whether it can be restored.
    History(History),
    /// Point a tag at what it named before, or at a manifest that was deleted.
    Restore(Restore),
}

/// A tag, a manifest or all tags of a repository, as people write them: `team/app:1@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    repository: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (front, digest) = match text.split_once('@') {
            Some((front, digest)) => {
                let digest = digest.parse();
                (
                    front,
                    Some(digest.map_err(|_| "what follows @ is no digest".to_owned())?),
                )
            }
            None => (text, None),
        };
        let (name, tag) = match front.split_once(':') {
            Some((name, tag)) => {
                let tag = tag.parse();
                (
                    name,
                    Some(tag.map_err(|_| {
                        "what follows : is no tag; write REPOSITORY:TAG without the name of the server"
                            .to_owned()
                    })?),
                )
            }
            None => (front, None),
        };
        let repository = name.parse();
        let repository = repository.map_err(|_| format!("{name} is no repository"))?;
        Ok(Self {
            repository,
            tag,
            digest,
        })
    }
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin tags history team/app:latest /etc/docker/registry/config.yml     one tag
  registry-bin tags history team/app --storage /srv/registry                    all tags that were moved or deleted

For each tag, the oldest value comes first, and what it names now last. What was moved or deleted is kept for `collector.keepdeleted`
(7 days). A value cannot be restored if a blob that it needs was deleted by itself, or `collect --now` was run.")]
pub(crate) struct History {
    /// The repository, or one tag of it.
    #[arg(value_name = "REPOSITORY[:TAG]")]
    named: Named,

    #[command(flatten)]
    configuration: ConfigArguments,

    /// Print one line of JSON for each value.
    #[arg(long)]
    json: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin tags restore team/app:latest /etc/docker/registry/config.yml               what it named before
  registry-bin tags restore team/app:latest@sha256:… --storage /srv/registry              one value of `tags history`

A manifest that was deleted comes back as it was, with the manifests of an index, and with the signatures and other referrers that were
deleted. What the tag names now is kept in turn. A deleted repository comes back tag by tag. If content is gone that the manifest
needs, nothing is restored and the message says what is missing. An immutable tag (`tags.immutable` of the configuration, and of a
server that has the folder) is not moved, but comes back if it was deleted. The exit code is 1, too, if a referrer was left out because content that it needs is gone.")]
pub(crate) struct Restore {
    /// The tag, and the digest that it is to name. [default: what it named last]
    #[arg(value_name = "REPOSITORY:TAG[@DIGEST]")]
    named: Named,

    #[command(flatten)]
    configuration: ConfigArguments,

    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Returns `false` if something was left out.
pub(crate) fn run(command: &TagsCommand) -> Result<bool, Failure> {
    match command {
        TagsCommand::History(history) => show_history(history),
        TagsCommand::Restore(restore) => restore_tag(restore),
    }
}

fn show_history(history: &History) -> Result<bool, Failure> {
    let loaded = load(&history.configuration.store(), &[])?;
    let _log = Logging::of(&loaded.configuration).start();
    let Named {
        repository,
        tag,
        digest,
    } = history.named.clone();
    if digest.is_some() {
        return Err(Failure::new("name a repository or a tag, without a digest"));
    }
    let request = TagHistory {
        repository,
        tag,
        json: history.json,
    };
    execute(&loaded.configuration, request)
}

fn restore_tag(restore: &Restore) -> Result<bool, Failure> {
    let arguments = restore.configuration.store();
    let loaded = load(&arguments, &[])?;
    let configuration = &loaded.configuration;
    let _log = Logging::of(configuration).start();
    let Named {
        repository,
        tag,
        digest,
    } = restore.named.clone();
    let Some(tag) = tag else {
        let store = arguments.named();
        return Err(Failure::new(format!(
            "name a tag: {repository}:TAG; `tags history {repository}{store}` shows which there were"
        )));
    };
    let request = RestoreRequest {
        is_immutable: is_immutable(configuration.tags.immutable_rules()?, &repository, &tag),
        allow_missing: configuration.validation.allow_missing_content,
        allow_sparse_indexes: configuration.validation.allows_sparse_indexes(),
        repository,
        tag,
        digest,
        json: restore.json,
    };
    execute(configuration, request)
}

fn is_immutable(rules: Vec<ImmutableTagRule>, repository: &RepositoryName, tag: &Tag) -> bool {
    let immutable = ImmutableTags::new(rules, Arc::new(AllowAll)).immutable_tags(repository);
    immutable.is_some_and(|immutable| immutable(tag))
}

/// How many past values are listed at once.
const VALUES_PER_PAGE: usize = 500;

/// The history of tags as it is asked of a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "tag-history", deny_unknown_fields)]
pub(super) struct TagHistory {
    repository: RepositoryName,
    /// `None` for all.
    tag: Option<Tag>,
    json: bool,
}

impl Command for TagHistory {
    fn only_reads(&self) -> bool {
        true
    }

    async fn run(self, store: &dyn Maintenance, reporter: Reporter) -> Result<Outcome, Failure> {
        let Self {
            repository,
            tag,
            json,
        } = self;
        let (mut past, mut restorable, mut present, mut last) = (0, 0, 0, None);
        loop {
            let page = PageRequest {
                last: last.take(),
                limit: VALUES_PER_PAGE,
            };
            let page = store.list_tag_history(&repository, tag.as_ref(), page).await;
            let page =
                page.map_err(|cause| Failure::new("what tags named before cannot be listed").because(cause))?;
            for value in &page.items {
                match &value.end {
                    Some(end) => {
                        past += 1;
                        restorable += u64::from(end.restorable_until.is_some());
                    }
                    None => present += 1,
                }
                let line = if json {
                    line_of(&repository, value)
                } else {
                    describe(&repository, value)
                };
                reporter.say(line).await;
            }
            match page.next {
                Some(next) => last = Some(next),
                None => break,
            }
        }
        let what = tag.map_or_else(
            || format!("the tags of {repository}"),
            |tag| format!("{repository}:{tag}"),
        );
        let text = if json {
            json!({ "pastValues": past, "restorable": restorable }).to_string()
        } else if past + present == 0 {
            format!("Nothing is kept of what {what} named before.")
        } else {
            format!(
                "{} of {what}, of which {restorable} can be restored.",
                count(past, "past value")
            )
        };
        Ok(Outcome {
            text,
            is_success: true,
        })
    }
}

/// Describes a value of a tag in a line.
fn describe(repository: &RepositoryName, value: &TagValue) -> String {
    let TagValue {
        tag,
        digest,
        since,
        principal,
        end,
    } = value;
    let by = by(principal);
    let since = second(*since);
    let Some(end) = end else {
        return format!("{repository}:{tag} {digest} since {since}{by}: now");
    };
    let at = second(end.at);
    let restorable = match end.restorable_until {
        Some(Timestamp(u64::MAX)) => "can be restored".to_owned(),
        Some(until) => format!("can be restored until {}", second(until)),
        None => "cannot be restored, because content of it is gone".to_owned(),
    };
    format!(
        "{repository}:{tag} {digest} {since}{by} to {at}: {}, {restorable}",
        why(end)
    )
}

/// Says why a tag names a manifest no longer.
fn why(end: &TagEnd) -> String {
    match end.reason {
        EndReason::Moved => format!("the tag was moved{}", by(&end.principal)),
        EndReason::TagDeleted => "the tag was deleted".to_owned(),
        EndReason::ManifestDeleted => "the manifest was deleted".to_owned(),
        EndReason::RepositoryDeleted => "the repository was deleted".to_owned(),
        EndReason::Retention(policy) => format!("nothing in retention[{policy}] kept it"),
    }
}

fn by(principal: &str) -> String {
    if principal.is_empty() {
        String::new()
    } else {
        format!(" by {principal}")
    }
}

fn line_of(repository: &RepositoryName, value: &TagValue) -> String {
    let end = value.end.as_ref();
    json!({
        "repository": repository,
        "tag": value.tag,
        "digest": value.digest,
        "since": value.since.to_string(),
        "pushedBy": value.principal,
        "until": end.map(|end| end.at.to_string()),
        "reason": end.map(|end| end.reason),
        "endedBy": end.map(|end| &end.principal),
        "restorableUntil": end.and_then(|end| end.restorable_until).map(|until| until.to_string()),
    })
    .to_string()
}

/// The restore of a tag as it is asked of a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename = "restore-tag", deny_unknown_fields)]
pub(super) struct RestoreRequest {
    repository: RepositoryName,
    tag: Tag,
    digest: Option<Digest>,
    is_immutable: bool,
    allow_missing: bool,
    allow_sparse_indexes: bool,
    json: bool,
}

impl Command for RestoreRequest {
    fn changes_content(&self) -> bool {
        true
    }

    fn bound_by(mut self, server: &Bounds) -> Self {
        self.is_immutable |= is_immutable(server.immutable.clone(), &self.repository, &self.tag);
        self
    }

    async fn run(self, store: &dyn Maintenance, _: Reporter) -> Result<Outcome, Failure> {
        let Self {
            repository,
            tag,
            digest,
            is_immutable,
            allow_missing,
            allow_sparse_indexes,
            json,
        } = self;
        let restore = RestoreTag {
            digest,
            is_immutable,
            allow_missing,
            allow_sparse_indexes,
            ..RestoreTag::new(tag.clone())
        };
        let restored = store.restore_tag(&repository, restore).await;
        let restored = restored.map_err(|cause| match cause.code() {
            ErrorCode::ManifestUnknown | ErrorCode::ManifestBlobUnknown | ErrorCode::TagConflict => {
                Failure::new(format!("{repository}:{tag} was not restored")).because(cause)
            }
            _ => Failure::new(format!(
                "{repository}:{tag} was not restored; the command can be repeated"
            ))
            .because(cause),
        })?;
        Ok(Outcome {
            text: if json {
                restored_line(&repository, &tag, &restored)
            } else {
                restored_text(&repository, &tag, &restored)
            },
            is_success: restored.referrers_left_out == 0,
        })
    }
}

fn restored_text(repository: &RepositoryName, tag: &Tag, restored: &RestoredTag) -> String {
    let digest = &restored.manifest.digest;
    let mut text = match &restored.replaced {
        Some(replaced) if replaced == digest => format!("{repository}:{tag} names {digest}, as before"),
        Some(replaced) => format!("{repository}:{tag} names {digest} again, and no longer {replaced}"),
        None => format!("{repository}:{tag} names {digest} again"),
    };
    if restored.manifests > 0 {
        text += &format!(
            "; {} that had been deleted came back",
            count(restored.manifests, "manifest")
        );
    }
    if restored.referrers > 0 {
        text += &format!(", with {}", count(restored.referrers, "referrer"));
    }
    text += ".";
    if restored.referrers_left_out > 0 {
        text += &format!(
            "\nLeft out: {}, because content that they need is gone.",
            count(restored.referrers_left_out, "referrer")
        );
    }
    text
}

fn restored_line(repository: &RepositoryName, tag: &Tag, restored: &RestoredTag) -> String {
    let mut line = json!(TagRestored::new(tag.clone(), restored));
    line["repository"] = json!(repository);
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_are_named_as_people_write_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, tag, has_digest) in [
            ("a/b", None, false),
            ("a/b:1", Some("1"), false),
            (&format!("a/b:1@{digest}"), Some("1"), true),
            (&format!("a/b@{digest}"), None, true),
        ] {
            let named: Named = text.parse().unwrap();
            assert_eq!(named.repository.as_str(), "a/b");
            assert_eq!(named.tag.as_ref().map(Tag::as_str), tag);
            assert_eq!(named.digest.is_some(), has_digest);
        }
        for text in ["", "a:", "localhost:5000/a", "a:1@", "a@sha256:0", "A", "a:1:2"] {
            text.parse::<Named>().unwrap_err();
        }
    }
}
