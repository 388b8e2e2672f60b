//! The keys that our own token server signs with: where they are, and how they are read, created and replaced.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use registry_http::auth::SigningKeys;
use registry_storage::{Clock as _, Maintenance, SecretName, SystemClock};
use tokio::runtime::Handle;

use crate::bounded_file;
use crate::config::sections::auth::LONGEST_TOKEN_LIFE;
use crate::failure::Failure;
use crate::places::{signing_keys_file, writable};
use crate::secret_file;
use crate::storage::StorageLocation;

/// How old our signing key gets before it is replaced.
const KEY_AGE: Duration = Duration::from_hours(30 * 24);

/// How often the keys in a bucket are read again because other replicas write them at the same time.
const ATTEMPTS: usize = 8;

/// Where our own keys are.
pub(super) enum SigningKeyPlace {
    /// In a file of the data folder, which only this process uses. The mutex serializes reading and replacing it.
    Folder(Mutex<PathBuf>),
    /// In a file that other servers may share. It is created once, and then only read.
    Shared(PathBuf),
    /// In a file that the replicas on a bucket share: one that is missing is refused, as each would make up other keys.
    OfReplicas(PathBuf),
    /// In a record of the bucket or memory, which other servers on the same bucket read too.
    Record,
}

impl SigningKeyPlace {
    pub(super) fn of(file: Option<&Path>, location: &StorageLocation) -> Self {
        match (file, location) {
            (Some(file), StorageLocation::Bucket(_)) => Self::OfReplicas(file.to_owned()),
            (Some(file), _) => Self::Shared(file.to_owned()),
            (None, StorageLocation::Folder(root)) => Self::Folder(Mutex::new(signing_keys_file(root))),
            (None, StorageLocation::Bucket(_) | StorageLocation::Memory) => Self::Record,
        }
    }

    /// Checks that keys in a file can be read, or created if there are none.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let path = match self {
            Self::Folder(path) => path.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::Shared(path) => path.clone(),
            Self::OfReplicas(path) => return read(path).map(drop),
            Self::Record => return Ok(()),
        };
        if path.exists() {
            return read_or_create(&path).map(drop);
        }
        let made = writable::check_made_file(&path);
        made.map_err(|cause| Failure::new(format!("cannot make {}", path.display())).because(cause))
    }

    /// Reads the keys, generates the first one, and replaces one that is too old. Shared files are never replaced. Blocks, and
    /// must be called within a runtime.
    pub(super) fn read(&self, store: &dyn Maintenance) -> Result<SigningKeys, Failure> {
        match self {
            Self::Folder(path) => {
                let path = path.lock().unwrap_or_else(PoisonError::into_inner);
                let mut keys = read_or_create(&path)?;
                let is_changed = keys
                    .rotate(SystemClock.now(), KEY_AGE, LONGEST_TOKEN_LIFE)
                    .map_err(|cause| cannot_sign().because(cause))?;
                if is_changed {
                    secret_file::write(&path, &keys.to_text()).map_err(|cause| {
                        Failure::new(format!("cannot write {}", path.display())).because(cause)
                    })?;
                    tracing::info!("{REPLACED}");
                }
                Ok(keys)
            }
            Self::Shared(path) => {
                let is_there = path.exists();
                let keys = read_or_create(path)?;
                if !is_there {
                    tracing::info!(
                        path = %path.display(),
                        "`auth.token.builtin.keys` was not there, so it was made; servers whose tokens are to count at each other need \
                         the same file"
                    );
                }
                Ok(keys)
            }
            Self::OfReplicas(path) => read(path),
            Self::Record => Handle::current().block_on(read_record(store)),
        }
    }
}

const REPLACED: &str = "the keys that sign tokens were replaced; a new key signs from tomorrow on";

fn cannot_sign() -> Failure {
    Failure::of("auth.token.builtin", "cannot sign tokens")
}

fn read_or_create(path: &Path) -> Result<SigningKeys, Failure> {
    let failed = || Failure::new(format!("cannot use {}", path.display()));
    if !path.exists() {
        let keys = SigningKeys::generate(SystemClock.now()).map_err(|cause| failed().because(cause))?;
        // If another process was faster, its keys are used.
        secret_file::create(path, &keys.to_text()).map_err(|cause| failed().because(cause))?;
    }
    read(path)
}

fn read(path: &Path) -> Result<SigningKeys, Failure> {
    let file = path.display();
    if !path.exists() {
        let message = format!(
            "there is no file at {file}, and for a bucket none is made, as each replica would sign with other keys; run `registry-bin \
             token-keys new {file}`, and give all replicas the same file, or leave the key away: then the keys are in the bucket"
        );
        return Err(Failure::of("auth.token.builtin.keys", message));
    }
    let failed = || Failure::new(format!("cannot use {file}"));
    let text = bounded_file::read_to_string(path).map_err(|cause| failed().because(cause))?;
    SigningKeys::from_text(&text).map_err(|cause| failed().because(cause))
}

