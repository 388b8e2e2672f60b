//! Who a client is, and what it may do, by `auth`, `access` and `tags.immutable`.
//!
//! `auth` is that of the start until a restart. The rules, the users and the keys are read again, and all of them come
//! into force as one [`AccessControl`]: no request is judged by an old and a new half.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry_core::Authorizer;
use registry_core::operation::AllowAll;
use registry_core::policy::{Glob, ImmutableTagRule, ImmutableTags, Rules, TokenScopes};
use registry_http::auth::{
    BasicAuthenticator, Passwords, SigningKeys, TokenAuthenticator, TokenKeys, TokenServer,
    TokenServerOptions,
};
use registry_http::{AccessControl, Anonymous, Authenticator, Endpoint, ReplaceableAccess};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::reload::{Change, Reloadable, gone};
use super::token_keys::{KeySource, SigningKeyFile};
use super::token_options::token_options;
use super::users;
use crate::access;
use crate::config::sections::auth::{self, Auth, Kind};
use crate::config::{Configuration, Loaded};
use crate::failure::Failure;
use crate::storage::StorageLocation;

/// Who a client is, and what it may do.
pub(super) struct Authentication {
    /// What requests are judged by.
    pub(super) access: Arc<ReplaceableAccess>,
    /// What the server was started with.
    auth: Auth,
    own_keys: Option<SigningKeyFile>,
    /// What `access` was made of.
    in_force: Mutex<Arc<Parts>>,
}

/// What the decision about a request is made of.
#[derive(Clone)]
struct Parts {
    policy: Policy,
    credentials: Credentials,
}

/// What the configuration allows, and to whom.
#[derive(Clone)]
struct Policy {
    rules: Arc<Rules>,
    immutable: Vec<ImmutableTagRule>,
}

/// How clients show who they are.
#[derive(Clone)]
enum Credentials {
    Nobody,
    Users(Arc<Passwords>),
    OwnTokens {
        passwords: Arc<Passwords>,
        keys: SigningKeys,
        authenticator: Arc<TokenAuthenticator>,
    },
    Tokens {
        authenticator: Arc<TokenAuthenticator>,
        /// The keys that were read from files, beside which those of a URL are fetched again and again.
        from_files: TokenKeys,
    },
}

impl Authentication {
    /// Reads what the configuration names.
    pub(super) fn start(configuration: &Configuration, location: &StorageLocation) -> Result<Self, Failure> {
        let auth = configuration.auth.clone();
        let builtin = auth.token.as_ref().and_then(|token| token.builtin.as_ref());
        let own_keys = builtin.map(|builtin| SigningKeyFile::of(builtin.keys.as_deref(), location));
        let own_keys = own_keys.transpose()?;
        let parts = Parts {
            policy: Policy::of(configuration)?,
            credentials: Credentials::start(&auth, own_keys.as_ref())?,
        };
        Ok(Self {
            access: Arc::new(ReplaceableAccess::new(access_control(&auth, &parts))),
            auth,
            own_keys,
            in_force: Mutex::new(Arc::new(parts)),
        })
    }

    fn in_force(&self) -> Arc<Parts> {
        Arc::clone(&self.in_force.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `credentials` into force with a policy; where `only` is given, in the place of exactly these parts.
    fn replace(&self, policy: Policy, credentials: Credentials, only: Option<&Arc<Parts>>) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if only.is_none_or(|old| Arc::ptr_eq(old, &in_force)) {
            let parts = Parts { policy, credentials };
            self.access.replace(access_control(&self.auth, &parts));
            *in_force = Arc::new(parts);
        }
    }

    /// Waits until there is reason to look for new keys beside those of files, which are watched.
    async fn refresh_is_due(&self) {
        sleep(SOONEST_REFRESH).await;
        let key_is_missing = async {
            match &self.in_force().credentials {
                Credentials::Tokens { authenticator, .. } => authenticator.key_missing().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(REFRESH.saturating_sub(SOONEST_REFRESH)) => {}
            () = key_is_missing => {}
        }
    }

    /// Fetches the keys of a URL again, and makes a new key of our own where that is due. May block.
    fn refresh(&self) -> Result<(), Failure> {
        let old = self.in_force();
        let credentials = match (&old.credentials, &self.auth.token, &self.own_keys) {
            (Credentials::Tokens { .. }, Some(token), _) if KeySource::of(token).has_url() => {
                old.credentials.with_fetched(&KeySource::of(token).fetch()?)
            }
            (Credentials::OwnTokens { .. }, _, Some(file)) => old.credentials.with_signing(file.read()?),
            _ => return Ok(()),
        };
        // Where everything was read again meanwhile, that counts.
        self.replace(old.policy.clone(), credentials, Some(&old));
        Ok(())
    }
}

impl Reloadable for Authentication {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let (configuration, old) = (&new.configuration, self.in_force());
        let (kind, new_kind) = (self.auth.kind(), configuration.auth.kind());
        if kind != Kind::Nobody && new_kind == Kind::Nobody {
            return Err(gone("auth", "anybody could do anything"));
        }
        let policy = Policy::of(configuration)?;
        let credentials = old.credentials.read_again(&self.auth, self.own_keys.as_ref())?;
        // Rules for users of one kind say nothing about those of another, even where their names are alike.
        let is_held_back = kind != new_kind;
        let policy = if is_held_back {
            old.policy.clone()
        } else {
            policy.in_place_of(&old.policy)?
        };
        Ok(Box::new(move || {
            if is_held_back {
                tracing::warn!(
                    "another kind of `auth` waits for a restart, and with it `access` and `tags.immutable`"
                );
            }
            old.credentials.tell_who_is_gone(&credentials);
            self.replace(policy, credentials, None);
        }))
    }
}

impl Policy {
    fn of(configuration: &Configuration) -> Result<Self, Failure> {
        let failure = |(path, message): access::Problem| Failure::of(path, message);
        Ok(Self {
            rules: Arc::new(access::rules(configuration).map_err(failure)?),
            immutable: access::immutable_tags(configuration).map_err(failure)?,
        })
    }

