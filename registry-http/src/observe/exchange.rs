//! A request that goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use registry_core::{Error, Request, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::{Observer, RequestRecord};

/// A request that goes on: its record, which is told when this is dropped, and its turn.
pub(crate) struct Exchange {
    record: RequestRecord,
    received: Arc<AtomicU64>,
    begin: Instant,
    observer: Arc<dyn Observer>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Exchange {
    pub(crate) fn begin(parts: &http::request::Parts, observer: Arc<dyn Observer>) -> Self {
        let mut record = RequestRecord::new(parts);
        observer.began(&mut record, &parts.headers);
        Self {
            record,
            received: Arc::default(),
            begin: Instant::now(),
            observer,
            turn: None,
        }
    }

    /// Returns what is known so far.
    pub(crate) const fn record(&self) -> &RequestRecord {
        &self.record
    }

    /// Returns the count of bytes that arrived.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    pub(crate) fn take_turn(&mut self, turn: OwnedSemaphorePermit) {
        self.turn = Some(turn);
    }

    pub(crate) fn set_principal(&mut self, name: &str) {
        self.record.set_principal(name);
    }

    pub(crate) fn set_request(&mut self, request: &Request) {
        self.record.set_request(request);
    }

    pub(crate) fn answered(&mut self, response: &Response) {
        self.record.status = Some(response.status);
        self.record.error = response.error.clone();
        if self.record.digest.is_none() {
            let digest = response.field("Docker-Content-Digest");
            self.record.digest = digest.and_then(|digest| digest.parse().ok());
        }
    }

    pub(crate) fn sent(&mut self, length: u64) {
        self.record.sent = self.record.sent.saturating_add(length);
    }

    pub(crate) fn complete(&mut self) {
        self.record.is_complete = true;
    }

    pub(crate) fn fail(&mut self, error: Error) {
        self.record.is_complete = false;
        self.record.error = Some(error);
    }

    /// Tells whether the body failed while it was sent.
    pub(crate) fn is_failed(&self) -> bool {
        self.record.error.is_some() && !self.record.is_complete
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.turn = None;
        self.record.received = self.received.load(Ordering::Relaxed);
        self.record.duration = self.begin.elapsed();
        self.observer.finished(&self.record);
    }
}
