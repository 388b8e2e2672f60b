//! Events as `CloudEvents` 1.0, in the structured mode of its HTTP and JSON bindings.

use serde::Serialize;

use super::record::{Actor, EventRecord, RequestOrigin, TargetRecord};

pub(super) const MEDIA_TYPE: &str = "application/cloudevents+json";

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    /// A URI reference: the registry and the server's instance.
    source: String,
    /// `registry.`, the kind of target and the action, as in `registry.manifest.push`.
    r#type: String,
    time: &'a str,
    /// The repository, with the tag or the digest.
    subject: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    action: &'a str,
    target: &'a TargetRecord,
    request: &'a RequestOrigin,
    actor: &'a Actor,
}

/// Encodes an event.
pub(super) fn event(record: &EventRecord) -> Result<Vec<u8>, serde_json::Error> {
    let target = &record.target;
    let (kind, subject) = match (&target.tag, &target.digest) {
        (Some(tag), None) => ("tag", format!("{}:{tag}", target.repository)),
        (Some(tag), Some(_)) => ("manifest", format!("{}:{tag}", target.repository)),
        (None, Some(digest)) => (kind(target), format!("{}@{digest}", target.repository)),
        (None, None) => ("repository", target.repository.clone()),
    };
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: &record.id,
        source: format!("//{}/{}", record.source.addr, record.source.instance),
        r#type: format!("registry.{kind}.{}", record.action),
        time: &record.timestamp,
        subject,
        datacontenttype: "application/json",
        data: Data {
            action: &record.action,
            target,
            request: &record.request,
            actor: &record.actor,
        },
    })
}

/// Distinguishes manifests from blobs. A deleted target has no media type, so one that was deleted by digest is
/// `content`.
fn kind(target: &TargetRecord) -> &'static str {
    match target.media_type.as_deref() {
        Some("application/octet-stream") => "blob",
        Some(_) => "manifest",
        None => "content",
    }
}
