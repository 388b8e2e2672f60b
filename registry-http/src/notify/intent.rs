//! What a request is about to do, recorded until its outcome is known.

use registry_core::event::EventTarget;
use registry_core::storage::PageRequest;
use registry_core::{Digest, Error, ErrorCode, Event, Reference, RepositoryName, Storage};
use serde::{Deserialize, Serialize};

use super::record::EventRecord;

/// The events of something that is about to happen, as stored in the outbox.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    kind: Kind,
    /// One record, or one per tag if there are several.
    records: Vec<EventRecord>,
}

/// The kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Blob,
    Manifest,
    Repository,
}

impl Intent {
    pub(super) const fn new(event: &Event, records: Vec<EventRecord>) -> Self {
        let kind = match event.target {
            EventTarget::Blob { .. } => Kind::Blob,
            EventTarget::DeletedRepository => Kind::Repository,
            EventTarget::Manifest { .. } | EventTarget::DeletedManifest(_) | EventTarget::DeletedTag(_) => {
                Kind::Manifest
            }
        };
        Self { kind, records }
    }

    /// Returns the events whose effect is visible in `storage`.
    ///
    /// # Errors
    /// Those of the storage, if it cannot be read.
    pub(super) async fn happened(self, storage: &dyn Storage) -> Result<Vec<EventRecord>, Error> {
        let mut happened = Vec::new();
        for record in self.records {
            if has_happened(self.kind, &record, storage).await? {
                happened.push(record);
            }
        }
        Ok(happened)
    }
}

async fn has_happened(kind: Kind, record: &EventRecord, storage: &dyn Storage) -> Result<bool, Error> {
    let target = &record.target;
    let Ok(repository) = target.repository.parse::<RepositoryName>() else {
        return Ok(false);
    };
    let digest: Option<Digest> = target.digest.as_ref().and_then(|digest| digest.parse().ok());
    let tag = target.tag.as_ref().and_then(|tag| tag.parse().ok());
    let is_delete = record.action == "delete";
    let found = match (kind, tag, &digest) {
        (Kind::Manifest, Some(tag), _) => {
            let manifest = storage.get_manifest(&repository, &Reference::Tag(tag)).await;
            // A tag that was moved since does not show what was pushed.
            manifest.map(|manifest| is_delete || Some(manifest.digest) == digest)
        }
        (Kind::Manifest, None, Some(digest)) => {
            let by_digest = Reference::Digest(digest.clone());
            let manifest = storage.get_manifest(&repository, &by_digest).await;
            manifest.map(|_| true)
        }
        (Kind::Blob, _, Some(digest)) => storage.stat_blob(&repository, digest).await.map(|_| true),
        (Kind::Repository, ..) => {
            let first = PageRequest { last: None, limit: 1 };
            storage.list_tags(&repository, first).await.map(|_| true)
        }
        (_, _, None) => return Ok(false),
    };
    let is_there = match found {
        Ok(is_there) => is_there,
        Err(error) if is_unknown(error.code()) => false,
        Err(error) => return Err(error),
    };
    Ok(is_there != is_delete)
}

const fn is_unknown(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ManifestUnknown | ErrorCode::NameUnknown | ErrorCode::BlobUnknown
    )
}
