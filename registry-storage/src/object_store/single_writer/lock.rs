//! The lock of the process that writes alone: a record that it changes every few seconds.
//!
//! The store may keep no condition, so the lock needs none, only that a read shows what was written before. Two processes
//! that find no lock both write theirs, wait, and read: at most one of them finds its own (Fischer's algorithm). That holds
//! if neither took longer from its look to the end of its write than the other waited; one that did gives up.
//!
//! No clocks of two machines are compared. A process that looks at a lock watches whether it changes, and its holder counts the time since
//! its own last change: it stops to write long before another process may conclude that it died.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use registry_core::{Error, Timestamp};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::super::error::convert;
use super::super::{ObjectStoreBackend, timed_out};
use super::lease::Lease;
use super::{SingleWriter, WRITE_LIMIT};
use crate::backend::{Condition, VersionedRecord};
use crate::key::Key;
use crate::record::{Stamp, WriterRecord, decode, encode};

/// How often the holder changes its lock.
const BEAT: Duration = Duration::from_secs(3);

/// For how long after the begin of its last change the holder may begin to write.
const LEASE: Duration = Duration::from_secs(8);

/// How long a lock must not change for its holder to count as dead: until then the holder has stopped, and what it was
/// writing is over.
const DEAD_AFTER: Duration = LEASE
    .saturating_add(WRITE_LIMIT)
    .saturating_add(Duration::from_secs(6));

/// How often a lock is looked at to see whether it changes.
const LOOK: Duration = Duration::from_secs(1);

/// How long a process waits to see whether another one claims the store at the same time.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// Why a process may not write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// Another process runs that writes alone, and this one must not write beside it.
    #[error("{0} runs, and is to be the only one that writes there")]
    Held(String),
    /// The store was too slow to find out whether another process claimed it at the same time.
    #[error("the store needed more than {} s to take the lock of its only writer; try again", CLAIM_WAIT.as_secs())]
    Slow,
    /// A request for the lock failed.
    #[error("the lock of a process that writes alone (`writer/lock`) cannot be read or written")]
    Store(#[from] Error),
}

/// What a beat found.
enum Beat {
    Changed,
    /// The lock is of another process, or gone.
    Lost(String),
}

/// The holder's name in each of its records.
#[derive(Clone)]
struct Holder {
    id: Uuid,
    host: String,
    process: u32,
    since: Timestamp,
    begun: Instant,
}

impl ObjectStoreBackend {
    /// Makes sure that no other process writes alone, before this one writes. With
    /// [`with_single_writer`](Self::with_single_writer), claims the store for this process, which takes two seconds. `now` is for
    /// people only. A lock that does not change for 20 seconds is that of a dead process: it is taken over, or removed.
    ///
    /// Cancel safety: after the future is dropped, the lock may stay. It counts as that of a dead process.
    ///
    /// # Errors
    /// Those of [`WriterError`].
    pub async fn begin_writing(&self, now: Timestamp) -> Result<(), WriterError> {
        let store = self.unguarded();
        match &self.single_writer {
            Some(writer) if writer.lease.is_held() => Ok(()),
            Some(writer) => store.claim(writer, now).await,
            None => {
                if let Some(left) = store.watch().await? {
                    tracing::warn!(holder = holder(&left), "removing the lock of a process that died");
                    // Its holder stops, should it live after all.
                    store.remove_record(&Key::writer()).await?;
                }
                Ok(())
            }
        }
    }

    /// Gives the store back once what is being written is over.
    pub(in super::super) async fn end_writing(&self) -> Result<(), Error> {
        let Some(writer) = &self.single_writer else {
            return Ok(());
        };
        if let Some(beat) = writer.take_beat() {
            beat.shutdown().await;
        }
        if !writer.lease.give_back() {
            return Ok(());
        }
        for key in writer.keys.iter() {
            drop(key.lock().await);
        }
        let store = self.unguarded();
        match store.get_record(&Key::writer()).await? {
            Some(stored) if is_of(&stored, writer.id) => store.remove_record(&Key::writer()).await,
            _ => Ok(()),
        }
    }

    /// Finds out whether the holder of a lock runs. Returns the lock if it does not; `None` if there is none.
    async fn watch(&self) -> Result<Option<VersionedRecord>, WriterError> {
        let key = Key::writer();
        let Some(first) = self.get_record(&key).await? else {
            return Ok(None);
        };
        tracing::info!(
            holder = holder(&first),
            "waiting up to {} s to see whether the process runs that has the lock of the only writer",
            DEAD_AFTER.as_secs()
        );
        let begun = Instant::now();
        while begun.elapsed() < DEAD_AFTER {
            sleep(LOOK).await;
            match self.get_record(&key).await? {
                None => return Ok(None),
                Some(seen) if seen.value != first.value => return Err(WriterError::Held(holder(&seen))),
                Some(_) => {}
            }
        }
        Ok(Some(first))
    }

