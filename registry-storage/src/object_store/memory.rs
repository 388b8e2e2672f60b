//! An object store in the memory of this process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::records::DeleteIf;
use crate::backend::Version;

/// An object store in memory that keeps the promises of a bucket.
///
/// [`object_store::memory::InMemory`] does not: it completes uploads without checking the list of parts, copies them to
/// do so, and a page of a listing costs as much as the whole. It promises no more either: the entity tag of an object
/// that is written whole is that of its content, as in most buckets. Operations that the protocol does not use (copies,
/// listings by folder) are not implemented.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    /// Never held over an await.
    state: Arc<Mutex<MemoryStoreState>>,
}

#[derive(Debug, Default)]
struct MemoryStoreState {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<MultipartId, BTreeMap<usize, UploadedPart>>,
    /// The last identifier that was assigned to an upload, or a part; none is assigned twice.
    last_id: u64,
}

#[derive(Debug)]
struct Object {
    /// In the pieces that were written, so that completing an upload copies nothing.
    content: Vec<Bytes>,
    size: u64,
    tag: String,
    written: SystemTime,
}

#[derive(Debug)]
struct UploadedPart {
    content: PutPayload,
    tag: String,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, MemoryStoreState> {
        lock(&self.state)
    }

    fn not_implemented(&self, operation: &str) -> Error {
        Error::NotImplemented {
            operation: operation.to_owned(),
            implementer: self.to_string(),
        }
    }
}

#[async_trait]
impl DeleteIf for Arc<MemoryStore> {
    async fn delete_if(&self, location: &Path, version: &Version) -> Result<bool> {
        let mut state = self.lock();
        let object = state.objects.get(location.as_ref());
        let is_other = object.is_some_and(|object| object.tag != *version.0);
        if !is_other {
            state.objects.remove(location.as_ref());
        }
        Ok(!is_other)
    }
}

fn lock(state: &Mutex<MemoryStoreState>) -> MutexGuard<'_, MemoryStoreState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStoreState {
    fn next_id(&mut self) -> String {
        self.last_id += 1;
        format!("\"{}\"", self.last_id)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "objects have the age that a bucket would report"
    )]
    fn insert(&mut self, location: &Path, content: Vec<Bytes>, tag: String) -> PutResult {
        let object = Object {
            size: content.iter().map(|piece| piece.len() as u64).sum(),
            content,
            tag: tag.clone(),
            written: SystemTime::now(),
        };
        self.objects.insert(location.to_string(), object);
        PutResult {
            e_tag: Some(tag),
            version: None,
            extensions: object_store::Extensions::default(),
        }
    }

    fn upload(&mut self, location: &Path, id: &MultipartId) -> Result<&mut BTreeMap<usize, UploadedPart>> {
        self.uploads
            .get_mut(id)
            .ok_or_else(|| not_found(location, "no such upload"))
    }
}

impl Object {
    fn meta(&self, location: Path) -> ObjectMeta {
        ObjectMeta {
            location,
            last_modified: self.written.into(),
            size: self.size,
            e_tag: Some(self.tag.clone()),
            version: None,
        }
    }