/// Reads the keys that all servers of a store share. Whatever one of them writes is written on the condition that nobody else
/// did meanwhile, so all of them have the same keys from the first one on.
async fn read_record(store: &dyn Maintenance) -> Result<SigningKeys, Failure> {
    let failed = || {
        Failure::new(
            "cannot read the keys that sign tokens from the storage; if it is the object `secrets/token-keys` that is damaged, put it \
             back from a backup, or delete it, which makes new keys and ends all tokens",
        )
    };
    for _ in 0..ATTEMPTS {
        let stored = store
            .secret(SecretName::TokenKeys)
            .await
            .map_err(|cause| failed().because(cause))?;
        let found = stored.as_ref().map(|stored| {
            let text = str::from_utf8(&stored.value).unwrap_or_default();
            SigningKeys::from_text(text).map_err(|cause| failed().because(cause))
        });
        let found = found.transpose()?;
        let now = store.now();
        let mut keys = match &found {
            Some(found) => found.clone(),
            None => SigningKeys::generate(now).map_err(|cause| cannot_sign().because(cause))?,
        };
        let is_changed = keys
            .rotate(now, KEY_AGE, LONGEST_TOKEN_LIFE)
            .map_err(|cause| cannot_sign().because(cause))?;
        if found.is_some() && !is_changed {
            return Ok(keys);
        }
        let text = keys.to_text().into();
        match (
            store
                .write_secret(SecretName::TokenKeys, text, stored.as_ref())
                .await,
            found,
        ) {
            (Ok(true), found) => {
                if found.is_some() {
                    tracing::info!("{REPLACED}");
                }
                return Ok(keys);
            }
            // Another server was faster.
            (Ok(false), _) => {}
            // Old keys are as good as before. Another server may be able to write.
            (Err(error), Some(found)) => {
                tracing::warn!(%error, "the keys that sign tokens are due to be replaced, and cannot be written; the old ones stay");
                return Ok(found);
            }
            (Err(error), None) => {
                let failed = Failure::new("cannot write the keys that sign tokens to the storage");
                return Err(failed.because(error));
            }
        }
    }
    Err(failed().because("other servers write them all the time"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use registry_storage::testing::faulty::Fault;
    use registry_storage::testing::{Faulty, ManualClock};
    use registry_storage::{ObjectStoreBackend, Store, StoreOptions};

    use super::*;

    type Replica = Store<Faulty<ObjectStoreBackend>>;

    /// Two replicas on one bucket, and their clock.
    fn replicas() -> ([Replica; 2], Arc<ManualClock>) {
        replicas_of([false; 2])
    }

    /// The same, of which it is said whether they only read.
    fn replicas_of(only_reads: [bool; 2]) -> ([Replica; 2], Arc<ManualClock>) {
        let (bucket, clock) = (ObjectStoreBackend::memory(), Arc::new(ManualClock::default()));
        let replicas = only_reads.map(|only_reads| {
            let options = StoreOptions {
                only_reads,
                ..StoreOptions::default()
            };
            let backend = Arc::new(Faulty::new(bucket.clone()));
            Store::with_options(backend, Arc::clone(&clock) as _, options)
        });
        (replicas, clock)
    }

    /// Has both read the keys at once, so that each decides before the other writes. Returns what they have.
    async fn both([one, other]: &[Replica; 2]) -> [String; 2] {
        for replica in [one, other] {
            let backend = replica.backend();
            backend.delay_write(backend.writes(), 10);
        }
        let (one, other) = tokio::join!(read_record(one), read_record(other));
        [one, other].map(|keys| keys.unwrap().to_text())
    }

    #[tokio::test]
    async fn replicas_that_start_at_once_and_replace_keys_at_once_have_the_same_keys() {
        let (replicas, clock) = replicas();
        let [one, other] = both(&replicas).await;
        assert_eq!(one, other);
        clock.advance(KEY_AGE);
        assert_eq!(both(&replicas).await, [one.clone(), one.clone()]);
        clock.advance(Duration::from_secs(1));
        let [new, other] = both(&replicas).await;
        assert_eq!(new, other);
        assert_ne!(new, one);
        let tries: Vec<u64> = replicas
            .iter()
            .map(|replica| replica.backend().writes())
            .collect();
        assert_eq!(tries, [2, 2], "they were not at it at once");
    }

    #[tokio::test]
    async fn a_replica_that_cannot_write_goes_on_with_old_keys_and_makes_none_of_its_own() {
        let ([one, other], clock) = replicas();
        let backend = one.backend();
        // It reads, begins a transaction, and writes.
        backend.fault_at(2, Fault::Fail);
        let failure = read_record(&one).await.unwrap_err().to_string();
        assert!(failure.starts_with("cannot write the keys"), "{failure}");
        let keys = read_record(&other).await.unwrap().to_text();
        clock.advance(2 * KEY_AGE);
        backend.fault_at(backend.calls() + 2, Fault::Fail);
        assert_eq!(read_record(&one).await.unwrap().to_text(), keys);
        assert_ne!(read_record(&one).await.unwrap().to_text(), keys);
    }

    #[tokio::test]
    async fn a_server_that_only_reads_goes_on_with_old_keys_and_makes_none() {
        let ([writer, reader], clock) = replicas_of([false, true]);
        let failure = read_record(&reader).await.unwrap_err().to_string();
        assert!(
            failure.contains("cannot write the keys") && failure.contains("this server writes nothing"),
            "{failure}"
        );
        assert!(writer.secret(SecretName::TokenKeys).await.unwrap().is_none());
        let keys = read_record(&writer).await.unwrap().to_text();
        clock.advance(2 * KEY_AGE);
        assert_eq!(read_record(&reader).await.unwrap().to_text(), keys);
        assert_ne!(read_record(&writer).await.unwrap().to_text(), keys);
    }

    #[tokio::test]
    async fn what_is_no_key_is_refused_and_stays() {
        let ([store, _], _) = replicas();
        let written = store.write_secret(SecretName::TokenKeys, "nothing".into(), None);
        assert!(written.await.unwrap());
        let failure = read_record(&store).await.unwrap_err().to_string();
        assert!(failure.contains("does not hold the signing keys"), "{failure}");
        let stored = store.secret(SecretName::TokenKeys).await.unwrap().unwrap();
        assert_eq!(stored.value, "nothing");
    }
}
