//! The keys that tokens are signed with: those of other token servers, from files and a URL, and our own.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use registry_core::Timestamp;
use registry_http::auth::{SigningKeys, TokenKeys};

use tokio::runtime::Handle;

use super::places;
use crate::bounded_file;
use crate::config::sections::auth::{LONGEST_TOKEN_LIFE, Token};
use crate::config::values::FileOrUrl;
use crate::failure::Failure;
use crate::secret_file;
use crate::storage::StorageLocation;

/// How old our signing key gets before it is replaced.
const KEY_AGE: Duration = Duration::from_hours(30 * 24);

/// The largest key set from a URL, in bytes.
const LARGEST_KEY_SET: usize = 1024 * 1024;

/// How long fetching a key set may take.
const KEY_SET_TIME: Duration = Duration::from_secs(10);

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
        self.fetch_within(KEY_SET_TIME)
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
        if bytes.len() > LARGEST_KEY_SET {
            return Err("it is larger than 1 MiB".into());
        }
    }
    Ok(bytes)
}

/// Returns the file of our own keys below a root.
pub(super) fn own_file(root: &Path) -> PathBuf {
    root.join("auth").join("token-keys.json")
}

/// Our own keys, and where they are stored.
pub(super) enum SigningKeyFile {
    /// In a file of the data folder, which only this process uses. The mutex serializes reading and replacing it.
    Own(Mutex<PathBuf>),
    /// In a file that other servers may share. It is created once, and then only read.
    Shared(PathBuf),
    /// In memory, like the data.
    Memory(Mutex<Option<SigningKeys>>),
}

impl SigningKeyFile {
    pub(super) fn of(file: Option<&Path>, location: &StorageLocation) -> Result<Self, Failure> {
        match (file, location) {
            (Some(file), _) => Ok(Self::Shared(file.to_owned())),
            (None, StorageLocation::Folder(root)) => Ok(Self::Own(Mutex::new(own_file(root)))),
            (None, StorageLocation::Memory) => Ok(Self::Memory(Mutex::new(None))),
            (None, StorageLocation::Bucket(_)) => Err(Failure::of(
                "auth.token.builtin.keys",
                "name a file, which is made if it is not there: all replicas on a bucket \
                 have to sign with the same keys",
            )),
        }
    }

    /// Checks that the keys can be read, or created if there are none.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let path = match self {
            Self::Own(path) => path.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::Shared(path) => path.clone(),
            Self::Memory(_) => return Ok(()),
        };
        if path.exists() {
            return read_or_make(&path).map(drop);
        }
        let made = places::check_made_file(&path);
        made.map_err(|cause| Failure::new(format!("cannot make {}", path.display())).because(cause))
    }

    /// Reads the keys, generates the first one, and replaces one that is too old. Shared keys are never replaced.
    pub(super) fn read(&self) -> Result<SigningKeys, Failure> {
        let failed = || Failure::of("auth.token.builtin", "cannot sign tokens");
        match self {
            Self::Own(path) => {
                let path = path.lock().unwrap_or_else(PoisonError::into_inner);
                let mut keys = read_or_make(&path)?;
                let is_changed = keys
                    .rotate(now(), KEY_AGE, LONGEST_TOKEN_LIFE)
                    .map_err(|cause| failed().because(cause))?;
                if is_changed {
                    secret_file::write(&path, &keys.to_text()).map_err(|cause| {
                        Failure::new(format!("cannot write {}", path.display())).because(cause)
                    })?;
                    tracing::info!("tokens are signed with a new key");
                }
                Ok(keys)
            }
            Self::Shared(path) => read_or_make(path),
            Self::Memory(kept) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let mut keys = match kept.take() {
                    Some(keys) => keys,
                    None => SigningKeys::generate(now()).map_err(|cause| failed().because(cause))?,
                };
                keys.rotate(now(), KEY_AGE, LONGEST_TOKEN_LIFE)
                    .map_err(|cause| failed().because(cause))?;
                *kept = Some(keys.clone());
                Ok(keys)
            }
        }
    }
}

fn read_or_make(path: &Path) -> Result<SigningKeys, Failure> {
    let failed = || Failure::new(format!("cannot use {}", path.display()));
    if !path.exists() {
        let keys = SigningKeys::generate(now()).map_err(|cause| failed().because(cause))?;
        // If another process was faster, its keys are used.
        secret_file::create(path, &keys.to_text()).map_err(|cause| failed().because(cause))?;
    }
    let text = bounded_file::read_to_string(path).map_err(|cause| failed().because(cause))?;
    SigningKeys::from_text(&text).map_err(|cause| failed().because(cause))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
