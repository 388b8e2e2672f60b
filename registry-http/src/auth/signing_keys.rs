//! The signing keys of the token server.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use registry_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::token_keys::TokenKeys;

/// The keys that a token server signs with. All are trusted; the newest one signs that is old enough for every server that
/// shares them to have it.
///
/// They are secret. Their text form ([`SigningKeys::to_text`]) is meant for a file that only the server can read.
#[derive(Clone)]
pub struct SigningKeys {
    /// The newest first.
    keys: Vec<SigningKey>,
}

#[derive(Clone)]
struct SigningKey {
    created: Timestamp,
    private: Vec<u8>,
    encoding: EncodingKey,
    public: Jwk,
    id: String,
}

/// The stored form of the keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    keys: Vec<KeptKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptKey {
    created: Timestamp,
    /// PKCS #8 in base 64.
    private: String,
}

/// Why signing keys cannot be read or generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSigningKeys {
    /// The text was not written by [`SigningKeys::to_text`].
    #[error("it does not hold the signing keys of a token server; remove it, and new ones are made")]
    Malformed,
    /// The system provides no random numbers.
    #[error("the system has no random numbers to make a key of")]
    NoRandomness,
}

/// How long a key is known before it signs, and how much longer than the tokens that it signed it is trusted. So servers
/// accept each other's tokens as long as each reads the keys once a day, and their clocks differ by less than what is left
/// of a day then.
const KNOWN_BEFORE: Duration = Duration::from_hours(24);

impl SigningKeys {
    /// Generates the first key.
    ///
    /// # Errors
    /// [`InvalidSigningKeys::NoRandomness`].
    pub fn generate(now: Timestamp) -> Result<Self, InvalidSigningKeys> {
        let key = SigningKey::generate(now)?;
        Ok(Self { keys: vec![key] })
    }

    /// Reads what [`SigningKeys::to_text`] wrote.
    ///
    /// # Errors
    /// [`InvalidSigningKeys::Malformed`].
    pub fn from_text(text: &str) -> Result<Self, InvalidSigningKeys> {
        let kept: Kept = serde_json::from_str(text).map_err(|_| InvalidSigningKeys::Malformed)?;
        let read = |key: &KeptKey| {
            let private = STANDARD.decode(&key.private).ok()?;
            SigningKey::new(key.created, private)
        };
        let keys: Option<Vec<_>> = kept.keys.iter().map(read).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self { keys }),
            _ => Err(InvalidSigningKeys::Malformed),
        }
    }

    /// Serializes the keys. The text is secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let keys = self.keys.iter().map(|key| KeptKey {
            created: key.created,
            private: STANDARD.encode(&key.private),
        });
        let kept = Kept { keys: keys.collect() };
        // Strings and numbers can always be serialized.
        serde_json::to_string_pretty(&kept).unwrap_or_default()
    }

    /// Generates a new key if the newest is older than `age`, and drops keys that no token needs any more if tokens live
    /// for `keep`. Returns whether anything changed.
    ///
    /// A new key signs from a day later on. So servers that share the keys accept each other's tokens if each of them reads
    /// the keys often, and their clocks differ by less than a day.
    ///
    /// # Errors
    /// [`InvalidSigningKeys::NoRandomness`].
    pub fn rotate(
        &mut self,
        now: Timestamp,
        age: Duration,
        keep: Duration,
    ) -> Result<bool, InvalidSigningKeys> {
        let is_old = self
            .keys
            .first()
            .is_none_or(|newest| now.since(newest.created) > age);
        if is_old {
            self.keys.insert(0, SigningKey::generate(now)?);
        }
        let before = self.keys.len();
        let mut replaced = None;
        self.keys.retain(|key| {
            let since = replaced.replace(key.created);
            since.is_none_or(|since| now.since(since) <= keep.saturating_add(2 * KNOWN_BEFORE))
        });
        Ok(is_old || self.keys.len() != before)
    }

    /// Returns the public keys.
    #[must_use]
    pub fn public_keys(&self) -> TokenKeys {
        // The keys were generated here, so they can always be read.
        TokenKeys::from_key_set(self.key_set().as_bytes()).unwrap_or_default()
    }

    /// Returns the public keys as a JSON Web Key Set, for other services that should trust them.
    #[must_use]
    pub fn key_set(&self) -> String {
        let keys = self.keys.iter().map(|key| key.public.clone()).collect();
        serde_json::to_string(&JwkSet { keys }).unwrap_or_default()
    }

    /// Returns the key that signs: the newest one that every server knows by now. Of keys that are all new, it is the oldest.
    fn signer(&self, now: Timestamp) -> Option<&SigningKey> {
        let mut keys = self.keys.iter();
        let known = keys.find(|key| now.since(key.created) >= KNOWN_BEFORE);
        known.or_else(|| self.keys.last())
    }

    /// Signs claims.
    pub(super) fn sign(&self, now: Timestamp, claims: &impl Serialize) -> Option<String> {
        let key = self.signer(now)?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, claims, &key.encoding).ok()
    }
}

