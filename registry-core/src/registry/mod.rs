//! The registry: every rule that is the same on all storages.

mod blobs;
mod body;
mod history;
mod lists;
mod manifests;
mod options;
mod places;
mod referrers;
#[cfg(test)]
mod tests;
mod unfold;
mod uploads;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

pub use self::options::Options;
pub use self::places::CatalogKey;
use self::uploads::ChunkHeaders;
use crate::admission::Admission;
use crate::digest::Digest;
use crate::error::Error;
use crate::event::{Event, EventAction, EventIntents, EventTarget};
use crate::name::RepositoryName;
use crate::operation::{Action, AllowAll, Authorizer, Operation, Principal, Target};
use crate::request::{NamespaceResolver, Request, ResolvedRequest};
use crate::response::Response;
use crate::storage::{Body, Storage};

/// A registry over a storage.
///
/// [`Registry::handle`] answers any request. A registry holds no state of its own: clones, and registries in other
/// processes, over the same storage are one registry.
pub struct Registry<S: ?Sized + Storage> {
    storage: Arc<S>,
    authorizer: Arc<dyn Authorizer>,
    admissions: Arc<[Arc<dyn Admission>]>,
    namespaces: Option<NamespaceResolver>,
    options: Options,
    has_events: bool,
}

impl<S: ?Sized + Storage> Registry<S> {
    /// Creates a registry that allows every request.
    #[must_use]
    pub fn new(storage: Arc<S>, options: Options) -> Self {
        Self {
            storage,
            authorizer: Arc::new(AllowAll),
            admissions: Arc::default(),
            namespaces: None,
            options,
            has_events: false,
        }
    }

