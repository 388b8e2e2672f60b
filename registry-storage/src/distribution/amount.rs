//! How much content a tree has, and how much of it a store has as well: a run that continues need not repeat that.

use std::fs;
use std::path::{Path, PathBuf};

use registry_core::{Digest, Error};
use tokio::task::spawn_blocking;

use crate::Store;
use crate::backend::Backend;

/// How many digests a store is asked for at once.
const DIGESTS_PER_BATCH: usize = 500;

/// Bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// All content, whether it is named or not.
    pub(super) all: u64,
    /// The content that the store has as blobs too.
    pub(super) stored: u64,
}

impl Amount {
    /// Counts what is below the folder of a tree, as far as it can be found out; without a store, no content counts as
    /// stored.
    pub(super) async fn of<B: Backend>(tree: &Path, store: Option<&Store<B>>) -> Result<Self, Error> {
        let mut amount = Self::default();
        let folder = tree.join("blobs");
        let list = move || entries(&folder).flat_map(|path| entries(&path)).collect();
        // One folder for each prefix of a digest, so that only a part of all digests is held.
        let folders: Vec<PathBuf> = spawn_blocking(list).await.map_err(Error::internal)?;
        for folder in folders {
            let list = move || content_in(&folder);
            let content = spawn_blocking(list).await.map_err(Error::internal)?;
            for batch in content.chunks(DIGESTS_PER_BATCH) {
                let sizes = batch.iter().map(|(_, size)| size);
                amount.all = sizes.fold(amount.all, |sum, size| sum.saturating_add(*size));
                let Some(store) = store else { continue };
                let digests = batch.iter().map(|(digest, _)| digest.clone()).collect();
                let stored = store.stored_blobs(&digests).await?;
                let sizes = batch.iter().filter(|(digest, _)| stored.contains(digest));
                amount.stored = sizes.fold(amount.stored, |sum, (_, size)| sum.saturating_add(*size));
            }
        }
        Ok(amount)
    }
}

/// Lists the content whose digests have a common prefix, with its sizes.
fn content_in(folder: &Path) -> Vec<(Digest, u64)> {
    let algorithm = folder.parent().and_then(Path::file_name);
    let Some(algorithm) = algorithm.and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let content = entries(folder).filter_map(|path| {
        let digest = format!("{algorithm}:{}", path.file_name()?.to_str()?)
            .parse()
            .ok()?;
        let file = fs::symlink_metadata(path.join("data")).ok()?;
        Some((digest, file.len()))
    });
    content.collect()
}

/// Returns the entries of a folder, as far as it can be read.
pub(super) fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}
