//! Manifests: reading, pushing and deleting them.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Registry, body};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::event::{EventAction, EventIntents, EventTarget};
use crate::manifest::{ManifestView, default_image};
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::operation::{Action, Operation, Principal, Target};
use crate::reference::Reference;
use crate::request::{AcceptedManifests, EntityTags};
use crate::response::Response;
use crate::storage::{
    Body, ChildKind, Manifest, ManifestChild, NewManifest, PageRequest, Storage, TagCondition, TagFilter,
};
use crate::tag::Tag;

/// A request for a manifest.
#[derive(Clone, Copy)]
pub(super) struct Pull<'a> {
    pub(super) repository: &'a RepositoryName,
    pub(super) reference: &'a Reference,
    pub(super) accepted: AcceptedManifests,
    pub(super) if_none_match: Option<&'a EntityTags>,
}

impl Pull<'_> {
    /// Returns whether the answer depends on what the client accepts.
    fn depends_on_accept(&self, manifest: &Manifest) -> bool {
        matches!(self.reference, Reference::Tag(_)) && manifest.media_type.as_str() == MediaType::DOCKER_LIST
    }
}

/// A request to push a manifest.
#[derive(Clone, Copy)]
pub(super) struct Push<'a> {
    pub(super) repository: &'a RepositoryName,
    pub(super) reference: &'a Reference,
    pub(super) tags: &'a [Tag],
    pub(super) media_type: Option<&'a MediaType>,
    pub(super) length: Option<u64>,
    pub(super) if_match: Option<&'a EntityTags>,
    pub(super) if_none_match: Option<&'a EntityTags>,
}

impl Push<'_> {
    /// Returns the tags to write, each once.
    fn all_tags(&self) -> Vec<Tag> {
        let mut tags = Vec::new();
        if let Reference::Tag(tag) = self.reference {
            tags.push(tag.clone());
        }
        for tag in self.tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        tags
    }

    /// Returns the digest under which to store the manifest.
    fn digest(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let Reference::Digest(expected) = self.reference else {
            return Ok(Digest::of(Algorithm::Sha256, bytes));
        };
        let digest = Digest::of(expected.supported_algorithm()?, bytes);
        if digest == *expected {
            Ok(digest)
        } else {
            Err(Error::new(
                ErrorCode::DigestInvalid,
                "the manifest has another digest than the one that it is pushed by",
            ))
        }
    }

    /// Returns the condition that `If-Match` and `If-None-Match` set for the tags.
    fn condition(&self, tags: &[Tag]) -> Result<TagCondition, Error> {
        let unsupported = |message| Err(Error::new(ErrorCode::Unsupported, message));
        match (self.if_match, self.if_none_match) {
            (None, None) => Ok(TagCondition::Any),
            _ if tags.is_empty() => unsupported("a condition is about tags, and the push has none"),
            (None, Some(EntityTags::Any)) => Ok(TagCondition::Absent),
            (Some(EntityTags::Digests(digests)), None) => Ok(TagCondition::Matches(digests.clone())),
            _ => unsupported("the condition of a push is If-None-Match: * or If-Match with digests"),
        }
    }
}

impl<S: ?Sized + Storage> Registry<S> {
    pub(super) async fn get_manifest(
        &self,
        principal: &Principal,
        pull: Pull<'_>,
    ) -> Result<Response, Error> {
        let manifest = self
            .storage
            .pull_manifest(pull.repository, pull.reference)
            .await?;
        if !pull.depends_on_accept(&manifest) {
            return Ok(self.manifest_response(&pull, manifest));
        }
        let manifest = match self.default_image(principal, &pull, &manifest)? {
            Some(image) => self.storage.pull_manifest(pull.repository, &image).await?,
            None => manifest,
        };
        Ok(self
            .manifest_response(&pull, manifest)
            .with_field("Vary", "Accept"))
    }

    pub(super) async fn head_manifest(
        &self,
        principal: &Principal,
        pull: Pull<'_>,
    ) -> Result<Response, Error> {
        let manifest = self
            .storage
            .stat_manifest(pull.repository, pull.reference)
            .await?;
        if !pull.depends_on_accept(&manifest) {
            return Ok(self.manifest_response(&pull, manifest).without_body());
        }
        let manifest = match self.default_image(principal, &pull, &manifest)? {
            Some(image) => self.storage.stat_manifest(pull.repository, &image).await?,
            None => manifest,
        };
        let response = self.manifest_response(&pull, manifest).without_body();
        Ok(response.with_field("Vary", "Accept"))
    }

