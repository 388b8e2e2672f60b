//! TLS: with the files that the configuration names, or with our own certificate.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use registry_http::tls::{
    CipherSuites, ClientCertificates, ClientVerification, ServerCertificate, Tls, TlsOptions, TlsVersion,
};
use rustls::ServerConfig;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::reload::{Change, Reloadable, gone};
use super::self_signed::SelfSigned;
use crate::bounded_file;
use crate::config::Loaded;
use crate::config::sections::http::Http;
use crate::config::sections::tls::{ClientAuthentication, MinimumTls};
use crate::failure::Failure;

/// How often to check whether our own certificate is about to expire.
const RENEWAL: Duration = Duration::from_hours(6);

/// The TLS of a server, and the source of its certificate.
pub(super) struct Encryption {
    tls: Tls,
    self_signed: Option<SelfSigned>,
    /// The configuration in force, for renewals.
    http: Mutex<Http>,
}

impl Encryption {
    /// Reads or creates what is needed. Returns `None` if TLS is not configured.
    pub(super) fn start(http: &Http, self_signed: Option<SelfSigned>) -> Result<Option<Self>, Failure> {
        if http.tls.certificate.is_none() && self_signed.is_none() {
            return Ok(None);
        }
        if http.tls.certificate.is_some() && self_signed.is_some() {
            return Err(Failure::new(
                "--tls-self-signed and http.tls.certificate exclude each other; keep one",
            ));
        }
        let tls = Tls::with_config(config(http, self_signed.as_ref())?);
        Ok(Some(Self {
            tls,
            self_signed,
            http: Mutex::new(http.clone()),
        }))
    }

    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Returns the configuration in force.
    fn in_force(&self) -> Http {
        self.http.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Issues a new certificate if our own is about to expire.
    fn renew(&self) -> Result<(), Failure> {
        let http = self.in_force();
        self.tls.replace_config(config(&http, self.self_signed.as_ref())?);
        Ok(())
    }

    /// Returns our own certificate, if it is used.
    pub(super) const fn self_signed(&self) -> Option<&SelfSigned> {
        self.self_signed.as_ref()
    }
}

impl Reloadable for Encryption {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let http = &new.configuration.http;
        if http.tls.certificate.is_none() && self.self_signed.is_none() {
            return Err(Failure::of(
                "http.tls",
                "encryption cannot be switched off while the server runs: put it back, or restart the server",
            ));
        }
        let (old, tls) = (self.in_force().tls, &http.tls);
        if tls.client_authorities.is_empty() && !old.client_authorities.is_empty() {
            return Err(gone(
                "http.tls.clientcas",
                "clients without a certificate would be let in",
            ));
        }
        if old.minimum_version == MinimumTls::Tls13 && !new.tree.has("http.tls.minimumtls") {
            return Err(gone(
                "http.tls.minimumtls",
                "older versions of TLS would be spoken",
            ));
        }
        if tls.cipher_suites.is_empty() && !old.cipher_suites.is_empty() {
            return Err(gone("http.tls.ciphersuites", "all of them would be offered"));
        }
        let mut http = http.clone();
        let (clients, asked) = (old.client_authentication, tls.client_authentication);
        let is_held_back = !old.client_authorities.is_empty()
            && asked
                .unwrap_or_default()
                .is_weaker_than(clients.unwrap_or_default());
        if is_held_back {
            http.tls.client_authentication = clients;
        }
        let config = config(&http, self.self_signed.as_ref())?;
        Ok(Box::new(move || {
            if is_held_back {
                tracing::warn!(
                    "a weaker `http.tls.clientauth` waits for a restart, as another kind of `auth` does"
                );
            }
            *self.http.lock().unwrap_or_else(PoisonError::into_inner) = http;
            self.tls.replace_config(config);
        }))
    }
}

/// The stand-in for a server without TLS.
pub(super) struct Unencrypted;

impl Reloadable for Unencrypted {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        if new.configuration.http.tls.certificate.is_some() {
            return Err(Failure::of(
                "http.tls",
                "encryption cannot be switched on while the server runs; restart it",
            ));
        }
        Ok(Box::new(|| ()))
    }
}

/// A task that renews our own certificate before it expires.
pub(super) struct Renewal(JoinHandle<()>);

impl Renewal {
    /// Starts the task if our own certificate is used.
    pub(super) fn start(encryption: &Arc<Encryption>) -> Option<Self> {
        encryption.self_signed.as_ref()?;
        let encryption = Arc::clone(encryption);
        Some(Self(tokio::spawn(async move {
            loop {
                sleep(RENEWAL).await;
                if let Err(failure) = block_in_place(|| encryption.renew()) {
                    tracing::error!(%failure, "the certificate cannot be renewed; it stays in force");
                }
            }
        })))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the files, or creates what is needed.
pub(super) fn config(http: &Http, self_signed: Option<&SelfSigned>) -> Result<ServerConfig, Failure> {
    let certificate = match (self_signed, &http.tls.certificate, &http.tls.key) {
        (Some(own), ..) => own.certificate()?,
        (None, Some(chain), Some(key)) => read_certificate(chain, key)?,
        (None, ..) => {
            return Err(Failure::of("http.tls", "takes both `certificate` and `key`"));
        }
    };
    let mut options = TlsOptions::new(certificate);
    options.http2 = !http.http2.disabled;
    options.minimum_version = match http.tls.minimum_version {
        MinimumTls::Tls12 => TlsVersion::Tls12,
        MinimumTls::Tls13 => TlsVersion::Tls13,
    };
    if !http.tls.cipher_suites.is_empty() {
        let (suites, left_out) = CipherSuites::from_names(&http.tls.cipher_suites)
            .map_err(|cause| Failure::of("http.tls.ciphersuites", "cannot be used").because(cause))?;
        if !left_out.is_empty() {
            let suites = left_out.join(", ");
            tracing::warn!(suites, "these cipher suites are too weak and not offered");
        }
        options.cipher_suites = suites;
    }
    options.clients = clients(http)?;
    let config = options.into_config();
    config.map_err(|cause| Failure::of("http.tls", "cannot be used").because(cause))
}

fn read_certificate(chain: &Path, key: &Path) -> Result<ServerCertificate, Failure> {
    let chain_text = read("http.tls.certificate", chain)?;
    let key_text = read("http.tls.key", key)?;
    ServerCertificate::from_pem(&chain_text, &key_text, SystemTime::now()).map_err(|cause| {
        let (chain, key) = (chain.display(), key.display());
        Failure::of("http.tls.certificate", format!("{chain} with the key {key}")).because(cause)
    })
}

fn clients(http: &Http) -> Result<Option<ClientCertificates>, Failure> {
    let files = &http.tls.client_authorities;
    if files.is_empty() {
        return Ok(None);
    }
    let texts = files.iter().map(|file| read("http.tls.clientcas", file));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let verification = match http.tls.client_authentication.unwrap_or_default() {
        ClientAuthentication::RequestClientCert => ClientVerification::Request,
        ClientAuthentication::RequireAnyClientCert => ClientVerification::RequireAny,
        ClientAuthentication::VerifyClientCertIfGiven => ClientVerification::VerifyIfGiven,
        ClientAuthentication::RequireAndVerifyClientCert => ClientVerification::RequireAndVerify,
    };
    let clients = ClientCertificates::from_pem(texts, verification);
    Ok(Some(clients.map_err(|cause| {
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        Failure::of("http.tls.clientcas", files.join(", ")).because(cause)
    })?))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    bounded_file::read(path)
        .map_err(|cause| Failure::of(key, format!("cannot read {}", path.display())).because(cause))
}
