//! Constraints on `http.tls`.

use registry_http::tls::{CipherSuites, TlsError};

use super::Problems;
use crate::config::sections::tls::Tls;
use crate::config::values::shown;

pub(super) fn check(tls: &Tls, problems: &mut Problems<'_>) {
    for (index, name) in tls.cipher_suites.iter().enumerate() {
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
    if tls.certificate.is_some() && tls.client_authentication.is_some() && tls.client_authorities.is_empty() {
        problems.add(
            "http.tls.clientauth",
            "has no effect without `clientcas`; add that",
        );
    }
    for (given, other, is_alone) in [
        (
            "certificate",
            "key",
            tls.certificate.is_some() && tls.key.is_none(),
        ),
        (
            "key",
            "certificate",
            tls.key.is_some() && tls.certificate.is_none(),
        ),
    ] {
        if is_alone {
            problems.add(
                &format!("http.tls.{given}"),
                format!("takes `{other}` beside it; add that"),
            );
        }
    }
    if tls.certificate.is_none() {
        for (path, given) in [
            ("http.tls.clientcas", !tls.client_authorities.is_empty()),
            ("http.tls.clientauth", tls.client_authentication.is_some()),
        ] {
            if given {
                problems.add(path, "has no effect without TLS; add `certificate` and `key`");
            }
        }
    }
}
