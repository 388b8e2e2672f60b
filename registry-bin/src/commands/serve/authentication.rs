//! Who a client is, and what it may do, by `auth`, `access` and `tags.immutable`.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry_core::Authorizer;
use registry_core::operation::AllowAll;
use registry_core::policy::{ImmutableTags, Rules, TokenScopes};
use registry_http::auth::{
    BasicAuthenticator, Htpasswd, Passwords, Realm, ReplaceableAuthorizer, SigningAlgorithm,
    TokenAuthenticator, TokenOptions, TokenServer, TokenServerOptions,
};
use registry_http::{Anonymous, Authenticator, Endpoint};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::reload::{Change, Reloadable};
use super::token_keys::{KeySource, SigningKeyFile, longest_token_life};
use super::users;
use crate::access;
use crate::commands::htpasswd;
use crate::config::Configuration;
use crate::config::sections::auth::{self, Token};
use crate::failure::Failure;
use crate::storage::StorageLocation;

/// Who a client is, and what it may do.
pub(super) struct Authentication {
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) authorizer: Arc<ReplaceableAuthorizer>,
    /// The token server and its path.
    pub(super) endpoint: Option<(String, Arc<dyn Endpoint>)>,
    /// The rules alone, which the token server reduces scopes by.
    rules: Arc<ReplaceableAuthorizer>,
    kind: Kind,
    /// What the server was started with: where users and keys are does not change while it runs.
    auth: auth::Auth,
}

/// How clients show who they are, and what is read again.
enum Kind {
    Nobody,
    Users(Arc<Passwords>),
    OwnTokens(OwnTokens),
    Tokens(Arc<TokenAuthenticator>),
}

struct OwnTokens {
    passwords: Arc<Passwords>,
    server: Arc<TokenServer>,
    authenticator: Arc<TokenAuthenticator>,
    keys: SigningKeyFile,
}

impl Authentication {
    /// Reads what the configuration names.
    pub(super) fn start(configuration: &Configuration, location: &StorageLocation) -> Result<Self, Failure> {
        let rules = Arc::new(ReplaceableAuthorizer::new(Arc::new(rules(configuration)?)));
        let auth = &configuration.auth;
        let (authenticator, kind): (Arc<dyn Authenticator>, _) = match (&auth.htpasswd, &auth.token) {
            (Some(htpasswd), _) => {
                let passwords = passwords(auth::HTPASSWD_PATH, &htpasswd.path)?;
                let basic = BasicAuthenticator::new(htpasswd.realm.clone(), Arc::clone(&passwords));
                (Arc::new(basic), Kind::Users(passwords))
            }
            (None, Some(token)) => match &token.builtin {
                Some(_) => {
                    let own = own_tokens(token, location, &rules)?;
                    (
                        Arc::clone(&own.authenticator) as Arc<dyn Authenticator>,
                        Kind::OwnTokens(own),
                    )
                }
                None => {
                    let keys = block_in_place(|| KeySource::of(token).read())?;
                    let options = token_options(token);
                    let tokens = Arc::new(TokenAuthenticator::new(options, keys));
                    (
                        Arc::clone(&tokens) as Arc<dyn Authenticator>,
                        Kind::Tokens(tokens),
                    )
                }
            },
            (None, None) => (Arc::new(Anonymous), Kind::Nobody),
        };
        let endpoint = match &kind {
            Kind::OwnTokens(own) => {
                let path = auth.token.as_ref().map(|token| token.auto_redirect_path.clone());
                path.map(|path| (path, Arc::clone(&own.server) as Arc<dyn Endpoint>))
            }
            _ => None,
        };
        let authorizer = authorizer(configuration, &rules)?;
        Ok(Self {
            authenticator,
            authorizer: Arc::new(ReplaceableAuthorizer::new(authorizer)),
            endpoint,
            rules,
            kind,
            auth: auth.clone(),
        })
    }

