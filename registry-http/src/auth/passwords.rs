//! Checking names and passwords.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use quick_cache::sync::Cache;
use registry_core::{Error, ErrorCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Htpasswd;
use crate::rate_limit::{Rate, RateLimiter, network, too_many};

/// How long a verdict holds. A change of the file ends it at once.
const VERDICT: Duration = Duration::from_secs(60);

/// How many verdicts are kept.
const VERDICTS: usize = 4096;

/// How long a login waits for its turn to be hashed.
const TURN: Duration = Duration::from_secs(10);

/// How many wrong passwords one address may try for one user: ten at once, then once in six seconds.
const FAILURES: Rate = Rate {
    requests: NonZeroU32::MIN,
    per: Duration::from_secs(6),
    burst: NonZeroU32::MIN.saturating_add(9),
};

/// The passwords of an htpasswd file, which can be replaced.
///
/// A comparison takes a tenth of a second of one processor, so it runs off the async threads, on half of the processors at
/// most, and its verdict is kept for a minute under a digest with a key that only this process has. An unknown user takes
/// as long as a known one. One address that tries too many passwords for one name is answered 429.
pub struct Passwords {
    table: ArcSwap<Table>,
    verdicts: Cache<[u8; 32], (Instant, bool)>,
    key: hmac::Key,
    turns: Arc<Semaphore>,
    failures: RateLimiter<(Option<IpAddr>, [u8; 32])>,
}

/// The users, and a hash to compare with for those who are none.
#[derive(Debug)]
struct Table {
    users: Arc<Htpasswd>,
    hash_of_nobody: String,
}

impl Table {
    fn new(users: Htpasswd) -> Self {
        Self {
            hash_of_nobody: users.hash_of_nobody(),
            users: Arc::new(users),
        }
    }
}

impl Passwords {
    /// Begins with the users of `table`.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn new(table: Htpasswd) -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Error::from(ErrorCode::Internal).with_cause(NoRandomness))?;
        let turns = available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
        Ok(Self {
            table: ArcSwap::from_pointee(Table::new(table)),
            verdicts: Cache::new(VERDICTS),
            key,
            turns: Arc::new(Semaphore::new(turns)),
            failures: RateLimiter::new(FAILURES),
        })
    }

    /// Puts the users of `table` in force.
    pub fn replace(&self, table: Htpasswd) {
        self.table.store(Arc::new(Table::new(table)));
    }

    /// Returns the users in force.
    #[must_use]
    pub fn table(&self) -> Arc<Htpasswd> {
        Arc::clone(&self.table.load().users)
    }

    /// Tells whether a user has this password; `peer` is the address that asks.
    ///
    /// # Errors
    /// [`TooManyRequests`](ErrorCode::TooManyRequests) after too many wrong ones,
    /// [`Unavailable`](ErrorCode::Unavailable) where too many others are checked.
    pub async fn verify(&self, peer: Option<IpAddr>, user: &str, password: &str) -> Result<bool, Error> {
        let table = self.table.load_full();
        let known = table.users.hash_of(user);
        let hash = known.unwrap_or(&table.hash_of_nobody);
        let digest = self.digest(&[user, hash, password]);
        // Clients come again with the same wrong password, many times and at once. That is one guess.
        if let Some(verdict) = self.verdict(&digest) {
            return Ok(verdict);
        }
        let failure = (peer.map(network), self.digest(&[user]));
        let wait = self.failures.wait(&failure);
        if wait > Duration::ZERO {
            return Err(too_many(wait));
        }
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Error::new(
                ErrorCode::Unavailable,
                "too many log in at once; try again",
            ));
        };
        // Whoever waited behind the same question finds the verdict.
        if let Some(verdict) = self.verdict(&digest) {
            return Ok(verdict);
        }
        let (password, hash, is_known) = (password.to_owned(), hash.to_owned(), known.is_some());
        let compared = spawn_blocking(move || {
            let is_right = bcrypt::verify(password, &hash).unwrap_or(false);
            // Held until the work is done, also where nobody waits for it any more.
            (is_right && is_known, turn)
        });
        let (is_right, turn) = compared.await.map_err(Error::internal)?;
        self.verdicts.insert(digest, (Instant::now() + VERDICT, is_right));
        drop(turn);
        if !is_right {
            // Where it is too often now, the next one is told.
            let _counted = self.failures.take(&failure, Duration::ZERO);
        }
        Ok(is_right)
    }

    fn verdict(&self, digest: &[u8; 32]) -> Option<bool> {
        let (until, verdict) = self.verdicts.get(digest)?;
        (Instant::now() < until).then_some(verdict)
    }

    /// Makes a digest of texts, each with its length, under the key.
    fn digest(&self, texts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for text in texts {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut digest = [0; 32];
        for (byte, of_tag) in digest.iter_mut().zip(context.sign().as_ref()) {
            *byte = *of_tag;
        }
        digest
    }
}

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers")]
struct NoRandomness;

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(user: &str, password: &str) -> Htpasswd {
        let hash = bcrypt::hash(password, 4).unwrap();
        Htpasswd::parse(&format!("{user}:{hash}")).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_right() {
        let passwords = Passwords::new(table("alice", "secret")).unwrap();
        for (user, password, is_right) in [
            ("alice", "secret", true),
            ("alice", "secret", true),
            ("alice", "Secret", false),
            ("bob", "secret", false),
            ("", "", false),
        ] {
            assert_eq!(
                passwords.verify(None, user, password).await.unwrap(),
                is_right,
                "{user} {password}"
            );
        }
    }

    #[tokio::test]
    async fn a_new_table_ends_the_verdicts_of_the_old_one() {
        let passwords = Passwords::new(table("alice", "old")).unwrap();
        assert!(passwords.verify(None, "alice", "old").await.unwrap());
        passwords.replace(table("alice", "new"));
        assert!(!passwords.verify(None, "alice", "old").await.unwrap());
        assert!(passwords.verify(None, "alice", "new").await.unwrap());
        passwords.replace(Htpasswd::default());
        assert!(!passwords.verify(None, "alice", "new").await.unwrap());
    }

    #[tokio::test]
    async fn who_guesses_has_to_wait_and_nobody_else_does() {
        let passwords = Passwords::new(table("alice", "secret")).unwrap();
        let [guesser, other] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
        for guess in 0..10 {
            assert!(
                !passwords
                    .verify(guesser, "alice", &guess.to_string())
                    .await
                    .unwrap()
            );
        }
        let refused = passwords.verify(guesser, "alice", "secret").await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TooManyRequests);
        assert!(passwords.verify(other, "alice", "secret").await.unwrap());
        // What is known to be right needs no comparison, so it is not a guess.
        assert!(passwords.verify(guesser, "alice", "secret").await.unwrap());
        assert!(!passwords.verify(guesser, "bob", "secret").await.unwrap());
    }
}