    fn slice(&self, range: &Range<u64>) -> Vec<Bytes> {
        let mut at = 0;
        let mut pieces = Vec::new();
        for piece in &self.content {
            let start = range.start.max(at);
            let end = range.end.min(at + piece.len() as u64);
            if let (Ok(from), Ok(to)) = (usize::try_from(start - at), usize::try_from(end.max(at) - at))
                && from < to
            {
                pieces.push(piece.slice(from..to));
            }
            at += piece.len() as u64;
        }
        pieces
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mut state = self.lock();
        let present = state.objects.get(location.as_ref());
        match options.mode {
            PutMode::Create if present.is_some() => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "it exists".into(),
            }),
            PutMode::Update(version) if present.map(|object| &object.tag) != version.e_tag.as_ref() => {
                Err(precondition(location, "it is of another version"))
            }
            _ => {
                let content: Vec<Bytes> = payload.into_iter().collect();
                let tag = tag_of(&content);
                Ok(state.insert(location, content, tag))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(self.not_implemented("uploads without an identifier"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let state = self.lock();
        let object = state
            .objects
            .get(location.as_ref())
            .ok_or_else(|| not_found(location, "no such object"))?;
        let meta = object.meta(location.clone());
        options.check_preconditions(&meta)?;
        let range = match options.range {
            None => 0..object.size,
            Some(range) => range.as_range(object.size).map_err(|error| Error::Generic {
                store: "memory",
                source: Box::new(error),
            })?,
        };
        let pieces = if options.head {
            Vec::new()
        } else {
            object.slice(&range)
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter(pieces.into_iter().map(Ok)).boxed()),
            meta,
            range,
            attributes: object_store::Attributes::default(),
            extensions: object_store::Extensions::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let state = Arc::clone(&self.state);
        locations
            .map(move |location| {
                let location = location?;
                lock(&state).objects.remove(location.as_ref());
                Ok(location)
            })
            .boxed()
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let error = self.not_implemented("unbounded listings");
        stream::once(async { Err(error) }).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(self.not_implemented("listings by folder"))
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(self.not_implemented("copies"))
    }
}

#[async_trait]
impl MultipartStore for MemoryStore {
    async fn create_multipart(&self, _location: &Path) -> Result<MultipartId> {
        let mut state = self.lock();
        let id = state.next_id();
        state.uploads.insert(id.clone(), BTreeMap::new());
        Ok(id)
    }

    async fn put_part(
        &self,
        location: &Path,
        id: &MultipartId,
        number: usize,
        content: PutPayload,
    ) -> Result<PartId> {
        let mut state = self.lock();
        let tag = state.next_id();
        let part = UploadedPart {
            content,
            tag: tag.clone(),
        };
        state.upload(location, id)?.insert(number, part);
        Ok(PartId { content_id: tag })
    }

    async fn complete_multipart(
        &self,
        location: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let mut state = self.lock();
        let uploaded = state.upload(location, id)?;
        let mut content = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            match uploaded.get(&number) {
                Some(uploaded) if uploaded.tag == part.content_id => {
                    content.extend(uploaded.content.clone());
                }
                _ => return Err(precondition(location, "a part is not the one that was named")),
            }
        }
        state.uploads.remove(id);
        let tag = state.next_id();
        Ok(state.insert(location, content, tag))
    }

    async fn abort_multipart(&self, location: &Path, id: &MultipartId) -> Result<()> {
        let removed = self.lock().uploads.remove(id);
        removed
            .map(drop)
            .ok_or_else(|| not_found(location, "no such upload"))
    }
}

#[async_trait]
impl PaginatedListStore for MemoryStore {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let start = match options.offset.as_deref() {
            Some(offset) if offset >= prefix => Bound::Excluded(offset),
            _ => Bound::Included(prefix),
        };
        let state = self.lock();
        let objects = state
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(location, _)| location.starts_with(prefix))
            .take(options.max_keys.unwrap_or(usize::MAX))
            .map(|(location, object)| Ok(object.meta(Path::parse(location)?)))
            .collect::<Result<_>>()?;
        Ok(PaginatedListResult {
            result: ListResult {
                common_prefixes: Vec::new(),
                objects,
                extensions: object_store::Extensions::default(),
            },
            // The offset of the next page is all that is needed to continue.
            page_token: None,
        })
    }
}

/// Returns the entity tag of content that is written whole.
fn tag_of(content: &[Bytes]) -> String {
    let mut hasher = DefaultHasher::new();
    for piece in content {
        hasher.write(piece);
    }
    format!("\"{:016x}\"", hasher.finish())
}

fn not_found(location: &Path, what: &'static str) -> Error {
    Error::NotFound {
        path: location.to_string(),
        source: what.into(),
    }
}

fn precondition(location: &Path, what: &'static str) -> Error {
    Error::Precondition {
        path: location.to_string(),
        source: what.into(),
    }
}
