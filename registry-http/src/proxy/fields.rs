//! Which forwarding fields of proxies to trust.

use std::collections::BTreeSet;

/// A header field in which a proxy describes the request that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyField {
    /// `X-Forwarded-For`: the client's address.
    XForwardedFor,
    /// `X-Forwarded-Proto`: the scheme of the URL that the client used.
    XForwardedProto,
    /// `X-Forwarded-Host`: the host of that URL.
    XForwardedHost,
    /// `X-Forwarded-Port`: the port of that URL, if its host has none.
    XForwardedPort,
    /// `Forwarded` (RFC 7239), which covers all of these.
    Forwarded,
}

/// The header fields that proxies set or remove. All other fields are ignored, because a proxy passes them on as the
/// client wrote them.
///
/// The default is `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyFields(BTreeSet<ProxyField>);

impl ProxyFields {
    /// Trusts these fields. If [`ProxyField::Forwarded`] is among them, the others are ignored.
    #[must_use]
    pub fn new(fields: impl IntoIterator<Item = ProxyField>) -> Self {
        Self(fields.into_iter().collect())
    }

    /// Trusts no field.
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
