//! Events in the envelope of the distribution registry.

use serde::Serialize;

use super::record::EventRecord;

/// The media type of registry:3.
pub(super) const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// The media type of registry:2, for receivers that ask for it. The document is the same.
pub(super) const MEDIA_TYPE_1: &str = "application/vnd.docker.distribution.events.v1+json";

#[derive(Serialize)]
struct Envelope<'a> {
    events: [&'a EventRecord; 1],
}

/// Encodes an envelope with one event, formatted as in the distribution registry.
pub(super) fn envelope(record: &EventRecord) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(1024);
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, layout);
    Envelope { events: [record] }.serialize(&mut serializer)?;
    Ok(bytes)
}
