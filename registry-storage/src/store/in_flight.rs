//! The parts of an append that are being written.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use registry_core::Error;
use registry_core::hash::Hasher;

use crate::backend::{BytesWriter, MemoryPermit};

/// Parts that are being written, and those that were written and that no session counts yet. All of them are in the order of
/// the bytes, so what comes out has no gap: a part that was written before an earlier one waits for it.
#[derive(Default)]
pub(super) struct InFlight {
    writes: FuturesOrdered<BoxFuture<'static, Result<Written, Error>>>,
    tags: VecDeque<Option<String>>,
    hashed: VecDeque<Hashed>,
    /// A part could not be written, so those behind it count no more.
    has_gap: bool,
    /// The writers that have nothing to write.
    idle: Vec<Box<dyn BytesWriter>>,
}

struct Written {
    writer: Box<dyn BytesWriter>,
    tag: Option<String>,
}

/// A part that was hashed, with all before it.
struct Hashed {
    size: u64,
    hasher: Hasher,
}

/// A part that is durable, or, on a disk, written, as all parts before it are.
pub(super) struct Counted {
    pub(super) size: u64,
    /// The backend's name for it, if it has one.
    pub(super) tag: Option<String>,
    /// The hash of everything up to its end.
    pub(super) hasher: Hasher,
}

impl InFlight {
    /// Returns a writer that has nothing to write, if there is one.
    pub(super) fn idle_writer(&mut self) -> Option<Box<dyn BytesWriter>> {
        self.idle.pop()
    }

    /// Begins to write a part, after the one before. The memory is kept until it is written.
    pub(super) fn write(
        &mut self,
        mut writer: Box<dyn BytesWriter>,
        number: usize,
        offset: u64,
        content: Bytes,
        memory: Option<Arc<MemoryPermit>>,
    ) {
        self.writes.push_back(Box::pin(async move {
            let tag = writer.write(number, offset, content).await?;
            drop(memory);
            Ok(Written { writer, tag })
        }));
    }

    /// Notes the hash up to the end of the next part that was not hashed yet.
    pub(super) fn note_hash(&mut self, size: u64, hasher: Hasher) {
        self.hashed.push_back(Hashed { size, hasher });
    }

    /// Does something else while parts are written. The first part that cannot be written ends it.
    ///
    /// # Errors
    /// That of the part.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Err(error) = self.poll_writes(context) {
                return Poll::Ready(Err(error));
            }
            work.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Waits until fewer than `limit` parts are being written.
    ///
    /// # Errors
    /// That of the first part that cannot be written.
    pub(super) async fn fewer_than(&mut self, limit: usize) -> Result<(), Error> {
        poll_fn(|context| match self.poll_writes(context) {
            Ok(()) if self.writes.len() >= limit => Poll::Pending,
            ended => Poll::Ready(ended),
        })
        .await
    }

    /// Waits until nothing is being written any more, whether or not it could be.
    pub(super) async fn settle(&mut self) {
        while self.fewer_than(1).await.is_err() {}
    }

    fn poll_writes(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        while let Poll::Ready(Some(written)) = self.writes.poll_next_unpin(context) {
            match written {
                Ok(Written { writer, tag }) if !self.has_gap => {
                    self.idle.push(writer);
                    self.tags.push_back(tag);
                }
                Ok(_) => {}
                Err(error) => {
                    self.has_gap = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes the next part that is written and hashed.
    pub(super) fn next(&mut self) -> Option<Counted> {
        let _both = (self.tags.front()?, self.hashed.front()?);
        let (tag, Hashed { size, hasher }) = (self.tags.pop_front()?, self.hashed.pop_front()?);
        Some(Counted { size, tag, hasher })
    }

    /// Closes the writers, once nothing is being written any more.
    ///
    /// # Errors
    /// Those of [`BytesWriter::close`].
    pub(super) async fn close(&mut self) -> Result<(), Error> {
        for writer in self.idle.drain(..) {
            writer.close().await?;
        }
        Ok(())
    }
}
