//! Authentication by tokens (RFC 7519) of a token server.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::BoxFuture;
use http::request::Parts;
use jsonwebtoken::{Header, Validation};
use quick_cache::sync::Cache;
use registry_core::challenge::ChallengeError;
use registry_core::policy::Claims;
use registry_core::{Challenge, Error, ErrorCode, Principal, Scope};
use serde::Deserialize;
use tokio::sync::Notify;

use super::clock::Clock;
use super::credentials::credentials;
#[cfg(feature = "token-server")]
use super::passwords::Passwords;
use super::signing_algorithm::SigningAlgorithm;
use super::token_keys::{Missing, TokenKeys};
use crate::log_limit::LogLimit;
use crate::{Authenticator, Connection, PublicUrl};

/// The clock skew that is tolerated, in seconds.
const LEEWAY_SECONDS: u64 = 60;

/// How many tokens are cached, so that their signatures need not be verified again.
const CACHED_TOKENS: usize = 4096;

/// The longest token in bytes that is cached, which bounds the memory of the cache.
const CACHED_TOKEN_BYTES: usize = 8 * 1024;

/// The most characters of a key identifier that the log shows, because a client can put any text there.
const SHOWN_CHARACTERS: usize = 100;

/// The subject that some token servers put into tokens for clients without credentials.
const NOBODY: &str = "anonymous";

/// The requirements on tokens, and where clients get them.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// Where clients get tokens.
    pub realm: Realm,
    /// The name of this registry at the token server: the required audience of each token.
    pub service: String,
    /// The name of the token server: the required issuer of each token.
    pub issuer: String,
    /// The algorithms that tokens may be signed with.
    pub algorithms: Vec<SigningAlgorithm>,
}

/// Where clients get tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Realm {
    /// At this URL.
    Url(String),
    /// At this path of the host that the client used.
    Path(String),
}

impl Realm {
    fn for_request(&self, request: &Parts) -> String {
        let path = match self {
            Self::Url(url) => return url.clone(),
            Self::Path(path) => path,
        };
        let url = PublicUrl::of(request).map_or_else(|| "http://localhost".to_owned(), |url| url.to_string());
        format!("{url}{path}")
    }
}

/// Authenticates a client as the subject of its token, with the rights that the token grants, which
/// [`TokenScopes`](registry_core::policy::TokenScopes) enforces.
///
/// A token must be signed by one of the keys, with an allowed algorithm that the key is meant for. It must name the
/// issuer and the service, and be valid now, with a tolerance of one minute.
#[derive(Debug)]
pub struct TokenAuthenticator {
    options: TokenOptions,
    trusted: Trusted,
    clock: Clock,
    missing: Arc<Notify>,
    refusals: Arc<LogLimit>,
    /// The users whose tokens are accepted; `None` accepts those of any user.
    #[cfg(feature = "token-server")]
    users: Option<Arc<Passwords>>,
}

#[derive(Debug)]
struct Trusted {
    keys: TokenKeys,
    /// By the hash of a token. New keys start with an empty cache.
    known: Cache<[u8; 32], Arc<Known>>,
}

/// How many keys of one set are logged.
const LOGGED_KEYS: usize = 20;

/// Logs the keys that verify nothing.
fn warn_of(keys: &TokenKeys) {
    for left_out in keys.left_out().iter().take(LOGGED_KEYS) {
        tracing::warn!("{left_out}");
    }
    let more = keys.left_out().len().saturating_sub(LOGGED_KEYS);
    if more > 0 {
        tracing::warn!("{more} more keys verify no token");
    }
}

/// A token with a valid signature.
#[derive(Debug)]
struct Known {
    principal: Principal,
    expires: u64,
    /// The identifier of the password for which our own token server issued the token.
    #[cfg(feature = "token-server")]
    credential: Option<String>,
}

/// Why a token was refused, and the key that it names.
struct Refusal {
    reason: &'static str,
    key: Option<String>,
}

/// The claims of a token.
#[derive(Deserialize)]
struct TokenClaims {
    #[serde(default)]
    sub: String,
    exp: u64,
    /// RFC 7519 allows fractions of a second.
    #[serde(default)]
    nbf: f64,
    #[serde(default)]
    access: Option<Vec<Scope>>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    /// A string if our own token server issued the token. In others it may be anything.
    #[cfg(feature = "token-server")]
    #[serde(default)]
    credential: serde_json::Value,
}

