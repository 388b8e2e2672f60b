//! Which proxies to trust.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::PeerAddress;

/// The proxies whose reports about the client of a request are trusted.
///
/// By default, those on the same machine: peers with a loopback address or on a unix socket. The reports of any other
/// peer could be forged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    is_unix: bool,
}

impl TrustedProxies {
    /// Trusts peers with these addresses and peers on a unix socket. Loopback addresses are only trusted if they are
    /// included.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            networks: networks.into_iter().collect(),
            is_unix: true,
        }
    }

    /// Trusts no peer.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            networks: Vec::new(),
            is_unix: false,
        }
    }

    pub(super) fn contains(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    pub(super) fn contains_peer(&self, peer: &PeerAddress) -> bool {
        match peer.ip() {
            Some(address) => self.contains(address),
            None => self.is_unix,
        }
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::new([
            Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into(),
            Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128).into(),
        ])
    }
}
