//! Cipher suites by name.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::version::TLS13;

use super::error::TlsError;

/// Names of suites that other servers offer and this one does not, because of known weaknesses (no forward secrecy,
/// CBC, RC4, Triple DES).
const WEAK: [&str; 18] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_FALLBACK_SCSV",
    "TLS_EMPTY_RENEGOTIATION_INFO_SCSV",
];

/// The cipher suites that a server accepts; by default, all that are safe.
#[derive(Clone, Debug)]
pub struct CipherSuites(Vec<SupportedCipherSuite>);

impl CipherSuites {
    /// Selects suites by the names that IANA and Go use. The suites of TLS 1.3 are always included, as in Go.
    ///
    /// Also returns the names of suites that exist but are too weak to be offered, so that the caller can report that
    /// they are left out.
    ///
    /// # Errors
    /// [`TlsError::CipherSuite`] if a name is unknown.
    pub fn from_names(
        names: impl IntoIterator<Item: AsRef<str>>,
    ) -> Result<(Self, Vec<&'static str>), TlsError> {
        let is_tls13 = |suite: &&SupportedCipherSuite| suite.version() == &TLS13;
        let mut chosen: Vec<_> = ALL_CIPHER_SUITES.iter().filter(is_tls13).copied().collect();
        let mut left_out = Vec::new();
        for name in names {
            let name = name.as_ref();
            if let Some(suite) = ALL_CIPHER_SUITES.iter().find(|suite| self::name(suite) == name) {
                if !chosen.contains(suite) {
                    chosen.push(*suite);
                }
            } else if let Some(weak) = WEAK.iter().find(|weak| **weak == name) {
                left_out.push(*weak);
            } else {
                let known: Vec<_> = ALL_CIPHER_SUITES.iter().map(self::name).collect();
                return Err(TlsError::CipherSuite {
                    name: name.to_owned(),
                    known: known.join(", "),
                });
            }
        }
        Ok((Self(chosen), left_out))
    }

    pub(super) fn into_inner(self) -> Vec<SupportedCipherSuite> {
        self.0
    }
}

impl Default for CipherSuites {
    fn default() -> Self {
        Self(ALL_CIPHER_SUITES.to_vec())
    }
}

/// Returns the IANA name of a suite: rustls prefixes the suites of TLS 1.3 differently.
fn name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_found_by_the_names_that_go_has_for_them() {
        let names = [
            "TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_RSA_WITH_AES_128_CBC_SHA",
        ];
        let (suites, left_out) = CipherSuites::from_names(names).unwrap();
        let found: Vec<_> = suites.0.iter().map(name).collect();
        assert_eq!(found.len(), 5, "{found:?}");
        for name in &names[..3] {
            assert!(found.iter().any(|found| found == name), "{name}");
        }
        assert_eq!(left_out, [names[3]]);
        assert!(suites.0.iter().filter(|suite| suite.version() == &TLS13).count() == 3);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_there_are() {
        let error = CipherSuites::from_names(["TLS_NULL"]).unwrap_err().to_string();
        assert!(
            error.contains("TLS_NULL") && error.contains("TLS_AES_128_GCM_SHA256"),
            "{error}"
        );
    }
}
