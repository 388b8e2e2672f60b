//! What a client accepts, according to `Accept`.

use crate::media_type::MediaType;

/// The manifests that a client accepts.
///
/// Weights are ignored, as in the distribution registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptedManifests {
    /// All manifests: the field is absent, or leaves room for an index.
    #[default]
    Any,
    /// Only images: one of their types was named, but neither a type of an index nor a wildcard.
    Images,
}

impl AcceptedManifests {
    /// The types that are sent for [`AcceptedManifests::Images`].
    pub(super) const IMAGES: [&'static str; 2] = [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST];

    /// Parses the value of a field.
    pub(super) fn parse(text: &str) -> Self {
        let mut accepted = Self::Any;
        for range in text.split(',') {
            let name = range.split(';').next().unwrap_or_default().trim_ascii();
            let is_one_of = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
            if is_one_of(&[
                MediaType::OCI_INDEX,
                MediaType::DOCKER_LIST,
                "*/*",
                "application/*",
            ]) {
                return Self::Any;
            }
            if is_one_of(&Self::IMAGES) {
                accepted = Self::Images;
            }
        }
        accepted
    }
}
