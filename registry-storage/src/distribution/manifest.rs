//! Reading the manifests of a tree.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use bytes::Bytes;
use registry_core::manifest::DEFAULT_SIZE_LIMIT;
use registry_core::{Digest, Error, ErrorCode, ManifestView, RepositoryName, Tag, Timestamp};
use serde::Deserialize;

use super::defect::Defect;
use super::tree::{Link, Tree, unreadable};

/// A manifest that was read and checked against its digest.
#[derive(Debug)]
pub(super) struct StoredManifest {
    pub(super) view: ManifestView,
    pub(super) bytes: Bytes,
}

/// Reads a manifest. That registry stores no media type. As there, it follows from the document: from the field
/// `mediaType`, otherwise from whether there are `manifests`.
pub(super) fn read(tree: &Tree, repository: &RepositoryName, link: &Link) -> Result<StoredManifest, Defect> {
    check(read_data(tree, repository, link)?, repository, link)
}

/// Checks a manifest against its digest, and parses it.
pub(super) fn check(
    bytes: Bytes,
    repository: &RepositoryName,
    link: &Link,
) -> Result<StoredManifest, Defect> {
    let found = Digest::of(link.digest.algorithm().unwrap_or_default(), &bytes);
    if found != link.digest {
        return Err(Defect::CorruptContent {
            repository: repository.clone(),
            digest: link.digest.clone(),
            found,
            size: bytes.len() as u64,
        });
    }
    match ManifestView::parse(&bytes, None) {
        Ok(view) => Ok(StoredManifest { view, bytes }),
        Err(_) if is_schema_one(&bytes) => Err(Defect::SchemaOne {
            repository: repository.clone(),
            digest: link.digest.clone(),
        }),
        Err(cause) => Err(invalid(repository, link, cause)),
    }
}

fn read_data(tree: &Tree, repository: &RepositoryName, link: &Link) -> Result<Bytes, Defect> {
    let path = tree.data(&link.target);
    let limit = DEFAULT_SIZE_LIMIT as u64;
    let read = || {
        let mut bytes = Vec::new();
        tree.open(&path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => Defect::MissingContent {
            repository: repository.clone(),
            digest: link.digest.clone(),
        },
        _ => unreadable(&path, cause),
    })?;
    require_size(bytes.len() as u64, repository, link)?;
    Ok(bytes.into())
}

/// Refuses a manifest that is too large to be read.
pub(super) fn require_size(size: u64, repository: &RepositoryName, link: &Link) -> Result<(), Defect> {
    let limit = DEFAULT_SIZE_LIMIT as u64;
    if size <= limit {
        return Ok(());
    }
    let message = format!("it has more than {limit} bytes");
    let cause = Error::new(ErrorCode::ManifestInvalid, message);
    Err(invalid(repository, link, cause))
}

fn invalid(repository: &RepositoryName, link: &Link, cause: Error) -> Defect {
    Defect::InvalidManifest {
        repository: repository.clone(),
        digest: link.digest.clone(),
        cause,
    }
}

/// Returns whether a document that is not a current manifest is one of Docker's schema 1.
fn is_schema_one(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: u64,
    }
    serde_json::from_slice::<Version>(bytes).is_ok_and(|version| version.schema_version == 1)
}

/// What a manifest says about the content that it names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Descriptors {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: Digest,
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
}

/// What the manifests of a repository say about other content, gathered before that is adopted.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// The sizes of blobs.
    pub(super) sizes: BTreeMap<Digest, u64>,
    /// Subjects of manifests that do not name them themselves, known from the tag schema that registries without lists
    /// of referrers need (distribution-spec 1.1, "Referrers Tag Schema").
    pub(super) subjects: BTreeMap<Digest, Digest>,
}

impl Outline {
    /// Adds a manifest and the tags that name it.
    pub(super) fn add(&mut self, manifest: &StoredManifest, tags: &[(Tag, Timestamp)]) {
        let Ok(descriptors) = serde_json::from_slice::<Descriptors>(&manifest.bytes) else {
            return;
        };
        let layers = descriptors.layers.into_iter().flatten();
        for blob in descriptors.config.into_iter().chain(layers) {
            self.sizes.insert(blob.digest, blob.size);
        }
        let Some(subject) = tags.iter().find_map(|(tag, _)| subject_of_tag(tag)) else {
            return;
        };
        for referrer in descriptors.manifests.into_iter().flatten() {
            // An index of platforms may have such a tag too, if an image was copied under its digest.
            if referrer.artifact_type.is_some_and(|text| !text.is_empty()) {
                self.subjects.insert(referrer.digest, subject.clone());
            }
        }
    }
}

/// Returns the digest that a tag of the schema for referrers spells.
fn subject_of_tag(tag: &Tag) -> Option<Digest> {
    let (algorithm, encoded) = tag.as_str().split_once('-')?;
    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
    digest.algorithm().map(|_| digest)
}
