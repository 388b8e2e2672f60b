//! What uploads parked and nobody brought back, because a request or a process died.

use std::collections::BTreeMap;

use registry_core::{Error, UploadId};

use super::Unreadable;
use super::sessions::session_of;
use crate::backend::{Backend, Durability};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, keys};
use crate::store::Store;
use crate::store::session::RemoveAll;

impl<B: Backend> Store<B> {
    /// Removes what is parked of sessions that have ended.
    pub(super) async fn sweep_parked(&self, unreadable: &mut Unreadable) -> Result<(), Error> {
        // Where parts may have any size, nothing is ever parked.
        if !self.backend.must_record_parts() {
            return Ok(());
        }
        let mut pages = Pages::of(Key::all_parked());
        while let Some(page) = pages.next(&*self.backend).await? {
            let mut of_uploads = BTreeMap::<UploadId, Vec<Key>>::new();
            for key in keys(page) {
                if let Some(KeyKind::Parked(upload, _)) = KeyKind::of(&key) {
                    of_uploads.entry(upload).or_default().push(key);
                }
            }
            for (upload, parked) in of_uploads {
                // Read after what it parked was listed: a session that has ended never begins again.
                let key = Key::upload(upload);
                let stored = self.backend.get(&key).await?;
                let is_ended = match &stored {
                    Some(stored) => session_of(&key, Some(stored), unreadable)
                        .is_some_and(|session| session.upload.length().is_err()),
                    None => true,
                };
                if is_ended {
                    let remove = RemoveAll(parked);
                    self.backend.transact(Durability::Deferred, remove).await?;
                }
            }
        }
        Ok(())
    }
}
