//! The keys that verify tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey as CertificateKey;
use x509_parser::time::ASN1Time;

use super::libtrust;

/// The most certificates that a token may contain.
const MAXIMUM_CHAIN_CERTIFICATES: usize = 10;

/// The trusted keys that verify tokens: certificates and those they vouch for, and JSON Web Keys.
///
/// A key is found by the token's `x5c` (a chain of certificates up to a trusted one), by its `jwk` (which must be a
/// trusted key, or have such a chain), or by its `kid`: that of a key set, the thumbprint of RFC 7638, or the libtrust
/// fingerprint by which registry:2 identifies keys. If a token has none of them and exactly one key is trusted, that
/// key is used.
#[derive(Clone, Default)]
pub struct TokenKeys {
    by_id: HashMap<String, Arc<TokenKey>>,
    by_thumbprint: HashMap<String, Arc<TokenKey>>,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    left_out: Vec<LeftOutKey>,
}

/// A key of a set that verifies no token, so that clients with tokens signed by it cannot log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {number} of the key set{} verifies no token: {reason}", self.named())]
#[non_exhaustive]
pub struct LeftOutKey {
    /// Its position in the set, from 1.
    pub number: usize,
    /// Its identifier (`kid`), if it has one.
    pub id: Option<String>,
    /// Why it verifies nothing.
    pub reason: &'static str,
}

/// The most bytes of a key identifier that a message shows.
const SHOWN_ID_BYTES: usize = 64;

impl LeftOutKey {
    fn named(&self) -> String {
        let id = self.id.as_ref().filter(|id| id.len() <= SHOWN_ID_BYTES);
        id.map_or_else(String::new, |id| format!(" ({id:?})"))
    }
}

/// What is wrong with a file of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTokenKeys {
    /// It contains no certificate.
    #[error("there is no certificate in it; it has to hold PEM blocks of the type CERTIFICATE")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("certificate {0} cannot be read")]
    Certificate(usize),
    /// It is not a JSON Web Key Set. Its content is not shown, because it may be secret.
    #[error("it is no JSON Web Key Set (RFC 7517), which is JSON with a list `keys`: {0}")]
    KeySet(NotJson),
    /// It contains no usable key.
    #[error("there is no key in it that can check a signature: RSA, P-256, P-384 or Ed25519")]
    NoKey,
    /// A key is symmetric.
    #[error(
        "key {0} is symmetric: everybody who can check a token could make one; use RSA, EC or Ed25519 keys"
    )]
    Symmetric(usize),
}

/// Where a text stops being the expected JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} in line {line}, column {column}")]
#[non_exhaustive]
pub struct NotJson {
    /// What is wrong.
    pub reason: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl NotJson {
    fn of(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        Self {
            reason: match error.classify() {
                Category::Eof | Category::Io => "it ends too early",
                Category::Syntax => "there is no JSON",
                Category::Data => "the list is missing, or something else is in its place",
            },
            line: error.line(),
            column: error.column(),
        }
    }
}

/// Why the key of a token was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The key is not trusted.
    Untrusted,
    /// The token names no key, and there are several trusted ones, or none.
    Unnamed,
}

/// A JSON Web Key Set. Its keys are parsed one by one, so that a key of an unknown kind does not affect the others.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// A public key.
pub(super) struct TokenKey {
    pub(super) key: DecodingKey,
    /// The algorithms it may be used with: those of its kind, or the one that it is meant for.
    pub(super) algorithms: Vec<Algorithm>,
    thumbprint: String,
    fingerprint: String,
}

impl TokenKeys {
    /// Trusts the certificates of a PEM file.
    ///
    /// # Errors
    /// [`NoCertificate`](InvalidTokenKeys::NoCertificate) if there is none, and
    /// [`Certificate`](InvalidTokenKeys::Certificate) if one cannot be read.
    pub fn from_certificates(pem: &[u8]) -> Result<Self, InvalidTokenKeys> {
        let mut keys = Self::default();
        for (number, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let failed = InvalidTokenKeys::Certificate(number + 1);
            let Ok(certificate) = certificate else {
                return Err(failed);
            };
            let Some(key) = TokenKey::of_certificate(&certificate) else {
                return Err(failed);
            };
            keys.insert(Arc::new(key));
            if let Ok(anchor) = webpki::anchor_from_trusted_cert(&certificate) {
                keys.anchors.push(anchor.to_owned());
            }
            keys.roots.push(certificate);
        }
        if keys.roots.is_empty() {
            return Err(InvalidTokenKeys::NoCertificate);
        }
        Ok(keys)
    }

