//! What a request takes of the limits: permits, and memory that is charged to the account of its client.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use registry_core::response::ResponseBody;
use registry_core::{Error, ErrorCode, Request, Storage};
use tokio::time::timeout;

use super::Shared;
use crate::connection::Connection;
use crate::memory::{Account, Charge, MemoryUse, Permit, Permits};
use crate::server::ConnectionMemory;
use crate::telemetry::Exchange;

/// About what a header field takes in memory besides its bytes.
const FIELD_BYTES: usize = 64;

/// What an upload takes besides its connection, however many there are: two small parts, one that is written and one that arrives.
/// Without that, 2000 stalled uploads took 190 MiB.
const UPLOAD_BYTES: usize = 32 * 1024;

/// An answer of up to this many bytes is covered by the charge for its request.
const SMALL_ANSWER_BYTES: usize = 4 * 1024;

/// What a streamed answer holds: a page of the longest names.
const STREAMED_ANSWER_BYTES: usize = 256 * 1024;

impl<S: ?Sized + Storage> Shared<S> {
    /// Returns the account that pays for a request: its client's, or that of a proxy which does not report its client.
    pub(super) fn account(&self, parts: &Parts) -> Arc<Account> {
        let client = Connection::of(parts).and_then(Connection::client);
        let memory = parts.extensions.get::<Arc<ConnectionMemory>>();
        match memory.map(|memory| memory.account()) {
            Some(account) if account.is_of(client) => Arc::clone(account),
            _ => self.limits.memory.account(client),
        }
    }

    /// Charges what a request keeps of its body, and waits for a permit if it transfers a blob. The result is the charge for
    /// what a storage holds of an upload at once.
    pub(super) async fn charge_transfer(
        &self,
        request: &Request,
        parts: &Parts,
        exchange: &mut Exchange,
        account: &Arc<Account>,
    ) -> Result<Charge, Error> {
        if matches!(request, Request::PutManifest { .. }) {
            exchange.keep_body(account.charge(0, MemoryUse::Manifest)?);
        }
        let (transfers, held) = match request {
            Request::GetBlob { .. } => (Some(&self.downloads), 0),
            Request::UploadBlob { .. } | Request::AppendUpload { .. } | Request::FinishUpload { .. } => {
                (Some(&self.uploads), upload_size(parts))
            }
            _ => (None, 0),
        };
        let pieces = account.charge(held, MemoryUse::Request)?;
        if let Some(transfers) = transfers {
            exchange.hold_transfer(self.permit(transfers, account).await?);
        }
        Ok(pieces)
    }

    /// Waits until the request may be worked on.
    pub(super) async fn wait_for_turn(
        &self,
        exchange: &Exchange,
        account: &Arc<Account>,
    ) -> Result<(), Error> {
        exchange.hold_permit(self.permit(&self.permits, account).await?);
        Ok(())
    }

    async fn permit(&self, permits: &Permits, account: &Arc<Account>) -> Result<Permit, Error> {
        let permit = timeout(self.limits.permit_timeout, permits.take(account)).await;
        permit.map_err(|_| ErrorCode::Unavailable.into())
    }
}

/// Charges what an answer holds in memory.
pub(super) fn charge_answer(
    body: &mut ResponseBody,
    exchange: &mut Exchange,
    account: &Arc<Account>,
) -> Result<(), Error> {
    if matches!(body, ResponseBody::Stream(_)) {
        exchange.hold_answer(account.charge(STREAMED_ANSWER_BYTES, MemoryUse::Answer)?);
    }
    let held = match body {
        ResponseBody::Bytes(bytes) => std::slice::from_mut(bytes),
        ResponseBody::Pieces(pieces) => pieces,
        _ => &mut [],
    };
    for bytes in held.iter_mut().filter(|bytes| bytes.len() > SMALL_ANSWER_BYTES) {
        *bytes = account.hold(std::mem::take(bytes))?;
    }
    Ok(())
}

/// Returns about what a storage holds of an upload at once, at least.
fn upload_size(parts: &Parts) -> usize {
    let length = parts.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(UPLOAD_BYTES).min(UPLOAD_BYTES)
}

/// Returns about what a header takes in memory.
pub(super) fn header_size(parts: &Parts) -> usize {
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    fields.sum::<usize>() + target
}