    /// Waits until there is reason to look for new keys of the token server.
    async fn key_missing(&self) {
        match &self.kind {
            Kind::Tokens(tokens) => tokens.key_missing().await,
            Kind::Nobody | Kind::Users(_) | Kind::OwnTokens(_) => pending().await,
        }
    }

    /// Reads again the users and keys that the configuration names, and makes a new key where that is due. May block.
    fn prepare_credentials(&self) -> Result<Change, Failure> {
        let auth = &self.auth;
        let token = auth.token.as_ref();
        let builtin = token.and_then(|token| token.builtin.as_ref());
        match (&self.kind, &auth.htpasswd, token, builtin) {
            (Kind::Users(passwords), Some(section), _, _) => {
                let (passwords, users) = (Arc::clone(passwords), users(auth::HTPASSWD_PATH, &section.path)?);
                Ok(Box::new(move || passwords.replace(users)))
            }
            (Kind::OwnTokens(own), _, _, Some(builtin)) => {
                let (users, keys) = (users(auth::BUILTIN_USERS, &builtin.users)?, own.keys.read()?);
                let (passwords, server) = (Arc::clone(&own.passwords), Arc::clone(&own.server));
                let authenticator = Arc::clone(&own.authenticator);
                Ok(Box::new(move || {
                    passwords.replace(users);
                    authenticator.replace(keys.public_keys());
                    server.replace_keys(keys);
                }))
            }
            (Kind::Tokens(tokens), _, Some(token), None) => {
                let (tokens, keys) = (Arc::clone(tokens), KeySource::of(token).read()?);
                Ok(Box::new(move || tokens.replace(keys)))
            }
            _ => Ok(Box::new(|| {})),
        }
    }
}

impl Reloadable for Authentication {
    fn prepare(&self, configuration: &Configuration) -> Result<Change, Failure> {
        let new_rules = rules(configuration)?;
        let new_authorizer = authorizer(configuration, &self.rules)?;
        let credentials = self.prepare_credentials()?;
        let (rules, authorizer) = (Arc::clone(&self.rules), Arc::clone(&self.authorizer));
        Ok(Box::new(move || {
            credentials();
            rules.replace(Arc::new(new_rules));
            authorizer.replace(new_authorizer);
        }))
    }
}

/// How often users and keys are read again though no file has changed: keys from a URL, and our own that get old.
const REFRESH: Duration = Duration::from_mins(5);

/// How long they are not read again even if there is a token by a key that is not among them. Anybody can send one.
const SOONEST_REFRESH: Duration = Duration::from_secs(10);

/// A task that reads them. What cannot be read leaves the old in force.
pub(super) struct KeyRefresh(JoinHandle<()>);

impl KeyRefresh {
    pub(super) fn start(authentication: Arc<Authentication>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                sleep(SOONEST_REFRESH).await;
                tokio::select! {
                    () = sleep(REFRESH.saturating_sub(SOONEST_REFRESH)) => {}
                    () = authentication.key_missing() => {}
                }
                match block_in_place(|| authentication.prepare_credentials()) {
                    Ok(change) => change(),
                    Err(failure) => {
                        tracing::error!(%failure, "users and keys cannot be read again; the old ones stay in force");
                    }
                }
            }
        }))
    }
}

