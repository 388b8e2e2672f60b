//! Manifests: a checked view over bytes that are never changed.

mod document;
mod kind;
mod platform;

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

pub(crate) use self::document::parse_annotations;
use self::document::{Document, DocumentDescriptor};
use self::kind::Kind;
pub use self::platform::default_image;
use crate::descriptor::{Annotations, Descriptor};
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};
use crate::media_type::MediaType;
use crate::storage::{ChildKind, ManifestChild};

/// The default limit of the size of a manifest in bytes.
///
/// It is the size that distribution-spec 1.1, "Pushing Manifests", asks registries to support. [`ManifestView::parse`]
/// leaves the limit to its caller, which knows the size before the bytes are in memory.
pub const DEFAULT_SIZE_LIMIT: usize = 4 * 1024 * 1024;

/// What a registry needs to know about a manifest: an OCI image manifest or image index, or Docker's equivalents.
///
/// The bytes stay as they were pushed; the view is separate. Whatever the registry does not use may have any value:
/// unknown fields, unknown media types of configurations, layers and artifacts, unknown digest algorithms.
///
/// ```
/// use registry_core::{Digest, manifest::ManifestView};
/// let view = ManifestView::parse(br#"{"schemaVersion":2,"manifests":[]}"#, None)?;
/// assert_eq!(view.media_type().as_str(), "application/vnd.oci.image.index.v1+json");
/// assert!(view.children().is_empty());
/// # Ok::<(), registry_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestView {
    media_type: MediaType,
    children: Vec<ManifestChild>,
    optional_children: Vec<ManifestChild>,
    subject: Option<Digest>,
    artifact_type: Option<String>,
    annotations: Annotations,
}

impl ManifestView {
    /// Parses and checks a manifest.
    ///
    /// `content_type` is the client's `Content-Type`. It determines the type of the manifest, and a `mediaType` field
    /// must agree with it. Without the header, or if it only means bytes or JSON, the field determines the type, and
    /// without either the shape of the document does. The header may be in any case.
    ///
    /// The document is a JSON object in UTF-8 and nests at most 127 levels deep. Known keys of the document and its
    /// descriptors occur once and in their own case: some clients read `Layers` as `layers`, and what two parsers
    /// understand differently is refused (as is, for CVE-2021-41190, a document that is both an image and an index). Go
    /// writes `null` for an empty list, so `null` counts as an empty list, and so does a missing list, as in the
    /// distribution registry.
    ///
    /// # Errors
    /// [`ErrorCode::ManifestInvalid`], with a message that says what is wrong.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Self, Error> {
        kind::refuse_schema_1(content_type.map(MediaType::as_str))?;
        let document = Document::parse(bytes)?;
        let (media_type, kind) = kind::resolve(&document, content_type)?;
        let own_artifact_type = document.artifact_type.filter(|text| !text.is_empty());
        let mut children = Children::default();
        let artifact_type = match kind {
            Kind::Image => {
                let Some(config) = document.config else {
                    return Err(invalid("an image manifest has a config"));
                };
                let config_type = config.media_type.clone();
                children.add(config, ChildKind::Blob);
                for layer in document.layers.unwrap_or_default() {
                    children.add(layer, ChildKind::Blob);
                }
                own_artifact_type.or_else(|| Some(config_type).filter(|text| !text.is_empty()))
            }
            Kind::Index => {
                if document.config.is_some() || document.layers.is_some() {
                    return Err(invalid("an image index has manifests, and no config or layers"));
                }
                for manifest in document.manifests.unwrap_or_default() {
                    children.add(manifest, ChildKind::Manifest);
                }
                own_artifact_type
            }
        };
        let (children, optional_children) = children.finish();
        Ok(Self {
            media_type,
            children,
            optional_children,
            subject: document.subject.map(|subject| subject.digest),
            artifact_type,
            annotations: document.annotations,
        })
    }

    /// Returns the media type with which the manifest is stored and served: one of the four that are accepted.
    #[must_use]
    pub const fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// Returns the content that the manifest needs, each digest once, in the order of the document. It does not include
    /// the subject.
    #[must_use]
    pub fn children(&self) -> &[ManifestChild] {
        &self.children
    }

    /// Returns the layers that clients may fetch from elsewhere (image-spec, "Non-Distributable Layers"): never
    /// required, but worth keeping if they were pushed. None of them is among the children.
    #[must_use]
    pub fn optional_children(&self) -> &[ManifestChild] {
        &self.optional_children
    }

    /// Returns the manifest that this one refers to, which need not exist.
    #[must_use]
    pub const fn subject(&self) -> Option<&Digest> {
        self.subject.as_ref()
    }

    /// Returns the type of the artifact for lists of referrers: `artifactType`, otherwise, for an image manifest, the
    /// media type of its config.
    #[must_use]
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// Returns the manifest's own annotations, which are an object of strings.
    #[must_use]
    pub const fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// Returns the descriptor of this manifest in the list of its subject's referrers (distribution-spec 1.1, "Listing
    /// Referrers"): `digest` and `size`, in bytes, are those of the manifest, and its annotations are copied.
    #[must_use]
    pub fn referrer_descriptor(&self, digest: &Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: digest.clone(),
            size,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// The children of a manifest while they are collected.
#[derive(Default)]
struct Children {
    required: Vec<ManifestChild>,
    optional: Vec<ManifestChild>,
    seen: BTreeSet<Digest>,
}

impl Children {
    fn add(&mut self, descriptor: DocumentDescriptor, kind: ChildKind) {
        let is_optional = kind == ChildKind::Blob && kind::is_non_distributable(&descriptor.media_type);
        let child = ManifestChild {
            digest: descriptor.digest,
            kind,
        };
        if is_optional {
            self.optional.push(child);
        } else if self.seen.insert(child.digest.clone()) {
            self.required.push(child);
        }
    }

    /// Returns the required and the optional ones. Content that is named as both is required.
    fn finish(self) -> (Vec<ManifestChild>, Vec<ManifestChild>) {
        let Self {
            required,
            mut optional,
            mut seen,
        } = self;
        optional.retain(|child| seen.insert(child.digest.clone()));
        (required, optional)
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorCode::ManifestInvalid, message)
}
