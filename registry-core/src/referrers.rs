//! The list of a manifest's referrers.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::media_type::MediaType;

/// Annotations of at least this many bytes are shared with the list instead of copied. They may be as large as a
/// manifest, and may be sent to many clients.
const LARGE_ANNOTATIONS_BYTES: usize = 16 * 1024;

/// Returns the body of a list of referrers: an image index of `descriptors`, in their order, which may be empty
/// (distribution-spec 1.1, "Listing Referrers"). Its media type is [`MediaType::OCI_INDEX`].
///
/// It consists of pieces, because large annotations are not copied.
///
/// # Errors
/// [`Internal`](crate::ErrorCode::Internal) if JSON cannot be written, which no descriptor causes.
pub fn referrers_index(descriptors: &[Descriptor]) -> Result<Vec<Bytes>, Error> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    text.extend_from_slice(br#"{"schemaVersion":2,"mediaType":""#);
    text.extend_from_slice(MediaType::OCI_INDEX.as_bytes());
    text.extend_from_slice(br#"","manifests":["#);
    for (at, descriptor) in descriptors.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write_descriptor(&mut text, &mut pieces, descriptor)?;
    }
    text.extend_from_slice(b"]}");
    pieces.push(text.into());
    Ok(pieces)
}

fn write_descriptor(
    text: &mut Vec<u8>,
    pieces: &mut Vec<Bytes>,
    descriptor: &Descriptor,
) -> Result<(), Error> {
    let fields = Fields {
        media_type: &descriptor.media_type,
        digest: &descriptor.digest,
        size: descriptor.size,
        artifact_type: descriptor.artifact_type.as_deref(),
    };
    text.extend_from_slice(&serde_json::to_vec(&fields).map_err(Error::internal)?);
    let annotations = descriptor.annotations.as_json();
    if !annotations.is_empty() {
        // Inside of the object, whose last byte is its end.
        text.pop();
        text.extend_from_slice(br#","annotations":"#);
        if annotations.len() < LARGE_ANNOTATIONS_BYTES {
            text.extend_from_slice(annotations);
        } else {
            pieces.push(core::mem::take(text).into());
            pieces.push(annotations.clone());
        }
        text.push(b'}');
    }
    Ok(())
}

/// The fields of a descriptor other than its annotations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    media_type: &'a MediaType,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
}
