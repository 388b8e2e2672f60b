//! `http.tls`: encryption.

use registry_http::tls::{CipherSuites, TlsError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{FilePath, shown};

/// Encryption; off unless `certificate` and `key` are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// The file of the certificate and the chain above it, as PEM.
    pub(crate) certificate: Option<FilePath>,
    /// The file of the certificate's key, as PEM.
    pub(crate) key: Option<FilePath>,
    /// The files of the authorities of client certificates, as PEM.
    #[serde(rename = "clientcas")]
    pub(crate) client_authorities: Vec<FilePath>,
    /// What clients must show; by default require-and-verify-client-cert if `clientcas` is set.
    #[serde(rename = "clientauth")]
    pub(crate) client_authentication: Option<ClientAuthentication>,
    /// The lowest version of TLS.
    #[serde(rename = "minimumtls")]
    pub(crate) minimum_version: MinimumTls,
    /// The cipher suites, by their names in Go; by default all good ones.
    #[serde(rename = "ciphersuites")]
    pub(crate) cipher_suites: Vec<String>,
    /// Certificates from Let's Encrypt.
    #[serde(rename = "letsencrypt")]
    pub(crate) lets_encrypt: LetsEncrypt,
}

impl Tls {
    /// Checks the values.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        for (index, name) in self.cipher_suites.iter().enumerate() {
            if let Err(TlsError::CipherSuite { known, .. }) = CipherSuites::from_names([name]) {
                problems.add(
                    &format!("http.tls.ciphersuites[{index}]"),
                    format!(
                        "takes the name of a cipher suite, but has {}; known are {known}",
                        shown(name)
                    ),
                );
            }
        }
        if self.certificate.is_some()
            && self.client_authentication.is_some()
            && self.client_authorities.is_empty()
        {
            problems.add(
                "http.tls.clientauth",
                "has no effect without `clientcas`; add that",
            );
        }
        for (given, other, is_alone) in [
            (
                "certificate",
                "key",
                self.certificate.is_some() && self.key.is_none(),
            ),
            (
                "key",
                "certificate",
                self.key.is_some() && self.certificate.is_none(),
            ),
        ] {
            if is_alone {
                problems.add(
                    &format!("http.tls.{given}"),
                    format!("takes `{other}` beside it; add that"),
                );
            }
        }
        if self.certificate.is_none() {
            for (path, given) in [
                ("http.tls.clientcas", !self.client_authorities.is_empty()),
                ("http.tls.clientauth", self.client_authentication.is_some()),
            ] {
                if given {
                    problems.add(path, "has no effect without TLS; add `certificate` and `key`");
                }
            }
        }
    }
}

/// What clients must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientAuthentication {
    /// A certificate is asked for, and whatever comes is taken.
    RequestClientCert,
    /// There must be a certificate, from any issuer.
    RequireAnyClientCert,
    /// If there is a certificate, it must come from one of the authorities.
    VerifyClientCertIfGiven,
    /// There must be a certificate that comes from one of the authorities.
    #[default]
    RequireAndVerifyClientCert,
}

impl ClientAuthentication {
    /// Returns whether it accepts a client that `other` refuses.
    pub(crate) const fn is_weaker_than(self, other: Self) -> bool {
        other.requires() && !self.requires() || other.verifies() && !self.verifies()
    }

    const fn requires(self) -> bool {
        matches!(
            self,
            Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert
        )
    }

    const fn verifies(self) -> bool {
        matches!(
            self,
            Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert
        )
    }
}

/// The lowest version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum MinimumTls {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "tls1.2", alias = "")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// Certificates from Let's Encrypt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LetsEncrypt {
    /// Where they are kept.
    #[serde(rename = "cachefile")]
    pub(crate) cache_file: Option<FilePath>,
    /// Whom Let's Encrypt may write to.
    pub(crate) email: Option<String>,
    /// The names that certificates are for.
    pub(crate) hosts: Vec<String>,
    /// Another issuer.
    #[serde(rename = "directoryurl")]
    pub(crate) directory_url: Option<String>,
}
