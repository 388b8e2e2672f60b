//! What a key identifies: the inverse of its spelling.

use registry_core::{Digest, RepositoryName, Tag, Timestamp, UploadId};
use uuid::Uuid;

use crate::key::{Key, joined};
use crate::secret::SecretName;

/// The folders of all records but the [format of the store](Key::registry) and the quarantine, in the order in which a check
/// goes through them: blobs come before what names them. A test looks for the folder of each kind of record.
const FOLDERS: [&str; 20] = [
    "uploads",
    "parked",
    "blobs",
    "repositories",
    "catalog",
    "kept",
    "deletes",
    "pushes",
    "adoption",
    "adopted",
    "collector",
    "scrub",
    "sweeper",
    "usage",
    "quotas",
    "pulls",
    "pulled",
    "probed",
    "secrets",
    "writer",
];

/// Returns the prefixes of all keys that [`KeyKind::of`] parses.
pub(crate) fn folders() -> impl Iterator<Item = Key> {
    FOLDERS
        .into_iter()
        .map(|folder| Key::from_stored(&format!("{folder}/")))
}

/// What a record is about, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Blob(Digest),
    Grant(RepositoryName, Digest),
    Manifest(RepositoryName, Digest),
    Tag(RepositoryName, Tag),
    /// The back reference of a tag.
    Tagged(RepositoryName, Digest, Tag),
    /// The back reference of a grant.
    RepositoryBlob(RepositoryName, Digest),
    /// An entry in a list of referrers.
    Referrer {
        repository: RepositoryName,
        subject: Digest,
        referrer: Digest,
        incarnation: String,
    },
    Repository(RepositoryName),
    /// A past value of a tag.
    PastTag {
        repository: RepositoryName,
        tag: Tag,
        until: Timestamp,
        nonce: Uuid,
    },
    DeletedManifest {
        repository: RepositoryName,
        digest: Digest,
        until: Timestamp,
        incarnation: String,
    },
    Upload(UploadId),
    /// Some bytes of an upload that are parked.
    Parked(UploadId, Uuid),
    /// The note of a delete.
    Delete(RepositoryName, Uuid),
    /// The note of a long push.
    Push(RepositoryName, Uuid),
    Adoption,
    /// The links of a repository that were adopted.
    Adopted(RepositoryName),
    Cycles,
    Scrub,
    /// What was tried of the store.
    Probed,
    /// The lock of the process that writes alone.
    Writer,
    /// A secret that all processes share.
    Secret(SecretName),
    /// Since when pulls are recorded.
    Pulls,
    /// When the manifests of a repository were pulled last.
    Pulled(RepositoryName),
    /// What a repository had when it was last counted.
    Usage(RepositoryName),
    /// That the collector may find something in a repository.
    Changed(RepositoryName),
    /// Blobs that may have lost their last grant.
    Candidates(Uuid),
    PassOverRepositories,
    PassOverBlobs,
    /// Bytes that may have lost what named them.
    Unnamed(Uuid),
    FullSweep,
    /// What a quota counts.
    Quota(Digest),
}

impl KeyKind {
    /// Parses a key; `None` if no record of this version has such a key.
    pub(crate) fn of(key: &Key) -> Option<Self> {
        let text = key.as_str();
        let (folder, rest) = text.split_once('/')?;
        let kind = match folder {
            "blobs" => blob(rest),
            "repositories" => of_repository(rest),
            "catalog" => Some(Self::Repository(name(rest.strip_suffix('!')?)?)),
            "uploads" => Some(Self::Upload(rest.parse().ok()?)),
            "parked" => {
                let (upload, id) = rest.split_once('/')?;
                Some(Self::Parked(upload.parse().ok()?, id.parse().ok()?))
            }
            "kept" => kept(rest),
            "deletes" => note(rest).map(|(repository, id)| Self::Delete(repository, id)),
            "pushes" => note(rest).map(|(repository, id)| Self::Push(repository, id)),
            "adoption" => Some(Self::Adoption),
            "adopted" => Some(Self::Adopted(name(rest.strip_suffix('!')?)?)),
            "collector" => of_collector(rest),
            "scrub" => Some(Self::Scrub),
            "probed" => Some(Self::Probed),
            "writer" => Some(Self::Writer),
            "secrets" => SecretName::parse(rest).map(Self::Secret),
            "sweeper" if rest == "full" => Some(Self::FullSweep),
            "sweeper" => Some(Self::Unnamed(rest.strip_prefix("unnamed/")?.parse().ok()?)),
            "quotas" => digest(rest).map(Self::Quota),
            "pulls" => Some(Self::Pulls),
            "pulled" => Some(Self::Pulled(name(rest.strip_suffix('!')?)?)),
            "usage" => Some(Self::Usage(name(rest.strip_suffix('!')?)?)),
            _ => None,
        }?;
        // A record under any other spelling would not be found, because lookups use the canonical one.
        (kind.key() == *key).then_some(kind)
    }