impl SigningKey {
    fn generate(now: Timestamp) -> Result<Self, InvalidSigningKeys> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let private = pair.and_then(|pair| pair.to_pkcs8v1());
        let private = private.map_err(|_| InvalidSigningKeys::NoRandomness)?;
        Self::new(now, private.as_ref().to_vec()).ok_or(InvalidSigningKeys::NoRandomness)
    }

    fn new(created: Timestamp, private: Vec<u8>) -> Option<Self> {
        let encoding = EncodingKey::from_ec_der(&private);
        let mut public = Jwk::from_encoding_key(&encoding, Algorithm::ES256).ok()?;
        let id = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(Self {
            created,
            private,
            encoding,
            public,
            id,
        })
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.id))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn day(number: u64) -> Timestamp {
        Timestamp(number * 86_400_000)
    }

    fn ids(keys: &SigningKeys) -> Vec<&str> {
        keys.keys.iter().map(|key| key.id.as_str()).collect()
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let keys = SigningKeys::generate(day(1)).unwrap();
        let read = SigningKeys::from_text(&keys.to_text()).unwrap();
        assert_eq!(ids(&read), ids(&keys));
        assert_eq!(read.to_text(), keys.to_text());
        for text in [
            "",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"created":1,"private":"AAAA"}]}"#,
        ] {
            assert_eq!(
                SigningKeys::from_text(text).unwrap_err(),
                InvalidSigningKeys::Malformed
            );
        }
        let shown = format!("{keys:?}");
        assert!(
            !shown.contains(&STANDARD.encode(&keys.keys[0].private)[..20]),
            "{shown}"
        );
        assert!(!keys.key_set().contains("\"d\""));
    }

    #[test]
    fn a_new_key_signs_a_day_later_and_the_old_one_is_trusted_until_no_token_needs_it() {
        let mut keys = SigningKeys::generate(day(0)).unwrap();
        let first = keys.keys[0].id.clone();
        assert!(!keys.rotate(day(30), 30 * DAY, 10 * DAY).unwrap());
        assert!(keys.rotate(day(31), 30 * DAY, 10 * DAY).unwrap());
        assert_eq!((ids(&keys).len(), ids(&keys)[1]), (2, first.as_str()));
        assert_eq!(keys.signer(Timestamp(day(32).0 - 1)).unwrap().id, first);
        assert_ne!(keys.signer(day(32)).unwrap().id, first);
        // A token that another server signed on day 33, by a clock that is a day late, lives until day 43.
        assert!(!keys.rotate(day(43), 30 * DAY, 10 * DAY).unwrap());
        assert!(keys.rotate(day(44), 30 * DAY, 10 * DAY).unwrap());
        assert_eq!(ids(&keys).len(), 1);
        assert_ne!(ids(&keys)[0], first);
    }

    /// Three servers share keys for half a year. Their clocks differ by almost a day, and each reads the keys every four
    /// hours, which is far less often than a server does.
    #[test]
    fn each_server_knows_the_keys_of_all_tokens_that_live() {
        const HOUR: u64 = 3_600_000;
        let life = 30 * DAY;
        let clocks = [0, 10 * HOUR, 19 * HOUR];
        let mut shared = SigningKeys::generate(Timestamp(day(1).0 + clocks[2])).unwrap();
        let mut known = [(); 3].map(|()| shared.clone());
        // When, by no server's clock, the last token of each key ends.
        let mut ends: Vec<(String, u64)> = Vec::new();
        for hour in 24..180 * 24 {
            let time = hour * HOUR;
            for (server, ahead) in clocks.iter().enumerate() {
                let now = Timestamp(time + ahead);
                if hour % 4 == server as u64 {
                    shared.rotate(now, 30 * DAY, life).unwrap();
                    known[server] = shared.clone();
                }
                let signer = known[server].signer(now).unwrap().id.clone();
                ends.retain(|(id, _)| *id != signer);
                ends.push((signer, time + u64::try_from(life.as_millis()).unwrap()));
            }
            for (id, end) in &ends {
                for keys in &known {
                    assert!(
                        time > *end || ids(keys).contains(&id.as_str()),
                        "{id} in hour {hour}"
                    );
                }
            }
        }
        assert!(
            ends.len() > 5 && ids(&shared).len() <= 3,
            "{} {}",
            ends.len(),
            ids(&shared).len()
        );
    }
}
