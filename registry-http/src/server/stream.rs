//! One request and its answer, until nothing holds either any more.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use std::future::poll_fn;
use std::io::IoSlice;
use tokio::time::{Sleep, sleep, sleep_until};

use super::activity::Activity;
use super::metered::RefusedBody;
use crate::limits::Limits;
use crate::memory::Charge;
use crate::tasks::Tasks;

/// What a service or a body may fail with.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long after its answer an HTTP/2 request with an unread body is reset. curl 7.88 loses an answer that it reads
/// together with the reset; on a busy machine it came to read it only after 50 ms, and on one with a full disk after 200.
const RESET_AFTER: Duration = Duration::from_millis(500);

/// Holds an unread request body until the answer was sent: dropping the body resets the stream.
#[derive(Clone, Default)]
pub(crate) struct UnreadRequest(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl UnreadRequest {
    /// Holds a part of the request.
    pub(crate) fn keep(&self, part: impl Send + 'static) {
        self.parts().push(Box::new(part));
    }

    /// Holds what accounts for the body as long as the body, if that is held.
    pub(super) fn keep_beside(&self, part: impl Send + 'static) {
        let mut parts = self.parts();
        if !parts.is_empty() {
            parts.push(Box::new(part));
        }
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Box<dyn Send>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is held, after a delay if there is anything.
    async fn release(&self) {
        let parts = std::mem::take(&mut *self.parts());
        if !parts.is_empty() {
            sleep(RESET_AFTER).await;
        }
    }
}

impl fmt::Debug for UnreadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreadRequest").finish_non_exhaustive()
    }
}

/// A request and its answer, from its header until the socket has accepted the last byte.
#[derive(Debug)]
pub(super) struct Stream {
    activity: Arc<Activity>,
    begin: Instant,
    has_body: AtomicBool,
    /// The answer has nothing to send at the moment, which is not the client's fault.
    is_waited_for: AtomicBool,
    /// Bytes of the answer that were produced, and that the socket has not accepted yet.
    untaken: AtomicUsize,
    /// When the socket last accepted some, in milliseconds after `begin`.
    taken_at: AtomicU64,
    /// The task that waits for the socket to accept bytes.
    waiting: AtomicWaker,
    unread: UnreadRequest,
    _charge: Charge,
}

impl Stream {
    pub(super) fn new(activity: Arc<Activity>, charge: Charge) -> Self {
        Self {
            activity,
            begin: Instant::now(),
            has_body: AtomicBool::new(false),
            is_waited_for: AtomicBool::new(false),
            untaken: AtomicUsize::new(0),
            taken_at: AtomicU64::new(0),
            waiting: AtomicWaker::new(),
            unread: UnreadRequest::default(),
            _charge: charge,
        }
    }

    pub(super) const fn unread(&self) -> &UnreadRequest {
        &self.unread
    }

    /// Records that the answer has a body. It ends when the stream is dropped.
    pub(super) fn body_began(&self) {
        if !self.has_body.swap(true, Ordering::Relaxed) {
            self.activity.body_began();
            self.note_time();
        }
    }

    /// Records that the answer has nothing to send.
    pub(super) fn waits(&self) {
        self.is_waited_for.store(true, Ordering::Relaxed);
        self.activity.waits();
    }

    /// Records that the answer has something to send again.
    pub(super) fn ready(&self) {
        self.is_waited_for.store(false, Ordering::Relaxed);
        self.activity.ready();
        self.note_time();
    }

    /// Returns whether progress depends on the client: to take what was produced, or to let more be produced.
    fn waits_for_client(&self) -> bool {
        let has_some = self.has_body.load(Ordering::Relaxed) && !self.is_waited_for.load(Ordering::Relaxed);
        has_some || !self.is_taken()
    }

    pub(super) fn is_taken(&self) -> bool {
        self.untaken.load(Ordering::Acquire) == 0
    }

    /// Waits until the socket has accepted all but `rest` of the bytes that were produced.
    pub(super) fn poll_taken(&self, context: &Context<'_>, rest: usize) -> Poll<()> {
        self.waiting.register(context.waker());
        if self.untaken.load(Ordering::Acquire) <= rest {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Waits until, for `timeout`, the client took nothing of what is ready, or its window let nothing be sent.
    fn poll_stalled(
        &self,
        context: &mut Context<'_>,
        timer: &mut Option<Pin<Box<Sleep>>>,
        timeout: Duration,
    ) -> Poll<()> {
        // More bytes are only produced by the task that polls this, so it need not be woken for them.
        while self.waits_for_client() {
            let taken_at = Duration::from_millis(self.taken_at.load(Ordering::Relaxed));
            let end = self.begin + taken_at + timeout;
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end.into())));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end.into());
        }
        Poll::Pending
    }

    fn made(&self, length: usize) {
        if self.untaken.fetch_add(length, Ordering::Relaxed) == 0 {
            self.note_time();
        }
    }

    fn took(&self, length: usize) {
        self.note_time();
        self.activity.body_taken();
        self.untaken.fetch_sub(length, Ordering::Release);
        self.waiting.wake();
    }

    fn note_time(&self) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.taken_at.store(now, Ordering::Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if *self.has_body.get_mut() {
            self.activity.body_ended();
        }
    }
}

