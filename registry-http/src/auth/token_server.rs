//! A token server: it issues tokens to the users of an htpasswd file, for what the access rules allow them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use http::request::Parts;
use jsonwebtoken::Validation;
use registry_core::policy::reduce;
use registry_core::storage::Body;
use registry_core::{Authorizer, Error, ErrorCode, Principal, Response, Scope, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::basic;
use super::clock::Clock;
use super::credentials::credentials;
use super::passwords::Passwords;
use super::signing_keys::SigningKeys;
use super::token_keys::TokenKeys;
use crate::{Connection, Endpoint};

/// The longest form, in bytes.
const FORM_BYTES: usize = 64 * 1024;

/// The most scopes of one token.
const MAXIMUM_SCOPES: usize = 100;

/// The options of a token server.
#[derive(Clone, Debug)]
pub struct TokenServerOptions {
    /// The name of the registry, which is the audience of the tokens.
    pub service: String,
    /// The name of the token server, which is the issuer of the tokens.
    pub issuer: String,
    /// How long a token is valid; at least [`SHORTEST_LIFETIME`](Self::SHORTEST_LIFETIME), which replaces a shorter
    /// one.
    pub lifetime: Duration,
    /// How long a client may get new tokens without the password. Changing the password ends it.
    pub refresh_lifetime: Duration,
}

impl TokenServerOptions {
    /// The shortest lifetime of a token, which is what clients assume if an answer does not report one.
    pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
}

/// Issues tokens, for GET with a name and a password and for POST with a form (distribution's "Token Authentication
/// Specification" and its `OAuth2` variant).
///
/// A token grants what was requested as far as the rules allow it; the registry checks the rules again for each
/// request. A GET with a token of this server, as `Bearer`, returns another token that grants no more and expires no
/// later.
pub struct TokenServer {
    options: TokenServerOptions,
    passwords: Arc<Passwords>,
    rules: Arc<dyn Authorizer>,
    keys: Keys,
    clock: Clock,
}

struct Keys {
    signing: SigningKeys,
    public: TokenKeys,
}

/// The client, and the identifier of the password that it presented.
struct Login {
    principal: Principal,
    credential: Option<String>,
    /// The token that was presented instead of a password: the new one grants no more, and expires no later.
    token: Option<PresentedToken>,
}

/// A token of this server for the registry, which a client presents to get another one: oras-java up to 0.8.2 does so
/// with its current token.
#[derive(Deserialize)]
struct PresentedToken {
    sub: String,
    exp: u64,
    access: Vec<Scope>,
    #[serde(default)]
    credential: Option<String>,
}

/// What a client requests.
#[derive(Default)]
struct TokenRequest {
    scopes: Vec<Scope>,
    /// A refresh token is requested too.
    offline: bool,
}

/// The fields of a form.
type Form = Vec<(String, String)>;

#[derive(Serialize)]
struct AccessToken<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: &'a [Scope],
    /// As in [`RefreshToken`]. Absent for the anonymous principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct RefreshToken {
    iss: String,
    sub: String,
    /// Not the registry's name, so that the registry does not accept it.
    aud: String,
    exp: u64,
    /// The identifier of the password that was presented ([`Htpasswd::credential_of`](super::Htpasswd)): the token is
    /// invalid once the user's password changes, and for another user of the same name.
    credential: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: u64,
    issued_at: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl TokenServer {
    /// Creates a token server for the users of `passwords`, which signs with `keys` and grants what `rules` allow.
    #[must_use]
    pub fn new(
        options: TokenServerOptions,
        passwords: Arc<Passwords>,
        rules: Arc<dyn Authorizer>,
        keys: SigningKeys,
    ) -> Self {
        Self {
            options,
            passwords,
            rules,
            keys: Keys::new(keys),
            clock: Clock::default(),
        }
    }

    /// Uses `now` as the clock by which tokens are issued and expire, in place of the system's.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(now);
        self
    }

    async fn respond(&self, request: &Parts, body: Body<'_>) -> Result<(Principal, Response), Error> {
        let form: Form = match request.method {
            Method::GET | Method::HEAD => fields(request.uri.query().unwrap_or_default().as_bytes()),
            Method::POST => fields(&collect(body).await?),
            _ => {
                let error = Error::from(ErrorCode::MethodNotAllowed).with_field("Allow", "GET, HEAD, POST");
                return Err(error);
            }
        };
        self.check_service(&form)?;
        let login = if request.method == Method::POST {
            self.by_form(request, &form).await?
        } else {
            self.by_header(request).await?
        };
        let wish = TokenRequest::of(&form)?;
        let refresh =
            value(&form, "refresh_token").filter(|_| value(&form, "grant_type") == Some("refresh_token"));
        let response = self.grant(&login, &wish, refresh.filter(|_| request.method == Method::POST))?;
        Ok((login.principal, response))
    }

    /// A token is only for this registry, so a request for another service is at the wrong place. Clients send the
    /// service of the challenge; a person may leave it out.
    fn check_service(&self, form: &Form) -> Result<(), Error> {
        let own = &self.options.service;
        let mut named = form.iter().filter(|(name, _)| name == "service");
        if named.all(|(_, service)| service == own) {
            return Ok(());
        }
        Err(unsupported(format!(
            "`service` is {own:?} here, as the challenge of the registry says; leave it out, or ask the token server of the other service"
        )))
    }

    async fn by_header(&self, request: &Parts) -> Result<Login, Error> {
        if let Some(token) = credentials(&request.headers, "bearer") {
            return self.by_token(token).ok_or_else(|| {
                let message = "the token is not valid here; log in with a name and a password";
                Error::new(ErrorCode::Unauthorized, message)
            });
        }
        // Read first: if the password changes meanwhile, the token is invalid.
        let table = self.passwords.table();
        let principal = basic::principal(&self.passwords, request).await?;
        let credential = table.credential_of(principal.name()).map(str::to_owned);
        Ok(Login {
            principal,
            credential,
            token: None,
        })
    }

    /// Accepts a token that is valid now, without leeway.
    fn by_token(&self, token: &str) -> Option<Login> {
        let token: PresentedToken = self.verified(token, &self.options.service)?;
        let credential = self
            .passwords
            .table()
            .credential_of(&token.sub)
            .map(str::to_owned);
        (token.credential == credential).then(|| Login {
            principal: Principal::new(token.sub.clone()),
            credential,
            token: Some(token),
        })
    }

    /// Reads and verifies a token that this server signed.
    fn verified<T: DeserializeOwned + Expires>(&self, token: &str, audience: &str) -> Option<T> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let now = self.clock.seconds();
        let key = self.keys.public.find(&header, now).ok()?;
        let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
        // It is compared with our own clock below.
        validation.validate_exp = false;
        validation.set_audience(&[audience]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        let token = jsonwebtoken::decode::<T>(token, &key.key, &validation).ok()?;
        (token.claims.expires() >= now).then_some(token.claims)
    }

    async fn by_form(&self, request: &Parts, form: &Form) -> Result<Login, Error> {
        match value(form, "grant_type") {
            Some("password") => {
                let (user, password) = (value(form, "username"), value(form, "password"));
                let (Some(user), Some(password)) = (user, password) else {
                    return Err(unsupported("a login by password needs `username` and `password`"));
                };
                let client = Connection::of(request).and_then(Connection::client);
                let table = self.passwords.table();
                if self.passwords.verify(client, user, password).await? {
                    Ok(Login {
                        principal: Principal::new(user),
                        credential: table.credential_of(user).map(str::to_owned),
                        token: None,
                    })
                } else {
                    Err(Error::new(
                        ErrorCode::Unauthorized,
                        "the name or the password is wrong",
                    ))
                }
            }
            Some("refresh_token") => self.by_refresh_token(value(form, "refresh_token").unwrap_or_default()),
            _ => Err(unsupported("`grant_type` is `password` or `refresh_token`")),
        }
    }

    fn by_refresh_token(&self, token: &str) -> Result<Login, Error> {
        let wrong = || {
            Error::new(
                ErrorCode::Unauthorized,
                "the refresh token is not valid; log in again",
            )
        };
        let token: RefreshToken = self.verified(token, &self.refresh_audience()).ok_or_else(wrong)?;
        let RefreshToken { sub, credential, .. } = token;
        if self.passwords.table().credential_of(&sub) == Some(credential.as_str()) {
            Ok(Login {
                principal: Principal::new(sub),
                credential: Some(credential),
                token: None,
            })
        } else {
            Err(wrong())
        }
    }

    /// Issues a token for the part of a request that the rules allow.
    fn grant(&self, login: &Login, wish: &TokenRequest, refresh: Option<&str>) -> Result<Response, Error> {
        let principal = &login.principal;
        let reduced = wish.scopes.iter().map(|scope| {
            let mut reduced = reduce(scope, &*self.rules, principal);
            if let Some(token) = &login.token {
                // What is open to all clients is open to a client with a token too. The catalog shows each client its
                // own repositories.
                let open = reduce(scope, &*self.rules, &Principal::anonymous());
                let is_repository = scope.resource_type == "repository";
                let is_open = |action: &_| is_repository && open.actions.contains(action);
                reduced
                    .actions
                    .retain(|action| token.grants(scope, action) || is_open(action));
            }
            reduced
        });
        let access: Vec<_> = reduced.filter(|scope| !scope.actions.is_empty()).collect();
        if principal.is_anonymous() && access.is_empty() {
            return Err(Error::new(
                ErrorCode::Unauthorized,
                "log in: nothing of this is open to everybody",
            ));
        }
        let now = self.clock.seconds();
        let shortest = TokenServerOptions::SHORTEST_LIFETIME;
        let longest = self.options.lifetime.max(shortest).as_secs();
        let left = login.token.as_ref().map(|token| token.exp.saturating_sub(now));
        let lifetime = left.map_or(longest, |left| left.min(longest));
        let token = self.keys.signing.sign(
            seconds(now),
            &AccessToken {
                iss: &self.options.issuer,
                sub: principal.name(),
                aud: &self.options.service,
                exp: now.saturating_add(lifetime),
                nbf: now,
                iat: now,
                jti: identifier()?,
                access: &access,
                credential: login.credential.as_deref(),
            },
        );
        let token = token.ok_or_else(cannot_sign)?;
        let refresh_token = match refresh {
            // The refresh token that was used stays valid.
            Some(refresh) => Some(refresh.to_owned()),
            None if wish.offline && !principal.is_anonymous() && login.token.is_none() => {
                Some(self.refresh_token(login, now)?)
            }
            None => None,
        };
        let answer = Answer {
            token: &token,
            access_token: &token,
            expires_in: lifetime,
            issued_at: seconds(now).to_string(),
            scope: Scope::join(&access),
            refresh_token,
        };
        let json = serde_json::to_vec(&answer).map_err(Error::internal)?;
        Ok(Response::json(Bytes::from(json)).with_field("Cache-Control", "no-store"))
    }

    fn refresh_token(&self, login: &Login, now: u64) -> Result<String, Error> {
        let credential = login.credential.clone().ok_or_else(cannot_sign)?;
        let token = self.keys.signing.sign(
            seconds(now),
            &RefreshToken {
                iss: self.options.issuer.clone(),
                sub: login.principal.name().to_owned(),
                aud: self.refresh_audience(),
                exp: now.saturating_add(self.options.refresh_lifetime.as_secs()),
                credential,
            },
        );
        token.ok_or_else(cannot_sign)
    }

    fn refresh_audience(&self) -> String {
        format!("{} (refresh)", self.options.service)
    }
}

