//! What several tests of stores share.

pub(crate) mod images;
pub(crate) mod tamper;
pub(crate) mod world;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Polls a future this often at most; returns `None` if it is not done then. It may be polled again.
pub(crate) async fn poll_times<F: Future>(mut future: Pin<&mut F>, mut times: usize) -> Option<F::Output> {
    poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}
