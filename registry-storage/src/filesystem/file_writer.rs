//! Writes an upload's parts into its file.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::Error;
use tokio::sync::OwnedSemaphorePermit;

use super::disk::DiskFile;
use super::failure::file_error;
use super::files::{Files, OpenedFile};
use super::reads::Reads;
use crate::backend::{BytesWriter, WriteGuard};
use crate::bytes_name::BytesName;

/// The file of an upload, opened by the first write.
pub(super) struct FileWriter {
    files: Arc<Files>,
    writes: Arc<Reads>,
    name: BytesName,
    path: Arc<PathBuf>,
    guard: WriteGuard,
    file: Option<Arc<dyn DiskFile>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl FileWriter {
    pub(super) fn new(files: Arc<Files>, writes: Arc<Reads>, name: BytesName, guard: WriteGuard) -> Self {
        Self {
            path: Arc::new(files.path(&name)),
            files,
            writes,
            name,
            guard,
            file: None,
            permit: None,
        }
    }
}

#[async_trait]
impl BytesWriter for FileWriter {
    async fn write(&mut self, _: usize, offset: u64, content: Bytes) -> Result<Option<String>, Error> {
        let (files, name, guard) = (
            Arc::clone(&self.files),
            self.name.clone(),
            Arc::clone(&self.guard),
        );
        if self.permit.is_none() {
            self.permit = Some(files.opened.may_write().await?);
        }
        let file = self.file.clone();
        let write = move || {
            // The write continues if the future is dropped, so other writers must stay excluded.
            let _guard = guard;
            files.health.check()?;
            files.reserve.check()?;
            let opened = match file {
                Some(file) => OpenedFile { file, is_new: false },
                None => files.open_for_writing(&name, offset)?,
            };
            if let Err(cause) = opened.file.write_at(&content, offset) {
                let answer = file_error("write", &files.path(&name), cause);
                files.roll_back(&name, &opened, offset);
                return Err(answer);
            }
            Ok(opened.file)
        };
        self.file = Some(self.writes.begin(&self.path, write).await?);
        Ok(None)
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        let Self {
            files,
            writes,
            name,
            path,
            guard,
            file,
            permit,
        } = *self;
        let Some(file) = file else { return Ok(()) };
        let sync = move || {
            let (_guard, _permit) = (guard, permit);
            files.health.check()?;
            // Before the descriptor is closed: an error of writing back may be forgotten with it.
            file.sync_data().map_err(|cause| {
                let answer = files.health.sync_failed(&files.path(&name), cause);
                files.discard(&name);
                answer
            })
        };
        writes.begin(&path, sync).await
    }
}