    /// Sets the authorizer that decides who may do what.
    #[must_use]
    pub fn with_authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// Adds an admission. It is asked after the authorizer and those that were added before, and only if all of them
    /// allowed the request.
    #[must_use]
    pub fn with_admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admissions = self.admissions.iter().cloned().chain([admission]).collect();
        self
    }

    /// Makes the registry act for others: a request with `ns` that `resolver` knows is one for the repository that it
    /// returns, and its answer repeats the namespace in `OCI-Namespace`. By default, `ns` is ignored.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use registry_core::{Registry, Storage};
    ///
    /// /// Makes `/v2/library/alpine/…?ns=docker.io` and `/v2/docker.io/library/alpine/…` one repository.
    /// fn mirror<S: Storage>(registry: Registry<S>) -> Registry<S> {
    ///     registry.with_namespaces(Arc::new(|namespace, repository| {
    ///         let is_known = matches!(namespace.as_str(), "docker.io" | "ghcr.io");
    ///         is_known.then(|| namespace.full_name(repository))?
    ///     }))
    /// }
    /// ```
    #[must_use]
    pub fn with_namespaces(mut self, resolver: NamespaceResolver) -> Self {
        self.namespaces = Some(resolver);
        self
    }

    /// Makes all content come from the registry itself, whatever [`Options::redirect_from_size`] says: for a client that cannot
    /// reach the place where it would be sent.
    #[must_use]
    pub const fn without_redirects(mut self) -> Self {
        self.options.redirect_from_size = None;
        self
    }

    /// Returns the authorizer.
    #[must_use]
    pub const fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.authorizer
    }

    /// Makes responses report what happened, in [`Response::event`]. By default, no events are created.
    #[must_use]
    pub fn with_events(mut self) -> Self {
        self.has_events = true;
        self
    }

    /// Returns the storage.
    #[must_use]
    pub const fn storage(&self) -> &Arc<S> {
        &self.storage
    }

    /// Returns the options.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Resolves the namespace of a request, for callers that look at the request before it is answered: what they see is
    /// what the authorizer, the admissions, the storage and the events see.
    #[must_use]
    pub fn resolve(&self, request: Request) -> ResolvedRequest {
        ResolvedRequest::new(request, self.namespaces.as_ref())
    }

    /// Answers a request. Errors are answers too.
    ///
    /// The namespace is [resolved](Self::resolve) first. Then the authorizer is asked, then each admission, and then the
    /// storage.
    ///
    /// What is left of `body` was not needed; if the response is an error, that may be all of it. Cancel safety: a
    /// dropped future leaves what [`Storage`] says about cancellation, and at most an upload session that no client
    /// knows.
    pub async fn handle(&self, principal: &Principal, request: Request, body: Body<'_>) -> Response {
        let request = self.resolve(request);
        self.handle_resolved(principal, &request, body, None).await
    }

    /// Answers a resolved request as [`handle`](Self::handle) does, and notifies `intents` of each event except a pull before it
    /// happens, if [events](Self::with_events) are enabled.
    pub async fn handle_resolved(
        &self,
        principal: &Principal,
        request: &ResolvedRequest,
        body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Response {
        let response = match self.dispatch(principal, request.request(), body, intents).await {
            Ok(response) => response,
            Err(error) => error.into(),
        };
        match request.namespace() {
            Some(namespace) => response.with_namespace(namespace),
            None => response,
        }
    }

    async fn dispatch(
        &self,
        principal: &Principal,
        request: &Request,
        body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        self.authorizer.authorize(principal, &Operation::of(request))?;
        for admission in &*self.admissions {
            admission.admit(principal, request).await?;
        }
        match request {
            Request::Version => Ok(Response::version()),
            Request::ListRepositories { page } => self.list_repositories(principal, page).await,
            Request::ListTags { repository, page, .. } => self.list_tags(repository, page).await,
            Request::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
                ..
            } => {
                self.list_referrers(repository, subject, artifact_type.as_deref(), page)
                    .await
            }
            Request::GetBlob {
                repository,
                digest,
                range,
                if_none_match,
                ..
            } => {
                self.get_blob(repository, digest, range.as_ref(), if_none_match.as_ref())
                    .await
            }
            Request::HeadBlob {
                repository,
                digest,
                if_none_match,
                ..
            } => self.head_blob(repository, digest, if_none_match.as_ref()).await,
            Request::DeleteBlob { repository, digest } => self.delete_blob(repository, digest, intents).await,
            Request::ListTagHistory {
                repository,
                tag,
                page,
            } => self.list_tag_history(repository, tag.as_ref(), page).await,
            Request::RestoreTag {
                repository,
                tag,
                digest,
            } => {
                self.restore_tag(principal, repository, tag, digest.as_ref(), intents)
                    .await
            }
            Request::DeleteRepository { repository } => {
                self.delete_repository(principal, repository, intents).await
            }
            Request::MountBlob {
                repository,
                digest,
                from,
            } => {
                self.mount_blob(principal, repository, digest, from.as_ref(), intents)
                    .await
            }
            Request::GetManifest {
                repository,
                reference,
                accepted,
                if_none_match,
                ..
            } => {
                let pull = manifests::Pull {
                    repository,
                    reference,
                    accepted: *accepted,
                    if_none_match: if_none_match.as_ref(),
                };
                self.get_manifest(principal, pull).await
            }
            Request::HeadManifest {
                repository,
                reference,
                accepted,
                if_none_match,
                ..
            } => {
                let pull = manifests::Pull {
                    repository,
                    reference,
                    accepted: *accepted,
                    if_none_match: if_none_match.as_ref(),
                };
                self.head_manifest(principal, pull).await
            }
            Request::PutManifest {
                repository,
                reference,
                tags,
                media_type,
                length,
                if_match,
                if_none_match,
            } => {
                let push = manifests::Push {
                    repository,
                    reference,
                    tags,
                    media_type: media_type.as_ref(),
                    length: *length,
                    if_match: if_match.as_ref(),
                    if_none_match: if_none_match.as_ref(),
                };
                self.put_manifest(principal, push, body, intents).await
            }
            Request::DeleteManifest {
                repository,
                reference,
                if_match,
            } => {
                self.delete_manifest(principal, repository, reference, if_match.as_ref(), intents)
                    .await
            }
            Request::StartUpload {
                repository,
                algorithm,
            } => {
                self.start_upload(principal, repository, algorithm.unwrap_or_default())
                    .await
            }
            Request::UploadBlob {
                repository, digest, ..
            } => {
                self.upload_blob(principal, repository, digest, body, intents)
                    .await
            }
            Request::AppendUpload {
                repository,
                id,
                offset,
                range,
                length,
            } => {
                let upload = uploads::key(principal, repository, *id);
                let headers = ChunkHeaders::new(*offset, *range, *length);
                self.append_upload(&upload, headers, body).await
            }
            Request::FinishUpload {
                repository,
                id,
                digest,
                offset,
                range,
                length,
            } => {
                let upload = uploads::key(principal, repository, *id);
                let headers = ChunkHeaders::new(*offset, *range, *length);
                self.finish_upload(&upload, digest, headers, body, intents).await
            }
            Request::UploadStatus { repository, id } => self.upload_status(principal, repository, *id).await,
            Request::CancelUpload { repository, id } => self.cancel_upload(principal, repository, *id).await,
        }
    }

    /// Returns whether `principal` may read a blob of a repository.
    fn may_pull(&self, principal: &Principal, repository: &RepositoryName, digest: &Digest) -> bool {
        let operation = Operation::within(repository, Action::Pull, Target::Blob(digest));
        self.authorizer.authorize(principal, &operation).is_ok()
    }

    /// Adds what happened to a successful response, if events are enabled. A client that is sent elsewhere for a blob pulls it.
    fn with_event(
        &self,
        mut response: Response,
        action: EventAction,
        repository: &RepositoryName,
        target: impl FnOnce() -> EventTarget,
    ) -> Response {
        if self.has_events && matches!(response.status, 200..300 | 307) {
            response.event = Some(Box::new(Event {
                action,
                repository: repository.clone(),
                target: target(),
            }));
        }
        response
    }

    /// Creates the event of something that is about to happen and notifies of the intent, if events are enabled.
    async fn announce(
        &self,
        intents: Option<&dyn EventIntents>,
        action: EventAction,
        repository: &RepositoryName,
        target: impl FnOnce() -> EventTarget,
    ) -> Option<Box<Event>> {
        let event = self.event(action, repository, target);
        if let (Some(intents), Some(event)) = (intents, &event) {
            intents.intend(event).await;
        }
        event
    }

    /// Creates an event, if events are enabled.
    fn event(
        &self,
        action: EventAction,
        repository: &RepositoryName,
        target: impl FnOnce() -> EventTarget,
    ) -> Option<Box<Event>> {
        self.has_events.then(|| {
            Box::new(Event {
                action,
                repository: repository.clone(),
                target: target(),
            })
        })
    }
}

impl<S: ?Sized + Storage> Clone for Registry<S> {
    fn clone(&self) -> Self {
        Self {
            storage: Arc::clone(&self.storage),
            authorizer: Arc::clone(&self.authorizer),
            admissions: Arc::clone(&self.admissions),
            namespaces: self.namespaces.clone(),
            options: self.options.clone(),
            has_events: self.has_events,
        }
    }
}

impl<S: ?Sized + Storage> fmt::Debug for Registry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("authorizer", &self.authorizer)
            .field("admissions", &self.admissions)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
