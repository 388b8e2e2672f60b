//! Verification of names and passwords.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use quick_cache::sync::Cache;
use registry_core::{Error, ErrorCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::htpasswd::{Htpasswd, cost, hash_of_nobody};
use crate::rate_limit::{Rate, RateLimiter, network, too_many};

/// How long a verdict is reused. A change of the user's hash invalidates it at once.
const VERDICT_LIFETIME: Duration = Duration::from_secs(60);

/// How many verdicts are cached.
const REMEMBERED_VERDICTS: usize = 4096;

/// How long a login waits for a permit to be hashed.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many wrong passwords one address may try for one user: ten at once, then one every six seconds.
const FAILURES_OF_USER: Rate = Rate {
    requests: NonZeroU32::MIN,
    per: Duration::from_secs(6),
    burst: NonZeroU32::MIN.saturating_add(9),
};

/// How many wrong names and passwords one address may try in total, because each costs as much as a right one: a
/// hundred at once, then ten a second. That is a lot because the address may be a proxy's.
const FAILURES_OF_ADDRESS: Rate = Rate {
    requests: NonZeroU32::MIN,
    per: Duration::from_millis(100),
    burst: NonZeroU32::MIN.saturating_add(99),
};

/// The passwords of an htpasswd file.
///
/// A comparison takes a tenth of a second of processor time, so it runs off the async threads, on at most half of the
/// processors (rounded up). Its verdict is cached for a minute under a digest keyed with a secret of this process. A
/// wrong password takes as long for an unknown user as for a known one, whatever the cost of the user's hash. One
/// address that tries too many passwords for one name, or too many in total, is answered 429.
pub struct Passwords {
    table: Arc<Table>,
    checks: Arc<Checks>,
}

/// What is known of the passwords that were tried, for any set of users.
struct Checks {
    verdicts: Cache<[u8; 32], (Instant, bool)>,
    key: hmac::Key,
    permits: Arc<Semaphore>,
    failures_of_user: RateLimiter<(Option<IpAddr>, [u8; 32])>,
    failures_of_address: RateLimiter<Option<IpAddr>>,
}

/// The users, and the highest cost of their hashes.
#[derive(Debug)]
struct Table {
    users: Htpasswd,
    highest_cost: u32,
}

impl Table {
    fn new(users: Htpasswd) -> Self {
        Self {
            highest_cost: users.highest_cost(),
            users,
        }
    }
}

/// How many lines of one file are logged.
const LOGGED_DEFECTS: usize = 50;

/// Logs the users who cannot log in, and their lines.
fn warn_of(table: &Htpasswd) {
    for defect in table.defects().take(LOGGED_DEFECTS) {
        tracing::warn!("file of users, {defect}");
    }
    let more = table.defects().count().saturating_sub(LOGGED_DEFECTS);
    if more > 0 {
        tracing::warn!("file of users, {more} more lines are like these; `config check` names all");
    }
}

impl Passwords {
    /// Creates a verifier for the users of `table`, and logs its defects.
    ///
    /// # Errors
    /// [`Internal`](ErrorCode::Internal) if the system provides no random numbers.
    pub fn new(table: Htpasswd) -> Result<Self, Error> {
        Self::with_rates(table, FAILURES_OF_USER, FAILURES_OF_ADDRESS)
    }

    fn with_rates(table: Htpasswd, of_user: Rate, of_address: Rate) -> Result<Self, Error> {
        warn_of(&table);
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Error::from(ErrorCode::Internal).with_cause(NoRandomness))?;
        let permits = available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
        Ok(Self {
            table: Arc::new(Table::new(table)),
            checks: Arc::new(Checks {
                verdicts: Cache::new(REMEMBERED_VERDICTS),
                key,
                permits: Arc::new(Semaphore::new(permits)),
                failures_of_user: RateLimiter::new(of_user),
                failures_of_address: RateLimiter::new(of_address),
            }),
        })
    }

    /// Returns a verifier for the users of `table` that shares the limits: a client that guessed too often must wait at
    /// both.
    #[must_use]
    pub fn with_table(&self, table: Htpasswd) -> Self {
        if !table.defects().eq(self.table().defects()) {
            warn_of(&table);
        }
        Self {
            table: Arc::new(Table::new(table)),
            checks: Arc::clone(&self.checks),
        }
    }

    /// Returns the users.
    #[must_use]
    pub fn table(&self) -> &Htpasswd {
        &self.table.users
    }

    /// Returns whether a user has this password. `peer` is the address of the client.
    ///
    /// Cancel safe: if the future is dropped during the comparison, the comparison ends on its thread, and its verdict
    /// is neither cached nor counted.
    ///
    /// # Errors
    /// [`TooManyRequests`](ErrorCode::TooManyRequests) after too many wrong passwords, and
    /// [`Unavailable`](ErrorCode::Unavailable) if no comparison could start within ten seconds.
    pub async fn verify(&self, peer: Option<IpAddr>, user: &str, password: &str) -> Result<bool, Error> {
        let (table, checks) = (Arc::clone(&self.table), &*self.checks);
        let hash = table.users.hash_of(user);
        let digest = checks.digest(&[user, hash.unwrap_or_default(), password]);
        // Clients retry the same wrong password many times, and concurrently. That counts as one guess.
        if let Some(verdict) = checks.verdict(&digest) {
            return Ok(verdict);
        }
        let address = peer.map(network);
        let failure = (address, checks.digest(&[user]));
        checks.check_failures(&failure)?;
        let permit = timeout(PERMIT_TIMEOUT, Arc::clone(&checks.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Error::new(
                ErrorCode::Unavailable,
                "too many log in at once; try again",
            ));
        };
        // A request that waited behind an identical one finds its verdict. One that waited behind too many wrong ones
        // is refused.
        if let Some(verdict) = checks.verdict(&digest) {
            return Ok(verdict);
        }
        checks.check_failures(&failure)?;
        let (password, hash) = (password.to_owned(), hash.map(str::to_owned));
        let compared = spawn_blocking(move || {
            let is_right = is_right(&password, hash.as_deref(), table.highest_cost);
            // Held until the work is done, even if the caller is gone.
            (is_right, permit)
        });
        let (is_right, permit) = compared.await.map_err(Error::internal)?;
        checks
            .verdicts
            .insert(digest, (Instant::now() + VERDICT_LIFETIME, is_right));
        if !is_right {
            // If that exceeds a limit, the next attempt is refused.
            let _counted = checks.failures_of_user.take(&failure, Duration::ZERO);
            let _counted = checks.failures_of_address.take(&address, Duration::ZERO);
        }
        drop(permit);
        Ok(is_right)
    }
}

