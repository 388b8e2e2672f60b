//! What is known about the connection of a request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;

use crate::address::{ListenAddress, PeerAddress};

/// The connection that a request came on, and what trusted proxies reported about the request.
///
/// A server puts it into the extensions of each request; [`Proxied`](crate::Proxied) adds the report. Whatever depends on
/// who the client is reads it there with [`Connection::of`]: rate limits, logs, memory accounts, and an
/// [`Authenticator`](crate::Authenticator). A clone costs no allocation.
///
/// A program with a server of its own creates one for each connection:
///
/// ```
/// use std::net::SocketAddr;
/// use std::sync::Arc;
///
/// use registry_http::{Connection, ListenAddress, PeerAddress, TlsSession};
///
/// fn connected(peer: SocketAddr, listener: &Arc<ListenAddress>, server_name: Option<&str>) -> Connection {
///     let connection = Connection::new(PeerAddress::Tcp(peer)).with_listener(Arc::clone(listener));
///     let Some(server_name) = server_name else {
///         return connection;
///     };
///     let mut session = TlsSession::default();
///     session.server_name = Some(server_name.to_owned());
///     connection.with_tls(session)
/// }
///
/// let listener = Arc::new(ListenAddress::Tcp(([0, 0, 0, 0], 5000).into()));
/// let connection = connected(([192, 0, 2, 1], 40_000).into(), &listener, Some("registry.example"));
/// let mut request = http::Request::get("/v2/").body(())?;
/// request.extensions_mut().insert(connection);
///
/// let (parts, ()) = request.into_parts();
/// let connection = Connection::of(&parts).expect("it was inserted");
/// assert_eq!(connection.client(), Some([192, 0, 2, 1].into()));
/// assert!(connection.is_https());
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Connection {
    facts: Arc<Facts>,
    forwarded: Option<Arc<Forwarded>>,
}

/// What all requests of a connection share.
#[derive(Clone, Debug)]
struct Facts {
    peer: PeerAddress,
    listener: Option<Arc<ListenAddress>>,
    tls: Option<TlsSession>,
}

impl Connection {
    /// Creates a connection with this remote end, without TLS.
    #[must_use]
    pub fn new(peer: PeerAddress) -> Self {
        let facts = Facts {
            peer,
            listener: None,
            tls: None,
        };
        Self {
            facts: Arc::new(facts),
            forwarded: None,
        }
    }

    /// Sets the address of the listener that accepted it.
    #[must_use]
    pub fn with_listener(mut self, listener: Arc<ListenAddress>) -> Self {
        Arc::make_mut(&mut self.facts).listener = Some(listener);
        self
    }

    /// States that it is encrypted.
    #[must_use]
    pub fn with_tls(mut self, session: TlsSession) -> Self {
        Arc::make_mut(&mut self.facts).tls = Some(session);
        self
    }

    /// Sets what trusted proxies reported about the request.
    #[must_use]
    pub fn with_forwarded(mut self, forwarded: Forwarded) -> Self {
        self.forwarded = Some(Arc::new(forwarded));
        self
    }

    /// Returns the connection of a request; `None` if no server put one into its extensions, as with a request that the
    /// same process creates.
    #[must_use]
    pub fn of(request: &Parts) -> Option<&Self> {
        request.extensions.get()
    }

    /// Returns the remote end. Behind a proxy, it is the proxy's.
    #[must_use]
    pub fn peer(&self) -> PeerAddress {
        self.facts.peer
    }

    /// Returns the address of the listener that accepted it, as in [`Server::addresses`](crate::Server::addresses);
    /// `None` if the server did not report it.
    #[must_use]
    pub fn listener(&self) -> Option<&ListenAddress> {
        self.facts.listener.as_deref()
    }

    /// Returns the TLS session; `None` without TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsSession> {
        self.facts.tls.as_ref()
    }

    /// Returns what trusted proxies reported about the request; `None` if there is no such report.
    #[must_use]
    pub fn forwarded(&self) -> Option<&Forwarded> {
        self.forwarded.as_deref()
    }

    /// Returns the client's address: the one that a trusted proxy reported, or otherwise that of the peer. `None` on a
    /// unix socket without a report.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        let reported = self.forwarded().and_then(|forwarded| forwarded.client);
        reported.or_else(|| self.facts.peer.ip())
    }

    /// Returns whether the client used `https`: as a trusted proxy reported, or otherwise whether the connection is
    /// encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        let reported = self.forwarded().and_then(|forwarded| forwarded.is_https);
        reported.unwrap_or_else(|| self.tls().is_some())
    }
}

/// The TLS session of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSession {
    /// The negotiated version, if it is known.
    pub version: Option<TlsVersion>,
    /// The negotiated cipher suite by its name in IANA's registry, such as `TLS13_AES_256_GCM_SHA384` in the spelling of
    /// rustls, if it is known.
    pub cipher_suite: Option<Cow<'static, str>>,
    /// The host that the client named in its handshake (SNI), in lower case.
    pub server_name: Option<String>,
    /// The certificate of the client, in DER form, and after it the others that it sent. Empty unless the client's
    /// certificate was verified to be valid and signed by an authority of the server; a certificate that was only
    /// requested identifies no client. Only the first one identifies the client.
    pub client_certificates: Vec<Bytes>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

/// What trusted proxies reported about a request that they passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forwarded {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Whether the client used `https`; `false` if it used `http`.
    pub is_https: Option<bool>,
    /// The host that the client requested, with the port if there was one. It is the text of a header field, and need not
    /// be a valid host.
    pub host: Option<String>,
    /// The port that the client requested, for a host without one.
    pub port: Option<u16>,
}