    /// Trusts the keys of a JSON Web Key Set. Keys of unknown kinds are [left out](Self::left_out), and keys for
    /// encryption are ignored.
    ///
    /// # Errors
    /// [`KeySet`](InvalidTokenKeys::KeySet) if it is not a key set, [`NoKey`](InvalidTokenKeys::NoKey) if no key is
    /// usable, and [`Symmetric`](InvalidTokenKeys::Symmetric) if one is symmetric.
    pub fn from_key_set(json: &[u8]) -> Result<Self, InvalidTokenKeys> {
        let set: KeySet =
            serde_json::from_slice(json).map_err(|error| InvalidTokenKeys::KeySet(NotJson::of(&error)))?;
        let mut keys = Self::default();
        let mut numbers: HashMap<String, (usize, String)> = HashMap::new();
        for (number, jwk) in set.keys.into_iter().enumerate() {
            if jwk.get("kty").is_some_and(|kind| kind == "oct") {
                return Err(InvalidTokenKeys::Symmetric(number + 1));
            }
            let id = jwk.get("kid").and_then(|id| id.as_str()).map(str::to_owned);
            if jwk.get("use").is_some_and(|purpose| purpose == "enc") {
                continue;
            }
            // A key that cannot be parsed is of an unknown kind or on an unknown curve.
            let read = serde_json::from_value::<Jwk>(jwk).ok();
            let Some(key) = read.as_ref().and_then(TokenKey::of_jwk).map(Arc::new) else {
                keys.left_out.push(LeftOutKey {
                    number: number + 1,
                    id,
                    reason: "only RSA, P-256, P-384 and Ed25519 serve, each with an algorithm of its kind",
                });
                continue;
            };
            if let Some(id) = id {
                keys.by_id.insert(id.clone(), Arc::clone(&key));
                if let Some((earlier, other)) =
                    numbers.insert(id.clone(), (number + 1, key.thumbprint.clone()))
                    && other != key.thumbprint
                {
                    keys.left_out.push(LeftOutKey {
                        number: earlier,
                        id: Some(id),
                        reason: "a later key of the set has the same `kid`",
                    });
                }
            }
            keys.insert(key);
        }
        if keys.by_thumbprint.is_empty() {
            return Err(InvalidTokenKeys::NoKey);
        }
        Ok(keys)
    }

    /// Also trusts the keys of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.by_id.extend(other.by_id);
        self.by_thumbprint.extend(other.by_thumbprint);
        self.roots.extend(other.roots);
        self.anchors.extend(other.anchors);
        self.left_out.extend(other.left_out);
        self
    }

    /// Returns the keys for signatures in key sets that cannot verify tokens; keys for encryption are skipped.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOutKey] {
        &self.left_out
    }

    fn insert(&mut self, key: Arc<TokenKey>) {
        for id in [&key.thumbprint, &key.fingerprint] {
            self.by_id.entry(id.clone()).or_insert_with(|| Arc::clone(&key));
        }
        self.by_thumbprint.insert(key.thumbprint.clone(), key);
    }

    /// Names the keys for the log: up to eight, and how many more there are.
    pub(super) fn summary(&self) -> String {
        /// How many are named.
        const NAMED_KEYS: usize = 8;
        let mut names: Vec<_> = self.by_thumbprint.values().map(|key| self.name_of(key)).collect();
        names.sort_unstable();
        let more = names.len().saturating_sub(NAMED_KEYS);
        names.truncate(NAMED_KEYS);
        let mut summary = names.join(", ");
        if more > 0 {
            summary.push_str(&format!(" and {more} more"));
        }
        summary
    }

    /// Returns the identifier that a key has in its key set, or otherwise its fingerprint.
    fn name_of<'a>(&'a self, key: &'a TokenKey) -> &'a str {
        let given = |(id, other): &(&String, &Arc<TokenKey>)| {
            other.thumbprint == key.thumbprint && **id != key.thumbprint && **id != key.fingerprint
        };
        let given = self.by_id.iter().find(given);
        given.map_or(&key.fingerprint, |(id, _)| id)
    }

    /// Finds the key that a token names, or the only trusted one if it names none. Certificates must be valid at `now`,
    /// in seconds since 1970.
    ///
    /// # Errors
    /// [`Untrusted`](Missing::Untrusted) if the named key is not trusted, and [`Unnamed`](Missing::Unnamed) if no key
    /// is named and not exactly one is trusted.
    pub(super) fn find(&self, header: &Header, now: u64) -> Result<Arc<TokenKey>, Missing> {
        let found = match header {
            Header { x5c: Some(chain), .. } if !chain.is_empty() => self.of_chain(chain, now).map(Arc::new),
            Header { jwk: Some(jwk), .. } => self.of_jwk(jwk, now),
            Header { kid: Some(id), .. } => self.by_id.get(id).cloned(),
            _ => {
                let mut keys = self.by_thumbprint.values();
                return match (keys.next(), keys.next()) {
                    (Some(only), None) => Ok(Arc::clone(only)),
                    _ => Err(Missing::Unnamed),
                };
            }
        };
        found.ok_or(Missing::Untrusted)
    }

    /// Finds a trusted key by the key in a token. Its identifier proves nothing, so it is found by its thumbprint.
    fn of_jwk(&self, jwk: &Jwk, now: u64) -> Option<Arc<TokenKey>> {
        let thumbprint = TokenKey::of_jwk(jwk)?.thumbprint;
        match &jwk.common.x509_chain {
            Some(chain) if !chain.is_empty() => {
                let key = self.of_chain(chain, now)?;
                (key.thumbprint == thumbprint).then(|| Arc::new(key))
            }
            _ => self.by_thumbprint.get(&thumbprint).cloned(),
        }
    }

    fn of_chain(&self, chain: &[String], now: u64) -> Option<TokenKey> {
        if chain.len() > MAXIMUM_CHAIN_CERTIFICATES {
            return None;
        }
        let decode = |text: &String| STANDARD.decode(text).ok().map(CertificateDer::from);
        let chain: Vec<_> = chain.iter().map(decode).collect::<Option<_>>()?;
        let (leaf, others) = chain.split_first()?;
        let is_trusted = if self.roots.contains(leaf) {
            is_valid_at(leaf, now)
        } else {
            let end = EndEntityCert::try_from(leaf).ok()?;
            let verified = end.verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                others,
                UnixTime::since_unix_epoch(Duration::from_secs(now)),
                AnyUsage,
                None,
                None,
            );
            verified.is_ok()
        };
        if is_trusted {
            TokenKey::of_certificate(leaf)
        } else {
            None
        }
    }
}