    /// Returns the image to answer with in place of a manifest list that is requested by tag, as the distribution
    /// registry does, if the client accepts only images. Scripts that request one read its `config`.
    ///
    /// An OCI index is returned as it is. The distribution registry answers 404 there, so no client expects an image. A
    /// client that looks up the digest to delete would delete the image of one platform and keep the tag.
    fn default_image(
        &self,
        principal: &Principal,
        pull: &Pull<'_>,
        manifest: &Manifest,
    ) -> Result<Option<Reference>, Error> {
        if pull.accepted == AcceptedManifests::Any {
            return Ok(None);
        }
        let digest = default_image(&manifest.bytes).ok_or_else(|| {
            let message =
                "the tag names a manifest list without an image for linux/amd64; accept manifest lists";
            Error::new(ErrorCode::ManifestUnknown, message).with_field("Vary", "Accept")
        })?;
        let target = Target::Manifest(&digest);
        let operation = Operation::within(pull.repository, Action::Pull, target);
        self.authorizer.authorize(principal, &operation)?;
        Ok(Some(Reference::Digest(digest)))
    }

    fn manifest_response(&self, pull: &Pull<'_>, manifest: Manifest) -> Response {
        let response = Response::manifest(pull.reference, &manifest, pull.if_none_match);
        self.with_pull_event(response, pull.repository, pull.reference, manifest)
    }

    fn with_pull_event(
        &self,
        response: Response,
        repository: &RepositoryName,
        reference: &Reference,
        manifest: Manifest,
    ) -> Response {
        self.with_event(response, EventAction::Pull, repository, || {
            let tags = match reference {
                Reference::Tag(tag) => [tag.clone()].into(),
                Reference::Digest(_) => Vec::new(),
            };
            EventTarget::Manifest { manifest, tags }
        })
    }

    pub(super) async fn put_manifest(
        &self,
        principal: &Principal,
        push: Push<'_>,
        body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        let tags = push.all_tags();
        let (condition, immutable_tags) = self.tag_condition(principal, push, &tags)?;
        if let Reference::Digest(digest) = push.reference {
            digest.supported_algorithm()?;
        }
        let bytes = body::collect(body, push.length, self.options.manifest_size_limit).await?;
        let view = ManifestView::parse(&bytes, push.media_type)?;
        self.check_descriptors(&view)?;
        let digest = push.digest(&bytes)?;
        let subject = view.subject().cloned();
        let (children, optional_children) = self.children(&view);
        let manifest = NewManifest {
            children,
            optional_children,
            allow_missing: self.options.allow_missing_children,
            subject: subject
                .clone()
                .map(|subject| (subject, view.referrer_descriptor(&digest, bytes.len() as u64))),
            tags,
            condition,
            immutable_tags,
            principal: principal.name().to_owned(),
            manifest: stored(&view, &digest, bytes),
        };
        let target = || EventTarget::Manifest {
            manifest: manifest.manifest.clone(),
            tags: manifest.tags.clone(),
        };
        let event = self
            .announce(intents, EventAction::Push, push.repository, target)
            .await;
        self.storage.put_manifest(push.repository, manifest).await?;
        let response = Response::manifest_created(push.repository, &digest, subject.as_ref(), push.tags);
        Ok(response.with_event(event))
    }

    /// Refuses a manifest that names more content than can be looked up in acceptable time.
    fn check_descriptors(&self, view: &ManifestView) -> Result<(), Error> {
        let limit = self.options.manifest_descriptor_limit;
        let count = view
            .children()
            .len()
            .saturating_add(view.optional_children().len());
        if count <= limit {
            return Ok(());
        }
        let message = format!(
            "the manifest names {count} contents, and this registry takes {limit}: split it into several"
        );
        Err(Error::new(ErrorCode::ManifestInvalid, message))
    }

    /// Returns the content that must exist for the manifest, and the content that is kept with it if it exists.
    fn children(&self, view: &ManifestView) -> (Vec<ManifestChild>, Vec<ManifestChild>) {
        let is_optional =
            |child: &ManifestChild| self.options.allow_sparse_indexes && child.kind == ChildKind::Manifest;
        let (mut optional, required): (Vec<_>, Vec<_>) =
            view.children().iter().cloned().partition(is_optional);
        optional.extend_from_slice(view.optional_children());
        (required, optional)
    }

