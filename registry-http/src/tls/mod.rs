//! TLS for a server: its certificate, what it requires of clients, and how to replace both while it runs.
//!
//! It uses [rustls] with the provider aws-lc-rs, which is passed along and not installed for the process. Nothing here
//! reads a file: certificates and keys are bytes in PEM form.
//!
//! ```no_run
//! use std::time::SystemTime;
//!
//! use registry_http::tls::{ServerCertificate, Tls, TlsOptions};
//! use registry_http::Listener;
//!
//! # async fn listen(chain: &[u8], key: &[u8]) -> Result<Listener, Box<dyn std::error::Error>> {
//! let certificate = ServerCertificate::from_pem(chain, key, SystemTime::now())?;
//! let tls = Tls::new(TlsOptions::new(certificate))?;
//! let listener = Listener::bind("[::]:443").await?.with_tls(tls.clone());
//! // Later: tls.replace(…) is in force for each connection from then on.
//! # Ok(listener)
//! # }
//! ```

mod certificate;
mod cipher_suites;
mod clients;
mod error;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
pub(crate) use tokio_rustls::server::TlsStream;

pub use self::certificate::ServerCertificate;
pub use self::cipher_suites::CipherSuites;
pub use self::clients::{ClientCertificates, ClientVerification};
pub use self::error::TlsError;
pub(crate) use self::error::handshake_failure;
use crate::connection::TlsSession;
pub use crate::connection::TlsVersion;

/// The ALPN name of HTTP/2 (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// The ALPN name of HTTP/1.1 (RFC 7301, section 6).
const HTTP1: &[u8] = b"http/1.1";

/// How many encrypted bytes wait for a client that takes none: one record. With the 64 KiB of rustls, 900 stalled pulls took
/// 146 MiB.
const UNSENT_BYTES: usize = 16 * 1024;

/// A server's side of TLS. Clones share one configuration.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<TlsConfig>>);

/// The options of TLS.
#[derive(Debug)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The certificate that the server presents.
    pub certificate: ServerCertificate,
    /// The oldest version that is accepted. TLS 1.2 by default.
    pub minimum_version: TlsVersion,
    /// The cipher suites. By default, all that are safe.
    pub cipher_suites: CipherSuites,
    /// Which certificates clients must present. None by default.
    pub clients: Option<ClientCertificates>,
    /// Whether to offer HTTP/2. True by default.
    pub http2: bool,
}

/// The configuration of TLS: that of rustls, and whether the certificates of clients are verified.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    server: Arc<ServerConfig>,
    /// Whether a certificate that a client presents proves who it is.
    verifies_clients: bool,
}

/// The verifier of clients, if there is one, has to accept only certificates that identify a client: they are passed to
/// authenticators as verified.
impl From<ServerConfig> for TlsConfig {
    fn from(server: ServerConfig) -> Self {
        Self {
            server: Arc::new(server),
            verifies_clients: true,
        }
    }
}

impl TlsOptions {
    /// Creates options with the defaults.
    #[must_use]
    pub fn new(certificate: ServerCertificate) -> Self {
        Self {
            certificate,
            minimum_version: TlsVersion::Tls12,
            cipher_suites: CipherSuites::default(),
            clients: None,
            http2: true,
        }
    }

    /// Creates the configuration that [`Tls::replace_config`] takes.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] if no cipher suite fits the TLS version, and [`TlsError::ClientVerifier`] if certificates
    /// of clients cannot be verified.
    pub fn into_config(self) -> Result<TlsConfig, TlsError> {
        let versions: &[_] = match self.minimum_version {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let provider = Arc::new(CryptoProvider {
            cipher_suites: self.cipher_suites.into_inner(),
            ..rustls::crypto::aws_lc_rs::default_provider()
        });
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(TlsError::Unusable)?;
        let has_clients = self.clients.is_some();
        let verifies_clients = self
            .clients
            .as_ref()
            .is_some_and(ClientCertificates::are_verified);
        let builder = match self.clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(&provider)?),
            None => builder.with_no_client_auth(),
        };
        let certificate = SingleCertAndKey::from(self.certificate.into_inner());
        let mut config = builder.with_cert_resolver(Arc::new(certificate));
        if has_clients {
            // A resumed session is not verified again, although the client's certificate may have expired.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        if self.http2 {
            config.alpn_protocols.push(HTTP2.to_vec());
        }
        config.alpn_protocols.push(HTTP1.to_vec());
        Ok(TlsConfig {
            server: Arc::new(config),
            verifies_clients,
        })
    }
}

impl Tls {
    /// Creates TLS with these options.
    ///
    /// # Errors
    /// Those of [`TlsOptions::into_config`].
    pub fn new(options: TlsOptions) -> Result<Self, TlsError> {
        Ok(Self::with_config(options.into_config()?))
    }

    /// Creates TLS with a configuration, which may be one of rustls, for what [`TlsOptions`] do not cover.
    #[must_use]
    pub fn with_config(config: impl Into<TlsConfig>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config.into())))
    }

    /// Applies these options to all new connections. Open connections keep theirs.
    ///
    /// # Errors
    /// Those of [`TlsOptions::into_config`]; the previous options stay in force.
    pub fn replace(&self, options: TlsOptions) -> Result<(), TlsError> {
        self.0.store(Arc::new(options.into_config()?));
        Ok(())
    }

    /// Applies a configuration, which may be one of rustls, to all new connections. Open connections keep theirs.
    pub fn replace_config(&self, config: impl Into<TlsConfig>) {
        self.0.store(Arc::new(config.into()));
    }

    /// Performs the handshake.
    pub(crate) async fn accept<IO>(&self, stream: IO) -> io::Result<(TlsStream<IO>, TlsSession)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let bounded = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(UNSENT_BYTES));
        let config = self.0.load_full();
        let stream = TlsAcceptor::from(Arc::clone(&config.server))
            .accept_with(stream, bounded)
            .await?;
        let session = session(stream.get_ref().1, config.verifies_clients);
        Ok((stream, session))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Returns what is known about a session whose handshake is complete.
fn session(connection: &ServerConnection, verifies_clients: bool) -> TlsSession {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => Some(TlsVersion::Tls12),
        Some(ProtocolVersion::TLSv1_3) => Some(TlsVersion::Tls13),
        _ => None,
    };
    let cipher_suite = connection.negotiated_cipher_suite();
    let certificates = connection.peer_certificates().filter(|_| verifies_clients);
    let certificates = certificates.unwrap_or_default().iter();
    TlsSession {
        version,
        cipher_suite: cipher_suite
            .and_then(|suite| suite.suite().as_str())
            .map(Cow::Borrowed),
        server_name: connection.server_name().map(str::to_owned),
        client_certificates: certificates.map(|der| Bytes::copy_from_slice(der)).collect(),
    }
}

/// Returns whether HTTP/2 was negotiated.
pub(crate) fn speaks_http2<IO>(stream: &TlsStream<IO>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}
