//! Requests that are finished although their client is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::tasks::Tasks;

/// A future that a task polls to completion if it is dropped early.
///
/// HTTP/2 drops the handler of a request as soon as the client resets the stream, and any server does when it closes a
/// connection. For an upload, that could be in the middle of a write, and what arrived since the session was last
/// recorded would be lost. The body has ended with an error by then, so the handler soon completes: it writes what it
/// holds and records the offset. While the client is connected, no task is needed.
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
