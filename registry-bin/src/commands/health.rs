//! `registry-bin health`: checks whether a running server answers, for containers that have no other program.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use reqwest::{StatusCode, Url};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::arguments::StoreArguments;
use crate::config::sections::http::{Http, Network};
use crate::config::values::{HostPort, shown};
use crate::config::{Loaded, load};
use crate::control::show::print_bytes;
use crate::failure::Failure;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin health                                    the server of the configuration
  registry-bin health --config /etc/registry/config.yml
  registry-bin health https://registry.lan:5000/v2/

Without URL, it asks /ready of http.debug.addr if there is one, which says most, and /v2/ of http.addr otherwise. The exit
code is 0 if the server answers 200, 401 or 429, or asks for a client certificate, and 1 otherwise. The server's
certificate is not verified.")]
pub(crate) struct Health {
    /// What to ask: http://… or https://….
    #[arg(value_name = "URL")]
    url: Option<String>,

    #[command(flatten)]
    configuration: StoreArguments,
}

/// The health request.
struct HealthRequest {
    /// The URLs. If one fails, the next one is tried.
    urls: Vec<Url>,
    /// The unix socket to connect through.
    socket: Option<PathBuf>,
}

/// Sends the request and prints the result in one line.
pub(crate) fn run(health: &Health) -> Result<(), Failure> {
    let question = match &health.url {
        Some(url) => HealthRequest {
            urls: vec![given(url)?],
            socket: None,
        },
        None => {
            let loaded = load(&health.configuration, &[])?;
            HealthRequest::of(&loaded).map_err(|failure| loaded.locate(failure))?
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new("cannot start").because(cause))?;
    let answer = runtime.block_on(question.ask())?;
    print_bytes(format!("{answer}\n").as_bytes())
}

/// Reads the argument, in whose place a configuration is easily written.
fn given(text: &str) -> Result<Url, Failure> {
    url_of(text).map_err(|_| {
        Failure::new(format!(
            "takes a URL, but has {}; write http://HOST:PORT/v2/, or name a configuration with --config",
            shown(text)
        ))
    })
}

fn url_of(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Failure::new("takes a URL such as http://127.0.0.1:5000/v2/"))
}

impl HealthRequest {
    /// Returns the request to the server of a configuration.
    fn of(loaded: &Loaded) -> Result<Self, Failure> {
        let http = &loaded.configuration.http;
        if let Some(address) = &http.debug.addr {
            let place = reachable("http.debug.addr", address)?;
            return Ok(Self {
                urls: vec![url_of(&format!("http://{place}/ready"))?],
                socket: None,
            });
        }
        let prefix = http.prefix.as_deref().unwrap_or_default().trim_matches('/');
        let path = match prefix {
            "" => "/v2/".to_owned(),
            prefix => format!("/{prefix}/v2/"),
        };
        let (place, socket) = match http.net {
            Network::Unix => ("localhost".to_owned(), Some(PathBuf::from(&http.addr))),
            Network::Tcp => (reachable("http.addr", &http.addr)?, None),
        };
        let urls = schemes(http)
            .iter()
            .map(|scheme| url_of(&format!("{scheme}://{place}{path}")));
        Ok(Self {
            urls: urls.collect::<Result<_, _>>()?,
            socket,
        })
    }

    async fn ask(&self) -> Result<String, Failure> {
        let mut failed = None;
        for url in &self.urls {
            match self.ask_at(url).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        Err(failed.unwrap_or_else(|| Failure::new("there is nothing to ask")))
    }

    async fn ask_at(&self, url: &Url) -> Result<String, Failure> {
        // The user, password and query may be secret.
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let shown = format!("{}://{host}:{port}{}", url.scheme(), url.path());
        let shown = match &self.socket {
            Some(socket) => format!("{} through {}", url.path(), socket.display()),
            None => shown,
        };
        let failed = || Failure::new(format!("unhealthy: {shown}"));
        let handshake = Arc::new(Handshake::default());
        let tls = Arc::clone(&handshake).configuration();
        let tls = tls.map_err(|cause| failed().because(cause))?;
        let mut client = reqwest::Client::builder()
            // Proxy variables are for other hosts.
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("registry-bin-health/", env!("CARGO_PKG_VERSION")));
        if let Some(socket) = &self.socket {
            client = client.unix_socket(socket.as_path());
        }
        let client = client.build().map_err(|cause| failed().because(cause))?;
        match client.get(url.clone()).send().await {
            Ok(response) => match response.status() {
                status @ (StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) => {
                    Ok(format!("healthy: {shown} answered {status}"))
                }
                status => Err(Failure::new(format!("unhealthy: {shown} answered {status}"))),
            },
            Err(error) if handshake.wanted_certificate() && !error.is_timeout() => {
                Ok(format!("healthy: {shown} asks for a client's certificate"))
            }
            Err(error) => Err(failed().because(error.without_url())),
        }
    }
}

/// Returns the possible schemes of the server, because a configuration does not show `--tls-self-signed`.
const fn schemes(http: &Http) -> &'static [&'static str] {
    if http.tls.certificate.is_some() {
        &["https"]
    } else {
        &["http", "https"]
    }
}

/// Returns the address at which this machine can reach a server that listens on `address`.
fn reachable(key: &str, address: &str) -> Result<String, Failure> {
    let address = HostPort::parse(address).map_err(|problem| Failure::of(key, problem))?;
    if address.port == 0 {
        return Err(Failure::of(
            key,
            "port 0 is any port; say the URL that the server has told: registry-bin health URL",
        ));
    }
    Ok(address.local_address())
}

/// A handshake that accepts any server certificate and records whether the server requests one from the client. The
/// alert of a server that got none is unreliable: it arrives after the request was sent, or is lost when the server
/// closes.
#[derive(Debug, Default)]
struct Handshake {
    is_requested: AtomicBool,
}

impl Handshake {
    fn configuration(self: Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let configuration = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Self>::clone(&self));
        Ok(configuration.with_client_cert_resolver(self))
    }

    fn wanted_certificate(&self) -> bool {
        self.is_requested.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Handshake {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_requested.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl ServerCertVerifier for Handshake {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_at_any_port_is_not_found() {
        assert_eq!(reachable("http.addr", ":5000").unwrap(), "127.0.0.1:5000");
        assert!(reachable("http.addr", ":0").is_err());
    }
}
