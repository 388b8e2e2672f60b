//! A value that is read from a file or fetched.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, IntoDeserializer as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FilePath, SecretUrl};

/// A file, or a URL with `http://` or `https://` whose credentials are neither printed nor logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileOrUrl {
    File(FilePath),
    Url(SecretUrl),
}

impl fmt::Display for FileOrUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

impl Serialize for FileOrUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileOrUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !text.contains("://") {
            return FilePath::deserialize(text.into_deserializer()).map(Self::File);
        }
        let url = SecretUrl::from(text);
        if url.is_http() {
            Ok(Self::Url(url))
        } else {
            Err(de::Error::custom(
                "takes the path of a file, or a URL that begins with http:// or https://",
            ))
        }
    }
}

impl JsonSchema for FileOrUrl {
    fn schema_name() -> Cow<'static, str> {
        "FileOrUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
