//! A store that lies in one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};

use super::super::super::memory::MemoryStore;
use super::super::super::records::DeleteIf;
use crate::backend::Version;

/// What a store does instead of what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    None,
    IgnoresConditions,
    OverwritesOnCreate,
    StoresWhatItRefuses,
    /// Looks, and then writes: right in sequence only.
    ManyCreators,
    ManyUpdaters,
    /// Refuses both of two writers, always.
    NobodyWins,
    /// Refuses both of two writers of every second object, which is allowed.
    NobodyWinsSometimes,
    AcceptsStaleVersions,
    CreatesOnUpdate,
    NoCreates,
    NoUpdates,
    NoTags,
    EmptyTags,
    SameTags,
    OtherTagsOnRead,
    /// Remembers for one read that there was no object.
    StaleReads,
    KeepsDeleted,
    ListsLate,
    ListsDeleted,
    ListsFoldersFirst,
    IgnoresOffset,
    RepeatsFirstPage,
    /// Completes an upload with the newest part whatever the list says (s3s-fs).
    NewestPart,
    /// Refuses other bytes under the number of a part (rclone), which is allowed.
    PartsOnce,
    IsDown,
    /// Knows no delete with a condition, which is allowed.
    NoConditionalDeletes,
    /// Answers 500 to each delete with a condition.
    FailsConditionalDeletes,
    /// Deletes whatever the condition says.
    DeletesAnyVersion,
    StoresNothingOfARefusedDelete,
    /// Looks, and then deletes: right in sequence only.
    DeletesBesideWriters,
}

#[derive(Debug)]
pub(super) struct Liar {
    pub(super) inner: Arc<MemoryStore>,
    pub(super) lie: Lie,
    state: Mutex<State>,
}

/// What asks such a store for deletes on condition.
#[derive(Debug)]
pub(super) struct LyingDeletes {
    pub(super) inner: Arc<MemoryStore>,
    pub(super) lie: Lie,
}

#[async_trait]
impl DeleteIf for LyingDeletes {
    async fn delete_if(&self, location: &Path, version: &Version) -> Result<bool> {
        match self.lie {
            Lie::NoConditionalDeletes => return Err(not_implemented()),
            Lie::FailsConditionalDeletes => {
                return Err(Error::Generic {
                    store: "liar",
                    source: "Server returned non-2xx status code: 500 Internal Server Error: ".into(),
                });
            }
            Lie::DeletesAnyVersion => {
                self.inner.delete(location).await?;
                return Ok(true);
            }
            Lie::StoresNothingOfARefusedDelete => {
                let is_gone = self.inner.delete_if(location, version).await?;
                self.inner.delete(location).await?;
                return Ok(is_gone);
            }
            Lie::DeletesBesideWriters => {
                let found = self.inner.head(location).await;
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                if found.is_ok_and(|found| found.e_tag.as_deref() != Some(&*version.0)) {
                    return Ok(false);
                }
                self.inner.delete(location).await?;
                return Ok(true);
            }
            _ => {}
        }
        self.inner.delete_if(location, version).await
    }
}

#[derive(Debug, Default)]
struct State {
    /// How many writes of a key are in progress, and whether they were alone.
    writing: BTreeMap<String, (usize, bool)>,
    absent: BTreeSet<String>,
    deleted: BTreeSet<String>,
    newest: Option<String>,
    parts: BTreeMap<(MultipartId, usize), PartId>,
}

impl Liar {
    pub(super) fn new(lie: Lie) -> Self {
        Self {
            inner: Arc::default(),
            lie,
            state: Mutex::default(),
        }
    }

    async fn tag(&self, location: &Path) -> Option<String> {
        self.inner.head(location).await.ok().and_then(|meta| meta.e_tag)
    }

    /// Looks whether the condition holds, and writes some time later.
    async fn look_and_write(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let tag = self.tag(location).await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        match mode {
            PutMode::Create if tag.is_some() => Err(refused(location)),
            PutMode::Update(version) if tag != version.e_tag => Err(refused(location)),
            _ => self.inner.put(location, payload).await,
        }
    }