    /// Returns it unless something is gone that protects.
    fn in_place_of(self, old: &Self) -> Result<Self, Failure> {
        if self.rules.rules.is_empty() && !old.rules.rules.is_empty() {
            return Err(gone("access.rules", "what they refuse would be allowed"));
        }
        let lost = old.immutable_tags().find(|(repositories, tags)| {
            let mut covering = self.immutable_tags();
            !covering.any(|(others, other)| others.covers(repositories) && other.covers(tags))
        });
        if let Some((repositories, tags)) = lost {
            let consequence =
                format!("immutable tags like {tags} of repositories like {repositories} could be moved");
            return Err(gone("tags.immutable", &consequence));
        }
        Ok(self)
    }

    /// Returns the pairs of a pattern of repositories and one of tags.
    fn immutable_tags(&self) -> impl Iterator<Item = (&Glob, &Glob)> {
        self.immutable.iter().flat_map(|rule| {
            let repositories = rule.repositories.iter();
            repositories.flat_map(|repositories| rule.tags.iter().map(move |tags| (repositories, tags)))
        })
    }
}

impl Credentials {
    /// Reads the files that `auth` names, and makes those that may be missing.
    fn start(auth: &Auth, own_keys: Option<&SigningKeyFile>) -> Result<Self, Failure> {
        Ok(match (&auth.htpasswd, &auth.token) {
            (Some(htpasswd), _) => Self::Users(users::start(auth::HTPASSWD_PATH, &htpasswd.path)?),
            (None, Some(token)) => match (&token.builtin, own_keys) {
                (Some(builtin), Some(file)) => {
                    let passwords = users::start(auth::BUILTIN_USERS, &builtin.users)?;
                    let keys = file.read()?;
                    let authenticator = TokenAuthenticator::new(token_options(token), keys.public_keys());
                    Self::OwnTokens {
                        authenticator: Arc::new(authenticator.with_users(Arc::clone(&passwords))),
                        passwords,
                        keys,
                    }
                }
                _ => {
                    let source = KeySource::of(token);
                    let from_files = source.read_files()?;
                    let keys = from_files.clone().and(block_in_place(|| source.fetch())?);
                    Self::Tokens {
                        authenticator: Arc::new(TokenAuthenticator::new(token_options(token), keys)),
                        from_files,
                    }
                }
            },
            (None, None) => Self::Nobody,
        })
    }

    /// Reads again the users and the keys that `auth` names. May block.
    fn read_again(&self, auth: &Auth, own_keys: Option<&SigningKeyFile>) -> Result<Self, Failure> {
        Ok(match (self, &auth.htpasswd, &auth.token, own_keys) {
            (Self::Users(passwords), Some(section), ..) => {
                Self::Users(users::read_again(auth::HTPASSWD_PATH, &section.path, passwords)?)
            }
            (
                Self::OwnTokens {
                    passwords,
                    authenticator,
                    ..
                },
                _,
                Some(token),
                Some(file),
            ) => {
                let path = token.builtin.as_ref().map(|builtin| &*builtin.users);
                let passwords = match path {
                    Some(path) => users::read_again(auth::BUILTIN_USERS, path, passwords)?,
                    None => Arc::clone(passwords),
                };
                let keys = file.read()?;
                let authenticator = authenticator.with_keys(keys.public_keys());
                Self::OwnTokens {
                    authenticator: Arc::new(authenticator.with_users(Arc::clone(&passwords))),
                    passwords,
                    keys,
                }
            }
            (Self::Tokens { authenticator, .. }, _, Some(token), _) => {
                let source = KeySource::of(token);
                let from_files = source.read_files()?;
                let read = Self::Tokens {
                    authenticator: Arc::clone(authenticator),
                    from_files,
                };
                read.with_fetched(&source.fetch()?)
            }
            _ => self.clone(),
        })
    }

