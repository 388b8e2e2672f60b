//! The body of a request on its way in.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use http_body::Body;
use registry_core::{Error, ErrorCode};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::server::BoxError;
use crate::server::ConnectionMemory;
use crate::telemetry::Intake;

/// A request body as the stream that a registry reads: its data, and an error if it stops arriving or ends early.
pub(super) struct RequestBody<B> {
    inner: Pin<Box<B>>,
    /// How long the body may bring nothing.
    silence_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer runs: the body was polled and had no data.
    is_waiting: bool,
    intake: Arc<Intake>,
    /// The connection that it comes from, if that is of this crate.
    connection: Option<Arc<ConnectionMemory>>,
    /// Nothing more is read.
    is_ended: bool,
    /// It was read to its proper end.
    is_whole: bool,
    /// The client waits for `100 Continue`, which hyper sends when the body is first polled.
    is_held_back: bool,
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(
        inner: B,
        silence_timeout: Duration,
        intake: Arc<Intake>,
        connection: Option<Arc<ConnectionMemory>>,
        expects_continue: bool,
    ) -> Self {
        Self {
            is_ended: inner.is_end_stream(),
            is_whole: inner.is_end_stream(),
            inner: Box::pin(inner),
            silence_timeout,
            timer: None,
            is_waiting: false,
            intake,
            connection,
            is_held_back: expects_continue,
        }
    }

    /// Reads and discards what is left, unless that is more than `limit` bytes or takes longer than `time`. Returns
    /// whether the body was read to its end.
    ///
    /// A client that still waits for `100 Continue` is not asked to send its body.
    pub(super) async fn drain(&mut self, limit: usize, time: Duration) -> bool {
        let limit = limit as u64;
        if self.is_ended || self.is_held_back || self.inner.size_hint().lower() > limit {
            return self.is_whole;
        }
        let mut drained = 0_u64;
        let drain = async {
            while let Some(Ok(chunk)) = self.next().await {
                drained = drained.saturating_add(chunk.len() as u64);
                if drained > limit {
                    break;
                }
            }
        };
        // A body that is too slow counts as unread, like one that is too long.
        timeout(time, drain).await.unwrap_or(());
        self.is_whole
    }

    /// Returns the rest of the body, unread.
    pub(super) fn into_inner(self) -> Pin<Box<B>> {
        self.inner
    }

    /// Decides between waiting longer and giving up when there is no data.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let deadline = || Instant::now() + self.silence_timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline())));
        if !self.is_waiting {
            self.is_waiting = true;
            self.intake.waits();
            timer.as_mut().reset(Instant::now() + self.silence_timeout);
        }
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.is_ended = true;
        Poll::Ready(Some(Err(ErrorCode::RequestTimeout.into())))
    }
}

impl<B> Stream for RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.is_held_back = false;
        while !self.is_ended {
            match self.inner.as_mut().poll_frame(context) {
                Poll::Pending => return self.poll_timeout(context),
                Poll::Ready(None) => {
                    self.is_ended = true;
                    self.is_whole = true;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.is_waiting = false;
                    // A registry has no use for trailers.
                    let data = frame.into_data().unwrap_or_default();
                    if !data.is_empty() {
                        if let Some(connection) = &self.connection {
                            connection.body_used(data.len());
                        }
                        let arrived = self.intake.arrived(data.len());
                        self.is_ended |= arrived.is_err();
                        return Poll::Ready(Some(arrived.map(|()| data).map_err(Error::from)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.is_ended = true;
                    let error = Error::from(ErrorCode::BodyInterrupted).with_cause(Interrupted(error.into()));
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// Why the body of a request ended early.
#[derive(Debug, thiserror::Error)]
#[error("the body ended early")]
struct Interrupted(#[source] BoxError);