    /// Returns the repository that a record is about, if it is one.
    pub(crate) const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Grant(repository, _)
            | Self::Manifest(repository, _)
            | Self::Tag(repository, _)
            | Self::Tagged(repository, ..)
            | Self::RepositoryBlob(repository, _)
            | Self::Referrer { repository, .. }
            | Self::PastTag { repository, .. }
            | Self::DeletedManifest { repository, .. }
            | Self::Repository(repository)
            | Self::Delete(repository, _)
            | Self::Push(repository, _)
            | Self::Adopted(repository)
            | Self::Pulled(repository)
            | Self::Usage(repository)
            | Self::Changed(repository) => Some(repository),
            Self::Blob(_)
            | Self::Upload(_)
            | Self::Parked(..)
            | Self::Adoption
            | Self::Cycles
            | Self::Scrub
            | Self::Probed
            | Self::Writer
            | Self::Secret(_)
            | Self::Pulls
            | Self::Candidates(_)
            | Self::PassOverRepositories
            | Self::PassOverBlobs
            | Self::Unnamed(_)
            | Self::FullSweep
            | Self::Quota(_) => None,
        }
    }

    /// Spells the key.
    fn key(&self) -> Key {
        match self {
            Self::Blob(digest) => Key::blob(digest),
            Self::Grant(repository, digest) => Key::grant(digest, repository),
            Self::Manifest(repository, digest) => Key::manifest(repository, digest),
            Self::Tag(repository, tag) => Key::tag(repository, tag),
            Self::Tagged(repository, digest, tag) => Key::tagged(repository, digest, tag),
            Self::RepositoryBlob(repository, digest) => Key::repository_blob(repository, digest),
            Self::Referrer {
                repository,
                subject,
                referrer,
                incarnation,
            } => Key::referrer(repository, subject, referrer, incarnation),
            Self::Repository(repository) => Key::repository(repository),
            Self::PastTag {
                repository,
                tag,
                until,
                nonce,
            } => Key::past_tag(repository, tag, *until, *nonce),
            Self::DeletedManifest {
                repository,
                digest,
                until,
                incarnation,
            } => Key::deleted_manifest(repository, digest, *until, incarnation),
            Self::Upload(id) => Key::upload(*id),
            Self::Parked(upload, id) => Key::parked(*upload, *id),
            Self::Delete(repository, id) => Key::delete(repository, *id),
            Self::Push(repository, id) => Key::push(repository, *id),
            Self::Adoption => Key::adoption(),
            Self::Adopted(repository) => Key::adopted(repository),
            Self::Cycles => Key::cycles(),
            Self::Scrub => Key::scrub(),
            Self::Probed => Key::probed(),
            Self::Writer => Key::writer(),
            Self::Secret(name) => Key::secret(*name),
            Self::Pulls => Key::pulls(),
            Self::Pulled(repository) => Key::pulled(repository),
            Self::Usage(repository) => Key::usage(repository),
            Self::Changed(repository) => Key::changed(repository),
            Self::Candidates(id) => Key::candidates(*id),
            Self::Unnamed(id) => Key::unnamed(*id),
            Self::FullSweep => Key::full_sweep(),
            Self::PassOverRepositories => Key::pass_over_repositories(),
            Self::PassOverBlobs => Key::pass_over_blobs(),
            Self::Quota(patterns) => Key::quota(patterns),
        }
    }
}

