//! Secrets that all processes of a store share.

use std::fmt;

use bytes::Bytes;

use crate::backend::Version;

/// What a secret of a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretName {
    /// The keys that a token server signs with.
    TokenKeys,
    /// What hides positions in links to pages of the catalog.
    Catalog,
}

impl SecretName {
    pub(crate) const ALL: [Self; 2] = [Self::TokenKeys, Self::Catalog];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TokenKeys => "token-keys",
            Self::Catalog => "catalog",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

/// A secret as it was read. Only the debug form hides it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Secret {
    /// The secret itself.
    pub value: Bytes,
    pub(crate) version: Version,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