/// A token that expires.
trait Expires {
    /// Returns the last second since 1970 in which it is valid.
    fn expires(&self) -> u64;
}

impl Expires for PresentedToken {
    fn expires(&self) -> u64 {
        self.exp
    }
}

impl Expires for RefreshToken {
    fn expires(&self) -> u64 {
        self.exp
    }
}

impl PresentedToken {
    /// Returns whether it grants an action on the resource of a scope.
    fn grants(&self, scope: &Scope, action: &str) -> bool {
        self.access.iter().any(|granted| {
            let is_same = (&granted.resource_type, &granted.class, &granted.name)
                == (&scope.resource_type, &scope.class, &scope.name);
            is_same && granted.actions.contains(action)
        })
    }
}

impl Keys {
    fn new(signing: SigningKeys) -> Self {
        let public = signing.public_keys();
        Self { signing, public }
    }
}

impl TokenRequest {
    fn of(form: &Form) -> Result<Self, Error> {
        let mut wish = Self::default();
        for (name, value) in form {
            match name.as_str() {
                "scope" => {
                    let scopes = Scope::parse_list(value);
                    wish.scopes
                        .extend(scopes.map_err(|error| unsupported(error.to_string()))?);
                }
                "offline_token" => wish.offline |= value == "true",
                "access_type" => wish.offline |= value == "offline",
                _ => {}
            }
        }
        if wish.scopes.len() > MAXIMUM_SCOPES {
            return Err(unsupported("a token is for at most 100 scopes"));
        }
        Ok(wish)
    }
}