/// Reads `<algorithm>/<aa>/<hex>/record` and `<algorithm>/<aa>/<hex>/in/<repository>!`.
fn blob(rest: &str) -> Option<KeyKind> {
    let mut parts = rest.splitn(4, '/');
    let (algorithm, _first, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let digest = format!("{algorithm}:{encoded}").parse().ok()?;
    match parts.next()? {
        "record" => Some(KeyKind::Blob(digest)),
        grant => {
            let repository = name(grant.strip_prefix("in/")?.strip_suffix('!')?)?;
            Some(KeyKind::Grant(repository, digest))
        }
    }
}

/// Parses what is below the folder of a repository.
fn of_repository(rest: &str) -> Option<KeyKind> {
    let at = rest.find("/!/")?;
    let repository = name(rest.get(..at)?)?;
    let (folder, rest) = rest.get(at + 3..)?.split_once('/')?;
    match folder {
        "manifests" => Some(KeyKind::Manifest(repository, digest(rest)?)),
        "blobs" => Some(KeyKind::RepositoryBlob(repository, digest(rest)?)),
        "tags" => Some(KeyKind::Tag(repository, rest.parse().ok()?)),
        "tagged" => {
            let (manifest, tag) = rest.rsplit_once('/')?;
            Some(KeyKind::Tagged(repository, digest(manifest)?, tag.parse().ok()?))
        }
        "referrers" => {
            let (entry, incarnation) = rest.rsplit_once('.')?;
            let (algorithm, entry) = entry.split_once('/')?;
            let (subject, referrer) = entry.split_once('/')?;
            Some(KeyKind::Referrer {
                repository,
                subject: format!("{algorithm}:{subject}").parse().ok()?,
                referrer: digest(referrer)?,
                incarnation: incarnation.to_owned(),
            })
        }
        _ => None,
    }
}

/// Parses what is below the folder of the collector.
fn of_collector(rest: &str) -> Option<KeyKind> {
    match rest.split_once('/') {
        Some(("repositories", rest)) => Some(KeyKind::Changed(name(rest.strip_suffix('!')?)?)),
        Some(("candidates", id)) => Some(KeyKind::Candidates(id.parse().ok()?)),
        Some(("passes", "repositories")) => Some(KeyKind::PassOverRepositories),
        Some(("passes", "blobs")) => Some(KeyKind::PassOverBlobs),
        Some(_) => None,
        None => Some(KeyKind::Cycles),
    }
}

/// Reads `<repository>!/<id>`.
fn note(rest: &str) -> Option<(RepositoryName, Uuid)> {
    let (repository, id) = rest.rsplit_once("!/")?;
    Some((name(repository)?, id.parse().ok()?))
}

/// Reads `<repository>!/tags/<tag>/<until>-<nonce>` and `<repository>!/manifests/<algorithm>/<hex>/<until>-<incarnation>`.
fn kept(rest: &str) -> Option<KeyKind> {
    let (repository, rest) = rest.rsplit_once("!/")?;
    let repository = name(repository)?;
    let (folder, rest) = rest.split_once('/')?;
    let (what, value) = rest.rsplit_once('/')?;
    let (until, id) = value.split_once('-')?;
    let until = Timestamp(until.parse().ok()?);
    match folder {
        "tags" => Some(KeyKind::PastTag {
            repository,
            tag: what.parse().ok()?,
            until,
            nonce: id.parse().ok()?,
        }),
        "manifests" => Some(KeyKind::DeletedManifest {
            repository,
            digest: digest(what)?,
            until,
            incarnation: id.to_owned(),
        }),
        _ => None,
    }
}

fn name(text: &str) -> Option<RepositoryName> {
    joined(text).parse().ok()
}

fn digest(text: &str) -> Option<Digest> {
    let (algorithm, encoded) = text.split_once('/')?;
    format!("{algorithm}:{encoded}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digests() -> impl Strategy<Value = Digest> {
        let of = |algorithm: &'static str, length: usize| {
            proptest::string::string_regex(&format!("[0-9a-f]{{{length}}}"))
                .unwrap()
                .prop_map(move |hex| format!("{algorithm}:{hex}").parse().unwrap())
        };
        prop_oneof![of("sha256", 64), of("sha512", 128)]
    }

    fn names() -> impl Strategy<Value = RepositoryName> {
        // Long components are split, and a component may be named like a folder.
        let component = prop_oneof![
            "[a-z0-9]{1,8}",
            "[a-z]{196,204}",
            "(a{199}|a{200})([._-]?[a-z0-9]{1,3}){0,2}",
            Just("tags".to_owned()),
            Just("a".repeat(200) + "tags")
        ];
        proptest::collection::vec(component, 1..3)
            .prop_map(|components| components.join("/"))
            .prop_filter_map("too long", |name| name.parse().ok())
    }

    proptest! {
        /// Also of a component that is split: what goes on in a folder of its own sorts as what goes on in the name.
        #[test]
        fn repositories_have_the_order_of_their_names(one in names(), other in names()) {
            prop_assert_eq!(Key::repository(&one).cmp(&Key::repository(&other)), one.as_str().cmp(other.as_str()));
            let is_other = one != other;
            let record = Key::tag(&other, &"1".parse().unwrap());
            prop_assert!(!is_other || !record.as_str().starts_with(Key::all_of_repository(&one).as_str()));
        }

        #[test]
        fn every_key_is_read_back(
            repository in names(),
            digest in digests(),
            other in digests(),
            tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
            incarnation in "[0-9a-f]{32}",
            id in any::<u128>(),
            until in any::<u64>(),
        ) {
            let until = Timestamp(until);
            let tag: Tag = tag.parse().unwrap();
            let other_patterns = other.clone();
            let kinds = [
                KeyKind::Blob(digest.clone()),
                KeyKind::Grant(repository.clone(), digest.clone()),
                KeyKind::Manifest(repository.clone(), digest.clone()),
                KeyKind::Tag(repository.clone(), tag.clone()),
                KeyKind::Tagged(repository.clone(), digest.clone(), tag.clone()),
                KeyKind::PastTag { repository: repository.clone(), tag, until, nonce: Uuid::from_u128(id) },
                KeyKind::DeletedManifest {
                    repository: repository.clone(),
                    digest: digest.clone(),
                    until,
                    incarnation: incarnation.clone(),
                },
                KeyKind::RepositoryBlob(repository.clone(), digest.clone()),
                KeyKind::Referrer { repository: repository.clone(), subject: digest, referrer: other, incarnation },
                KeyKind::Repository(repository.clone()),
                KeyKind::Delete(repository.clone(), Uuid::from_u128(id)),
                KeyKind::Push(repository.clone(), Uuid::from_u128(id)),
                KeyKind::Adopted(repository.clone()),
                KeyKind::Pulled(repository.clone()),
                KeyKind::Usage(repository.clone()),
                KeyKind::Pulls,
                KeyKind::Changed(repository),
                KeyKind::Candidates(Uuid::from_u128(id)),
                KeyKind::Unnamed(Uuid::from_u128(id)),
                KeyKind::FullSweep,
                KeyKind::PassOverRepositories,
                KeyKind::PassOverBlobs,
                KeyKind::Cycles,
                KeyKind::Quota(other_patterns),
                KeyKind::Scrub,
                KeyKind::Probed,
                KeyKind::Writer,
                KeyKind::Secret(SecretName::TokenKeys),
                KeyKind::Secret(SecretName::Catalog),
                KeyKind::Upload(UploadId::from_random(id)),
                KeyKind::Parked(UploadId::from_random(id), Uuid::from_u128(id)),
                KeyKind::Adoption,
            ];
            for kind in kinds {
                let key = kind.key();
                prop_assert!(folders().any(|folder| key.as_str().starts_with(folder.as_str())), "no check reads {key}");
                prop_assert_eq!(KeyKind::of(&key), Some(kind));
            }
        }

        #[test]
        fn other_text_is_no_key_and_no_panic(text in "(blobs|repositories|catalog|kept|uploads|parked|deletes|pushes|adoption|adopted|collector|sweeper|scrub|quotas|pulls|pulled|probed|writer|secrets|usage|quarantine)/[a-f0-9/!.:]{0,90}") {
            let key = Key::from_stored(&text);
            if let Some(kind) = KeyKind::of(&key) {
                prop_assert_eq!(kind.key(), key);
            }
        }
    }
}
