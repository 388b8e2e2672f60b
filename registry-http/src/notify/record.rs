//! The record of an event until it was sent.

use http::HeaderValue;
use registry_core::event::{EventAction, EventTarget};
use registry_core::printable::shortened;
use registry_core::{Event, Reference, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::options::NotificationOptions;
use crate::telemetry::RequestRecord;
use crate::telemetry::lines::timestamp;

/// The media type that is reported for a blob, because a registry does not know its type.
const BLOB: &str = "application/octet-stream";

/// The most references of one event, and the most bytes of their descriptors. Images have tens of layers. If there are
/// more, all are left out, so that an event stays far smaller than the largest manifest.
const MAXIMUM_REFERENCES: usize = 1000;
const REFERENCE_BYTES: usize = 64 * 1024;

/// The longest beginning of URLs, in bytes.
const BASE_URL_BYTES: usize = 512;

/// An event of one target, as stored in the outbox. The fields of `target` have the order of distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) action: String,
    pub(super) target: TargetRecord,
    pub(super) request: RequestOrigin,
    pub(super) actor: Actor,
    pub(super) source: Source,
}

#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TargetRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    /// The size again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) length: Option<u64>,
    pub(super) repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from_repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<ReferenceRecord>,
}

/// Something that a manifest references.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReferenceRecord {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media_type: String,
    #[serde(default)]
    size: u64,
    digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RequestOrigin {
    pub(super) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) addr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    pub(super) method: String,
    pub(super) useragent: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Actor {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) addr: String,
    #[serde(rename = "instanceID")]
    pub(super) instance: String,
}

impl EventRecord {
    /// Returns the records of an event: one per tag, because receivers expect one tag per event, or a single one
    /// without tags.
    #[expect(clippy::disallowed_methods, reason = "the moment of the event")]
    pub(super) fn of(
        event: &Event,
        request: &RequestRecord,
        options: &NotificationOptions,
        instance: &str,
    ) -> Vec<Self> {
        let base_url = base_url(request, options);
        let target = target(event, options, &shortened(&base_url, BASE_URL_BYTES));
        let tags: &[Tag] = match &event.target {
            EventTarget::Manifest { tags, .. } => tags,
            EventTarget::DeletedTag(tag) => std::slice::from_ref(tag),
            EventTarget::Blob { .. } | EventTarget::DeletedManifest(_) | EventTarget::DeletedRepository => {
                &[]
            }
        };
        let record = |tag: Option<&Tag>| Self {
            id: uuid::Uuid::new_v4().to_string(),
            timestamp: timestamp(std::time::SystemTime::now()).to_string(),
            action: event.action.as_str().to_owned(),
            target: TargetRecord {
                tag: tag.map(ToString::to_string),
                ..target.clone()
            },
            request: RequestOrigin {
                id: request.id.to_string(),
                addr: request.shown_client(),
                host: request.host.as_ref().map(text),
                method: request.method.to_string(),
                useragent: request.user_agent.as_ref().map(text).unwrap_or_default(),
            },
            actor: Actor {
                name: request.principal.clone(),
            },
            source: Source {
                addr: options.source.clone(),
                instance: instance.to_owned(),
            },
        };
        if tags.is_empty() {
            vec![record(None)]
        } else {
            tags.iter().map(|tag| record(Some(tag))).collect()
        }
    }
}

fn target(event: &Event, options: &NotificationOptions, base_url: &str) -> TargetRecord {
    let mut target = TargetRecord {
        repository: event.repository.to_string(),
        digest: event.target.digest().map(ToString::to_string),
        ..TargetRecord::default()
    };
    if let EventAction::Mount { from } = &event.action {
        target.from_repository = Some(from.to_string());
    }
    // What was deleted no longer has a type, a size or a URL.
    match &event.target {
        EventTarget::Blob { digest, size } if event.action != EventAction::Delete => {
            target.media_type = Some(BLOB.to_owned());
            target.size = *size;
            target.url = Some(format!("{base_url}/v2/{}/blobs/{digest}", event.repository));
        }
        EventTarget::Manifest { manifest, .. } => {
            target.media_type = Some(manifest.media_type.to_string());
            target.size = Some(manifest.bytes.len() as u64);
            let by_digest = Reference::Digest(manifest.digest.clone());
            target.url = Some(manifest_url(base_url, &event.repository, &by_digest));
            if options.include_references {
                target.references = references(&manifest.bytes);
            }
        }
        EventTarget::Blob { .. }
        | EventTarget::DeletedManifest(_)
        | EventTarget::DeletedTag(_)
        | EventTarget::DeletedRepository => {}
    }
    target.length = target.size;
    target
}

fn manifest_url(base_url: &str, repository: &RepositoryName, reference: &Reference) -> String {
    format!("{base_url}/v2/{repository}/manifests/{reference}")
}

/// Returns the beginning of URLs, without a trailing slash.
fn base_url(request: &RequestRecord, options: &NotificationOptions) -> String {
    if let Some(base) = &options.base_url {
        return base.trim_end_matches('/').to_owned();
    }
    if let Some(url) = &request.url {
        return url.to_string();
    }
    let scheme = if request.is_secure { "https" } else { "http" };
    let host = request.host.as_ref().map(text).unwrap_or_default();
    format!("{scheme}://{host}")
}

fn text(field: &HeaderValue) -> String {
    String::from_utf8_lossy(field.as_bytes()).into_owned()
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(borrow)]
    layers: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    manifests: Option<Vec<&'a RawValue>>,
}

/// Returns the references of a manifest that the registry accepted.
fn references(manifest: &[u8]) -> Vec<ReferenceRecord> {
    let Ok(document) = serde_json::from_slice::<Document<'_>>(manifest) else {
        return Vec::new();
    };
    let lists = [document.layers, document.manifests]
        .into_iter()
        .flatten()
        .flatten();
    let all: Vec<&RawValue> = document.config.into_iter().chain(lists).collect();
    let bytes: usize = all.iter().map(|raw| raw.get().len()).sum();
    if all.len() > MAXIMUM_REFERENCES || bytes > REFERENCE_BYTES {
        return Vec::new();
    }
    all.into_iter()
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
        .collect()
}
