//! What a request intends to change.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use registry_core::Event;
use registry_core::event::EventIntents;

use super::observer::EventSink;
use super::record::RequestRecord;

/// Notifies a sink of what a request intends, and of its outcome.
pub(crate) struct RequestIntents<'a> {
    sink: &'a dyn EventSink,
    request: &'a RequestRecord,
    has_intent: AtomicBool,
}

impl<'a> RequestIntents<'a> {
    pub(crate) const fn new(sink: &'a dyn EventSink, request: &'a RequestRecord) -> Self {
        Self {
            sink,
            request,
            has_intent: AtomicBool::new(false),
        }
    }

    /// Reports the outcome: the event, if there is one, and the status of the answer.
    pub(crate) async fn settle(self, event: Option<&Event>, status: u16) {
        match event {
            Some(event) => self.sink.accept(event, self.request).await,
            None if self.has_intent.into_inner() => {
                self.sink.abandon(self.request, status >= 500).await;
            }
            None => {}
        }
    }
}

#[async_trait]
impl EventIntents for RequestIntents<'_> {
    async fn intend(&self, event: &Event) {
        self.has_intent.store(true, Ordering::Relaxed);
        self.sink.intend(event, self.request).await;
    }

    async fn happened(&self, event: &Event) {
        self.sink.accept_another(event, self.request).await;
    }
}
