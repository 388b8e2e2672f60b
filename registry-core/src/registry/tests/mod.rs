mod admission;
mod events;
mod lists;
mod manifests;
mod namespaces;
mod options;
mod redirects;
mod rights;
mod uploads;

use super::*;
use crate::descriptor::{Annotations, Descriptor};
use crate::digest::Algorithm;
use crate::error::ErrorCode;
use crate::media_type::MediaType;
use crate::page::PageQuery;
use crate::reference::Reference;
use crate::storage::{
    Blob, BlobStorage, EndReason, ListStorage, Manifest, ManifestStorage, NewManifest, Page, PageRequest,
    ReferrersRequest, RepositoryDeleted, RestoreTag, RestoredTag, SignedUrl, TagCondition, TagEnd, TagFilter,
    TagValue, UploadKey, UploadStorage,
};
use crate::tag::Tag;
use crate::testing::{Elsewhere, Items, Memory, now, read_all, text_of};
use crate::time::Timestamp;
use crate::upload_id::UploadId;
use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use async_trait::async_trait;
use bytes::Bytes;
use core::fmt::Write as _;
use core::ops::Bound;
use core::pin::pin;
use proptest::prelude::*;
use std::sync::Mutex;

/// A storage that knows just enough to be used by a registry; `log` records what was done.
#[derive(Default)]
struct Tiny {
    log: Mutex<String>,
    /// The content of the next session, and everything that was appended.
    upload: Mutex<Vec<u8>>,
    /// The repositories that have every blob.
    sources: Vec<&'static str>,
    names: Vec<String>,
    referrers: Vec<Descriptor>,
    largest_page: usize,
    pushed: Mutex<Vec<NewManifest>>,
    /// Where every blob can be read as well.
    signed_url: Option<SignedUrl>,
}

impl Tiny {
    fn note(&self, what: impl fmt::Display) {
        write!(self.log.lock().unwrap(), "{what};").unwrap();
    }

    fn log(&self) -> String {
        core::mem::take(&mut *self.log.lock().unwrap())
    }

    fn key(upload: &UploadKey) -> Result<(), Error> {
        if upload.id == id() && upload.principal == "alice" {
            Ok(())
        } else {
            Err(ErrorCode::BlobUploadUnknown.into())
        }
    }

    /// Returns a page as a storage does: it may be shorter than requested.
    fn page<T: Clone>(&self, all: &BTreeMap<String, T>, page: &PageRequest) -> Page<T> {
        let from = page.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let limit = page.limit.min(self.largest_page.max(1));
        let rest = all.range::<String, _>((from, Bound::Unbounded));
        let taken: Vec<_> = rest.clone().take(limit).collect();
        Page {
            items: taken.iter().map(|(_, item)| (*item).clone()).collect(),
            next: taken
                .last()
                .filter(|_| rest.count() > limit)
                .map(|(key, _)| (*key).clone()),
        }
    }

    fn names<T: core::str::FromStr<Err = Error> + Clone>(&self, page: &PageRequest) -> Page<T> {
        let all = self
            .names
            .iter()
            .map(|name| (name.clone(), name.parse().unwrap()));
        self.page(&all.collect(), page)
    }
}

#[async_trait]
impl BlobStorage for Tiny {
    async fn stat_blob(&self, _: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
        self.note("stat");
        if *digest == hello() {
            Ok(5)
        } else {
            Err(ErrorCode::BlobUnknown.into())
        }
    }

    async fn open_blob(&self, _: &RepositoryName, _: &Digest) -> Result<Blob, Error> {
        self.note("open");
        Ok(Blob {
            size: 5,
            content: Arc::new(Elsewhere(Memory(b"hello".to_vec()), self.signed_url.clone())),
        })
    }