impl Endpoint for TokenServer {
    fn answer<'a>(&'a self, request: &'a Parts, body: Body<'a>) -> BoxFuture<'a, (Principal, Response)> {
        Box::pin(async move {
            match self.respond(request, body).await {
                Ok(answer) => answer,
                Err(error) if error.code() == ErrorCode::Unauthorized => {
                    let realm = self.options.service.clone();
                    let challenge = registry_core::Challenge::Basic { realm };
                    let error = error.with_field("WWW-Authenticate", challenge.to_string());
                    (Principal::anonymous(), error.into())
                }
                Err(error) => (Principal::anonymous(), error.into()),
            }
        })
    }
}

impl fmt::Debug for TokenServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenServer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

const fn seconds(since_1970: u64) -> Timestamp {
    Timestamp(since_1970.saturating_mul(1000))
}

fn fields(text: &[u8]) -> Form {
    form_urlencoded::parse(text).into_owned().collect()
}

fn value<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    form.iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

async fn collect(mut body: Body<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > FORM_BYTES {
            return Err(Error::new(
                ErrorCode::ManifestTooLarge,
                "a form has at most 64 KiB",
            ));
        }
    }
    Ok(bytes)
}

/// Generates a unique identifier for a token.
fn identifier() -> Result<String, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| cannot_sign())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn unsupported(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::Unsupported, message)
}

fn cannot_sign() -> Error {
    Error::new(ErrorCode::Internal, "no token can be signed")
}
