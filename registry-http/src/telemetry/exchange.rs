//! A request in progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use registry_core::{Error, Request, Response};

use super::observer::RequestObserver;
use super::record::RequestRecord;
use crate::memory::{Charge, MemoryUse, Permit, Refused};

/// A request in progress: its record, which the observer gets when this is dropped, and the resources that it holds.
pub(crate) struct Exchange {
    record: RequestRecord,
    intake: Arc<Intake>,
    begin: Instant,
    observer: Arc<dyn RequestObserver>,
    header: Option<Charge>,
    answer: Option<Charge>,
    transfer: Option<Permit>,
}

/// The state that a request and its body share.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    received: AtomicU64,
    /// The permit to be worked on. It is returned while the request waits for the client.
    permit: Mutex<Option<Permit>>,
    is_kept: AtomicBool,
    kept: Mutex<Option<Charge>>,
}

impl Intake {
    /// Records that the request waits for the client.
    pub(crate) fn waits(&self) {
        drop(self.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Counts bytes that arrived, and charges the client if they are kept.
    pub(crate) fn arrived(&self, length: usize) -> Result<(), Refused> {
        self.received.fetch_add(length as u64, Ordering::Relaxed);
        if !self.is_kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_mut() {
            Some(charge) => charge.grow(length, MemoryUse::Manifest),
            None => Ok(()),
        }
    }
}

impl Exchange {
    pub(crate) fn begin(parts: &http::request::Parts, observer: Arc<dyn RequestObserver>) -> Self {
        let mut record = RequestRecord::new(parts);
        observer.began(&mut record, &parts.headers);
        Self {
            record,
            intake: Arc::default(),
            begin: Instant::now(),
            observer,
            header: None,
            answer: None,
            transfer: None,
        }
    }

    /// Returns what is known so far.
    pub(crate) const fn record(&self) -> &RequestRecord {
        &self.record
    }

    /// Returns the state that is shared with the body.
    pub(crate) fn intake(&self) -> Arc<Intake> {
        Arc::clone(&self.intake)
    }

    pub(crate) fn hold_permit(&self, permit: Permit) {
        *self.intake.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// Holds the permit to download or upload a blob.
    pub(crate) fn hold_transfer(&mut self, permit: Permit) {
        self.transfer = Some(permit);
    }

    /// Ends the work: from here on, the request waits for the client.
    pub(crate) fn end_turn(&self) {
        self.intake.waits();
    }

    /// Holds the memory of the header.
    pub(crate) fn hold_header(&mut self, charge: Charge) {
        self.header = Some(charge);
    }

    /// Holds the memory of a streamed answer.
    pub(crate) fn hold_answer(&mut self, charge: Charge) {
        self.answer = Some(charge);
    }

    /// Charges the body as it arrives, until it is released or the request ends.
    pub(crate) fn keep_body(&self, charge: Charge) {
        *self.intake.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(charge);
        self.intake.is_kept.store(true, Ordering::Relaxed);
    }

    /// Ends the charge for the body, which was used and is no longer kept.
    pub(crate) fn release_body(&self) {
        drop(
            self.intake
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
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

    /// Returns whether the body failed while it was sent.
    pub(crate) fn is_failed(&self) -> bool {
        self.record.error.is_some() && !self.record.is_complete
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record.received = self.intake.received.load(Ordering::Relaxed);
        self.record.duration = self.begin.elapsed();
        self.observer.finished(&self.record);
    }
}
