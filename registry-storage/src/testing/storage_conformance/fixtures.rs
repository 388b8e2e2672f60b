//! What the behaviours push, and how they push it.

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::ChildKind;
use registry_core::storage::{
    Blob, Manifest, ManifestChild, NewManifest, PageRequest, TagCondition, UploadKey,
};
use registry_core::{
    Algorithm, Annotations, Descriptor, Digest, Error, ErrorCode, Hasher, MediaType, Reference,
    RepositoryName, Storage, Tag,
};

use super::random::Random;

/// Blobs up to this size are presumably stored differently from larger ones.
pub(super) const SMALL: usize = 16 * 1024;

/// The smallest part of an upload to a bucket.
pub(super) const PART: usize = 5 * 1024 * 1024;

pub(super) fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

pub(super) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub(super) fn reference(tag: &Tag) -> Reference {
    Reference::Tag(tag.clone())
}

/// Returns `size` bytes, the same for the same seed. Each KiB begins with random bytes, so that no two are alike.
pub(super) fn content(seed: u64, size: usize) -> Bytes {
    let mut random = Random::new(seed);
    let mut content = BytesMut::with_capacity(size + 1024);
    while content.len() < size {
        let start = random.next().to_le_bytes();
        content.extend_from_slice(&start);
        content.resize(content.len() + 1024 - start.len(), start[0]);
    }
    content.truncate(size);
    content.freeze()
}

pub(super) fn digest_by(algorithm: Algorithm, content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(content);
    hasher.finish()
}

pub(super) fn digest(content: &[u8]) -> Digest {
    digest_by(Algorithm::Sha256, content)
}

/// Returns a body of these chunks.
pub(super) fn body(
    chunks: impl IntoIterator<Item = Bytes, IntoIter: Send>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    stream::iter(chunks.into_iter().map(Ok))
}

pub(super) async fn start(storage: &dyn Storage, repository: &RepositoryName) -> UploadKey {
    start_as(storage, repository, "", Algorithm::Sha256).await
}

pub(super) async fn start_as(
    storage: &dyn Storage,
    repository: &RepositoryName,
    principal: &str,
    algorithm: Algorithm,
) -> UploadKey {
    let id = storage
        .create_upload(repository, principal, algorithm)
        .await
        .unwrap();
    UploadKey {
        repository: repository.clone(),
        id,
        principal: principal.to_owned(),
    }
}

pub(super) async fn append(
    storage: &dyn Storage,
    upload: &UploadKey,
    offset: Option<u64>,
    content: &Bytes,
) -> Result<u64, Error> {
    append_body(storage, upload, offset, body([content.clone()])).await
}

/// Appends the content of a stream.
pub(super) async fn append_body(
    storage: &dyn Storage,
    upload: &UploadKey,
    offset: Option<u64>,
    body: impl Stream<Item = Result<Bytes, Error>> + Send,
) -> Result<u64, Error> {
    let mut body = std::pin::pin!(body);
    storage.append_upload(upload, offset, body.as_mut()).await
}

/// Pushes a blob in one chunk.
pub(super) async fn try_push_blob(
    storage: &dyn Storage,
    repository: &RepositoryName,
    content: &Bytes,
) -> Result<Digest, Error> {
    let id = storage.create_upload(repository, "", Algorithm::Sha256).await?;
    let upload = UploadKey {
        repository: repository.clone(),
        id,
        principal: String::new(),
    };
    append(storage, &upload, None, content).await?;
    let digest = digest(content);
    storage.commit_upload(&upload, &digest).await?;
    Ok(digest)
}

pub(super) async fn push_blob(storage: &dyn Storage, repository: &RepositoryName, content: &Bytes) -> Digest {
    try_push_blob(storage, repository, content).await.unwrap()
}

/// Reads a whole blob, as a client that pulls it and otherwise, and checks its size.
pub(super) async fn read_blob(
    storage: &dyn Storage,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Bytes, Error> {
    let pulled = read_content(storage.pull_blob(repository, digest).await?).await?;
    let read = read_content(storage.open_blob(repository, digest).await?).await?;
    assert!(pulled == read, "a client that pulls {digest} gets other bytes");
    Ok(read)
}

async fn read_content(blob: Blob) -> Result<Bytes, Error> {
    let mut read = BytesMut::new();
    let mut stream = blob.content.read(0..blob.size);
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk?);
    }
    assert_eq!(
        read.len() as u64,
        blob.size,
        "the blob has the size that it was opened with"
    );
    Ok(read.freeze())
}

/// Checks that a repository has a blob with this content.
pub(super) async fn assert_blob(storage: &dyn Storage, repository: &RepositoryName, content: &Bytes) {
    assert_blob_of(storage, repository, &digest(content), content).await;
}

/// Checks that a blob has this content.
pub(super) async fn assert_blob_of(
    storage: &dyn Storage,
    repository: &RepositoryName,
    digest: &Digest,
    content: &Bytes,
) {
    let size = storage.stat_blob(repository, digest).await.unwrap();
    assert_eq!(size, content.len() as u64);
    let read = read_blob(storage, repository, digest).await.unwrap();
    assert!(
        read == *content,
        "the blob {digest} has other bytes than were pushed"
    );
}

