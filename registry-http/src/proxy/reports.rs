//! What trusted proxies report about a request that they passed on.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use http::request::Parts;
use registry_core::forwarded::ForwardedElement;

use super::fields::{ProxyField, ProxyFields};
use super::trusted::TrustedProxies;
use crate::connection::{Connection, Forwarded};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How many proxies in a row are followed; a longer list does not come from proxies.
const MAXIMUM_PROXIES: usize = 32;

/// The reports of proxies about a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reports {
    /// What trusted proxies reported, if they reported anything.
    pub(super) forwarded: Option<Forwarded>,
    /// A trusted proxy passed on a different client address in a field that is not trusted.
    pub(super) disbelieved: Option<Disbelieved>,
}

/// A report of a trusted proxy that is not trusted, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disbelieved {
    pub(super) field: &'static str,
    pub(super) client: IpAddr,
}

impl Reports {
    /// Reads the fields of a request, if its peer is a trusted proxy.
    pub(super) fn of(parts: &Parts, trusted: &TrustedProxies, fields: &ProxyFields) -> Self {
        let is_trusted = |connection: &Connection| trusted.contains_peer(&connection.peer());
        if !Connection::of(parts).is_some_and(is_trusted) {
            return Self::default();
        }
        let header = &parts.headers;
        let forwarded = if fields.has(ProxyField::Forwarded) {
            by_forwarded(header, trusted)
        } else {
            by_lists(header, trusted, fields)
        };
        Self {
            disbelieved: disbelieved(&forwarded, header, trusted, fields),
            forwarded: (forwarded != Forwarded::default()).then_some(forwarded),
        }
    }
}

/// Checks whether untrusted fields report a different client. Usually the client wrote them, but if the proxy did,
/// `http.proxyfields` is misconfigured.
fn disbelieved(
    believed: &Forwarded,
    header: &HeaderMap,
    trusted: &TrustedProxies,
    fields: &ProxyFields,
) -> Option<Disbelieved> {
    let (field, other) = if !fields.has(ProxyField::Forwarded) && header.contains_key(FORWARDED) {
        ("Forwarded", by_forwarded(header, trusted))
    } else if (fields.has(ProxyField::Forwarded) || !fields.has(ProxyField::XForwardedFor))
        && header.contains_key(X_FORWARDED_FOR)
    {
        let all = ProxyFields::default();
        ("X-Forwarded-For", by_lists(header, trusted, &all))
    } else {
        return None;
    };
    let client = other.client.filter(|client| believed.client != Some(*client))?;
    Some(Disbelieved { field, client })
}

/// Reads `Forwarded` (RFC 7239).
fn by_forwarded(header: &HeaderMap, trusted: &TrustedProxies) -> Forwarded {
    let mut forwarded = Forwarded::default();
    let elements = lines_from_last(header, &FORWARDED).flat_map(ForwardedElement::from_last);
    for element in elements.take(MAXIMUM_PROXIES) {
        // Up to here, a trusted proxy wrote each element.
        let Ok(element) = element else { break };
        forwarded.is_https = element.scheme.as_deref().and_then(is_https);
        forwarded.host = element.host;
        let Some(from) = element.from else { break };
        forwarded.client = Some(from);
        if !trusted.contains(from) {
            break;
        }
    }
    forwarded
}

/// Reads the fields that preceded RFC 7239: each is a list, or only the value of the outermost proxy.
fn by_lists(header: &HeaderMap, trusted: &TrustedProxies, fields: &ProxyFields) -> Forwarded {
    let mut client = None;
    let mut hops = 0;
    for node in written(header, fields, ProxyField::XForwardedFor, &X_FORWARDED_FOR).take(MAXIMUM_PROXIES) {
        hops += 1;
        let Some(from) = address(node) else { break };
        client = Some(from);
        if !trusted.contains(from) {
            break;
        }
    }
    // The value of the same hop, or of the farthest one listed.
    let of_hop = |field, name: &HeaderName| {
        let values = written(header, fields, field, name).take(hops.max(1));
        values.last().map(str::to_owned)
    };
    let scheme = of_hop(ProxyField::XForwardedProto, &X_FORWARDED_PROTO);
    let port = of_hop(ProxyField::XForwardedPort, &X_FORWARDED_PORT);
    Forwarded {
        client,
        is_https: scheme.and_then(|scheme| is_https(&scheme.to_ascii_lowercase())),
        host: of_hop(ProxyField::XForwardedHost, &X_FORWARDED_HOST),
        port: port.and_then(|port| port.parse().ok()),
    }
}