    /// Writes, unless another write was in progress.
    async fn write_alone(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let key = location.to_string();
        {
            let mut state = self.state.lock().unwrap();
            let (count, met) = state.writing.entry(key.clone()).or_default();
            *count += 1;
            *met |= *count > 1;
        }
        tokio::task::yield_now().await;
        let met = {
            let mut state = self.state.lock().unwrap();
            let (count, met) = state.writing.get_mut(&key).unwrap();
            *count -= 1;
            let result = *met;
            *met &= *count > 0;
            result
        };
        if met {
            return Err(refused(location));
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_lying(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        use Lie::{
            AcceptsStaleVersions, CreatesOnUpdate, IgnoresConditions, ManyCreators, ManyUpdaters, NoCreates,
            NoUpdates, NobodyWins, NobodyWinsSometimes, OtherTagsOnRead, OverwritesOnCreate, SameTags,
            StoresWhatItRefuses,
        };
        let is_odd = location.as_ref().ends_with(['1', '3', '5', '7', '9']);
        let exists = self.tag(location).await.is_some();
        if let PutMode::Update(version) = &mut options.mode {
            match self.lie {
                SameTags => options.mode = PutMode::Overwrite,
                OtherTagsOnRead => {
                    version.e_tag = version.e_tag.as_ref().map(|tag| tag.replace('w', ""));
                }
                _ => {}
            }
        }
        match (self.lie, &options.mode) {
            (NoCreates, PutMode::Create) | (NoUpdates, PutMode::Update(_)) => return Err(not_implemented()),
            (IgnoresConditions, _) | (OverwritesOnCreate, PutMode::Create) => {
                options.mode = PutMode::Overwrite;
            }
            (AcceptsStaleVersions, PutMode::Update(_)) if exists => options.mode = PutMode::Overwrite,
            (CreatesOnUpdate, PutMode::Update(_)) if !exists => options.mode = PutMode::Overwrite,
            (ManyCreators, PutMode::Create) | (ManyUpdaters, PutMode::Update(_)) => {
                return self.look_and_write(location, payload, options.mode).await;
            }
            (NobodyWins, _) => return self.write_alone(location, payload, options).await,
            (NobodyWinsSometimes, _) if is_odd => return self.write_alone(location, payload, options).await,
            (StoresWhatItRefuses, _) => {
                let result = self.inner.put_opts(location, payload.clone(), options).await;
                if result.is_err() {
                    self.inner.put(location, payload).await?;
                }
                return result;
            }
            _ => {}
        }
        self.inner.put_opts(location, payload, options).await
    }

    fn fail_if_down(&self) -> Result<()> {
        match self.lie {
            Lie::IsDown => Err(Error::Generic {
                store: "liar",
                source: "Server returned non-2xx status code: 503 Service Unavailable: ".into(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "liar {:?}", self.lie)
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.fail_if_down()?;
        let mut result = self.put_lying(location, payload, options).await?;
        self.state.lock().unwrap().newest = Some(location.to_string());
        match self.lie {
            Lie::NoTags => result.e_tag = None,
            Lie::EmptyTags => result.e_tag = Some("\"\"".into()),
            Lie::SameTags => result.e_tag = Some("\"same\"".into()),
            Lie::OtherTagsOnRead => result.e_tag = result.e_tag.map(|tag| format!("w{tag}")),
            _ => {}
        }
        Ok(result)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.fail_if_down()?;
        let key = location.to_string();
        let is_hidden = {
            let mut state = self.state.lock().unwrap();
            self.lie == Lie::ListsDeleted && state.deleted.contains(&key)
                || self.lie == Lie::StaleReads && state.absent.remove(&key)
        };
        if is_hidden {
            return Err(Error::NotFound {
                path: key,
                source: "hidden".into(),
            });
        }
        let result = self.inner.get_opts(location, options).await;
        if matches!(result, Err(Error::NotFound { .. })) {
            self.state.lock().unwrap().absent.insert(key);
        }
        result
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.lie {
            Lie::KeepsDeleted => locations,
            Lie::ListsDeleted => {
                let gathered: Vec<_> = futures_util::FutureExt::now_or_never(locations.collect()).unwrap();
                let mut state = self.state.lock().unwrap();
                state
                    .deleted
                    .extend(gathered.iter().flatten().map(ToString::to_string));
                drop(state);
                stream::iter(gathered).boxed()
            }
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Liar {
    async fn create_multipart(&self, location: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(location).await
    }

    async fn put_part(
        &self,
        location: &Path,
        id: &MultipartId,
        number: usize,
        content: PutPayload,
    ) -> Result<PartId> {
        let place = (id.clone(), number);
        if self.lie == Lie::PartsOnce && self.state.lock().unwrap().parts.contains_key(&place) {
            return Err(not_implemented());
        }
        let part = self.inner.put_part(location, id, number, content).await?;
        self.state.lock().unwrap().parts.insert(place, part.clone());
        Ok(part)
    }

    async fn complete_multipart(
        &self,
        location: &Path,
        id: &MultipartId,
        mut parts: Vec<PartId>,
    ) -> Result<PutResult> {
        if self.lie == Lie::NewestPart {
            let state = self.state.lock().unwrap();
            for (number, part) in parts.iter_mut().enumerate() {
                part.clone_from(&state.parts[&(id.clone(), number)]);
            }
        }
        self.inner.complete_multipart(location, id, parts).await
    }

    async fn abort_multipart(&self, location: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(location, id).await
    }
}

#[async_trait]
impl PaginatedListStore for Liar {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        mut options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let most = options.max_keys;
        match self.lie {
            Lie::IgnoresOffset => options.offset = None,
            Lie::ListsFoldersFirst => options.max_keys = None,
            _ => {}
        }
        let mut page = self.inner.list_paginated(prefix, options).await?;
        let objects = &mut page.result.objects;
        match self.lie {
            Lie::ListsLate => {
                let newest = self.state.lock().unwrap().newest.clone().unwrap_or_default();
                objects.retain(|object| *object.location.as_ref() != *newest);
            }
            Lie::ListsFoldersFirst => {
                objects.sort_by_key(|object| object.location.as_ref().replace('/', "\t"));
                objects.truncate(most.unwrap_or(usize::MAX));
            }
            Lie::RepeatsFirstPage if objects.len() == 3 => page.page_token = Some("next".into()),
            _ => {}
        }
        Ok(page)
    }
}

fn refused(location: &Path) -> Error {
    Error::AlreadyExists {
        path: location.to_string(),
        source: "refused".into(),
    }
}

fn not_implemented() -> Error {
    Error::Generic {
        store: "liar",
        source: "Server returned non-2xx status code: 501 Not Implemented: ".into(),
    }
}
