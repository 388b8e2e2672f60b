//! Media types.

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// A media type without parameters, for example `application/vnd.oci.image.index.v1+json`.
///
/// Parsing drops parameters (`; charset=utf-8`), which distribution-spec asks registries to ignore. Type and subtype
/// are 1 to 127 visible ASCII characters of RFC 6838, section 4.2, each; the case is kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Box<str>);

impl MediaType {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// A Docker image manifest, version 2, schema 2.
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    pub const DOCKER_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A Docker image manifest, schema 1, which this registry refuses.
    pub const DOCKER_SCHEMA_1: &'static str = "application/vnd.docker.distribution.manifest.v1+json";
    /// The signed form of [`MediaType::DOCKER_SCHEMA_1`].
    pub const DOCKER_SCHEMA_1_SIGNED: &'static str =
        "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Bytes of any kind.
    pub const OCTET_STREAM: &'static str = "application/octet-stream";

    /// Returns the media type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MediaType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let base = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim_matches([' ', '\t']);
        let is_name = |name: &str| {
            (1..=127).contains(&name.len())
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        match base.split_once('/') {
            Some((kind, subtype)) if is_name(kind) && is_name(subtype) => Ok(Self(base.into())),
            _ => Err(Error::new(
                ErrorCode::ManifestInvalid,
                "a media type is type/subtype, as in RFC 6838",
            )),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for MediaType {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

crate::text::serde_as_text!(MediaType);
