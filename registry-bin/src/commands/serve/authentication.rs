//! Authentication and authorization according to `auth`, `access` and `tags.immutable`.
//!
//! `auth` is fixed until a restart. The rules, users and keys are reloaded, and all of them take effect as one
//! [`AccessControl`]: no request uses a mix of old and new ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry_core::Authorizer;
use registry_core::operation::AllowAll;
use registry_core::policy::{Glob, ImmutableTagRule, ImmutableTags, Rules, TokenScopes};
use registry_http::auth::{BasicAuthenticator, SigningKeys, TokenServer, TokenServerOptions};
use registry_http::{AccessControl, Anonymous, Authenticator, Endpoint, ReplaceableAccess};
use registry_storage::Maintenance;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::credentials::{Credentials, KeySource, create_missing_users, token_options};
use super::reload::{Change, Reloadable, gone};
use super::signing_keys::SigningKeyPlace;
use crate::config::sections::auth::{self, Auth, AuthKind};
use crate::config::{Configuration, Loaded};
use crate::failure::Failure;
use crate::storage::{OpenStorage, StorageLocation};

/// The authentication and authorization of a server.
pub(super) struct Authentication {
    /// The access control that requests use.
    pub(super) access: Arc<ReplaceableAccess>,
    /// The `auth` section at the start.
    auth: Auth,
    /// Where the keys of our own token server are, if it is enabled.
    own_keys: Option<SigningKeyPlace>,
    store: Arc<dyn Maintenance>,
    /// The parts that `access` was built from.
    in_force: Mutex<Arc<Parts>>,
}

/// The parts of an access control.
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

impl Authentication {
    /// Reads the files and keys that the configuration names, and keys that are in the storage.
    pub(super) fn start(
        configuration: &Configuration,
        (location, storage): (&StorageLocation, &OpenStorage),
    ) -> Result<Self, Failure> {
        let auth = configuration.auth.clone();
        let builtin = auth.token.as_ref().and_then(|token| token.builtin.as_ref());
        let own_keys = builtin.map(|builtin| SigningKeyPlace::of(builtin.keys.as_deref(), location));
        let policy = Policy::of(configuration)?;
        create_missing_users(configuration, location)?;
        let store = Arc::clone(&storage.store);
        let keys = own_keys
            .as_ref()
            .map(|keys| block_in_place(|| keys.read(&*store)));
        let parts = Parts {
            policy,
            credentials: Credentials::start(&auth, keys.transpose()?)?,
        };
        Ok(Self {
            access: Arc::new(ReplaceableAccess::new(access_control(&auth, &parts))),
            auth,
            own_keys,
            store,
            in_force: Mutex::new(Arc::new(parts)),
        })
    }

    /// Reads the keys of our own token server, if it is enabled. Blocks.
    fn read_own_keys(&self) -> Result<Option<SigningKeys>, Failure> {
        let keys = self.own_keys.as_ref();
        keys.map(|keys| keys.read(&*self.store)).transpose()
    }

    fn in_force(&self) -> Arc<Parts> {
        Arc::clone(&self.in_force.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies `credentials` together with a policy. If `only` is given, does so only if exactly these parts are in
    /// force.
    fn replace(&self, policy: Policy, credentials: Credentials, only: Option<&Arc<Parts>>) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if only.is_none_or(|old| Arc::ptr_eq(old, &in_force)) {
            let parts = Parts { policy, credentials };
            self.access.replace(access_control(&self.auth, &parts));
            *in_force = Arc::new(parts);
        }
    }

    /// Waits until it is time to look for new keys. Keys in files are watched elsewhere.
    async fn refresh_is_due(&self) {
        sleep(SHORTEST_REFRESH_INTERVAL).await;
        let key_is_missing = async {
            match &self.in_force().credentials {
                Credentials::Tokens { authenticator, .. } | Credentials::OwnTokens { authenticator, .. } => {
                    authenticator.key_missing().await;
                }
                Credentials::Nobody | Credentials::Users(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(REFRESH_INTERVAL.saturating_sub(SHORTEST_REFRESH_INTERVAL)) => {}
            () = key_is_missing => {}
        }
    }

    /// Fetches the keys of a URL again, or rotates our own signing key if that is due. May block.
    fn refresh(&self) -> Result<(), Failure> {
        let old = self.in_force();
        let credentials = match (&old.credentials, &self.auth.token, self.read_own_keys()?) {
            (Credentials::Tokens { .. }, Some(token), _) if KeySource::of(token).has_url() => {
                old.credentials.with_fetched(&KeySource::of(token).fetch()?)
            }
            (Credentials::OwnTokens { .. }, _, Some(keys)) => old.credentials.with_signing(keys),
            _ => return Ok(()),
        };
        // If everything was reloaded meanwhile, that takes precedence.
        self.replace(old.policy.clone(), credentials, Some(&old));
        Ok(())
    }
}

impl Reloadable for Authentication {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let (configuration, old) = (&new.configuration, self.in_force());
        let (kind, new_kind) = (self.auth.kind(), configuration.auth.kind());
        if kind != AuthKind::Nobody && new_kind == AuthKind::Nobody {
            return Err(gone("auth", "anybody could do anything"));
        }
        let policy = Policy::of(configuration)?;
        let own_keys = match self.read_own_keys() {
            // A bucket that does not answer now is no reason to refuse new rules and users, which are not tried again.
            Err(failure) if matches!(self.own_keys, Some(SigningKeyPlace::Record)) => {
                log_unread_keys(&failure);
                None
            }
            read => read?,
        };
        let credentials = old.credentials.read_again(&self.auth, own_keys)?;
        // Rules for users of one kind mean nothing for users of another, even if their names are the same.
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
            old.credentials.log_removed_users(&credentials);
            self.replace(policy, credentials, None);
        }))
    }
}

impl Policy {
    fn of(configuration: &Configuration) -> Result<Self, Failure> {
        Ok(Self {
            rules: Arc::new(configuration.access.rules()?),
            immutable: configuration.tags.immutable_rules()?,
        })
    }

    /// Returns the policy, unless it lacks protection that the old one has.
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

    /// Returns the pairs of a repository pattern and a tag pattern.
    fn immutable_tags(&self) -> impl Iterator<Item = (&Glob, &Glob)> {
        self.immutable.iter().flat_map(|rule| {
            let repositories = rule.repositories.iter();
            repositories.flat_map(|repositories| rule.tags.iter().map(move |tags| (repositories, tags)))
        })
    }
}

/// Combines the parts: immutable tags first, then the rules, then the scopes of a token.
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

/// Returns our own token server and its path, if it is enabled.
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
    Some((token.auto_redirect_path.to_string(), Arc::new(server)))
}

/// How often keys are refreshed although no file has changed: those from a URL, and our own, which expire.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);

/// How long after a refresh a token with an unknown key causes no other one, because any client can send such a token.
const SHORTEST_REFRESH_INTERVAL: Duration = Duration::from_secs(10);

fn log_unread_keys(failure: &Failure) {
    tracing::error!(%failure, "the keys of tokens cannot be read again; the old ones stay in force");
}

/// A task that refreshes the keys. If they cannot be read, the old ones stay in force.
pub(super) struct KeyRefresh(JoinHandle<()>);

impl KeyRefresh {
    #[expect(clippy::disallowed_methods, reason = "its owner aborts it when dropped")]
    pub(super) fn start(authentication: Arc<Authentication>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                authentication.refresh_is_due().await;
                if let Err(failure) = block_in_place(|| authentication.refresh()) {
                    log_unread_keys(&failure);
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
