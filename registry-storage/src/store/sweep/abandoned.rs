//! What a bucket keeps of uploads that nobody knows of any more: the record of a session was lost or put into quarantine, or a process
//! died while it copied bytes.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::Error;

use super::{Deleting, FAILURES_IN_A_ROW, ListedBytes, PARALLEL_DELETES, SweepReport, Unreadable};
use crate::backend::{Backend, BegunBytes};
use crate::bytes_name::BytesName;
use crate::store::Store;

/// How much longer than a session may be idle an upload stays. A copy is named by no session, and takes hours if it is large; and
/// the clock of the store may differ from that of this process.
const MARGIN: Duration = Duration::from_hours(24);

/// How many old uploads are handled at once, some 300 bytes of memory each; each round reads all open sessions.
const UPLOADS_PER_ROUND: usize = 10_000;

impl<B: Backend> Store<B> {
    /// Aborts the uploads that were begun long ago and that no session names.
    pub(super) async fn abort_abandoned(
        &self,
        report: &mut SweepReport,
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        let age = self.options.upload_idle_limit.saturating_add(MARGIN);
        if age == Duration::MAX {
            // An operator who keeps uploads for ever.
            return Ok(());
        }
        let now = self.clock.now();
        let mut pages = pin!(self.backend.begun_bytes());
        let mut old = Vec::new();
        loop {
            let page = pages.try_next().await;
            let is_last = !matches!(page, Ok(Some(_)));
            if let Ok(Some(page)) = &page {
                let is_old = |upload: &&BegunBytes| now.since(upload.begun) > age;
                old.extend(page.iter().filter(is_old).cloned());
            }
            if is_last || old.len() >= UPLOADS_PER_ROUND {
                let round = std::mem::take(&mut old);
                self.abort_unnamed(round, report, deleting, unreadable).await?;
            }
            if is_last {
                return page.map(|_| ());
            }
        }
    }

    /// Aborts uploads unless a session names their bytes.
    async fn abort_unnamed(
        &self,
        uploads: Vec<BegunBytes>,
        report: &mut SweepReport,
        deleting: &mut Deleting,
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        if uploads.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&BytesName> = uploads.iter().map(|upload| &upload.bytes.name).collect();
        let mut listed = ListedBytes::new(names.into_iter().cloned().collect());
        // Read after the uploads were listed: a session names its bytes before it begins an upload of them.
        self.mark_bytes_of_sessions(&mut listed, unreadable).await?;
        if !unreadable.is_empty() {
            return Ok(());
        }
        let unnamed: BTreeSet<&BytesName> = listed.unnamed().collect();
        let abandoned = uploads
            .iter()
            .filter(|upload| unnamed.contains(&upload.bytes.name));
        let aborts = stream::iter(abandoned.cloned().collect::<Vec<_>>()).map(|upload| async move {
            let aborted = self.backend.abort_bytes(&upload.bytes).await;
            (upload, aborted)
        });
        let mut aborts = pin!(aborts.buffered(PARALLEL_DELETES));
        while let Some((upload, aborted)) = aborts.next().await {
            let (name, begun) = (&upload.bytes.name, upload.begun);
            match aborted {
                Ok(()) => {
                    tracing::debug!(%name, %begun, "aborted an upload that no session names");
                    report.abandoned_uploads += 1;
                    deleting.failures_in_a_row = 0;
                }
                Err(error) if deleting.failures_in_a_row >= FAILURES_IN_A_ROW => return Err(error),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    tracing::error!(%name, %begun, %error, cause, "an upload that no session names cannot be aborted");
                    deleting.undeleted += 1;
                    deleting.failures_in_a_row += 1;
                }
            }
        }
        Ok(())
    }
}
