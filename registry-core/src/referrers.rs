//! The list of a manifest's referrers.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::media_type::MediaType;

/// About how many bytes a descriptor takes beside its annotations.
const DESCRIPTOR_SIZE: usize = 256;

/// Writes the body of a list of referrers: an image index of `descriptors`, in their order, which may be empty
/// (distribution-spec 1.1, "Listing Referrers"). Its media type is [`MediaType::OCI_INDEX`].
///
/// # Errors
/// [`Internal`](crate::ErrorCode::Internal) where JSON cannot be written, which no descriptor causes.
pub fn referrers_index(descriptors: &[Descriptor]) -> Result<Bytes, Error> {
    let size = descriptors.iter().fold(DESCRIPTOR_SIZE, |sum, descriptor| {
        let annotations = descriptor.annotations.as_json().len();
        sum.saturating_add(annotations).saturating_add(DESCRIPTOR_SIZE)
    });
    let mut index = Vec::with_capacity(size);
    index.extend_from_slice(br#"{"schemaVersion":2,"mediaType":""#);
    index.extend_from_slice(MediaType::OCI_INDEX.as_bytes());
    index.extend_from_slice(br#"","manifests":["#);
    for (at, descriptor) in descriptors.iter().enumerate() {
        if at > 0 {
            index.push(b',');
        }
        write_descriptor(&mut index, descriptor)?;
    }
    index.extend_from_slice(b"]}");
    Ok(index.into())
}

fn write_descriptor(index: &mut Vec<u8>, descriptor: &Descriptor) -> Result<(), Error> {
    let fields = Fields {
        media_type: &descriptor.media_type,
        digest: &descriptor.digest,
        size: descriptor.size,
        artifact_type: descriptor.artifact_type.as_deref(),
    };
    index.extend_from_slice(&serde_json::to_vec(&fields).map_err(Error::internal)?);
    if !descriptor.annotations.is_empty() {
        // Into the object, whose last byte is its end.
        index.pop();
        index.extend_from_slice(br#","annotations":"#);
        index.extend_from_slice(descriptor.annotations.as_json());
        index.push(b'}');
    }
    Ok(())
}

/// What a descriptor has beside its annotations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    media_type: &'a MediaType,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
}
