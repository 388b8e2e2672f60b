//! Images as clients push them, straight into a storage.

use bytes::Bytes;
use futures_util::stream;
use registry_core::manifest::ManifestView;
use registry_core::storage::{Manifest, NewManifest, Storage, TagCondition, UploadKey};
use registry_core::{Algorithm, Digest, Error, MediaType, RepositoryName, Tag};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image that was pushed.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    pub(crate) config: Bytes,
    pub(crate) layer: Bytes,
}

pub(crate) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub(crate) fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// Begins an upload with this content and does not end it.
pub(crate) async fn start_upload(storage: &dyn Storage, repository: &str, content: &Bytes) -> UploadKey {
    try_start_upload(storage, repository, content).await.unwrap()
}

async fn try_start_upload(
    storage: &dyn Storage,
    repository: &str,
    content: &Bytes,
) -> Result<UploadKey, Error> {
    let upload = create_upload(storage, repository).await?;
    append(storage, &upload, content).await?;
    Ok(upload)
}

/// Begins an upload without content.
pub(crate) async fn create_upload(storage: &dyn Storage, repository: &str) -> Result<UploadKey, Error> {
    let repository = name(repository);
    let id = storage.create_upload(&repository, "", Algorithm::Sha256).await?;
    Ok(UploadKey {
        repository,
        id,
        principal: String::new(),
    })
}

/// Sends content to the end of an upload. Returns how many bytes it has then.
pub(crate) async fn append(storage: &dyn Storage, upload: &UploadKey, content: &Bytes) -> Result<u64, Error> {
    let body = std::pin::pin!(stream::iter([Ok(content.clone())]));
    storage.append_upload(upload, None, body).await
}

pub(crate) async fn try_push_blob(
    storage: &dyn Storage,
    repository: &str,
    content: &Bytes,
) -> Result<(), Error> {
    let upload = try_start_upload(storage, repository, content).await?;
    storage.commit_upload(&upload, &digest(content)).await
}

pub(crate) async fn push_blob(storage: &dyn Storage, repository: &str, content: &Bytes) {
    try_push_blob(storage, repository, content).await.unwrap();
}

/// Makes an image of a small configuration and a layer of `size` bytes, both of which depend on `seed`.
pub(crate) fn image(seed: u64, size: usize, subject: Option<&Image>) -> Image {
    let config = Bytes::from(format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"seed\":{seed}}}"
    ));
    let mut layer = format!("layer {seed} ").into_bytes();
    layer.resize(size.max(layer.len()), seed as u8);
    let layer = Bytes::from(layer);
    let subject = subject.map_or_else(String::new, |subject| {
        format!(",\"subject\":{}", descriptor(IMAGE, &subject.bytes))
    });
    let bytes = Bytes::from(format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{IMAGE}\",\"config\":{},\"layers\":[{}]{subject}}}",
        descriptor("application/vnd.oci.image.config.v1+json", &config),
        descriptor("application/vnd.oci.image.layer.v1.tar", &layer),
    ));
    Image {
        digest: digest(&bytes),
        bytes,
        config,
        layer,
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(
        "{{\"mediaType\":\"{media_type}\",\"digest\":\"{}\",\"size\":{}}}",
        digest(content),
        content.len()
    )
}

pub(crate) async fn push_image(
    storage: &dyn Storage,
    repository: &str,
    tag: Option<&str>,
    seed: u64,
    size: usize,
) -> Image {
    let image = image(seed, size, None);
    try_push(storage, repository, tag, &image).await.unwrap();
    image
}

/// Pushes the parts of an image, then its manifest.
pub(crate) async fn try_push(
    storage: &dyn Storage,
    repository: &str,
    tag: Option<&str>,
    image: &Image,
) -> Result<(), Error> {
    try_push_blob(storage, repository, &image.config).await?;
    try_push_blob(storage, repository, &image.layer).await?;
    put(storage, repository, tag, IMAGE, &image.bytes).await
}

pub(crate) async fn push_referrer(
    storage: &dyn Storage,
    repository: &str,
    subject: &Image,
    seed: u64,
) -> Image {
    let image = image(seed, 100, Some(subject));
    try_push(storage, repository, None, &image).await.unwrap();
    image
}

pub(crate) async fn push_index(
    storage: &dyn Storage,
    repository: &str,
    tag: &str,
    images: &[&Image],
) -> Digest {
    let entries: Vec<String> = images
        .iter()
        .map(|image| descriptor(IMAGE, &image.bytes))
        .collect();
    let bytes = Bytes::from(format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{}]}}",
        entries.join(",")
    ));
    put(storage, repository, Some(tag), INDEX, &bytes).await.unwrap();
    digest(&bytes)
}

pub(crate) async fn put(
    storage: &dyn Storage,
    repository: &str,
    tag: Option<&str>,
    media_type: &str,
    bytes: &Bytes,
) -> Result<(), Error> {
    let new = NewManifest {
        tags: tag.map(|tag| tag.parse().unwrap()).into_iter().collect(),
        ..parsed_manifest(media_type, bytes)
    };
    storage.put_manifest(&name(repository), new).await
}

/// A push of a manifest that needs and refers to what its content names. It has no tag.
pub(crate) fn parsed_manifest(media_type: &str, bytes: &Bytes) -> NewManifest {
    let media_type: MediaType = media_type.parse().unwrap();
    let view = ManifestView::parse(bytes, Some(&media_type)).unwrap();
    let digest = digest(bytes);
    let subject = view.subject().map(|subject| {
        let descriptor = view.referrer_descriptor(&digest, bytes.len() as u64);
        (subject.clone(), descriptor)
    });
    NewManifest {
        children: view.children().to_vec(),
        optional_children: view.optional_children().to_vec(),
        subject,
        ..bare_manifest(Manifest {
            digest,
            media_type,
            bytes: bytes.clone(),
        })
    }
}

/// A push of a manifest that needs and refers to nothing, whatever its content names. It has no tag.
pub(crate) fn bare_manifest(manifest: Manifest) -> NewManifest {
    NewManifest {
        manifest,
        children: Vec::new(),
        allow_missing: false,
        optional_children: Vec::new(),
        subject: None,
        tags: Vec::new(),
        condition: TagCondition::Any,
        immutable_tags: Vec::new(),
        principal: String::new(),
    }
}
