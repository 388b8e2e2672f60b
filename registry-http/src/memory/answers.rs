//! Answers from memory: many clients may be sent the same bytes, which are held and counted once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Account, MemoryUse, Refused, share};

/// The answers that are being sent. Their bytes are alive, so the address and length of each identify it.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<BufferKey, Holders>>);

type BufferKey = (usize, usize);

/// The clients that are sent an answer, each by the address of its account in memory, and how often.
type Holders = HashMap<usize, usize>;

/// The bytes of an answer, held for a client.
struct HeldAnswer {
    // Dropped first: the address of freed bytes may be used again.
    _hold: Hold,
    bytes: Bytes,
}

struct Hold {
    account: Arc<Account>,
    key: BufferKey,
}

impl AsRef<[u8]> for HeldAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Account {
    /// Holds the bytes of an answer until the result and all its slices are dropped.
    ///
    /// The budget counts the bytes once, and the account of each client once.
    pub(crate) fn hold(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, Refused> {
        let key = (bytes.as_ptr().addr(), bytes.len());
        let hold = Hold::begin(self, key).inspect_err(|_| self.refused(MemoryUse::Answer))?;
        Ok(Bytes::from_owner(HeldAnswer { _hold: hold, bytes }))
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<BufferKey, Holders>> {
        let answers = &self.budget.0.answers.0;
        answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    fn begin(account: &Arc<Account>, key: BufferKey) -> Result<Self, Refused> {
        let (mut answers, size) = (account.answers(), key.1);
        let client = Arc::as_ptr(account).addr();
        match answers.entry(key) {
            Entry::Vacant(vacant) => {
                account.take(size, share)?;
                vacant.insert(Holders::from([(client, 1)]));
            }
            Entry::Occupied(mut holders) => {
                let count = holders.get_mut().entry(client).or_default();
                if *count == 0 {
                    // The budget has counted it already.
                    account.used.fetch_add(size, Ordering::Relaxed);
                }
                *count += 1;
            }
        }
        drop(answers);
        Ok(Self {
            account: Arc::clone(account),
            key,
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut answers = self.account.answers();
        let Some(holders) = answers.get_mut(&self.key) else {
            return;
        };
        let client = Arc::as_ptr(&self.account).addr();
        let Some(count) = holders.get_mut(&client) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        holders.remove(&client);
        self.account.used.fetch_sub(self.key.1, Ordering::Relaxed);
        if holders.is_empty() {
            answers.remove(&self.key);
            let budget = &self.account.budget.0;
            budget.used.fetch_sub(self.key.1, Ordering::Relaxed);
        }
    }
}
