//! Certificates of clients.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::certificate::certificates;
use super::error::TlsError;

/// Which clients get a connection at all. What they may do on it is decided elsewhere.
#[derive(Debug)]
pub struct ClientCertificates {
    authorities: Arc<RootCertStore>,
    verification: ClientVerification,
}

/// What is required of a client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientVerification {
    /// A client is asked for a certificate. It may have none, and any is accepted.
    Request,
    /// A client must have a certificate, and any is accepted.
    RequireAny,
    /// A client may have no certificate. If it presents one, it must be valid and signed by an authority.
    VerifyIfGiven,
    /// A client must have a certificate that is valid and signed by an authority.
    #[default]
    RequireAndVerify,
}

impl ClientCertificates {
    /// Reads the authorities that sign the certificates of clients, from one or more PEM texts.
    ///
    /// # Errors
    /// A text has no certificate, a certificate cannot be read or used, or there is no text at all.
    pub fn from_pem(
        authorities: impl IntoIterator<Item: AsRef<[u8]>>,
        verification: ClientVerification,
    ) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for pem in authorities {
            let found = certificates(pem.as_ref())?;
            if found.is_empty() {
                return Err(TlsError::NoClientAuthority);
            }
            for certificate in found {
                let place = store.len() + 1;
                store
                    .add(certificate)
                    .map_err(|error| TlsError::ClientAuthority(place, error))?;
            }
        }
        if store.is_empty() {
            return Err(TlsError::NoClientAuthority);
        }
        Ok(Self {
            authorities: Arc::new(store),
            verification,
        })
    }

    /// Returns whether a certificate that is presented is verified.
    pub(super) const fn are_verified(&self) -> bool {
        matches!(
            self.verification,
            ClientVerification::VerifyIfGiven | ClientVerification::RequireAndVerify
        )
    }

    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let unverified = |is_required| {
            Arc::new(Unverified {
                hints: self.authorities.subjects(),
                is_required,
                algorithms: provider.signature_verification_algorithms,
            })
        };
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.authorities), Arc::clone(provider));
        let verifier = match self.verification {
            ClientVerification::Request => return Ok(unverified(false)),
            ClientVerification::RequireAny => return Ok(unverified(true)),
            ClientVerification::VerifyIfGiven => builder.allow_unauthenticated().build(),
            ClientVerification::RequireAndVerify => builder.build(),
        };
        verifier.map_err(|error| TlsError::ClientVerifier(error.to_string()))
    }
}

/// Accepts any certificate whose key the client has.
#[derive(Debug)]
struct Unverified {
    hints: Vec<DistinguishedName>,
    is_required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Unverified {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Any certificate is accepted, including those of version 1, which cannot be verified otherwise.
        match X509Certificate::from_der(certificate) {
            Ok((_, read)) if read.version() == X509Version::V1 => {
                let key = SubjectPublicKeyInfoDer::from(read.public_key().raw);
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
