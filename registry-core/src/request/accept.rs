//! What a client takes, as `Accept` says it.

use crate::media_type::MediaType;

/// The manifests that a client takes.
///
/// Weights do not count, nor do they at the distribution registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptedManifests {
    /// Whatever there is: nothing was said, or what was said leaves room for an index.
    #[default]
    Any,
    /// Images alone: a type of theirs was named, and neither one of an index nor a wildcard.
    Images,
}

impl AcceptedManifests {
    /// What is sent for [`AcceptedManifests::Images`].
    pub(super) const IMAGES: [&'static str; 2] = [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST];

    /// Reads the value of a field.
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
