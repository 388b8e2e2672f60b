//! Addresses of listeners in Go's notation.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

/// `HOST:PORT`. An empty host means all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPort<'a> {
    /// A name or an address. That of IPv6 is written in brackets, which are not here.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

impl<'a> HostPort<'a> {
    /// # Errors
    /// What is wrong, and what to write.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        const TAKES: &str = "takes ADDRESS:PORT with a port from 0 to 65535, such as 127.0.0.1:5000, or :5000 for all addresses";
        let wrong = |why: &str| Err(format!("{TAKES}; {why}"));
        if text.contains("://") {
            return wrong("leave out the scheme: TLS is `http.tls`");
        }
        if text.contains(char::is_whitespace) {
            return wrong("there is a blank in it: remove that");
        }
        if text.contains(',') {
            return wrong("one address is taken, not several");
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong("the port is missing");
        };
        let Some(port) = number(port) else {
            return wrong("this is no port");
        };
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // May have the zone of a link-local address.
            let address = inner.split_once('%').map_or(inner, |(address, _)| address);
            if address.parse::<Ipv6Addr>().is_err() {
                return wrong("no address of IPv6 stands in the brackets");
            }
            return Ok(Self { host: inner, port });
        }
        if host.contains(':') {
            return wrong("an address of IPv6 stands in brackets, such as [::1]:5000");
        }
        let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
        if !host.chars().all(is_name) {
            return wrong("all addresses are no `*` but nothing: write :PORT");
        }
        Ok(Self { host, port })
    }

    /// Resolves the addresses to listen on; the first usable one is taken. As in Go, no host means all addresses, and a
    /// name with several addresses means its IPv4 address. Blocks if the host is a name.
    ///
    /// # Errors
    /// If the system finds no address of a name.
    pub(crate) fn listen_addresses(self) -> io::Result<Vec<SocketAddr>> {
        let Self { host, port } = self;
        if host.is_empty() {
            // A machine may not have IPv6.
            return Ok(vec![
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            ]);
        }
        let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.truncate(1);
        Ok(addresses)
    }

    /// Returns the address at which this machine reaches a server that listens here, for a URL.
    pub(crate) fn local_address(self) -> String {
        let Self { host, port } = self;
        match host.parse::<IpAddr>() {
            _ if host.is_empty() => SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string(),
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()
            }
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => {
                SocketAddr::from((Ipv6Addr::LOCALHOST, port)).to_string()
            }
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        }
    }
}

fn number(port: &str) -> Option<u16> {
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_is_named() {
        for text in [" 127.0.0.1:5000", "127.0.0.1: 5000", "127.0.0.1:5000\n"] {
            assert!(HostPort::parse(text).unwrap_err().contains("blank"), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_listened_at_is_no_address() {
        for (text, split) in [
            (":5000", ("", 5000)),
            ("0.0.0.0:0", ("0.0.0.0", 0)),
            ("[::1]:5000", ("::1", 5000)),
            ("[fe80::1%eth0]:5000", ("fe80::1%eth0", 5000)),
            ("registry.lan:443", ("registry.lan", 443)),
        ] {
            let (host, port) = split;
            assert_eq!(HostPort::parse(text).unwrap(), HostPort { host, port });
        }
        for text in [
            "http://0.0.0.0:5000",
            "*:5000",
            "::1:5000",
            "a:1,b:1",
            "[a]:5000",
            "5000",
            "127.0.0.1",
            ":http",
            ":+5",
            ":65536",
            ":",
            "",
            "a b:5000",
            "/run/registry.sock",
        ] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }
    #[test]
    fn addresses_are_those_of_go() {
        let resolved = |text: &str| {
            let addresses = HostPort::parse(text).unwrap().listen_addresses().unwrap();
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(resolved(":5000"), ["[::]:5000", "0.0.0.0:5000"]);
        assert_eq!(resolved("0.0.0.0:5000"), ["0.0.0.0:5000"]);
        assert_eq!(resolved("[::1]:0"), ["[::1]:0"]);
        assert_eq!(resolved("localhost:5001"), ["127.0.0.1:5001"]);
    }

    #[test]
    fn a_server_at_all_addresses_is_reached_by_that_of_this_machine() {
        for (address, place) in [
            (":5000", "127.0.0.1:5000"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[fe80::1]:80", "[fe80::1]:80"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(HostPort::parse(address).unwrap().local_address(), place);
        }
    }
}