/// Accepts certificates for any usage, because those of token servers are issued for all sorts of them.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn is_valid_at(certificate: &CertificateDer<'_>, now: u64) -> bool {
    let Some(now) = i64::try_from(now)
        .ok()
        .and_then(|now| ASN1Time::from_timestamp(now).ok())
    else {
        return false;
    };
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.validity().is_valid_at(now))
}

impl TokenKey {
    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let meant_for = jwk
            .common
            .key_algorithm
            .map(|algorithm| algorithm.to_string().parse::<Algorithm>());
        let meant_for = meant_for.transpose().ok()?;
        let mut key = Self::new(DecodingKey::from_jwk(jwk).ok()?)?;
        if let Some(algorithm) = meant_for {
            key.algorithms.retain(|possible| *possible == algorithm);
        }
        Some(key)
    }

    fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        /// The identifier of Ed25519 (RFC 8410, section 3).
        const ED25519: &str = "1.3.101.112";
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let info = certificate.public_key();
        let key = match info.parsed().ok()? {
            CertificateKey::RSA(key) => {
                let number = |bytes: &[u8]| {
                    bytes
                        .iter()
                        .copied()
                        .skip_while(|byte| *byte == 0)
                        .collect::<Vec<_>>()
                };
                DecodingKey::from_rsa_raw_components(&number(key.modulus), &number(key.exponent))
            }
            CertificateKey::EC(point) => DecodingKey::from_ec_der(point.data()),
            CertificateKey::Unknown(bytes) if info.algorithm.algorithm.to_id_string() == ED25519 => {
                DecodingKey::from_ed_der(bytes)
            }
            _ => return None,
        };
        Self::new(key)
    }

    fn new(key: DecodingKey) -> Option<Self> {
        let algorithms = match key.family() {
            AlgorithmFamily::Rsa => AlgorithmFamily::Rsa.algorithms().to_vec(),
            // A point is one byte and two coordinates.
            AlgorithmFamily::Ec => match key.try_get_as_bytes().ok()?.len() {
                65 => vec![Algorithm::ES256],
                97 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmFamily::Ed => vec![Algorithm::EdDSA],
            AlgorithmFamily::Hmac => return None,
        };
        let jwk = Jwk::from_decoding_key(&key, None).ok()?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        let fingerprint = libtrust::fingerprint(&jwk)?;
        Some(Self {
            key,
            algorithms,
            thumbprint,
            fingerprint,
        })
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids: Vec<_> = self.by_id.keys().collect();
        ids.sort_unstable();
        f.debug_struct("TokenKeys")
            .field("ids", &ids)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}
