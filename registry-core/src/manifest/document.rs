//! The JSON of a manifest, parsed for what a registry needs.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::invalid;
use crate::descriptor::Annotations;
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};

/// The maximum number of characters of the JSON parser's message that a client gets; it may quote the document.
const MESSAGE_CHARACTERS: usize = 200;

/// A manifest of any type. A list is absent only if its key is: `null` is an empty one.
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
    pub(super) annotations: Annotations,
}

/// A descriptor whose size was checked.
#[derive(Debug)]
pub(super) struct DocumentDescriptor {
    /// Of any form: only the client has to understand it.
    pub(super) media_type: String,
    pub(super) digest: Digest,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = core::str::from_utf8(bytes).map_err(|_| invalid("the manifest is not UTF-8"))?;
        serde_json::from_str(text).map_err(|error| {
            let reason: String = error.to_string().chars().take(MESSAGE_CHARACTERS).collect();
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
                "annotations" => document.annotations = next_annotations(map)?,
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

/// Parses an object of strings, and keeps its text, which is passed on without looking up a key.
fn next_annotations<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Annotations, M::Error> {
    match map.next_value::<Option<&'de RawValue>>()? {
        Some(text) => parse_annotations(text.get()).map_err(de::Error::custom),
        None => Ok(Annotations::default()),
    }
}

/// Parses an object of strings, and keeps its text unless it is empty.
pub(crate) fn parse_annotations(text: &str) -> serde_json::Result<Annotations> {
    let Strings(count) = serde_json::from_str(text)?;
    Ok(if count == 0 {
        Annotations::default()
    } else {
        Annotations::from_json(Bytes::copy_from_slice(text.as_bytes()))
    })
}

/// The number of entries of an object of strings.
struct Strings(usize);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StringsVisitor)
    }
}

struct StringsVisitor;

impl<'de> Visitor<'de> for StringsVisitor {
    type Value = Strings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations, which are an object of strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Strings, M::Error> {
        let mut count = 0_usize;
        while map.next_entry::<Text, Text>()?.is_some() {
            count = count.saturating_add(1);
        }
        Ok(Strings(count))
    }
}

/// A string that is validated and dropped.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self)
    }
}

impl Visitor<'_> for Text {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
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

/// Parses an object: passes each of `keys` that it has to `read`, and skips all other keys.
///
/// A duplicate key is refused, as I-JSON (RFC 7493) asks, and so is a key in another case: Go's parser accepts `Layers`
/// for `layers`, and would see content that this registry did not.
fn read_object<'de, M: MapAccess<'de>, const COUNT: usize>(
    mut map: M,
    keys: &[&'static str; COUNT],
    mut read: impl FnMut(&'static str, &mut M) -> Result<(), M::Error>,
) -> Result<(), M::Error> {
    let mut seen = [false; COUNT];
    while let Some(key) = map.next_key_seed(KeyOf(keys))? {
        let Some(key) = key else {
            map.next_value::<Skipped>()?;
            continue;
        };
        let is_new = keys
            .iter()
            .zip(&mut seen)
            .find(|(known, _)| **known == key)
            .is_some_and(|(_, seen)| !core::mem::replace(seen, true));
        if !is_new {
            return Err(de::Error::duplicate_field(key));
        }
        read(key, &mut map)?;
    }
    Ok(())
}

/// Parses a key: returns one of these, or `None` for any other. A document may have hundreds of thousands of keys, so
/// none is copied.
struct KeyOf<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let mut folded = [0; LONGEST_KEY_BYTES];
        let Some(folded) = fold(name, &mut folded) else {
            return Ok(None);
        };
        let is_spelling = |key: &&str| key.as_bytes().eq_ignore_ascii_case(folded);
        match self.0.iter().copied().find(is_spelling) {
            Some(key) if key != name => Err(E::custom(format_args!("the key `{name}` is written `{key}`"))),
            found => Ok(found),
        }
    }
}

/// The length of the longest key, with some margin.
const LONGEST_KEY_BYTES: usize = 16;

/// Folds a name as Go's JSON parser does, which compares with Unicode's simple folding: it accepts `ſubject` for
/// `subject`. Returns `None` if the result is not ASCII or is too long, because no key is either.
fn fold<'a>(name: &str, folded: &'a mut [u8; LONGEST_KEY_BYTES]) -> Option<&'a [u8]> {
    let mut length = 0;
    let mut push = |byte: u8| {
        *folded.get_mut(length)? = byte;
        length += 1;
        Some(())
    };
    for character in name.chars() {
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => push(byte)?,
            _ => {
                for folded in character.to_uppercase().flat_map(char::to_lowercase) {
                    push(u8::try_from(folded).ok().filter(u8::is_ascii)?)?;
                }
            }
        }
    }
    folded.get(..length)
}

/// A value that is not needed. It is parsed level by level, unlike [`IgnoredAny`](serde::de::IgnoredAny), so that
/// `serde_json`'s limit on the depth applies to it as well: clients that parse it whole may overflow their stack.
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