pub(super) async fn assert_no_blob(storage: &dyn Storage, repository: &RepositoryName, digest: &Digest) {
    assert_code(
        storage.stat_blob(repository, digest).await,
        ErrorCode::BlobUnknown,
    );
    for opened in [
        storage.open_blob(repository, digest).await,
        storage.pull_blob(repository, digest).await,
    ] {
        assert_code(opened, ErrorCode::BlobUnknown);
    }
}

#[track_caller]
pub(super) fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error:?}");
}

/// Returns a manifest of these bytes, without children, tags or conditions.
pub(super) fn manifest(bytes: &str) -> NewManifest {
    let bytes = Bytes::copy_from_slice(bytes.as_bytes());
    NewManifest {
        manifest: Manifest {
            digest: digest(&bytes),
            media_type: media_type("application/vnd.oci.image.manifest.v1+json"),
            bytes,
        },
        children: Vec::new(),
        allow_missing: false,
        optional_children: Vec::new(),
        subject: None,
        tags: Vec::new(),
        condition: TagCondition::Any,
        immutable_tags: Vec::new(),
        principal: "somebody".to_owned(),
    }
}

pub(super) fn media_type(text: &str) -> MediaType {
    text.parse().unwrap()
}

/// What is added to a manifest before it is pushed.
pub(super) trait With: Sized {
    fn with_tag(self, tag: &Tag) -> Self;
    fn with_blob(self, digest: &Digest) -> Self;
    fn with_child(self, digest: &Digest) -> Self;
    fn with_subject(self, subject: &Digest) -> Self;
    fn with_condition(self, condition: TagCondition) -> Self;
    /// Makes the tags that it has immutable.
    fn with_immutable_tags(self) -> Self;
}

impl With for NewManifest {
    fn with_tag(mut self, tag: &Tag) -> Self {
        self.tags.push(tag.clone());
        self
    }

    fn with_blob(mut self, digest: &Digest) -> Self {
        self.children.push(ManifestChild {
            digest: digest.clone(),
            kind: ChildKind::Blob,
        });
        self
    }

    fn with_child(mut self, digest: &Digest) -> Self {
        self.children.push(ManifestChild {
            digest: digest.clone(),
            kind: ChildKind::Manifest,
        });
        self
    }

    fn with_subject(mut self, subject: &Digest) -> Self {
        self.subject = Some((subject.clone(), descriptor(&self)));
        self
    }

    fn with_condition(mut self, condition: TagCondition) -> Self {
        self.condition = condition;
        self
    }

    fn with_immutable_tags(mut self) -> Self {
        self.immutable_tags.clone_from(&self.tags);
        self
    }
}

/// Returns the descriptor of a manifest for the list of its subject.
pub(super) fn descriptor(manifest: &NewManifest) -> Descriptor {
    Descriptor {
        media_type: manifest.manifest.media_type.clone(),
        digest: manifest.manifest.digest.clone(),
        size: manifest.manifest.bytes.len() as u64,
        artifact_type: Some("application/vnd.test".to_owned()),
        annotations: Annotations::from_json(Bytes::from_static(br#"{"key": "value"}"#)),
    }
}

pub(super) fn page(last: Option<&str>, limit: usize) -> PageRequest {
    PageRequest {
        last: last.map(str::to_owned),
        limit,
    }
}

pub(super) async fn get(
    storage: &dyn Storage,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Manifest, Error> {
    storage
        .get_manifest(repository, &Reference::Digest(digest.clone()))
        .await
}

pub(super) async fn get_tag(
    storage: &dyn Storage,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Manifest, Error> {
    storage.get_manifest(repository, &reference(tag)).await
}

/// Lists all tags, in pages of `limit`.
pub(super) async fn all_tags(
    storage: &dyn Storage,
    repository: &RepositoryName,
    limit: usize,
) -> Vec<String> {
    let mut tags = Vec::new();
    let mut last = None;
    loop {
        let request = PageRequest { last, limit };
        let page = storage.list_tags(repository, request).await.unwrap();
        assert!(page.items.len() <= limit, "a page has at most its limit");
        tags.extend(page.items.iter().map(ToString::to_string));
        match page.next {
            Some(next) => last = Some(next),
            None => return tags,
        }
    }
}

/// Lists all referrers, in pages of `limit`.
pub(super) async fn all_referrers(
    storage: &dyn Storage,
    repository: &RepositoryName,
    subject: &Digest,
    limit: usize,
) -> Vec<Descriptor> {
    let mut referrers = Vec::new();
    let mut last = None;
    loop {
        let request = PageRequest { last, limit };
        let page = storage
            .list_referrers(repository, subject, request.into())
            .await
            .unwrap();
        assert!(page.items.len() <= limit, "a page has at most its limit");
        referrers.extend(page.items);
        match page.next {
            Some(next) => last = Some(next),
            None => return referrers,
        }
    }
}
