//! Errors of certificates and keys.

use std::io;
use std::time::SystemTime;

/// Why TLS cannot be used with the given certificates, keys or options. The message says what to do, and contains no
/// part of a key, of a certificate or of what was given in their place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The PEM text of a certificate contains none.
    #[error("there is no certificate: no section begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// A section of PEM text cannot be read.
    #[error("this is no PEM text: {0}")]
    Pem(&'static str),
    /// A certificate cannot be read.
    #[error("certificate {0} of the chain cannot be read")]
    Certificate(usize),
    /// The server's certificate has expired.
    #[error("the certificate expired on {}; renew it", self::utc(*.0))]
    Expired(SystemTime),
    /// The server's certificate is not valid yet.
    #[error("the certificate is valid only from {} on; wait, or set the clock", self::utc(*.0))]
    NotYetValid(SystemTime),
    /// The PEM text of a key contains none.
    #[error(
        "there is no private key: no section begins with -----BEGIN PRIVATE KEY-----, RSA or EC PRIVATE KEY"
    )]
    NoKey,
    /// The key is encrypted with a passphrase.
    #[error(
        "the private key is encrypted; write it without a passphrase: openssl pkey -in KEY -out PLAIN-KEY"
    )]
    EncryptedKey,
    /// The key is of an unknown kind, or broken.
    #[error(
        "the private key cannot be used: it is broken, or of another kind than ECDSA, Ed25519, and RSA from 2048 bits on"
    )]
    Key,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The key belongs to a certificate further down in the chain.
    #[error(
        "the private key belongs to certificate {0} of the chain and not to the first; the server's own \
         certificate comes first"
    )]
    KeyOfOther(usize),
    /// There is no authority that could sign certificates of clients.
    #[error("there is no certificate of an authority that signs those of clients")]
    NoClientAuthority,
    /// An authority's certificate cannot be used.
    #[error("authority {0} for certificates of clients cannot be used: {1}")]
    ClientAuthority(usize, rustls::Error),
    /// The verifier of clients cannot be created.
    #[error("certificates of clients cannot be verified: {0}")]
    ClientVerifier(String),
    /// A cipher suite is unknown.
    #[error("there is no cipher suite {name}; known are {known}")]
    CipherSuite {
        /// The requested name.
        name: String,
        /// The known names.
        known: String,
    },
    /// No cipher suite fits the TLS version.
    #[error("the cipher suites and the least version leave nothing to speak: {0}")]
    Unusable(rustls::Error),
}

/// Describes why a handshake failed.
pub(crate) fn handshake_failure(error: &io::Error) -> String {
    let message = error.to_string();
    // The name of the error in webpki, which means nothing to the person who issued the certificate.
    if message.contains("UnsupportedCertVersion") {
        return "the client's certificate is of X.509 version 1 and cannot be verified; make it with `-extfile` and at least \
                basicConstraints=CA:FALSE, which makes it one of version 3"
            .to_owned();
    }
    message
}

/// Formats a time as certificates show it.
fn utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let time = x509_parser::time::ASN1Time::from_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}
