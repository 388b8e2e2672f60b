//! The JSON of a manifest, read for what a registry needs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::invalid;
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};

/// The most characters of the JSON reader's own words that a client is told; they may quote the document.
const MESSAGE_LIMIT: usize = 200;

/// A manifest of any type. A list is absent only where its key is: `null` is an empty one.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) schema_version: Option<u64>,
    pub(super) media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) config: Option<DocumentDescriptor>,
    pub(super) layers: Option<Vec<DocumentDescriptor>>,
    pub(super) manifests: Option<Vec<DocumentDescriptor>>,
    pub(super) has_fs_layers: bool,
    pub(super) subject: Option<DocumentDescriptor>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A descriptor; its size was checked.
#[derive(Debug)]
pub(super) struct DocumentDescriptor {
    /// Of any form: it is the client's to understand.
    pub(super) media_type: String,
    pub(super) digest: Digest,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = core::str::from_utf8(bytes).map_err(|_| invalid("the manifest is not UTF-8"))?;
        serde_json::from_str(text).map_err(|error| {
            let reason: String = error.to_string().chars().take(MESSAGE_LIMIT).collect();
            Error::new(
                ErrorCode::ManifestInvalid,
                format!("the manifest is not valid: {reason}"),
            )
        })
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest, which is an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Document, M::Error> {
        let keys = [
            "schemaVersion",
            "mediaType",
            "artifactType",
            "config",
            "layers",
            "manifests",
            "fsLayers",
            "subject",
            "annotations",
        ];
        let mut document = Document::default();
        read_object(map, &keys, |key, map| {
            match key {
                "schemaVersion" => document.schema_version = Some(map.next_value()?),
                "mediaType" => document.media_type = map.next_value()?,
                "artifactType" => document.artifact_type = map.next_value()?,
                "config" => document.config = Some(map.next_value()?),
                "layers" => document.layers = Some(next_list(map)?),
                "manifests" => document.manifests = Some(next_list(map)?),
                "subject" => document.subject = map.next_value()?,
                "annotations" => {
                    document.annotations = map.next_value::<Option<_>>()?.unwrap_or_default();
                }
                _ => {
                    document.has_fs_layers = true;
                    map.next_value::<Skipped>()?;
                }
            }
            Ok(())
        })?;
        Ok(document)
    }
}

fn next_list<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Vec<DocumentDescriptor>, M::Error> {
    Ok(map.next_value::<Option<_>>()?.unwrap_or_default())
}

impl<'de> Deserialize<'de> for DocumentDescriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DescriptorVisitor)
    }
}

struct DescriptorVisitor;

impl<'de> Visitor<'de> for DescriptorVisitor {
    type Value = DocumentDescriptor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a descriptor, which is an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<DocumentDescriptor, M::Error> {
        let (mut media_type, mut digest, mut size) = (None, None, None);
        read_object(map, &["mediaType", "digest", "size"], |key, map| {
            match key {
                "mediaType" => media_type = Some(map.next_value()?),
                "digest" => digest = Some(map.next_value()?),
                _ => size = Some(map.next_value::<u64>()?),
            }
            Ok(())
        })?;
        let size = size.ok_or_else(|| de::Error::missing_field("size"))?;
        if i64::try_from(size).is_err() {
            return Err(de::Error::custom(
                "the size of a descriptor is a 64-bit signed integer",
            ));
        }
        Ok(DocumentDescriptor {
            media_type: media_type.ok_or_else(|| de::Error::missing_field("mediaType"))?,
            digest: digest.ok_or_else(|| de::Error::missing_field("digest"))?,
        })
    }
}

/// Reads an object: hands each of `keys` that it has to `read`, and skips what is not among them.
///
/// A key that stands twice is refused, as I-JSON (RFC 7493) asks, and so is one of another case: Go's reader takes
/// `Layers` for `layers`, and would see content that this registry did not.
fn read_object<'de, M: MapAccess<'de>>(
    mut map: M,
    keys: &[&'static str],
    mut read: impl FnMut(&'static str, &mut M) -> Result<(), M::Error>,
) -> Result<(), M::Error> {
    let mut seen = BTreeSet::new();
    while let Some(name) = map.next_key::<String>()? {
        let Some(&key) = keys.iter().find(|key| is_spelling(&name, key)) else {
            map.next_value::<Skipped>()?;
            continue;
        };
        if key != name {
            let message = format!("the key `{name}` is written `{key}`");
            return Err(de::Error::custom(message));
        }
        if !seen.insert(key) {
            return Err(de::Error::duplicate_field(key));
        }
        read(key, &mut map)?;
    }
    Ok(())
}

/// Returns whether Go's reader of JSON, which compares by Unicode's simple folding, takes `name` for `key`.
fn is_spelling(name: &str, key: &str) -> bool {
    let folded = name
        .chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase);
    folded.eq(key.chars().flat_map(char::to_lowercase))
}

/// A value that nobody needs. It is read level by level, unlike [`IgnoredAny`](serde::de::IgnoredAny), so that
/// `serde_json`'s limit on the depth holds for it as well: clients that read it whole may have a stack to lose.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self, S::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self, M::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}