    /// Returns the same with other keys beside those of files.
    fn with_fetched(&self, fetched: &TokenKeys) -> Self {
        match self {
            Self::Tokens {
                authenticator,
                from_files,
            } => Self::Tokens {
                authenticator: Arc::new(authenticator.with_keys(from_files.clone().and(fetched.clone()))),
                from_files: from_files.clone(),
            },
            other => other.clone(),
        }
    }

    /// Returns the same with other keys of our own.
    fn with_signing(&self, keys: SigningKeys) -> Self {
        match self {
            Self::OwnTokens {
                passwords,
                authenticator,
                ..
            } => Self::OwnTokens {
                passwords: Arc::clone(passwords),
                authenticator: Arc::new(authenticator.with_keys(keys.public_keys())),
                keys,
            },
            other => other.clone(),
        }
    }

    const fn passwords(&self) -> Option<&Arc<Passwords>> {
        match self {
            Self::Users(passwords) | Self::OwnTokens { passwords, .. } => Some(passwords),
            Self::Nobody | Self::Tokens { .. } => None,
        }
    }

    /// Names the users that `new` does not have, since a file that was cut between two lines looks like that.
    fn tell_who_is_gone(&self, new: &Self) {
        if let (Some(old), Some(new)) = (self.passwords(), new.passwords()) {
            users::tell_who_is_gone(old.table(), new.table());
        }
    }
}

/// Puts the parts together: what nobody may do, then what the rules allow, then what a token grants.
fn access_control(auth: &Auth, parts: &Parts) -> AccessControl {
    let has_rules = !parts.policy.rules.rules.is_empty();
    let rules = Arc::clone(&parts.policy.rules) as Arc<dyn Authorizer>;
    let (authenticator, authorizer): (Arc<dyn Authenticator>, Arc<dyn Authorizer>) =
        match (&parts.credentials, &auth.htpasswd) {
            (Credentials::Users(passwords), htpasswd) => {
                let realm = htpasswd.as_ref().map(|section| section.realm.clone());
                let basic = BasicAuthenticator::new(realm.unwrap_or_default(), Arc::clone(passwords));
                (Arc::new(basic), Arc::clone(&rules))
            }
            (Credentials::OwnTokens { authenticator, .. }, _) => (
                Arc::clone(authenticator) as _,
                Arc::new(TokenScopes::within(Arc::clone(&rules))),
            ),
            (Credentials::Tokens { authenticator, .. }, _) => {
                let scopes = if has_rules {
                    TokenScopes::within(Arc::clone(&rules))
                } else {
                    TokenScopes::new()
                };
                (Arc::clone(authenticator) as _, Arc::new(scopes))
            }
            (Credentials::Nobody, _) if has_rules => (Arc::new(Anonymous), Arc::clone(&rules)),
            (Credentials::Nobody, _) => (Arc::new(Anonymous), Arc::new(AllowAll)),
        };
    let authorizer = match parts.policy.immutable.as_slice() {
        [] => authorizer,
        immutable => Arc::new(ImmutableTags::new(immutable.to_vec(), authorizer)),
    };
    let endpoint = token_server(auth, &parts.credentials, rules);
    AccessControl {
        authenticator,
        authorizer,
        endpoints: endpoint.into_iter().collect(),
    }
}

/// Returns the token server of our own, and its path.
fn token_server(
    auth: &Auth,
    credentials: &Credentials,
    rules: Arc<dyn Authorizer>,
) -> Option<(String, Arc<dyn Endpoint>)> {
    let Credentials::OwnTokens { passwords, keys, .. } = credentials else {
        return None;
    };
    let token = auth.token.as_ref()?;
    let options = token_options(token);
    let server = TokenServerOptions {
        service: options.service,
        issuer: options.issuer,
        lifetime: token.builtin.as_ref()?.lifetime.0,
        refresh_lifetime: auth::LONGEST_TOKEN_LIFE,
    };
    let server = TokenServer::new(server, Arc::clone(passwords), rules, keys.clone());
    Some((token.auto_redirect_path.clone(), Arc::new(server)))
}

/// How often keys are read again though no file has changed: those from a URL, and our own that get old.
const REFRESH: Duration = Duration::from_mins(5);

/// How long they are not read again even if there is a token by a key that is not among them. Anybody can send one.
const SOONEST_REFRESH: Duration = Duration::from_secs(10);

/// A task that reads them. What cannot be read leaves the old in force.
pub(super) struct KeyRefresh(JoinHandle<()>);

impl KeyRefresh {
    pub(super) fn start(authentication: Arc<Authentication>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                authentication.refresh_is_due().await;
                if let Err(failure) = block_in_place(|| authentication.refresh()) {
                    tracing::error!(%failure, "the keys of tokens cannot be read again; the old ones stay in force");
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