    async fn pull_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        self.note("pull");
        self.open_blob(repository, digest).await
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        _: &Digest,
    ) -> Result<bool, Error> {
        self.note(format_args!("mount {from} {to}"));
        Ok(self.sources.contains(&from.as_str()))
    }

    async fn list_blob_repositories(
        &self,
        _: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error> {
        let items = self
            .sources
            .iter()
            .take(page.limit)
            .map(|name| name.parse().unwrap());
        Ok(Page {
            items: items.collect(),
            next: None,
        })
    }

    async fn delete_blob(&self, _: &RepositoryName, _: &Digest, _: Option<TagFilter>) -> Result<(), Error> {
        self.note("delete blob");
        Ok(())
    }
}

#[async_trait]
impl UploadStorage for Tiny {
    async fn create_upload(
        &self,
        _: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.note(format_args!("create {principal} {algorithm}"));
        Ok(id())
    }

    async fn append_upload(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        mut body: Body<'_>,
    ) -> Result<u64, Error> {
        Self::key(upload)?;
        self.note("append");
        let mut bytes = self.upload.lock().unwrap().clone();
        if offset.is_some_and(|offset| offset != bytes.len() as u64) {
            return Err(ErrorCode::RangeInvalid.into());
        }
        let result = loop {
            match body::next(&mut body).await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break Ok(bytes.len() as u64),
                Err(error) => break Err(error),
            }
        };
        *self.upload.lock().unwrap() = bytes;
        result
    }

    async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error> {
        Self::key(upload)?;
        Ok(self.upload.lock().unwrap().len() as u64)
    }

    async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error> {
        Self::key(upload)?;
        self.note("commit");
        if Digest::of(digest.supported_algorithm()?, &self.upload.lock().unwrap()) == *digest {
            Ok(())
        } else {
            Err(ErrorCode::DigestInvalid.into())
        }
    }

    async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        let before = self.upload.lock().unwrap().clone();
        let finished = async {
            let size = self.append_upload(upload, offset, body).await?;
            self.commit_upload(upload, digest).await?;
            Ok(size)
        };
        let result = finished.await;
        if result.is_err() {
            *self.upload.lock().unwrap() = before;
        }
        result
    }

    async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error> {
        Self::key(upload)?;
        self.note("cancel");
        Ok(())
    }
}

#[async_trait]
impl ManifestStorage for Tiny {
    async fn get_manifest(&self, _: &RepositoryName, _: &Reference) -> Result<Manifest, Error> {
        self.note("get");
        Ok(Manifest {
            digest: Digest::of(Algorithm::Sha256, INDEX),
            media_type: MediaType::OCI_INDEX.parse()?,
            bytes: Bytes::from_static(INDEX),
        })
    }

    async fn pull_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.note("pull");
        self.get_manifest(repository, reference).await
    }

    async fn stat_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.note("stat");
        self.get_manifest(repository, reference).await
    }

    async fn put_manifest(&self, _: &RepositoryName, manifest: NewManifest) -> Result<(), Error> {
        self.pushed.lock().unwrap().push(manifest);
        Ok(())
    }

    async fn delete_manifest(
        &self,
        _: &RepositoryName,
        _: &Digest,
        _: Option<TagFilter>,
        _: Option<TagFilter>,
    ) -> Result<(), Error> {
        self.note("delete manifest");
        Ok(())
    }

    async fn delete_tag(
        &self,
        _: &RepositoryName,
        _: &Tag,
        if_match: Option<&[Digest]>,
    ) -> Result<(), Error> {
        match if_match {
            None => self.note("delete tag"),
            Some(digests) => self.note(format!("delete tag if one of {}", digests.len())),
        }
        Ok(())
    }

    async fn delete_all(
        &self,
        repository: &RepositoryName,
        immutable: Option<TagFilter>,
    ) -> Result<RepositoryDeleted, Error> {
        self.note("delete all");
        let must_stay = immutable.is_some_and(|immutable| immutable(&"v1".parse().unwrap()));
        if must_stay {
            return Err(ErrorCode::TagConflict.into());
        }
        Ok(RepositoryDeleted {
            tags: 3,
            is_gone: repository.as_str() != "busy",
            ..RepositoryDeleted::default()
        })
    }

    async fn find_restorable(
        &self,
        repository: &RepositoryName,
        restore: &RestoreTag,
    ) -> Result<Manifest, Error> {
        if repository.as_str() == "none" {
            return Err(ErrorCode::ManifestUnknown.into());
        }
        self.get_manifest(repository, &Reference::Tag(restore.tag.clone()))
            .await
    }

    async fn restore_tag(
        &self,
        repository: &RepositoryName,
        restore: RestoreTag,
    ) -> Result<RestoredTag, Error> {
        let manifest = self.find_restorable(repository, &restore).await?;
        assert_eq!(restore.digest.as_ref(), Some(&manifest.digest));
        if restore.is_immutable {
            return Err(ErrorCode::TagConflict.into());
        }
        self.note(format_args!("restore {} {}", restore.tag, restore.principal));
        let digest = manifest.digest.clone();
        Ok(RestoredTag {
            manifest,
            replaced: None,
            manifests: 2,
            digests: vec![Digest::of(Algorithm::Sha256, b"another"), digest],
            referrers: 1,
            referrers_left_out: 0,
        })
    }
}