    /// Returns the client's condition on the tags of the push, and those of the tags that never move because the client has
    /// no right to move them.
    ///
    /// Whether a tag would move is known only when it is written, so the right to move it becomes a condition.
    fn tag_condition(
        &self,
        principal: &Principal,
        push: Push<'_>,
        tags: &[Tag],
    ) -> Result<(TagCondition, Vec<Tag>), Error> {
        let asked = push.condition(tags)?;
        let mut may_overwrite = Ok(());
        let mut immutable_tags = Vec::new();
        for tag in tags {
            let within = |action| Operation::within(push.repository, action, Target::Tag(tag));
            self.authorizer.authorize(principal, &within(Action::Push))?;
            let overwrite = self.authorizer.authorize(principal, &within(Action::Overwrite));
            if overwrite.is_err() {
                immutable_tags.push(tag.clone());
            }
            // Such a tag may gain entries; whether it only does that is known only when it is written.
            if !tag.lists_referrers() {
                may_overwrite = may_overwrite.and(overwrite);
            }
        }
        match (asked, may_overwrite) {
            (TagCondition::Matches(_), Err(error)) => Err(error),
            (asked, _) => Ok((asked, immutable_tags)),
        }
    }

    pub(super) async fn delete_manifest(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        reference: &Reference,
        if_match: Option<&EntityTags>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        let announced = async {
            // Content that does not exist is not about to be deleted.
            if self.has_events {
                self.storage.get_manifest(repository, reference).await?;
            }
            let target = || match reference {
                Reference::Digest(digest) => EventTarget::DeletedManifest(digest.clone()),
                Reference::Tag(tag) => EventTarget::DeletedTag(tag.clone()),
            };
            let event = self.announce(intents, EventAction::Delete, repository, target);
            Ok::<_, Error>(event.await)
        };
        let event = match reference {
            Reference::Digest(digest) => {
                if if_match.is_some_and(|tags| !tags.matches(digest)) {
                    return Err(ErrorCode::PreconditionFailed.into());
                }
                let may_delete = self.may_delete_tag(principal, repository);
                let event = announced.await?;
                let immutable = self.authorizer.immutable_tags(repository);
                self.storage
                    .delete_manifest(repository, digest, Some(may_delete), immutable)
                    .await?;
                event
            }
            Reference::Tag(tag) => {
                let event = announced.await?;
                let digests = match if_match {
                    Some(EntityTags::Digests(digests)) => Some(&**digests),
                    Some(EntityTags::Any) | None => None,
                };
                self.storage.delete_tag(repository, tag, digests).await?;
                event
            }
        };
        Ok(Response::deleted().with_event(event))
    }
}

impl<S: ?Sized + Storage> Registry<S> {
    /// Deletes all of a repository, unless it has a tag that the principal may not delete.
    pub(super) async fn delete_repository(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        // A repository that does not exist is not about to be deleted.
        let first = PageRequest { last: None, limit: 1 };
        self.storage.list_tags(repository, first).await?;
        let may_delete = self.may_delete_tag(principal, repository);
        let must_stay: TagFilter = Arc::new(move |tag| !may_delete(tag));
        let event = self.announce(intents, EventAction::Delete, repository, || {
            EventTarget::DeletedRepository
        });
        let event = event.await;
        let deleted = self.storage.delete_all(repository, Some(must_stay)).await?;
        let response = Response::repository_deleted(&deleted)?;
        Ok(response.with_event(event.filter(|_| deleted.is_gone)))
    }

    /// Returns the filter of the tags that may be deleted with their manifest.
    fn may_delete_tag(&self, principal: &Principal, repository: &RepositoryName) -> TagFilter {
        let (authorizer, principal) = (Arc::clone(&self.authorizer), principal.clone());
        let repository = repository.clone();
        Arc::new(move |tag| {
            let operation = Operation::within(&repository, Action::Delete, Target::Tag(tag));
            authorizer.authorize(&principal, &operation).is_ok()
        })
    }
}

fn stored(view: &ManifestView, digest: &Digest, bytes: Bytes) -> Manifest {
    Manifest {
        digest: digest.clone(),
        media_type: view.media_type().clone(),
        bytes,
    }
}
