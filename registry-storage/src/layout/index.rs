//! The two small files of a layout.

use std::collections::BTreeMap;

use registry_core::{Digest, Tag};
use serde::{Deserialize, Serialize};

/// The annotation that holds a tag (image-spec, "Pre-Defined Annotation Keys").
const REFERENCE: &str = "org.opencontainers.image.ref.name";

pub(super) const INDEX_FILE: &str = "index.json";
pub(super) const LAYOUT_FILE: &str = "oci-layout";

/// `oci-layout`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayoutVersion {
    pub(super) image_layout_version: String,
}

impl LayoutVersion {
    pub(super) fn current() -> Self {
        Self {
            image_layout_version: "1.0.0".to_owned(),
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.image_layout_version.split('.').next() == Some("1")
    }
}

/// `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    #[serde(default = "index_type")]
    media_type: String,
    #[serde(default)]
    pub(super) manifests: Vec<Entry>,
}

fn index_type() -> String {
    "application/vnd.oci.image.index.v1+json".to_owned()
}

impl Index {
    pub(super) fn new(manifests: Vec<Entry>) -> Self {
        Self {
            schema_version: 2,
            media_type: index_type(),
            manifests,
        }
    }
}

/// An entry of `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Entry {
    pub(super) fn new(media_type: &str, digest: &Digest, size: u64, tag: Option<&Tag>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest.clone(),
            size,
            artifact_type: None,
            annotations: tag
                .map(|tag| (REFERENCE.to_owned(), tag.to_string()))
                .into_iter()
                .collect(),
        }
    }

    /// The tag. Some programs write a whole reference, with a host and a name before it.
    pub(super) fn tag(&self) -> Option<Tag> {
        let reference = self.annotations.get(REFERENCE)?;
        let after_colon = || reference.rsplit(':').next()?.parse().ok();
        reference.parse().ok().or_else(after_colon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_from_what_programs_write() {
        let read = |reference: &str| {
            let text = format!(
                "{{\"mediaType\":\"a/b\",\"size\":1,\"digest\":\"sha256:{}\",\"annotations\":{{\"{REFERENCE}\":\"{reference}\"}}}}",
                "0".repeat(64)
            );
            serde_json::from_str::<Entry>(&text)
                .unwrap()
                .tag()
                .map(|tag| tag.to_string())
        };
        assert_eq!(read("v1.0").as_deref(), Some("v1.0"));
        assert_eq!(read("docker.io/library/app:latest").as_deref(), Some("latest"));
        assert_eq!(read("localhost:5000/app"), None);
        assert_eq!(read(""), None);
    }
}
