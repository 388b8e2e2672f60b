//! Uploads in parts.
//!
//! A part is sent twice if the process died before it had written down that it was there, or if a client sends the
//! bytes of a closing `PUT` again. It may be sent by two processes at once, when a client goes on at another replica. The list
//! of parts then decides, so it must never be completed with the bytes of a part that it does not name: they would be
//! served under a digest that they do not have.

use bytes::Bytes;
use object_store::Error as StoreError;
use object_store::multipart::PartId;
use object_store::path::Path;

use super::{Probe, ProbeError, Promise, value};

const PROMISE: Promise = Promise::Parts;

impl Probe<'_> {
    pub(super) async fn parts(&self) -> Result<(), ProbeError> {
        for (name, lists_newest) in [("parts/newest", true), ("parts/stale", false)] {
            let key = self.key(name);
            let path = self.backend.path(key.as_str());
            let path = path.map_err(|error| ProbeError::Unanswered(PROMISE, error))?;
            // Whatever becomes of the upload, its object is to be removed.
            self.note(&key);
            let created = self
                .backend
                .run(0, self.backend.store.create_multipart(&path))
                .await;
            let upload = created.map_err(unanswered)?;
            let tried = self.send_twice(&path, &upload, lists_newest).await;
            if !matches!(tried, Ok(Some(_))) {
                let aborted = self.backend.store.abort_multipart(&path, &upload);
                if let Err(error) = self.backend.run(0, aborted).await {
                    tracing::debug!(%error, "an upload of the probe stays");
                }
            }
            let Some(listed) = tried? else { continue };
            let read = self.read(PROMISE, &key).await?;
            if read.is_none_or(|read| read.value != listed) {
                let found = "an upload in parts became other bytes than those of the part that was listed";
                return Err(ProbeError::broken(PROMISE, found));
            }
        }
        Ok(())
    }

    /// Sends a part twice with other bytes, and completes the upload with one of the two. Returns the bytes of that one; `None` if
    /// the store refused that, which harms nobody: the client begins a new upload.
    async fn send_twice(
        &self,
        path: &Path,
        upload: &String,
        lists_newest: bool,
    ) -> Result<Option<Bytes>, ProbeError> {
        let contents = [value(), value()];
        let [first, second] = &contents;
        let first_id = self.send(path, upload, first).await.map_err(unanswered)?;
        let (id, content) = match self.send(path, upload, second).await {
            Ok(second_id) if lists_newest => (second_id, second),
            // rclone takes no other bytes under the number of a part (501).
            Ok(_) | Err(_) => (first_id, first),
        };
        let request = self.backend.store.complete_multipart(path, upload, vec![id]);
        match self.backend.run(0, request).await {
            Ok(_) => Ok(Some(content.clone())),
            Err(error) if lists_newest => Err(unanswered(error)),
            Err(_) => Ok(None),
        }
    }

    async fn send(&self, path: &Path, upload: &String, content: &Bytes) -> Result<PartId, StoreError> {
        let request = self
            .backend
            .store
            .put_part(path, upload, 0, content.clone().into());
        self.backend.run(content.len(), request).await
    }
}

fn unanswered(error: StoreError) -> ProbeError {
    ProbeError::of(PROMISE, error)
}
