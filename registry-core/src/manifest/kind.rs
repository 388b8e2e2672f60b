//! Which of the accepted types a manifest has.

use alloc::format;

use super::document::Document;
use super::invalid;
use crate::error::{Error, ErrorCode};
use crate::media_type::MediaType;

/// What a manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A config and layers.
    Image,
    /// Other manifests.
    Index,
}

/// The accepted types.
const ACCEPTED: [(&str, Kind); 4] = [
    (MediaType::OCI_MANIFEST, Kind::Image),
    (MediaType::OCI_INDEX, Kind::Index),
    (MediaType::DOCKER_MANIFEST, Kind::Image),
    (MediaType::DOCKER_LIST, Kind::Index),
];

/// The types of Docker's schema 1.
const SCHEMA_1: [&str; 2] = [MediaType::DOCKER_SCHEMA_1, MediaType::DOCKER_SCHEMA_1_SIGNED];

/// Content types that do not determine the type of a manifest.
const UNSPECIFIC: [&str; 2] = [MediaType::OCTET_STREAM, "application/json"];

/// Finds the type of `document` from the header, its own field and its shape, in that order.
///
/// The header's case is ignored (RFC 6838, section 4.2). That of the field is not: clients compare it exactly.
pub(super) fn resolve(
    document: &Document,
    content_type: Option<&MediaType>,
) -> Result<(MediaType, Kind), Error> {
    let field = document.media_type.as_deref().filter(|text| !text.is_empty());
    let header = content_type
        .map(MediaType::as_str)
        .filter(|text| !UNSPECIFIC.iter().any(|name| name.eq_ignore_ascii_case(text)))
        .map(canonical);
    refuse_schema_1(field)?;
    refuse_ambiguous(document)?;
    let name = match (header, field) {
        (Some(header), Some(field)) if accepted(header).is_some() && header != field => {
            return Err(invalid(
                "the mediaType of the manifest is not that of the Content-Type header",
            ));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => shape(document)?,
    };
    match accepted(name) {
        Some(kind) => Ok((name.parse()?, kind)),
        None => Err(unaccepted()),
    }
}

/// Refuses the types of Docker's schema 1.
pub(super) fn refuse_schema_1(media_type: Option<&str>) -> Result<(), Error> {
    match media_type {
        Some(text) if SCHEMA_1.iter().any(|name| name.eq_ignore_ascii_case(text)) => Err(schema_1()),
        _ => Ok(()),
    }
}

/// Returns whether `media_type` is that of a layer that registries need not have.
pub(super) fn is_non_distributable(media_type: &str) -> bool {
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ]
    .iter()
    .filter_map(|base| media_type.strip_prefix(base))
    .any(|rest| rest.is_empty() || rest.starts_with(['+', '.']))
}

/// Returns an accepted type in its canonical case, otherwise `media_type` itself.
fn canonical(media_type: &str) -> &str {
    ACCEPTED
        .iter()
        .map(|(name, _)| *name)
        .find(|name| name.eq_ignore_ascii_case(media_type))
        .unwrap_or(media_type)
}

fn accepted(media_type: &str) -> Option<Kind> {
    ACCEPTED
        .iter()
        .find(|(name, _)| *name == media_type)
        .map(|(_, kind)| *kind)
}

/// Refuses a document that different clients would read as different types (CVE-2021-41190).
fn refuse_ambiguous(document: &Document) -> Result<(), Error> {
    let is_image = document.config.is_some() || document.layers.is_some() || document.has_fs_layers;
    if document.manifests.is_some() && is_image {
        return Err(invalid(
            "the manifest is both an image and an index: it has manifests and one of config, layers and fsLayers",
        ));
    }
    match document.schema_version {
        _ if document.has_fs_layers => Err(schema_1()),
        Some(1) => Err(schema_1()),
        None | Some(2) => Ok(()),
        Some(_) => Err(invalid("the schemaVersion of a manifest is 2")),
    }
}

fn shape(document: &Document) -> Result<&'static str, Error> {
    if document.manifests.is_some() {
        Ok(MediaType::OCI_INDEX)
    } else if document.config.is_some() || document.layers.is_some() {
        Ok(MediaType::OCI_MANIFEST)
    } else {
        Err(unaccepted())
    }
}

fn schema_1() -> Error {
    invalid(
        "Docker image manifests of schema 1 are not supported; push the image as an OCI image or as schema 2",
    )
}

fn unaccepted() -> Error {
    let [(image, _), (index, _), (docker, _), (list, _)] = ACCEPTED;
    let message = format!("the type of a manifest is one of {image}, {index}, {docker} and {list}");
    Error::new(ErrorCode::ManifestInvalid, message)
}