/// Bytes of an answer on their way to the socket.
///
/// What an HTTP/2 client does not let through waits in the connection, long after the body was read to its end.
#[derive(Debug)]
pub(super) struct WatchedData {
    bytes: Bytes,
    stream: Option<Arc<Stream>>,
}

impl WatchedData {
    /// Bytes without a stream.
    pub(super) const fn of_nobody(bytes: Bytes) -> Self {
        Self { bytes, stream: None }
    }

    pub(super) fn new(bytes: Bytes, stream: &Arc<Stream>) -> Self {
        stream.made(bytes.len());
        Self {
            bytes,
            stream: Some(Arc::clone(stream)),
        }
    }

    fn took(&self, count: usize) {
        if let Some(stream) = &self.stream {
            stream.took(count);
        }
    }
}

impl Buf for WatchedData {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.took(count);
    }
}

impl Drop for WatchedData {
    fn drop(&mut self) {
        let rest = self.bytes.len();
        if rest > 0 {
            self.took(rest);
        }
    }
}

/// Runs each HTTP/2 stream of one connection in a task, and resets streams whose client takes nothing. A stream whose
/// end was already sent cannot be reset: its connection is cut instead.
///
/// A refusal holds nothing for a client without memory: what cannot be sent at once is not sent.
#[derive(Clone, Debug)]
pub(super) struct StreamTasks {
    tasks: Tasks,
    timeout: Duration,
    /// How many streams may be open at once.
    most: u32,
    /// What the next task is for: hyper calls the service, and then hands over the task.
    next: Arc<Mutex<Option<Next>>>,
}

#[derive(Debug)]
enum Next {
    Stream(Arc<Stream>),
    Refusal,
    Nothing,
}

impl StreamTasks {
    pub(super) fn new(tasks: Tasks, limits: &Limits) -> Self {
        Self {
            tasks,
            timeout: limits.response_timeout,
            most: limits.streams,
            next: Arc::default(),
        }
    }

    /// Returns how many streams of a connection may be open at once.
    pub(super) const fn most(&self) -> usize {
        self.most as usize
    }

    pub(super) fn begin(&self, stream: &Arc<Stream>) {
        *self.next() = Some(Next::Stream(Arc::clone(stream)));
    }

    /// Refuses a request: it gets no task, because there might be any number of refusals. With `is_put_out`, the
    /// connection is cut, and no answer is sent.
    pub(super) fn refuse(&self, is_put_out: bool) {
        *self.next() = Some(if is_put_out { Next::Nothing } else { Next::Refusal });
    }

    /// Holds the body of a refused request until its answer was sent.
    pub(super) fn keep_refused(&self, body: impl Send + 'static, refused: RefusedBody) {
        self.tasks.spawn(async move {
            sleep(RESET_AFTER).await;
            drop((body, refused));
        });
    }

    fn next(&self) -> MutexGuard<'_, Option<Next>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamTasks {
    fn execute(&self, future: F) {
        let next = self.next().take();
        let stream = match next {
            Some(Next::Stream(stream)) => stream,
            Some(Next::Refusal) => {
                future.now_or_never();
                return;
            }
            Some(Next::Nothing) => return,
            None => return self.tasks.spawn(future),
        };
        let timeout = self.timeout;
        self.tasks.spawn(async move {
            let mut future = pin!(Some(future));
            let mut timer = None;
            let is_taken = poll_fn(|context| {
                if let Some(making) = future.as_mut().as_pin_mut()
                    && making.poll(context).is_ready()
                {
                    // It holds what is to be sent, even if the connection has ended.
                    future.set(None);
                }
                let is_made = future.is_none();
                if is_made && stream.poll_taken(context, 0).is_ready() {
                    return Poll::Ready(true);
                }
                let stalled = stream.poll_stalled(context, &mut timer, timeout);
                if stalled.is_ready() && is_made {
                    tracing::debug!("a client takes nothing of a short answer; its connection is cut");
                    stream.activity.put_out();
                } else if stalled.is_ready() {
                    tracing::debug!("a client takes nothing of an answer; its stream is reset");
                }
                stalled.map(|()| false)
            })
            .await;
            if is_taken {
                stream.unread.release().await;
            }
        });
    }
}