impl Checks {
    /// Refuses an attempt after too many wrong ones.
    fn check_failures(&self, failure: &(Option<IpAddr>, [u8; 32])) -> Result<(), Error> {
        let wait = self.failures_of_user.wait(failure);
        match wait.max(self.failures_of_address.wait(&failure.0)) {
            Duration::ZERO => Ok(()),
            wait => Err(too_many(wait)),
        }
    }

    fn verdict(&self, digest: &[u8; 32]) -> Option<bool> {
        let (until, verdict) = self.verdicts.get(digest)?;
        (Instant::now() < until).then_some(verdict)
    }

    /// Computes a keyed digest of texts, each with its length.
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

/// Compares a password with the hash of a user, if there is one. A wrong password takes as long as with a hash of the
/// highest cost: each step of the cost doubles the time, so one comparison per step from the hash's own cost up makes
/// up the difference.
fn is_right(password: &str, hash: Option<&str>, highest_cost: u32) -> bool {
    if hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap_or(false)) {
        return true;
    }
    let rest = match hash.and_then(cost) {
        Some(cost) => cost..highest_cost,
        None => highest_cost..highest_cost.saturating_add(1),
    };
    for cost in rest {
        // Only takes time.
        drop(bcrypt::verify(password, &hash_of_nobody(cost)));
    }
    false
}

/// The system provided no random numbers.
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
    use rustix::time::{ClockId, clock_gettime};

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
        let passwords = passwords.with_table(table("alice", "new"));
        assert!(!passwords.verify(None, "alice", "old").await.unwrap());
        assert!(passwords.verify(None, "alice", "new").await.unwrap());
        let passwords = passwords.with_table(Htpasswd::default());
        assert!(!passwords.verify(None, "alice", "new").await.unwrap());
    }

    /// Returns the processor time that this thread has used so far. Other threads do not affect it.
    fn time_of_thread() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
    }

    /// Returns how long a wrong password takes.
    fn time_of(hash: Option<&str>, highest_cost: u32) -> Duration {
        let times = (0..3).map(|_| {
            let start = time_of_thread();
            assert!(!is_right("wrong", hash, highest_cost));
            time_of_thread() - start
        });
        times.min().unwrap()
    }

    #[test]
    fn a_wrong_password_takes_as_long_for_every_user_and_for_none() {
        let nobody = time_of(None, 10);
        for cost in [4, 7] {
            let user = time_of(Some(&hash_of_nobody(cost)), 10);
            // Their own costs differ by a factor of 8 and of 64; a busy machine adds some noise.
            assert!(
                user < nobody * 3 && nobody < user * 3,
                "{cost}: {user:?} {nobody:?}"
            );
        }
    }

    /// Rates at which nothing is forgotten during a test, however slow the machine is.
    fn strict(table: Htpasswd) -> Passwords {
        let once_a_day = |rate: Rate| Rate {
            per: Duration::from_hours(24),
            ..rate
        };
        Passwords::with_rates(
            table,
            once_a_day(FAILURES_OF_USER),
            once_a_day(FAILURES_OF_ADDRESS),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn one_address_does_not_try_many_names() {
        let passwords = strict(table("alice", "secret"));
        let [guesser, neighbour, other] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|address| Some(address.parse().unwrap()));
        for guess in 0..100 {
            let user = format!("user{guess}");
            assert!(!passwords.verify(guesser, &user, "x").await.unwrap(), "{guess}");
        }
        for address in [guesser, neighbour] {
            let refused = passwords.verify(address, "alice", "secret").await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::TooManyRequests);
        }
        assert!(passwords.verify(other, "alice", "secret").await.unwrap());
    }

    #[tokio::test]
    async fn guesses_that_come_at_once_are_not_all_compared() {
        let passwords = strict(table("alice", "secret"));
        let guesser = Some("192.0.2.1".parse().unwrap());
        let guesses: Vec<_> = (0..200).map(|guess| guess.to_string()).collect();
        let guesses = guesses
            .iter()
            .map(|guess| passwords.verify(guesser, "alice", guess));
        let verdicts = futures_util::future::join_all(guesses).await;
        let compared = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
        // Those that are compared at the same time as the tenth may come on top.
        let permits = available_parallelism().map_or(1, |processors| processors.get());
        assert!((10..=10 + permits).contains(&compared), "{compared}");
    }

    #[tokio::test]
    async fn who_guesses_has_to_wait_and_nobody_else_does() {
        let passwords = strict(table("alice", "secret"));
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
        // A password that is known to be right needs no comparison, so it is not a guess.
        assert!(passwords.verify(guesser, "alice", "secret").await.unwrap());
        assert!(!passwords.verify(guesser, "bob", "secret").await.unwrap());
    }
}