/// Returns whether a scheme is `https`; `None` for another than `http` and `https`.
fn is_https(scheme: &str) -> Option<bool> {
    match scheme {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

/// Returns the members of a field, if it is one that proxies set.
fn written<'a>(
    header: &'a HeaderMap,
    fields: &ProxyFields,
    field: ProxyField,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let is_written = fields.has(field);
    members_from_last(header, name).filter(move |_| is_written)
}

fn lines_from_last<'a>(header: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = header.get_all(name).iter().rev();
    lines.map(|line| line.to_str().unwrap_or_default())
}

fn members_from_last<'a>(header: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    lines_from_last(header, name)
        .flat_map(|line| line.rsplit(','))
        .map(str::trim)
}

/// Parses an address, which some proxies write with a port.
fn address(node: &str) -> Option<IpAddr> {
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address: IpAddr = node.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::address::PeerAddress;
    use crate::proxy::PublicUrl;

    const PROXY: &str = "10.0.0.1:4000";

    /// The origin of a request: its client and the URL that it used, before proxies passed it on.
    struct Origin {
        client: Option<IpAddr>,
        url: Option<PublicUrl>,
        disbelieved: Option<Disbelieved>,
    }

    /// `Forwarded` is trusted if no list field is present, as with a proxy that writes it.
    fn origin_with(peer: PeerAddress, fields: &[(&str, &str)]) -> Origin {
        let has_lists = fields.iter().any(|(name, _)| name.starts_with("X-"));
        let believed = if has_lists {
            ProxyFields::default()
        } else {
            ProxyFields::new([ProxyField::Forwarded])
        };
        origin_by(&believed, peer, fields)
    }

    fn origin_by(believed: &ProxyFields, peer: PeerAddress, fields: &[(&str, &str)]) -> Origin {
        let mut request = Request::builder().uri("/v2/").header("Host", "inner:5000");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let mut connection = Connection::new(peer);
        parts.extensions.insert(connection.clone());
        let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let reports = Reports::of(&parts, &trusted, believed);
        if let Some(forwarded) = reports.forwarded {
            connection = connection.with_forwarded(forwarded);
            parts.extensions.insert(connection.clone());
        }
        Origin {
            client: connection.client(),
            url: PublicUrl::of(&parts),
            disbelieved: reports.disbelieved,
        }
    }

    /// Returns the client and the URL of a request that came from `peer`.
    fn seen(peer: &str, fields: &[(&str, &str)]) -> (String, String) {
        let origin = origin_with(PeerAddress::Tcp(peer.parse().unwrap()), fields);
        let url = origin.url.map(|url| url.to_string());
        (origin.client.unwrap().to_string(), url.unwrap_or_default())
    }

    fn pair(client: &str, url: &str) -> (String, String) {
        (client.to_owned(), url.to_owned())
    }

    #[test]
    fn who_is_not_trusted_is_not_believed() {
        let fields = [
            ("Forwarded", "for=192.0.2.1;proto=https;host=evil"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
        ];
        for peer in ["203.0.113.9:1", "127.0.0.1:1"] {
            let client = peer.split(':').next().unwrap();
            assert_eq!(seen(peer, &fields), pair(client, "http://inner:5000"));
        }
    }

    #[test]
    fn a_proxy_tells_client_scheme_and_host_in_either_form() {
        let expected = pair("192.0.2.1", "https://registry.example");
        let forwarded = [("Forwarded", "for=192.0.2.1;proto=https;host=registry.example")];
        assert_eq!(seen(PROXY, &forwarded), expected);
        let lists = [
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", "HTTPS"),
            ("X-Forwarded-Host", "registry.example"),
        ];
        assert_eq!(seen(PROXY, &lists), expected);
        assert_eq!(seen("[::ffff:10.0.0.1]:1", &lists), expected);
        assert_eq!(
            seen(PROXY, &[("X-Forwarded-Proto", "https")]),
            pair("10.0.0.1", "https://inner:5000")
        );
        for node in ["192.0.2.1:99", "::ffff:192.0.2.1"] {
            assert_eq!(seen(PROXY, &[("X-Forwarded-For", node)]).0, "192.0.2.1");
        }
        for node in ["[2001:db8::1]", "[2001:db8::1]:99", "2001:db8::1"] {
            assert_eq!(seen(PROXY, &[("X-Forwarded-For", node)]).0, "2001:db8::1");
        }
    }

    #[test]
    fn what_a_client_wrote_itself_is_passed_over() {
        // Each proxy appends the address from which it received the request.
        let lists = [
            ("X-Forwarded-For", "127.0.0.1, 192.0.2.1, 10.0.0.2"),
            ("X-Forwarded-Proto", "http, https, http"),
        ];
        assert_eq!(seen(PROXY, &lists), pair("192.0.2.1", "https://inner:5000"));
        let forwarded = [(
            "Forwarded",
            "for=127.0.0.1;host=evil, for=\"x, for=192.0.2.1;host=good, for=10.0.0.2;host=inner",
        )];
        assert_eq!(seen(PROXY, &forwarded), pair("192.0.2.1", "http://good"));
        let lines = [("Forwarded", "for=127.0.0.1"), ("Forwarded", "for=192.0.2.1")];
        assert_eq!(seen(PROXY, &lines).0, "192.0.2.1");
    }

    /// A proxy passes on fields that it does not know.
    #[test]
    fn a_field_that_the_proxy_does_not_write_is_what_the_client_wrote() {
        let both = [
            ("Forwarded", "for=127.0.0.1;proto=https;host=evil"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "good"),
            ("X-Real-IP", "127.0.0.2"),
            ("X-Forwarded-Prefix", "/evil"),
        ];
        let peer = || PeerAddress::Tcp(PROXY.parse().unwrap());
        let seen = |believed: &ProxyFields, fields: &[_]| {
            let origin = origin_by(believed, peer(), fields);
            let url = origin.url.unwrap().to_string();
            (origin.client.unwrap().to_string(), url)
        };
        let default = ProxyFields::default();
        assert_eq!(seen(&default, &both), pair("192.0.2.1", "http://good"));
        assert_eq!(seen(&default, &both[..1]), pair("10.0.0.1", "http://inner:5000"));
        assert_eq!(seen(&default, &both[4..]), pair("10.0.0.1", "http://inner:5000"));
        let forwarded = ProxyFields::new([ProxyField::Forwarded]);
        assert_eq!(seen(&forwarded, &both), pair("127.0.0.1", "https://evil"));
        assert_eq!(
            seen(&forwarded, &both[1..]),
            pair("10.0.0.1", "http://inner:5000")
        );
        let address = ProxyFields::new([ProxyField::XForwardedFor]);
        assert_eq!(seen(&address, &both), pair("192.0.2.1", "http://inner:5000"));
        let host = ProxyFields::new([ProxyField::XForwardedHost]);
        assert_eq!(seen(&host, &both), pair("10.0.0.1", "http://good"));
        assert_eq!(
            seen(&ProxyFields::none(), &both),
            pair("10.0.0.1", "http://inner:5000")
        );
    }

    #[test]
    fn a_port_is_told_where_the_host_comes_without_one() {
        let peer = || PeerAddress::Tcp(PROXY.parse().unwrap());
        let (proto, has_host) = (ProxyField::XForwardedProto, ProxyField::XForwardedHost);
        let with_port = ProxyFields::new([proto, has_host, ProxyField::XForwardedPort]);
        let url_by = |believed: &ProxyFields, fields: &[_]| {
            let fields = [&[("X-Forwarded-Proto", "https")], fields].concat();
            let url = origin_by(believed, peer(), &fields).url;
            url.map(|url| url.to_string()).unwrap()
        };
        let url = |fields: &[_]| url_by(&with_port, fields);
        let host = |host| ("X-Forwarded-Host", host);
        let port = |port| ("X-Forwarded-Port", port);
        assert_eq!(url(&[host("a"), port("8443")]), "https://a:8443");
        assert_eq!(url(&[host("[::1]"), port("8443")]), "https://[::1]:8443");
        assert_eq!(url(&[host("a:9000"), port("8443")]), "https://a:9000");
        assert_eq!(url(&[port("8443")]), "https://inner:5000");
        for other in ["443", "80", "", "x", "0", "70000"] {
            assert_eq!(url(&[host("a"), port(other)]), "https://a", "{other}");
        }
        // Many proxies pass on what the client wrote, so it is only trusted on request.
        let url = url_by(&ProxyFields::default(), &[host("a"), port("8443")]);
        assert_eq!(url, "https://a");
    }

    #[test]
    fn what_a_trusted_proxy_is_not_believed_is_noticed() {
        let peer = |peer: &str| PeerAddress::Tcp(peer.parse().unwrap());
        let disbelieved = |believed: &ProxyFields, from, fields: &[_]| {
            let found = origin_by(believed, peer(from), fields).disbelieved;
            found.map(|found| (found.field, found.client.to_string()))
        };
        let default = ProxyFields::default();
        let forwarded = ("Forwarded", "for=192.0.2.1");
        let expected = Some(("Forwarded", "192.0.2.1".to_owned()));
        assert_eq!(disbelieved(&default, PROXY, &[forwarded]), expected);
        let same = ("X-Forwarded-For", "192.0.2.1");
        assert_eq!(disbelieved(&default, PROXY, &[forwarded, same]), None);
        let other = ("X-Forwarded-For", "192.0.2.2");
        assert_eq!(disbelieved(&default, PROXY, &[forwarded, other]), expected);
        assert_eq!(disbelieved(&default, "203.0.113.9:1", &[forwarded]), None);
        let by_rfc = ProxyFields::new([ProxyField::Forwarded]);
        assert_eq!(
            disbelieved(&by_rfc, PROXY, &[other]),
            Some(("X-Forwarded-For", "192.0.2.2".to_owned()))
        );
    }

    #[test]
    fn what_cannot_be_read_ends_the_search() {
        for fields in [
            [("Forwarded", "for=192.0.2.1, for=unknown")],
            [("Forwarded", "for=192.0.2.1, for=_hidden")],
            [("Forwarded", "for=192.0.2.1, nonsense")],
            [("X-Forwarded-For", "192.0.2.1, nonsense")],
            [("X-Forwarded-For", "192.0.2.1,")],
        ] {
            assert_eq!(
                seen(PROXY, &fields),
                pair("10.0.0.1", "http://inner:5000"),
                "{fields:?}"
            );
        }
        for host in ["a b", "user@evil", "evil/path", "", "evil?x"] {
            let url = seen(PROXY, &[("X-Forwarded-Host", host)]).1;
            assert!(!url.contains("evil"), "{url}");
        }
        let url = seen(PROXY, &[("X-Forwarded-Proto", "javascript")]).1;
        assert_eq!(url, "http://inner:5000");
    }

    #[test]
    fn a_unix_socket_is_of_this_machine() {
        let none = origin_with(PeerAddress::Unix, &[]);
        assert_eq!(none.client, None);
        let told = origin_with(PeerAddress::Unix, &[("X-Forwarded-For", "192.0.2.1")]);
        assert_eq!(told.client, Some([192, 0, 2, 1].into()));
    }
}
