//! Key fingerprints in the form of libtrust, by which registry:2 and Keycloak identify keys.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};

/// DER types (X.690, section 8).
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: &[u8] = &[0x05, 0];
const SEQUENCE: u8 = 0x30;

/// Identifiers of algorithms and curves, in DER (RFC 3279, RFC 5480, RFC 8410).
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const ELLIPTIC_CURVE: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];

/// Returns the fingerprint of a public key, or `None` if the kind of key is not supported.
pub(super) fn fingerprint(key: &Jwk) -> Option<String> {
    Some(written(&public_key_info(key)?))
}

/// Encodes a key as `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
fn public_key_info(key: &Jwk) -> Option<Vec<u8>> {
    let decode = |text: &String| URL_SAFE_NO_PAD.decode(text).ok();
    let (algorithm, public) = match &key.algorithm {
        AlgorithmParameters::RSA(key) => {
            let number = |text| Some(unsigned(&decode(text)?));
            (
                [RSA, NULL].concat(),
                value(SEQUENCE, &[number(&key.n)?, number(&key.e)?].concat()),
            )
        }
        AlgorithmParameters::EllipticCurve(key) => {
            let curve = match key.curve {
                EllipticCurve::P256 => P256,
                EllipticCurve::P384 => P384,
                _ => return None,
            };
            // An uncompressed point begins with 4 (SEC 1, section 2.3.3).
            let point = [vec![4], decode(&key.x)?, decode(&key.y)?].concat();
            ([ELLIPTIC_CURVE, curve].concat(), point)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (ED25519.to_vec(), decode(&key.x)?)
        }
        _ => return None,
    };
    // The key consists of whole bytes: no bits are unused.
    let public = value(BIT_STRING, &[vec![0], public].concat());
    Some(value(SEQUENCE, &[value(SEQUENCE, &algorithm), public].concat()))
}

/// Encodes a non-negative number.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let mut number: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    // The first bit is the sign.
    if number.first().is_none_or(|first| first & 0x80 != 0) {
        number.insert(0, 0);
    }
    value(INTEGER, &number)
}

/// Encodes a value with its type and its length.
fn value(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut written = vec![kind];
    match length.as_slice() {
        [] => written.push(0),
        [short @ 0..0x80] => written.push(*short),
        long => {
            written.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            written.extend(long);
        }
    }
    written.extend(content);
    written
}

/// Formats the fingerprint of a public key: the first 240 bits of its SHA-256 in base 32, in twelve groups of four.
fn written(public_key_info: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = digest(&SHA256, public_key_info);
    let mut text = String::with_capacity(59);
    let (mut buffer, mut bits, mut letters) = (0_u32, 0, 0);
    for byte in hash.as_ref().iter().take(30) {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            if letters > 0 && letters % 4 == 0 {
                text.push(':');
            }
            let letter = usize::try_from(buffer >> bits & 31).unwrap_or_default();
            text.extend(ALPHABET.get(letter).copied().map(char::from));
            letters += 1;
            buffer &= (1 << bits) - 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::super::TokenKeys;
    use super::*;

    #[test]
    fn a_key_of_a_key_set_has_the_fingerprint_of_its_certificate() {
        let kinds: [&SignatureAlgorithm; 4] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ];
        for kind in kinds {
            let pair = KeyPair::generate_for(kind).unwrap();
            let certificate = CertificateParams::default().self_signed(&pair).unwrap();
            let keys = TokenKeys::from_certificates(certificate.pem().as_bytes()).unwrap();
            let pem = pair.public_key_pem();
            let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            let info = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
            let expected = written(&info);
            assert!(format!("{keys:?}").contains(&expected), "{kind:?}");
            let groups: Vec<_> = expected.split(':').collect();
            assert!(groups.len() == 12 && groups.iter().all(|group| group.len() == 4));
        }
    }
}
