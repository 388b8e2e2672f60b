//! The two small files of a layout.

use std::collections::BTreeMap;
use std::fmt;

use registry_core::{Digest, MediaType, RepositoryName, Tag};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::MAXIMUM_ENTRIES;

/// The annotation that names an image (image-spec, "Pre-Defined Annotation Keys").
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

/// `index.json`, for writing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Entry>,
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

/// An entry of `index.json`, for writing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Entry {
    pub(super) fn new(media_type: &MediaType, digest: &Digest, size: u64, reference: Option<String>) -> Self {
        Self {
            media_type: media_type.as_str().to_owned(),
            digest: digest.clone(),
            size,
            annotations: reference
                .map(|reference| (REFERENCE.to_owned(), reference))
                .into_iter()
                .collect(),
        }
    }
}

/// What an import needs from `index.json`. Everything else is skipped while reading: it may be as large as the file.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(default, deserialize_with = "entries")]
    pub(super) manifests: Vec<Listed>,
}

/// What an import needs from an entry.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    /// `None` if it is not a media type.
    #[serde(deserialize_with = "media_type")]
    pub(super) media_type: Option<MediaType>,
    pub(super) digest: Digest,
    #[serde(default, rename = "annotations")]
    pub(super) name: ImageName,
}

fn media_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MediaType>, D::Error> {
    String::deserialize(deserializer).map(|text| text.parse().ok())
}

fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listed>, D::Error> {
    deserializer.deserialize_seq(Entries)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<Listed>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of manifests")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Vec<Listed>, S::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() >= MAXIMUM_ENTRIES {
                let message = format!("it has more than {MAXIMUM_ENTRIES} entries; import it in parts");
                return Err(S::Error::custom(message));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// The name of an entry, as far as its annotations contain it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Names")]
pub(super) struct ImageName {
    pub(super) repository: Option<RepositoryName>,
    pub(super) tag: Option<Tag>,
}

/// The annotations that name an image.
#[derive(Deserialize)]
struct Names {
    #[serde(default, rename = "org.opencontainers.image.ref.name")]
    short: Option<String>,
    /// containerd, Docker and BuildKit write the full name of an image here, with a host.
    #[serde(default, rename = "io.containerd.image.name")]
    full: Option<String>,
}

impl From<Names> for ImageName {
    fn from(names: Names) -> Self {
        let short = names.short.map(|text| Self::parse(&text)).unwrap_or_default();
        let full = names
            .full
            .map(|text| Self::parse(without_host(&text)))
            .unwrap_or_default();
        Self {
            repository: full.repository.or(short.repository),
            tag: full.tag.or(short.tag),
        }
    }
}

impl ImageName {
    /// Parses `TAG`, `REPOSITORY:TAG`, `REPOSITORY@DIGEST` or `REPOSITORY:TAG@DIGEST`. A part that is neither a name
    /// nor a tag becomes `None`.
    fn parse(text: &str) -> Self {
        if let Ok(tag) = text.parse() {
            return Self {
                repository: None,
                tag: Some(tag),
            };
        }
        let name = text.split('@').next().unwrap_or_default();
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag.parse().ok()),
            _ => (name, None),
        };
        Self {
            repository: repository.parse().ok(),
            tag,
        }
    }
}

/// Removes the host from a full name, which always has one.
fn without_host(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL_NAME: &str = "io.containerd.image.name";

    fn name(annotations: &[(&str, &str)]) -> (Option<String>, Option<String>) {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let entry = serde_json::json!({
            "mediaType": "a/b",
            "size": 1,
            "digest": format!("sha256:{}", "0".repeat(64)),
            "annotations": annotations,
        });
        let name = serde_json::from_value::<Listed>(entry).unwrap().name;
        (
            name.repository.map(|name| name.to_string()),
            name.tag.map(|tag| tag.to_string()),
        )
    }

    #[test]
    fn names_are_read_from_what_programs_write() {
        let digest = format!("team/app@sha256:{}", "0".repeat(64));
        let of = |repository: &str, tag: &str| {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            (text(repository), text(tag))
        };
        for (reference, repository, tag) in [
            ("v1.0", "", "v1.0"),
            ("team/app:v1", "team/app", "v1"),
            (&digest, "team/app", ""),
            ("docker.io/library/app:latest", "docker.io/library/app", "latest"),
            ("localhost:5000/app", "", ""),
            ("localhost:5000/app:v1", "", "v1"),
            ("../../etc:v1", "", "v1"),
            ("", "", ""),
        ] {
            assert_eq!(
                name(&[(REFERENCE, reference)]),
                of(repository, tag),
                "{reference}"
            );
        }
        let full = (FULL_NAME, "localhost:5000/team/app:v1");
        assert_eq!(name(&[full]), of("team/app", "v1"));
        assert_eq!(name(&[full, (REFERENCE, "v1")]), of("team/app", "v1"));
        assert_eq!(
            name(&[(FULL_NAME, "docker.io/library/app")]),
            of("library/app", "")
        );
        assert_eq!(name(&[]), of("", ""));
    }

    #[test]
    fn an_index_with_too_many_entries_is_refused_as_it_is_read() {
        let entry = format!(
            r#"{{"mediaType":"a/b","size":1,"digest":"sha256:{}"}}"#,
            "0".repeat(64)
        );
        let list = |count: usize| format!(r#"{{"manifests":[{}]}}"#, vec![entry.as_str(); count].join(","));
        let read: Listing = serde_json::from_str(&list(MAXIMUM_ENTRIES)).unwrap();
        assert_eq!(read.manifests.len(), MAXIMUM_ENTRIES);
        let error = serde_json::from_str::<Listing>(&list(MAXIMUM_ENTRIES + 1)).unwrap_err();
        assert!(error.to_string().contains("more than 150000 entries"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(
            repository in "[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?(/[a-z0-9]{1,5}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
            digest in "[0-9a-f]{64}",
        ) {
            let written = |reference: String| {
                let media_type = index_type().parse().unwrap();
                let digest = format!("sha256:{digest}").parse().unwrap();
                let entry = Entry::new(&media_type, &digest, 7, Some(reference));
                let text = serde_json::to_vec(&Index::new(vec![entry])).unwrap();
                let mut index: Listing = serde_json::from_slice(&text).unwrap();
                let entry = index.manifests.remove(0);
                assert_eq!((entry.media_type, entry.digest), (Some(media_type), digest));
                entry.name
            };
            let (repository, tag): (RepositoryName, Tag) = (repository.parse().unwrap(), tag.parse().unwrap());
            let name = |repository: Option<&RepositoryName>, tag: Option<&Tag>| ImageName {
                repository: repository.cloned(),
                tag: tag.cloned(),
            };
            assert_eq!(written(tag.to_string()), name(None, Some(&tag)));
            assert_eq!(written(format!("{repository}:{tag}")), name(Some(&repository), Some(&tag)));
            assert_eq!(written(format!("{repository}@sha256:{digest}")), name(Some(&repository), None));
        }
    }
}
