//! Keys of records: the only place that knows how they are spelled.

use std::fmt;

use registry_core::{Digest, RepositoryName, Tag, Timestamp, UploadId};
use uuid::Uuid;

use crate::secret::SecretName;

/// The key of a record, or a prefix of the keys of several.
///
/// Spelled so that a person can read a listing. `!` sorts below every character of a name, so repositories are listed
/// in the order of their names, and `a` can exist alongside `a/b`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// Takes a key as a backend spells it.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The format of the store.
    #[must_use]
    pub fn registry() -> Self {
        Self("registry.json".into())
    }

    /// The blob of a digest.
    #[must_use]
    pub fn blob(digest: &Digest) -> Self {
        Self(format!("{}record", blob_folder(digest)).into())
    }

    /// All blobs.
    #[must_use]
    pub fn blobs() -> Self {
        Self("blobs/".into())
    }

    /// The right of a repository to read a blob.
    #[must_use]
    pub fn grant(digest: &Digest, repository: &RepositoryName) -> Self {
        Self(format!("{}in/{}!", blob_folder(digest), Split(repository.as_str())).into())
    }

    /// All grants of a blob.
    #[must_use]
    pub fn grants(digest: &Digest) -> Self {
        Self(format!("{}in/", blob_folder(digest)).into())
    }

    /// A manifest of a repository.
    #[must_use]
    pub fn manifest(repository: &RepositoryName, digest: &Digest) -> Self {
        Self(format!("{}manifests/{}", repository_folder(repository), slashed(digest)).into())
    }

    /// The back reference that a manifest has, or had, a tag.
    #[must_use]
    pub fn tagged(repository: &RepositoryName, digest: &Digest, tag: &Tag) -> Self {
        Self(format!("{}{tag}", Self::all_tagged(repository, digest)).into())
    }

    /// All back references of the tags of a manifest.
    #[must_use]
    pub fn all_tagged(repository: &RepositoryName, digest: &Digest) -> Self {
        Self(format!("{}tagged/{}/", repository_folder(repository), slashed(digest)).into())
    }

    /// The back reference that a repository has, or had, a grant for a blob.
    #[must_use]
    pub fn repository_blob(repository: &RepositoryName, digest: &Digest) -> Self {
        Self(format!("{}blobs/{}", repository_folder(repository), slashed(digest)).into())
    }

    /// A tag of a repository.
    #[must_use]
    pub fn tag(repository: &RepositoryName, tag: &Tag) -> Self {
        Self(format!("{}tags/{tag}", repository_folder(repository)).into())
    }

    /// All tags of a repository.
    #[must_use]
    pub fn tags(repository: &RepositoryName) -> Self {
        Self(format!("{}tags/", repository_folder(repository)).into())
    }

    /// A manifest's entry in the list of its subject.
    #[must_use]
    pub fn referrer(
        repository: &RepositoryName,
        subject: &Digest,
        referrer: &Digest,
        incarnation: &str,
    ) -> Self {
        Self(
            format!(
                "{}{}.{incarnation}",
                Self::referrers(repository, subject),
                slashed(referrer)
            )
            .into(),
        )
    }

    /// All entries in the list of a subject.
    #[must_use]
    pub fn referrers(repository: &RepositoryName, subject: &Digest) -> Self {
        Self(format!("{}referrers/{}/", repository_folder(repository), slashed(subject)).into())
    }

    /// All entries in the lists of referrers of a repository.
    #[must_use]
    pub fn all_referrers(repository: &RepositoryName) -> Self {
        Self(format!("{}referrers/", repository_folder(repository)).into())
    }

    /// An upload session.
    #[must_use]
    pub fn upload(id: UploadId) -> Self {
        Self(format!("uploads/{id}").into())
    }

    /// Returns the upload session that this key identifies.
    #[must_use]
    pub fn upload_id(&self) -> Option<UploadId> {
        self.0.strip_prefix("uploads/")?.parse().ok()
    }

    /// Some bytes of an upload that are parked until their part is whole.
    #[must_use]
    pub fn parked(upload: UploadId, id: Uuid) -> Self {
        Self::all_parked().join(&format!("{upload}/{id}"))
    }

    /// What is parked of all uploads.
    #[must_use]
    pub fn all_parked() -> Self {
        Self("parked/".into())
    }

    /// All upload sessions.
    #[must_use]
    pub fn uploads() -> Self {
        Self("uploads/".into())
    }

    /// A repository in the catalog.
    #[must_use]
    pub fn repository(name: &RepositoryName) -> Self {
        Self(format!("catalog/{}!", Split(name.as_str())).into())
    }

    /// All repositories.
    #[must_use]
    pub fn repositories() -> Self {
        Self("catalog/".into())
    }

    /// The progress of adopting another program's data.
    #[must_use]
    pub fn adoption() -> Self {
        Self("adoption/distribution".into())
    }

    /// The links of a repository in the other program's folders that were adopted.
    #[must_use]
    pub fn adopted(repository: &RepositoryName) -> Self {
        Self(format!("adopted/{}!", Split(repository.as_str())).into())
    }

    /// The cycles of the collector.
    #[must_use]
    pub fn cycles() -> Self {
        Self("collector/cycles".into())
    }

    /// Since when pulls are recorded.
    #[must_use]
    pub fn pulls() -> Self {
        Self("pulls/since".into())
    }

    /// When the manifests of a repository were pulled last.
    #[must_use]
    pub fn pulled(repository: &RepositoryName) -> Self {
        Self(format!("{}{}!", Self::all_pulled(), Split(repository.as_str())).into())
    }

    /// When the manifests of all repositories were pulled last.
    #[must_use]
    pub fn all_pulled() -> Self {
        Self("pulled/".into())
    }

    /// How far the scrubber is.
    #[must_use]
    pub fn scrub() -> Self {
        Self("scrub/round".into())
    }

    /// A secret that all processes share.
    #[must_use]
    pub fn secret(name: SecretName) -> Self {
        Self(format!("secrets/{}", name.as_str()).into())
    }

    /// What was tried of the store that keeps all records.
    #[must_use]
    pub fn probed() -> Self {
        Self("probed/store".into())
    }

    /// The lock of the process that writes alone.
    #[must_use]
    pub fn writer() -> Self {
        Self("writer/lock".into())
    }

    /// What a repository had when it was last counted.
    #[must_use]
    pub fn usage(repository: &RepositoryName) -> Self {
        Self(format!("{}{}!", Self::all_usage(), Split(repository.as_str())).into())
    }

    /// What all repositories had when they were last counted.
    #[must_use]
    pub fn all_usage() -> Self {
        Self("usage/".into())
    }

    /// That the collector may find something in a repository.
    #[must_use]
    pub fn changed(repository: &RepositoryName) -> Self {
        Self(format!("{}{}!", Self::all_changed(), Split(repository.as_str())).into())
    }

    /// The repositories in which the collector may find something.
    #[must_use]
    pub fn all_changed() -> Self {
        Self("collector/repositories/".into())
    }

    /// Some blobs that may have lost their last grant.
    #[must_use]
    pub fn candidates(id: Uuid) -> Self {
        Self::all_candidates().join(&id.to_string())
    }

    /// The blobs that may have lost their last grant.
    #[must_use]
    pub fn all_candidates() -> Self {
        Self("collector/candidates/".into())
    }

    /// How far the collector's pass over all repositories is.
    #[must_use]
    pub fn pass_over_repositories() -> Self {
        Self("collector/passes/repositories".into())
    }

    /// How far the collector's pass over all blobs is.
    #[must_use]
    pub fn pass_over_blobs() -> Self {
        Self("collector/passes/blobs".into())
    }

    /// Some bytes that may have lost what named them.
    #[must_use]
    pub fn unnamed(id: Uuid) -> Self {
        Self::all_unnamed().join(&id.to_string())
    }

    /// The bytes that may have lost what named them.
    #[must_use]
    pub fn all_unnamed() -> Self {
        Self("sweeper/unnamed/".into())
    }

    /// How far the sweep of everything is.
    #[must_use]
    pub fn full_sweep() -> Self {
        Self("sweeper/full".into())
    }

    /// A past value of a tag, which was written with a nonce, and is kept until a time.
    #[must_use]
    pub fn past_tag(repository: &RepositoryName, tag: &Tag, until: Timestamp, nonce: Uuid) -> Self {
        Self::past_tags_of(repository, tag).join(&format!("{:020}-{nonce}", until.0))
    }

    /// The past values of a tag.
    #[must_use]
    pub fn past_tags_of(repository: &RepositoryName, tag: &Tag) -> Self {
        Self::past_tags(repository).join(&format!("{tag}/"))
    }

    /// The past values of all tags of a repository.
    #[must_use]
    pub fn past_tags(repository: &RepositoryName) -> Self {
        Self::kept_of(repository).join("tags/")
    }

    /// A deleted manifest, which is kept until a time.
    #[must_use]
    pub fn deleted_manifest(
        repository: &RepositoryName,
        digest: &Digest,
        until: Timestamp,
        incarnation: &str,
    ) -> Self {
        Self::deleted_manifest_of(repository, digest).join(&format!("{:020}-{incarnation}", until.0))
    }

    /// The deleted incarnations of a manifest.
    #[must_use]
    pub fn deleted_manifest_of(repository: &RepositoryName, digest: &Digest) -> Self {
        Self::deleted_manifests(repository).join(&format!("{}/", slashed(digest)))
    }

    /// The deleted manifests of a repository.
    #[must_use]
    pub fn deleted_manifests(repository: &RepositoryName) -> Self {
        Self::kept_of(repository).join("manifests/")
    }

    /// What is kept of what was moved or deleted in a repository.
    #[must_use]
    pub fn kept_of(repository: &RepositoryName) -> Self {
        Self(format!("kept/{}!/", Split(repository.as_str())).into())
    }

    /// What is kept of what was moved or deleted.
    #[must_use]
    pub fn all_kept() -> Self {
        Self("kept/".into())
    }

    /// What the repositories that a quota is for have, by the hash of its patterns.
    #[must_use]
    pub fn quota(patterns: &Digest) -> Self {
        Self(format!("quotas/{}", slashed(patterns)).into())
    }

    /// All records of a repository other than its grants.
    #[must_use]
    pub fn all_of_repository(repository: &RepositoryName) -> Self {
        Self(repository_folder(repository).into())
    }

    /// Returns where the records of a repository other than its grants end: it sorts after all of them, and before those of
    /// any other.
    #[must_use]
    pub fn end_of_repository(repository: &RepositoryName) -> Self {
        // `0` is the character after `/`.
        Self(format!("repositories/{}/!0", Split(repository.as_str())).into())
    }

    /// Returns a key before all records of the repositories that the catalog has after one. Among those records are some of
    /// repositories that it has before: `a` is before `a-b`, and `a/` after `a-b/`.
    #[must_use]
    pub fn start_of_later_repositories(repository: &RepositoryName) -> Self {
        Self(format!("repositories/{}!", Split(repository.as_str())).into())
    }

    /// The note of a long push to a repository.
    #[must_use]
    pub fn push(repository: &RepositoryName, id: Uuid) -> Self {
        Self(format!("pushes/{}!/{id}", Split(repository.as_str())).into())
    }

    /// The notes of all long pushes.
    #[must_use]
    pub fn pushes() -> Self {
        Self("pushes/".into())
    }

    /// The note of a delete in a repository.
    #[must_use]
    pub fn delete(repository: &RepositoryName, id: Uuid) -> Self {
        Self::deletes_of(repository).join(&id.to_string())
    }

    /// The notes of all deletes in a repository.
    #[must_use]
    pub fn deletes_of(repository: &RepositoryName) -> Self {
        Self(format!("deletes/{}!/", Split(repository.as_str())).into())
    }

    /// The notes of all deletes.
    #[must_use]
    pub fn deletes() -> Self {
        Self("deletes/".into())
    }

    /// All manifests of a repository.
    #[must_use]
    pub fn manifests(repository: &RepositoryName) -> Self {
        Self(format!("{}manifests/", repository_folder(repository)).into())
    }

    /// The back references of all grants of a repository.
    #[must_use]
    pub fn repository_blobs(repository: &RepositoryName) -> Self {
        Self(format!("{}blobs/", repository_folder(repository)).into())
    }

    /// Returns the end of the folder of this key, if it is the key of a repository's record other than a blob: it sorts
    /// after all keys in that folder, and before all others that the folder comes before.
    #[must_use]
    pub fn end_of_folder(&self) -> Option<Self> {
        let folder = self.0.rfind("/!/")? + "/!/".len();
        let end = folder + self.0.get(folder..)?.find('/')?;
        // `0` is the character after `/`.
        Some(Self(format!("{}0", self.0.get(..end)?).into()))
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what comes after `prefix`, with the split of long names undone; `None` if the key has another prefix.
    #[must_use]
    pub fn after(&self, prefix: &Self) -> Option<String> {
        Some(joined(self.0.strip_prefix(&*prefix.0)?))
    }

    /// All records of all repositories except their blobs.
    #[must_use]
    pub fn all_repositories() -> Self {
        Self("repositories/".into())
    }

    /// Where an unusable record of this key is kept. `self` may also be a prefix, for all unusable records of that
    /// kind.
    #[must_use]
    pub fn quarantined(&self) -> Self {
        Self(format!("{}{}", Self::quarantine(), self.0).into())
    }

    /// All unusable records.
    #[must_use]
    pub fn quarantine() -> Self {
        Self("quarantine/".into())
    }

    /// Returns this key followed by `rest`.
    #[must_use]
    pub fn join(&self, rest: &str) -> Self {
        Self(format!("{}{rest}", self.0).into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn blob_folder(digest: &Digest) -> String {
    let (algorithm, encoded) = digest.parts();
    let first: String = encoded.chars().take(2).collect();
    format!("blobs/{algorithm}/{first}/{encoded}/")
}

fn repository_folder(repository: &RepositoryName) -> String {
    format!("repositories/{}/!/", Split(repository.as_str()))
}

fn slashed(digest: &Digest) -> String {
    let (algorithm, encoded) = digest.parts();
    format!("{algorithm}/{encoded}")
}

/// A name whose components above 200 bytes are split, because a file name has at most 255 bytes and some stores map keys to
/// files. What comes after 200 bytes of a component is in a folder of its own, so that keys have the order of names: first
/// that the name ends (`!`), then `-` and `.`, then `/`, then all else. No name contains these marks, so the split can be undone.
struct Split<'a>(&'a str);

/// The most bytes of a component that are kept together.
const TOGETHER: usize = 200;

const BEFORE_SLASH: &str = "/(/";
const SLASH: &str = "/+/";
const AFTER_SLASH: &str = "/=/";

impl fmt::Display for Split<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for component in self.0.split('/') {
            let (first, rest) = component.split_at_checked(TOGETHER).unwrap_or((component, ""));
            write!(f, "{separator}{first}")?;
            separator = match rest.chars().next() {
                None if first.len() == TOGETHER => SLASH,
                None => "/",
                Some(next) => {
                    let mark = if next < '/' { BEFORE_SLASH } else { AFTER_SLASH };
                    write!(f, "{mark}{rest}")?;
                    "/"
                }
            };
        }
        Ok(())
    }
}

/// Undoes the split of a name.
pub(crate) fn joined(split: &str) -> String {
    split
        .replace(BEFORE_SLASH, "")
        .replace(AFTER_SLASH, "")
        .replace(SLASH, "/")
}
