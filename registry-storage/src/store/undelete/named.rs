//! What kept manifests name, for the collector.

use std::collections::BTreeMap;

use registry_core::{Digest, Error, RepositoryName};

use crate::backend::{Backend, RecordEntry};
use crate::key::Key;
use crate::pages::Values;
use crate::record::DeletedManifestRecord;
use crate::store::Store;
use crate::store::delete::{all_children, parse_manifest};
use crate::store::edge::Found;

impl<B: Backend> Store<B> {
    /// Marks the candidates that a deleted manifest names which is kept. It has to be read after the manifests: one that a
    /// cycle finds Dead was kept before.
    ///
    /// A record that cannot be read is skipped: it only is a promise.
    pub(in crate::store) async fn mark_named_by_deleted(
        &self,
        repository: &RepositoryName,
        candidates: &mut BTreeMap<Digest, bool>,
    ) -> Result<(), Error> {
        let mut deleted = Values::of(Key::deleted_manifests(repository), |_: &RecordEntry| true);
        while let Some(read) = deleted.next(&*self.backend).await? {
            for (key, stored) in read {
                let Ok(found) = Found::<DeletedManifestRecord>::new(stored.as_ref()) else {
                    tracing::error!(%key, "a deleted manifest cannot be read, so it cannot be restored");
                    continue;
                };
                let Some((record, content)) = found.record else {
                    continue;
                };
                let view = parse_manifest(content, record.media_type).await?;
                for child in view.iter().flat_map(all_children) {
                    if let Some(is_named) = candidates.get_mut(&child.digest) {
                        *is_named = true;
                    }
                }
            }
        }
        Ok(())
    }
}
