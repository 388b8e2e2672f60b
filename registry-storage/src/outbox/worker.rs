//! The thread that owns an outbox's file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::queue::{Changes, Queue};
use super::{IntentName, OutboxEntry, OutboxState};

/// The maximum number of commands that share one transaction, and of bytes, not counting the last command.
const COMMANDS_PER_GROUP: usize = 256;
const BYTES_PER_GROUP: u64 = 1024 * 1024;

/// How long written entries may wait until they are safe from a loss of power.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which dropped entries are logged at most. Once the queue is full, each append drops some.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

type Reply<T> = oneshot::Sender<Result<T, Arc<rusqlite::Error>>>;

/// A command for the thread.
#[derive(Debug)]
pub(super) enum Command {
    Append(Vec<Vec<u8>>, Option<Reply<()>>),
    Intend(IntentName, Vec<u8>, Reply<()>),
    Settle(IntentName, Vec<Vec<u8>>, Reply<()>),
    Intents(Option<IntentName>, Reply<Vec<(IntentName, Vec<u8>)>>),
    Read {
        consumer: String,
        after: u64,
        limit: usize,
        reply: Reply<Vec<OutboxEntry>>,
    },
    Acknowledge {
        consumer: String,
        sequence: u64,
    },
    Close,
}

impl Command {
    /// Returns the bytes that it carries.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Append(values, _) | Self::Settle(_, values, _) => {
                values.iter().map(|value| value.len() as u64).sum()
            }
            Self::Intend(_, value, _) => value.len() as u64,
            Self::Intents(..) | Self::Read { .. } | Self::Acknowledge { .. } | Self::Close => 0,
        }
    }
}

pub(super) struct Worker {
    queue: Queue,
    state: Arc<OutboxState>,
    end: watch::Sender<u64>,
    /// When the oldest write that is not yet synced was made.
    unsynced: Option<Instant>,
    /// When dropped entries were last logged, and how many were dropped since.
    warned_at: Option<Instant>,
    untold: u64,
}

impl Worker {
    pub(super) fn new(queue: Queue, state: Arc<OutboxState>, end: watch::Sender<u64>) -> Self {
        let worker = Self {
            queue,
            state,
            end,
            unsynced: None,
            warned_at: None,
            untold: 0,
        };
        worker.tell();
        worker
    }

    /// Works until it is closed or no caller is left.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let wait = self.unsynced.map_or(Duration::MAX, |since| {
                SYNC_INTERVAL.saturating_sub(since.elapsed())
            });
            let first = match commands.recv_timeout(wait.min(Duration::from_secs(3600))) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => {
                    self.sync();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut size = first.size();
            let mut group = vec![first];
            while group.len() < COMMANDS_PER_GROUP && size < BYTES_PER_GROUP {
                let Ok(command) = commands.try_recv() else { break };
                size = size.saturating_add(command.size());
                group.push(command);
            }
            self.state.waiting.fetch_sub(size, Ordering::Relaxed);
            if self.work(group) {
                break;
            }
            if self
                .unsynced
                .is_some_and(|since| since.elapsed() >= SYNC_INTERVAL)
            {
                self.sync();
            }
        }
        self.sync();
        self.tell_dropped();
    }

    /// Runs a group of commands; returns `true` if the thread is to end.
    fn work(&mut self, group: Vec<Command>) -> bool {
        let mut is_closing = false;
        let (mut waiting, mut reads, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        let mut changes = Changes::default();
        for command in group {
            match command {
                Command::Append(new, reply) => {
                    changes.values.extend(new);
                    waiting.extend(reply);
                }
                Command::Intend(name, value, reply) => {
                    changes.intents.push((name, Some(value)));
                    waiting.push(reply);
                }
                Command::Settle(name, new, reply) => {
                    changes.intents.push((name, None));
                    changes.values.extend(new);
                    waiting.push(reply);
                }
                Command::Intents(name, reply) => asked.push((name, reply)),
                Command::Acknowledge { consumer, sequence } => {
                    changes.acknowledged.push((consumer, sequence));
                }
                Command::Read {
                    consumer,
                    after,
                    limit,
                    reply,
                } => reads.push((consumer, after, limit, reply)),
                Command::Close => is_closing = true,
            }
        }
        if !changes.is_empty() {
            let result = self.queue.write(&changes).map_err(Arc::new);
            match &result {
                Ok(dropped) => self.note_dropped(*dropped),
                Err(error) => tracing::error!(%error, "the outbox cannot be written; events are lost"),
            }
            self.unsynced.get_or_insert_with(Instant::now);
            self.tell();
            for reply in waiting {
                // Some callers no longer wait.
                drop(reply.send(result.clone().map(|_| ())));
            }
        }
        for (name, reply) in asked {
            drop(reply.send(self.queue.intents(name).map_err(Arc::new)));
        }
        for (consumer, after, limit, reply) in reads {
            drop(reply.send(self.queue.read(&consumer, after, limit).map_err(Arc::new)));
        }
        is_closing
    }

    fn note_dropped(&mut self, dropped: u64) {
        self.state.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.untold = self.untold.saturating_add(dropped);
        if self
            .warned_at
            .is_none_or(|warned_at| warned_at.elapsed() >= WARNING_INTERVAL)
        {
            self.tell_dropped();
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.untold);
        if dropped > 0 {
            self.warned_at = Some(Instant::now());
            let total = self.state.dropped.load(Ordering::Relaxed);
            tracing::warn!(
                dropped,
                total,
                "the outbox is full; its oldest events are dropped until it is not"
            );
        }
    }

    fn tell(&self) {
        self.state.first.store(self.queue.first(), Ordering::Relaxed);
        self.end.send_replace(self.queue.end());
    }

    fn sync(&mut self) {
        if self.unsynced.take().is_some()
            && let Err(error) = self.queue.sync()
        {
            tracing::error!(%error, "the outbox cannot be made durable");
        }
    }
}