    async fn claim(&self, writer: &SingleWriter, now: Timestamp) -> Result<(), WriterError> {
        let left = self.watch().await?;
        let me = Holder {
            id: writer.id,
            host: writer.host.clone(),
            process: writer.process,
            since: now,
            begun: Instant::now(),
        };
        let key = Key::writer();
        let looked = Instant::now();
        match self.get_record(&key).await? {
            Some(seen) if left.as_ref().is_none_or(|left| left.value != seen.value) => {
                return Err(WriterError::Held(holder(&seen)));
            }
            _ => {}
        }
        self.beat(&me).await?;
        if looked.elapsed() > CLAIM_WAIT {
            return Err(WriterError::Slow);
        }
        sleep(CLAIM_WAIT).await;
        match self.get_record(&key).await? {
            Some(seen) if is_of(&seen, writer.id) => {}
            Some(other) => return Err(WriterError::Held(holder(&other))),
            None => return Err(WriterError::Slow),
        }
        if let Some(left) = &left {
            let holder = holder(left);
            tracing::warn!(
                holder,
                seconds = DEAD_AFTER.as_secs(),
                "took the store over from a process that did not change its lock for that long"
            );
        }
        writer.lease.hold_until(looked + LEASE);
        writer.start_beat(self.clone().keep(me, Arc::clone(&writer.lease)));
        Ok(())
    }

    async fn beat(&self, me: &Holder) -> Result<(), Error> {
        let lived = u64::try_from(me.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let record = WriterRecord {
            id: me.id,
            host: me.host.clone(),
            process: me.process,
            since: me.since,
            stamp: Stamp::new(Timestamp(me.since.0.saturating_add(lived))),
        };
        let value = encode(&record, &[])?;
        self.put_on_condition(&Key::writer(), value, Condition::Any)
            .await
            .map(drop)
    }

    /// Changes the lock every few seconds, until it is lost.
    async fn keep(self, me: Holder, lease: Arc<Lease>) {
        let mut pause = BEAT;
        let mut fails = false;
        loop {
            sleep(pause).await;
            let begun = Instant::now();
            let beat = timeout(LEASE, self.find_and_beat(&me)).await;
            let beat = beat.unwrap_or_else(|elapsed| Err(convert(timed_out(elapsed))));
            // Another process may have the lock since, and this beat may have replaced its. It finds that and stops; this one goes
            // on only after that.
            let is_late = begun.elapsed() >= LEASE;
            pause = if is_late { LEASE + WRITE_LIMIT } else { BEAT };
            match beat {
                Ok(Beat::Changed) if !is_late => lease.hold_until(begun + LEASE),
                Ok(Beat::Changed) => {}
                Ok(Beat::Lost(why)) => {
                    tracing::error!("this server writes no more: {why}");
                    lease.lose(why);
                    return;
                }
                Err(error) => {
                    if !fails {
                        let error = registry_core::printable::with_causes(
                            error.to_string(),
                            std::error::Error::source(&error),
                        );
                        tracing::warn!(
                            error,
                            "the lock of the only writer cannot be renewed; after {} s without it, nothing is written",
                            LEASE.as_secs()
                        );
                    }
                    fails = true;
                    continue;
                }
            }
            fails = false;
        }
    }

    async fn find_and_beat(&self, me: &Holder) -> Result<Beat, Error> {
        match self.get_record(&Key::writer()).await? {
            Some(stored) if is_of(&stored, me.id) => self.beat(me).await.map(|()| Beat::Changed),
            Some(other) => {
                let other = holder(&other);
                Ok(Beat::Lost(format!(
                    "{other} has taken the store over as its only writer, because this process did not show for {} s that it \
                     runs; stop one of the two, and start this one again if it is to write",
                    DEAD_AFTER.as_secs()
                )))
            }
            None => Ok(Beat::Lost(
                "somebody removed the lock of this process (`writer/lock`), so others may be writing; stop them, and start \
                 this process again"
                    .to_owned(),
            )),
        }
    }
}

fn is_of(stored: &VersionedRecord, id: Uuid) -> bool {
    decode::<WriterRecord>(&stored.value).is_ok_and(|(record, _)| record.id == id)
}

/// Describes the process that wrote a lock.
fn holder(stored: &VersionedRecord) -> String {
    match decode::<WriterRecord>(&stored.value) {
        Ok((record, _)) => Described(&record).to_string(),
        Err(_) => "a process whose lock cannot be read".to_owned(),
    }
}

struct Described<'a>(&'a WriterRecord);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WriterRecord {
            host, process, since, ..
        } = self.0;
        write!(f, "process {process} on {host} (since {since})")
    }
}
