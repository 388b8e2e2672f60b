//! Requests that are finished although nobody waits for the answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::tasks::Tasks;

/// A future that is polled to its end by a task when it is dropped before.
///
/// HTTP/2 drops the handler of a request the moment that the client resets the stream, and any server does so when it
/// closes a connection. For an upload that would be in the middle of a write, and what arrived since the session was
/// written down would be lost. Its body has ended with an error by then, so the handler soon comes to its end: it
/// writes what it holds and notes the offset. No task is needed as long as the client is there.
pub(super) struct FinishOnDrop<T: 'static> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    tasks: Tasks,
}

impl<T> FinishOnDrop<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static, tasks: Tasks) -> Self {
        Self {
            future: Some(Box::pin(future)),
            tasks,
        }
    }
}

impl<T> Future for FinishOnDrop<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let result = future.as_mut().poll(context);
        if result.is_ready() {
            self.future = None;
        }
        result
    }
}

impl<T> Drop for FinishOnDrop<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            self.tasks.spawn(async move {
                drop(future.await);
            });
        }
    }
}
