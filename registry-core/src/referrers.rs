//! The list of a manifest's referrers.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::media_type::MediaType;

/// Writes the body of a list of referrers: an image index of `descriptors`, in their order, which may be empty
/// (distribution-spec 1.1, "Listing Referrers"). Its media type is [`MediaType::OCI_INDEX`].
///
/// # Errors
/// [`Internal`](crate::ErrorCode::Internal) where JSON cannot be written, which no descriptor causes.
pub fn referrers_index(descriptors: &[Descriptor]) -> Result<Bytes, Error> {
    let index = Index {
        schema_version: 2,
        media_type: MediaType::OCI_INDEX,
        manifests: descriptors,
    };
    serde_json::to_vec(&index)
        .map(Bytes::from)
        .map_err(Error::internal)
}

/// Keeps the descriptors whose artifact has exactly the type `artifact_type`. A response so filtered carries
/// `OCI-Filters-Applied: artifactType`.
pub fn filter_by_artifact_type(descriptors: &mut Vec<Descriptor>, artifact_type: &str) {
    descriptors.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}
