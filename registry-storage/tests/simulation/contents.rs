//! Blobs and manifests to push.

use std::sync::Arc;

use bytes::Bytes;
use registry_core::storage::{ChildKind, Manifest, ManifestChild, NewManifest};
use registry_core::{Annotations, Descriptor, Digest};

use crate::support::images::bare_manifest;
pub(crate) use crate::support::images::digest;

pub(crate) struct Blob {
    pub(crate) content: Bytes,
    pub(crate) digest: Digest,
    pub(crate) is_deleted: bool,
}

pub(crate) struct Image {
    pub(crate) new: NewManifest,
    pub(crate) is_deleted: bool,
    /// Nobody deletes its children.
    pub(crate) is_whole: bool,
}

/// A manifest that names these children: the collector reads it.
pub(crate) fn manifest(name: &str, children: &[&Digest], kind: ChildKind) -> Manifest {
    let descriptors: Vec<String> = children
        .iter()
        .map(|digest| format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":1}}"#))
        .collect();
    let (media_type, content) = match kind {
        ChildKind::Blob => (
            "application/vnd.oci.image.manifest.v1+json",
            format!(
                r#""config":{},"layers":[{}]"#,
                descriptors[0],
                descriptors[1..].join(",")
            ),
        ),
        ChildKind::Manifest => (
            "application/vnd.oci.image.index.v1+json",
            format!(r#""manifests":[{}]"#, descriptors.join(",")),
        ),
    };
    let bytes = format!(r#"{{"schemaVersion":2,"annotations":{{"name":"{name}"}},{content}}}"#);
    Manifest {
        digest: digest(bytes.as_bytes()),
        media_type: media_type.parse().unwrap(),
        bytes: bytes.into(),
    }
}

/// A push of a manifest without a tag.
pub(crate) fn new_manifest(text: &'static str, children: &[&Digest], kind: ChildKind) -> NewManifest {
    NewManifest {
        children: children
            .iter()
            .map(|digest| ManifestChild {
                digest: (*digest).clone(),
                kind,
            })
            .collect(),
        ..bare_manifest(manifest(text, children, kind))
    }
}

/// The manifests: two that nobody deletes, then two referrers and an index that come and go.
pub(crate) fn images(blobs: &[Blob]) -> Arc<[Image]> {
    let referring = |mut new: NewManifest, subject: &NewManifest| {
        let descriptor = Descriptor {
            media_type: new.manifest.media_type.clone(),
            digest: new.manifest.digest.clone(),
            size: new.manifest.bytes.len() as u64,
            artifact_type: None,
            annotations: Annotations::default(),
        };
        new.subject = Some((subject.manifest.digest.clone(), descriptor));
        new
    };
    let [a, b, c, d] = blobs else { panic!() };
    let base = new_manifest("base", &[&a.digest, &b.digest], ChildKind::Blob);
    let second = new_manifest("second", &[&b.digest], ChildKind::Blob);
    let referrer = referring(new_manifest("referrer", &[&a.digest], ChildKind::Blob), &base);
    let fragile = referring(
        new_manifest("fragile", &[&c.digest, &d.digest], ChildKind::Blob),
        &base,
    );
    let index = new_manifest(
        "index",
        &[&referrer.manifest.digest, &base.manifest.digest],
        ChildKind::Manifest,
    );
    let of = |new, is_deleted, is_whole| Image {
        new,
        is_deleted,
        is_whole,
    };
    [
        of(base, false, true),
        of(second, false, true),
        of(referrer, true, true),
        of(fragile, true, false),
        of(index, true, false),
    ]
    .into()
}
