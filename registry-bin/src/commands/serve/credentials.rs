//! How clients authenticate: the users and the keys of tokens that `auth` names, read and read again.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry_core::printable::printable_json;
use registry_http::auth::{
    Htpasswd, HtpasswdLine, Passwords, Realm, SigningAlgorithm, SigningKeys, TokenAuthenticator, TokenKeys,
    TokenOptions,
};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::bounded_file;
use crate::commands::htpasswd;
use crate::config::Configuration;
use crate::config::sections::auth::{self, Auth, Token};
use crate::config::sections::log::LogFormat;
use crate::config::values::FileOrUrl;
use crate::failure::Failure;
use crate::secret_file;
use crate::storage::StorageLocation;

/// How clients authenticate.
#[derive(Clone)]
pub(super) enum Credentials {
    Nobody,
    Users(Arc<Passwords>),
    OwnTokens {
        passwords: Arc<Passwords>,
        keys: SigningKeys,
        authenticator: Arc<TokenAuthenticator>,
    },
    Tokens {
        authenticator: Arc<TokenAuthenticator>,
        /// The keys from files; those of a URL are fetched repeatedly and added to them.
        from_files: TokenKeys,
    },
}

impl Credentials {
    /// Reads the files that `auth` names. `own_keys` are those of our own token server.
    pub(super) fn start(auth: &Auth, own_keys: Option<SigningKeys>) -> Result<Self, Failure> {
        Ok(match (&auth.htpasswd, &auth.token) {
            (Some(htpasswd), _) => Self::Users(load_users(auth::HTPASSWD_PATH, &htpasswd.path)?),
            (None, Some(token)) => match (&token.builtin, own_keys) {
                (Some(builtin), Some(keys)) => {
                    let passwords = load_users(auth::BUILTIN_USERS, &builtin.users)?;
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

    /// Reads the users and keys that `auth` names again. `own_keys` are those of our own token server, read again; without
    /// them, the old ones stay. May block.
    pub(super) fn read_again(&self, auth: &Auth, own_keys: Option<SigningKeys>) -> Result<Self, Failure> {
        Ok(match (self, &auth.htpasswd, &auth.token) {
            (Self::Users(passwords), Some(section), _) => {
                Self::Users(reload_users(auth::HTPASSWD_PATH, &section.path, passwords)?)
            }
            (
                Self::OwnTokens {
                    passwords,
                    keys,
                    authenticator,
                },
                _,
                Some(token),
            ) => {
                let path = token.builtin.as_ref().map(|builtin| &*builtin.users);
                let passwords = match path {
                    Some(path) => reload_users(auth::BUILTIN_USERS, path, passwords)?,
                    None => Arc::clone(passwords),
                };
                let keys = own_keys.unwrap_or_else(|| keys.clone());
                let authenticator = authenticator.with_keys(keys.public_keys());
                Self::OwnTokens {
                    authenticator: Arc::new(authenticator.with_users(Arc::clone(&passwords))),
                    passwords,
                    keys,
                }
            }
            (Self::Tokens { authenticator, .. }, _, Some(token)) => {
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

    /// Returns the credentials with other fetched keys, in addition to those from files.
    pub(super) fn with_fetched(&self, fetched: &TokenKeys) -> Self {
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

    /// Returns the credentials with other signing keys of our own.
    pub(super) fn with_signing(&self, keys: SigningKeys) -> Self {
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

    /// Logs the users that `new` lacks, because a file that was cut between two lines looks like that.
    pub(super) fn log_removed_users(&self, new: &Self) {
        if let (Some(old), Some(new)) = (self.passwords(), new.passwords()) {
            log_removed_users(old.table(), new.table());
        }
    }
}

/// The name of the first user, as in distribution.
const FIRST_USER: &str = "docker";

/// The most user names in one log line.
const MOST_LOGGED_NAMES: usize = 20;

/// The longest name that the log shows, in bytes.
const LONGEST_NAME_BYTES: usize = 64;

/// Reads the file of users that a key names.
pub(crate) fn read_users(key: &str, path: &Path) -> Result<Htpasswd, Failure> {
    htpasswd::read(path).map_err(|failure| failure.about(key))
}

/// Creates the files of users that are missing.
pub(super) fn create_missing_users(
    configuration: &Configuration,
    location: &StorageLocation,
) -> Result<(), Failure> {
    let format = configuration.log.formatter;
    let mut files = configuration.auth.files_of_users();
    files.try_for_each(|(key, path)| {
        may_create_users(key, path, location)?;
        create_users(path, format).map_err(|failure| failure.about(key))
    })
}

/// Refuses to create a missing file of users for a server on a bucket: each replica would make up another password, and
/// whoever logs in at one of them would be refused by the others.
pub(super) fn may_create_users(key: &str, path: &Path, location: &StorageLocation) -> Result<(), Failure> {
    if path.exists() || !matches!(location, StorageLocation::Bucket(_)) {
        return Ok(());
    }
    let file = path.display();
    Err(Failure::of(
        key,
        format!(
            "there is no file at {file}, and for a bucket none is made, as each replica would make up another password; run \
             `registry-bin htpasswd add {file} {FIRST_USER}`, and give all replicas the same file"
        ),
    ))
}

/// Reads the file of users that a key names.
fn load_users(key: &str, path: &Path) -> Result<Arc<Passwords>, Failure> {
    let passwords = Passwords::new(read_users(key, path)?);
    let passwords = passwords.map_err(|cause| Failure::new("cannot check passwords").because(cause))?;
    Ok(Arc::new(passwords))
}

/// Reloads the file for a server that has users, and refuses one that looks incomplete.
fn reload_users(key: &str, path: &Path, old: &Passwords) -> Result<Arc<Passwords>, Failure> {
    let table = read_users(key, path)?;
    let wrong = |what: &str| Failure::of(key, format!("{}: {what}", path.display()));
    if table.users().next().is_none() && old.table().users().next().is_some() {
        return Err(wrong(
            "there is no user any more, as in a file that is not written yet; restart the server to shut everybody out",
        ));
    }
    if table.ends_within_a_line() {
        return Err(wrong(
            "its last line ends within a hash, as in a file that is written by half; write the line whole, with a line break after it",
        ));
    }
    Ok(Arc::new(old.with_table(table)))
}

/// Logs the names of users that `new` does not have.
fn log_removed_users(old: &Htpasswd, new: &Htpasswd) {
    let left: BTreeSet<&str> = new.users().collect();
    let gone: Vec<&str> = old.users().filter(|user| !left.contains(user)).collect();
    if !gone.is_empty() {
        // In a broken file, a hash or a password may be in the place of a name.
        let is_name = |user: &&&str| user.len() <= LONGEST_NAME_BYTES && !user.contains('$');
        let named: Vec<_> = gone.iter().filter(is_name).take(MOST_LOGGED_NAMES).collect();
        tracing::info!(count = gone.len(), users = ?named, "users are gone from their file and cannot log in any more");
    }
}

/// Creates a file of users with one user, if there is none, and shows the password once, on standard output and not in
/// the log. The output is JSON if the log is: its reader expects nothing else.
fn create_users(path: &Path, format: LogFormat) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let failed = || Failure::new(format!("cannot make a file of users at {}", path.display()));
    // 122 random bits.
    let password = Uuid::new_v4().simple().to_string();
    let line = HtpasswdLine::new(FIRST_USER, &password).map_err(|cause| failed().because(cause))?;
    let is_made = secret_file::create(path, &line.put_into("")).map_err(|cause| failed().because(cause))?;
    if is_made {
        let text = announcement(path, &password, format);
        io::stdout()
            .write_all(text.as_bytes())
            .map_err(|cause| failed().because(cause))?;
    }
    Ok(())
}

fn announcement(path: &Path, password: &str, format: LogFormat) -> String {
    let file = path.display();
    match format {
        LogFormat::Text => format!(
            "There was no file of users, so {file} was made, with the user {FIRST_USER} and the password {password}\n\
             It is not shown again; set another with: registry-bin htpasswd add {file} {FIRST_USER}\n"
        ),
        LogFormat::Json | LogFormat::Logstash => {
            let object = json!({
                "message": "there was no file of users, so one was made; the password is not shown again",
                "file": file.to_string(),
                "user": FIRST_USER,
                "password": password,
            });
            format!("{}\n", printable_json(object.to_string()))
        }
    }
}

/// The largest key set from a URL, in bytes.
const LARGEST_KEY_SET_BYTES: usize = 1024 * 1024;

/// How long fetching a key set may take.
const KEY_SET_TIMEOUT: Duration = Duration::from_secs(10);

/// The sources of a token server's keys.
pub(super) struct KeySource<'a> {
    certificates: Option<&'a Path>,
    key_set: Option<&'a FileOrUrl>,
}

impl<'a> KeySource<'a> {
    pub(super) fn of(token: &'a Token) -> Self {
        Self {
            certificates: token.root_certificates.as_deref(),
            key_set: token.jwks.as_ref(),
        }
    }

    /// Returns whether there are keys to fetch.
    pub(super) const fn has_url(&self) -> bool {
        matches!(self.key_set, Some(FileOrUrl::Url(_)))
    }

    /// Reads the keys in files.
    pub(super) fn read_files(&self) -> Result<TokenKeys, Failure> {
        let mut keys = TokenKeys::default();
        if let Some(path) = self.certificates {
            let failed = || Failure::of("auth.token.rootcertbundle", path.display().to_string());
            let bundle = bounded_file::read(path).map_err(|cause| failed().because(cause))?;
            keys = keys.and(TokenKeys::from_certificates(&bundle).map_err(|cause| failed().because(cause))?);
        }
        if let Some(FileOrUrl::File(path)) = self.key_set {
            let failed = || Failure::of("auth.token.jwks", path.display().to_string());
            let set = bounded_file::read(path).map_err(|cause| failed().because(cause))?;
            keys = keys.and(TokenKeys::from_key_set(&set).map_err(|cause| failed().because(cause))?);
        }
        Ok(keys)
    }

    /// Returns the URL of the keys, without parts that may be secret.
    pub(super) fn url(&self) -> Option<String> {
        self.key_set.filter(|_| self.has_url()).map(ToString::to_string)
    }

    /// Fetches the keys of a URL, or returns none if there is no URL. Blocks.
    pub(super) fn fetch(&self) -> Result<TokenKeys, Failure> {
        self.fetch_within(KEY_SET_TIMEOUT)
    }

    /// Like [`fetch`](Self::fetch), with another time limit.
    pub(super) fn fetch_within(&self, limit: Duration) -> Result<TokenKeys, Failure> {
        let Some(place @ FileOrUrl::Url(url)) = self.key_set else {
            return Ok(TokenKeys::default());
        };
        let failed = || {
            Failure::of(
                "auth.token.jwks",
                format!("no keys came from {place}, without which no token can be verified"),
            )
        };
        let set = Handle::current().block_on(fetch(url.reveal(), limit));
        let set = set.map_err(|cause| failed().because(cause))?;
        TokenKeys::from_key_set(&set).map_err(|cause| failed().because(cause))
    }
}

/// Fetches a key set. Redirects are not followed, because keys are trusted by their origin.
async fn fetch(url: &str, limit: Duration) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let client = reqwest::Client::builder()
        .timeout(limit)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    // An error would include the URL, which may contain credentials.
    let response = client
        .get(url)
        .send()
        .await
        .map_err(reqwest::Error::without_url)?;
    let mut response = response.error_for_status().map_err(reqwest::Error::without_url)?;
    if !response.status().is_success() {
        return Err(format!("it answered {}", response.status()).into());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_KEY_SET_BYTES {
            return Err("it is larger than 1 MiB".into());
        }
    }
    Ok(bytes)
}

/// Returns the requirements on tokens, and where clients get them.
pub(super) fn token_options(token: &Token) -> TokenOptions {
    let path = &token.auto_redirect_path;
    let realm = match &token.realm {
        Some(url) if !url.is_empty() && !token.auto_redirect => Realm::Url(url.clone()),
        _ => Realm::Path(path.to_string()),
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
        // The check of the configuration refuses these.
        Name::ES512 | Name::HS256 | Name::HS384 | Name::HS512 => return None,
    })
}