impl TokenAuthenticator {
    /// The algorithms that are allowed by default: all of them.
    pub const ALGORITHMS: &'static [SigningAlgorithm] = &[
        SigningAlgorithm::RS256,
        SigningAlgorithm::RS384,
        SigningAlgorithm::RS512,
        SigningAlgorithm::ES256,
        SigningAlgorithm::ES384,
        SigningAlgorithm::PS256,
        SigningAlgorithm::PS384,
        SigningAlgorithm::PS512,
        SigningAlgorithm::EdDSA,
    ];

    /// Creates an authenticator that trusts tokens signed by `keys`.
    #[must_use]
    pub fn new(options: TokenOptions, keys: TokenKeys) -> Self {
        warn_of(&keys);
        Self {
            options,
            trusted: Trusted::new(keys),
            clock: Clock::default(),
            missing: Arc::new(Notify::new()),
            refusals: Arc::new(LogLimit::new()),
            #[cfg(feature = "token-server")]
            users: None,
        }
    }

    /// Accepts only tokens of these users, and anonymous ones, and only while their passwords are those that the tokens
    /// were issued for. So tokens of our own token server become invalid at once when their user is removed, is
    /// replaced by another of the same name, or gets another password.
    #[cfg(feature = "token-server")]
    #[must_use]
    pub fn with_users(mut self, users: Arc<Passwords>) -> Self {
        self.users = Some(users);
        self
    }

    /// Uses `now` as the clock by which tokens and certificates expire, in place of the system's.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(now);
        self
    }

    /// Waits until a token arrives whose key is not trusted: there may be new keys to load. Any client can cause that,
    /// so limit how often you look for new keys. Cancel safe.
    pub async fn key_missing(&self) {
        self.missing.notified().await;
    }

    /// Returns an authenticator that trusts only tokens signed by `keys`. It shares the notifications of
    /// [`key_missing`](Self::key_missing) with this one.
    #[must_use]
    pub fn with_keys(&self, keys: TokenKeys) -> Self {
        if keys.left_out() != self.trusted.keys.left_out() {
            warn_of(&keys);
        }
        Self {
            options: self.options.clone(),
            trusted: Trusted::new(keys),
            clock: self.clock.clone(),
            missing: Arc::clone(&self.missing),
            refusals: Arc::clone(&self.refusals),
            #[cfg(feature = "token-server")]
            users: self.users.clone(),
        }
    }

    fn principal(&self, request: &Parts) -> Result<Principal, Error> {
        let Some(token) = credentials(&request.headers, "bearer").filter(|token| !token.is_empty()) else {
            // Other credentials cannot be wrong here: a client that has a password for the token server may send it to
            // the registry too.
            return Ok(Principal::anonymous());
        };
        let known = self
            .known(token)
            .map_err(|refusal| self.refused(request, &refusal))?;
        #[cfg(feature = "token-server")]
        self.check_user(&known)
            .map_err(|reason| self.refused(request, &Refusal { reason, key: None }))?;
        Ok(known.principal.clone())
    }

    /// Compares the credential in the token with the current one of the user.
    #[cfg(feature = "token-server")]
    fn check_user(&self, known: &Known) -> Result<(), &'static str> {
        let (Some(users), false) = (&self.users, known.principal.is_anonymous()) else {
            return Ok(());
        };
        match users.table().credential_of(known.principal.name()) {
            None => Err("its user is not known any more"),
            found if found == known.credential.as_deref() => Ok(()),
            Some(_) => Err("it was given for another password of its user"),
        }
    }

    fn known(&self, token: &str) -> Result<Arc<Known>, Refusal> {
        let mut hash = [0; 32];
        for (byte, hashed) in hash.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()) {
            *byte = *hashed;
        }
        let trusted = &self.trusted;
        let now = self.clock.seconds();
        if let Some(known) = trusted.known.get(&hash)
            && now < known.expires.saturating_add(LEEWAY_SECONDS)
        {
            return Ok(known);
        }
        let known = Arc::new(self.verify(&trusted.keys, token, now)?);
        if token.len() <= CACHED_TOKEN_BYTES {
            trusted.known.insert(hash, Arc::clone(&known));
        }
        Ok(known)
    }

    /// Logs the reason for the operator, because the client cannot fix it, and returns the answer.
    fn refused(&self, request: &Parts, refusal: &Refusal) -> Error {
        let client = Connection::of(request).and_then(Connection::client);
        if let Some(left_out) = self.refusals.take(client) {
            tracing::info!(
                client = client.map(tracing::field::display),
                reason = refusal.reason,
                kid = refusal.key.as_deref().map(shown),
                trusted = self.trusted.keys.summary(),
                left_out = (left_out > 0).then_some(left_out),
                "a token was refused"
            );
        }
        let message = format!("the token is refused: {}", refusal.reason);
        Error::new(ErrorCode::Unauthorized, message)
    }

    fn verify(&self, keys: &TokenKeys, token: &str, now: u64) -> Result<Known, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal {
            reason: "it is malformed",
            key: None,
        })?;
        self.verify_with(keys, token, &header, now)
            .map_err(|reason| Refusal {
                reason,
                key: header.kid,
            })
    }

    fn verify_with(
        &self,
        keys: &TokenKeys,
        token: &str,
        header: &Header,
        now: u64,
    ) -> Result<Known, &'static str> {
        if header.crit.is_some() {
            return Err("it has critical fields that are not known here");
        }
        let algorithm = SigningAlgorithm::of(header.alg);
        if !algorithm.is_some_and(|algorithm| self.options.algorithms.contains(&algorithm)) {
            return Err("its algorithm is not allowed");
        }
        let key = keys.find(header, now).map_err(|missing| match missing {
            Missing::Untrusted => {
                self.missing.notify_one();
                "its key is not trusted"
            }
            Missing::Unnamed => {
                "it does not say which of the trusted keys it is signed with; its server has to put `kid` into its header"
            }
        })?;
        if !key.algorithms.contains(&header.alg) {
            return Err("its key is not for its algorithm");
        }
        let mut validation = Validation::new(header.alg);
        // They are compared with our own clock below.
        validation.validate_exp = false;
        validation.set_audience(&[&self.options.service]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        let claims = jsonwebtoken::decode::<TokenClaims>(token, &key.key, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::InvalidAudience => "it is for another service",
                ErrorKind::InvalidIssuer => "it is of another issuer",
                ErrorKind::InvalidSignature => {
                    if header.kid.is_none() {
                        // The only trusted key was tried. The one that signed may be newer.
                        self.missing.notify_one();
                    }
                    "its signature is wrong"
                }
                ErrorKind::MissingRequiredClaim(_) => "it does not say who made it, for whom, and until when",
                _ => "it cannot be read",
            }
        })?;
        let TokenClaims {
            sub,
            exp,
            nbf,
            access,
            groups,
            #[cfg(feature = "token-server")]
            credential,
        } = claims.claims;
        if exp < now.saturating_sub(LEEWAY_SECONDS) {
            return Err("it has expired");
        }
        if nbf > now.saturating_add(LEEWAY_SECONDS) as f64 {
            return Err("it is not valid yet");
        }
        let claims = Claims {
            groups: groups.unwrap_or_default(),
            access: Some(access.unwrap_or_default()),
        };
        let principal = if sub == NOBODY {
            Principal::anonymous()
        } else {
            Principal::new(sub)
        };
        Ok(Known {
            principal: principal.with_claims(Arc::new(claims)),
            expires: exp,
            #[cfg(feature = "token-server")]
            credential: credential.as_str().map(str::to_owned),
        })
    }
}

impl Trusted {
    fn new(keys: TokenKeys) -> Self {
        Self {
            keys,
            known: Cache::new(CACHED_TOKENS),
        }
    }
}

/// Returns a client's text for the log: unprintable characters are escaped, and long text is cut.
fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARACTERS)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

impl Authenticator for TokenAuthenticator {
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(std::future::ready(self.principal(request)))
    }

    fn challenge(
        &self,
        request: &Parts,
        scopes: Vec<Scope>,
        error: Option<ChallengeError>,
    ) -> Option<Challenge> {
        let realm = self.options.realm.for_request(request);
        Some(Challenge::bearer(
            realm,
            self.options.service.clone(),
            scopes,
            error,
        ))
    }
}
