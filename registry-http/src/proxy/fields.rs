//! What to believe of that which proxies tell.

use std::collections::BTreeSet;

/// A header field by which a proxy tells of the request that it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyField {
    /// `X-Forwarded-For`: the client's address.
    XForwardedFor,
    /// `X-Forwarded-Proto`: the scheme of the URL that it asked at.
    XForwardedProto,
    /// `X-Forwarded-Host`: the host of that URL.
    XForwardedHost,
    /// `X-Forwarded-Port`: the port of that URL, where its host comes without one.
    XForwardedPort,
    /// `Forwarded` (RFC 7239), which tells all of these.
    Forwarded,
}

/// The header fields that proxies write or remove. A proxy passes on all others as the client wrote them, so they are not
/// looked at.
///
/// By default `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyFields(BTreeSet<ProxyField>);

impl ProxyFields {
    /// Believes these. Where [`ProxyField::Forwarded`] is among them, the others are not looked at.
    #[must_use]
    pub fn new(fields: impl IntoIterator<Item = ProxyField>) -> Self {
        Self(fields.into_iter().collect())
    }

    /// Believes none.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeSet::new())
    }

    pub(super) fn has(&self, field: ProxyField) -> bool {
        self.0.contains(&field)
    }
}

impl Default for ProxyFields {
    fn default() -> Self {
        Self::new([
            ProxyField::XForwardedFor,
            ProxyField::XForwardedProto,
            ProxyField::XForwardedHost,
        ])
    }
}