#[async_trait]
impl ListStorage for Tiny {
    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error> {
        if repository.as_str() == "none" {
            Err(ErrorCode::NameUnknown.into())
        } else {
            Ok(self.names(&page))
        }
    }

    async fn list_tag_history(
        &self,
        _: &RepositoryName,
        tag: Option<&Tag>,
        page: PageRequest,
    ) -> Result<Page<TagValue>, Error> {
        self.note(format_args!("history {} {:?}", page.limit, page.last));
        let value = TagValue {
            tag: tag.cloned().unwrap_or("v1".parse()?),
            digest: Digest::of(Algorithm::Sha256, INDEX),
            since: Timestamp(1),
            principal: "alice".into(),
            end: Some(TagEnd {
                at: Timestamp(2),
                reason: EndReason::Moved,
                principal: "bob".into(),
                restorable_until: Some(Timestamp(3)),
            }),
        };
        Ok(Page {
            items: vec![value],
            next: page.last.is_none().then(|| "v1/2".into()),
        })
    }

    async fn list_referrers(
        &self,
        _: &RepositoryName,
        _: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error> {
        self.note(format_args!("referrers {} {}", request.limit, request.size_limit));
        let all = self
            .referrers
            .iter()
            .map(|referrer| (referrer.digest.to_string(), referrer.clone()));
        let (last, limit) = (request.last, request.limit);
        let mut page = self.page(&all.collect(), &PageRequest { last, limit });
        page.items.retain(|referrer| {
            let wanted = request.artifact_type.as_ref();
            wanted.is_none() || wanted == referrer.artifact_type.as_ref()
        });
        Ok(page)
    }

    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        self.note("repositories");
        Ok(self.names(&page))
    }
}

/// Refuses what a function selects, by operation.
#[derive(Debug)]
struct Refuse(fn(&Operation<'_>) -> bool);

impl Authorizer for Refuse {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        assert_eq!(principal.name(), "alice");
        if (self.0)(operation) {
            Err(ErrorCode::Denied.into())
        } else {
            Ok(())
        }
    }
}

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

fn id() -> UploadId {
    UploadId::from_random(7)
}

fn hello() -> Digest {
    Digest::of(Algorithm::Sha256, b"hello")
}

fn registry(storage: Tiny) -> Registry<Tiny> {
    Registry::new(Arc::new(storage), Options::default())
}

/// Sends a request and returns the answer with what is left of the body.
fn send(
    registry: &Registry<Tiny>,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[&'static [u8]],
) -> (Response, usize) {
    let request = Request::parse(method, target, fields).unwrap();
    let mut body = pin!(Items::of(body));
    let response = now(registry.handle(&Principal::new("alice"), request, body.as_mut()));
    (response, body.0.len())
}

fn get(registry: &Registry<Tiny>, target: &str) -> Response {
    send(registry, "GET", target, &[], &[]).0
}

fn code(response: &Response) -> Option<ErrorCode> {
    response.error.as_ref().map(Error::code)
}
