//! The certificate of a server.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::error::TlsError;

/// A chain of certificates, the server's own first, and the private key of that certificate.
pub struct ServerCertificate {
    key: CertifiedKey,
    expires: SystemTime,
}

impl ServerCertificate {
    /// Reads a chain and a key in PEM form; both may be in one text. The key is ECDSA, RSA or Ed25519, encoded as
    /// PKCS#8, PKCS#1 or SEC 1.
    ///
    /// # Errors
    /// The chain or the key cannot be read, they do not belong together, or the server's certificate is not valid at
    /// `now`.
    pub fn from_pem(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        let Some(own) = chain.first() else {
            return Err(TlsError::NoCertificate);
        };
        let expires = check_validity(own, now)?;
        let key = certified(chain, private_key(key)?)?;
        Ok(Self { key, expires })
    }

    /// Returns when the server's certificate expires.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    pub(super) fn into_inner(self) -> CertifiedKey {
        self.key
    }
}

/// Omits the key.
impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("chain", &self.key.cert.len())
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Returns the certificates of PEM text. All of them are well-formed.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let sections = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let certificates = sections.map_err(|error| no_pem(&error))?;
    for (place, certificate) in certificates.iter().enumerate() {
        parse(place, certificate)?;
    }
    Ok(certificates)
}

fn parse<'a>(place: usize, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(TlsError::Certificate(place + 1)),
    }
}

/// Describes what is wrong with PEM text. The error itself contains a part of the text, which may be the key.
const fn no_pem(error: &pem::Error) -> TlsError {
    TlsError::Pem(match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a section has no last line -----END …-----; the file was cut, or its line breaks were lost"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line -----BEGIN …----- holds more or less than that; the file's line breaks were lost"
        }
        pem::Error::Base64Decode(_) => "what stands in a section is not in base 64",
        _ => "a section cannot be read",
    })
}

/// Returns when a certificate expires, or an error if it is not valid at `now`.
fn check_validity(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<SystemTime, TlsError> {
    let certificate = parse(0, certificate)?;
    let validity = certificate.validity();
    let (begin, end) = (time(validity.not_before), time(validity.not_after));
    if now < begin {
        return Err(TlsError::NotYetValid(begin));
    }
    if end < now {
        return Err(TlsError::Expired(end));
    }
    Ok(end)
}

fn time(time: ASN1Time) -> SystemTime {
    let since = Duration::from_secs(time.timestamp().unsigned_abs());
    let time = if time.timestamp() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    // PKCS#8 (RFC 7468, section 11), and the older form of OpenSSL (RFC 1421, section 4.6.1.1).
    let is_encrypted = text.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    });
    if is_encrypted {
        return Err(TlsError::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey,
        error => no_pem(&error),
    })
}

/// Combines a chain and a key, if they belong together.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| TlsError::Key)?;
    // Not with rustls, which refuses certificates of version 1 (OpenSSL's own without `-extfile`). Clients accept them.
    let Some(public) = key.public_key() else {
        // A mismatch of a key that does not expose its public key shows at the first handshake. Keys of this provider
        // expose it.
        return Ok(CertifiedKey::new(chain, key));
    };
    let mut place = None;
    for (index, certificate) in chain.iter().enumerate() {
        if parse(index, certificate)?.public_key().raw == public.as_ref() {
            place = Some(index);
            break;
        }
    }
    match place {
        Some(0) => Ok(CertifiedKey::new(chain, key)),
        Some(index) => Err(TlsError::KeyOfOther(index + 1)),
        None => Err(TlsError::KeyMismatch),
    }
}