impl Drop for KeyRefresh {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn rules(configuration: &Configuration) -> Result<Rules, Failure> {
    access::rules(configuration).map_err(|(path, message)| Failure::of(path, message))
}

/// Puts the rules together: what nobody may do, then what the rules allow, then what a token grants.
fn authorizer(
    configuration: &Configuration,
    rules: &Arc<ReplaceableAuthorizer>,
) -> Result<Arc<dyn Authorizer>, Failure> {
    let auth = &configuration.auth;
    let has_rules = !configuration.access.rules.is_empty();
    let rules = Arc::clone(rules) as Arc<dyn Authorizer>;
    let authorizer: Arc<dyn Authorizer> = match &auth.token {
        Some(token) if token.builtin.is_some() || has_rules => Arc::new(TokenScopes::within(rules)),
        Some(_) => Arc::new(TokenScopes::new()),
        None if auth.htpasswd.is_some() || has_rules => rules,
        None => Arc::new(AllowAll),
    };
    let immutable =
        access::immutable_tags(configuration).map_err(|(path, message)| Failure::of(path, message))?;
    if immutable.is_empty() {
        return Ok(authorizer);
    }
    Ok(Arc::new(ImmutableTags::new(immutable, authorizer)))
}

/// Reads the file of users that a key names.
pub(crate) fn users(key: &str, path: &Path) -> Result<Htpasswd, Failure> {
    htpasswd::read(path).map_err(|failure| failure.about(key))
}

fn passwords(key: &str, path: &Path) -> Result<Arc<Passwords>, Failure> {
    users::provide(path).map_err(|failure| failure.about(key))?;
    let passwords = Passwords::new(users(key, path)?);
    let passwords = passwords.map_err(|cause| Failure::new("cannot check passwords").because(cause))?;
    Ok(Arc::new(passwords))
}

fn own_tokens(
    token: &Token,
    location: &StorageLocation,
    rules: &Arc<ReplaceableAuthorizer>,
) -> Result<OwnTokens, Failure> {
    let builtin = token
        .builtin
        .as_ref()
        .ok_or_else(|| Failure::new("auth.token.builtin is missing"))?;
    let passwords = passwords(auth::BUILTIN_USERS, &builtin.users)?;
    let keys = SigningKeyFile::of(builtin.keys.as_deref(), location)?;
    let signing = keys.read()?;
    let options = token_options(token);
    let server = TokenServerOptions {
        service: options.service.clone(),
        issuer: options.issuer.clone(),
        lifetime: builtin.lifetime.0,
        refresh_lifetime: longest_token_life(),
    };
    let authenticator = TokenAuthenticator::new(options, signing.public_keys());
    let authenticator = Arc::new(authenticator.with_users(Arc::clone(&passwords)));
    let rules = Arc::clone(rules) as Arc<dyn Authorizer>;
    let server = Arc::new(TokenServer::new(server, Arc::clone(&passwords), rules, signing));
    Ok(OwnTokens {
        passwords,
        server,
        authenticator,
        keys,
    })
}

fn token_options(token: &Token) -> TokenOptions {
    let path = &token.auto_redirect_path;
    let realm = match &token.realm {
        Some(url) if !url.is_empty() && !token.auto_redirect => Realm::Url(url.clone()),
        _ => Realm::Path(path.clone()),
    };
    let service = token.service.clone().unwrap_or_default();
    let algorithms = token
        .signing_algorithms
        .iter()
        .filter_map(|name| algorithm(*name));
    let mut algorithms: Vec<_> = algorithms.collect();
    if token.signing_algorithms.is_empty() {
        algorithms = TokenAuthenticator::ALGORITHMS.to_vec();
    }
    if token.builtin.is_some() {
        algorithms = vec![SigningAlgorithm::ES256];
    }
    TokenOptions {
        realm,
        issuer: token.issuer.clone().unwrap_or_else(|| service.clone()),
        service,
        algorithms,
    }
}

const fn algorithm(name: auth::SigningAlgorithm) -> Option<SigningAlgorithm> {
    use auth::SigningAlgorithm as Name;
    Some(match name {
        Name::EdDsa => SigningAlgorithm::EdDSA,
        Name::RS256 => SigningAlgorithm::RS256,
        Name::RS384 => SigningAlgorithm::RS384,
        Name::RS512 => SigningAlgorithm::RS512,
        Name::ES256 => SigningAlgorithm::ES256,
        Name::ES384 => SigningAlgorithm::ES384,
        Name::PS256 => SigningAlgorithm::PS256,
        Name::PS384 => SigningAlgorithm::PS384,
        Name::PS512 => SigningAlgorithm::PS512,
        // The check of the configuration refuses them.
        Name::ES512 | Name::HS256 | Name::HS384 | Name::HS512 => return None,
    })
}
