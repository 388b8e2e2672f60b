//! The registry: every rule that is the same on all storages.

mod blobs;
mod body;
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
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};
use crate::event::{Event, EventAction, EventIntents, EventTarget};
use crate::name::RepositoryName;
use crate::operation::{Action, AllowAll, Authorizer, Operation, Principal, Target};
use crate::request::Request;
use crate::response::Response;
use crate::storage::{Body, Storage};

/// A registry over a storage.
///
/// [`Registry::handle`] answers any request. A registry holds no state of its own: clones, and registries in other
/// processes, over the same storage are one registry.
pub struct Registry<S: ?Sized + Storage> {
    storage: Arc<S>,
    authorizer: Arc<dyn Authorizer>,
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

    /// Answers a request. Errors are answers too.
    ///
    /// What is left of `body` was not needed; if the response is an error, that may be all of it. Cancel safety: a
    /// dropped future leaves what [`Storage`] says about cancellation, and at most an upload session that no client
    /// knows.
    pub async fn handle(&self, principal: &Principal, request: Request, body: Body<'_>) -> Response {
        self.handle_with_intents(principal, request, body, None).await
    }

    /// Answers a request as [`handle`](Self::handle) does, and notifies `intents` of each event except a pull before it
    /// happens, if [events](Self::with_events) are enabled.
    pub async fn handle_with_intents(
        &self,
        principal: &Principal,
        request: Request,
        body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Response {
        let response = match self.dispatch(principal, &request, body, intents).await {
            Ok(response) => response,
            Err(error) => error.into(),
        };
        match request.namespace() {
            Some(namespace) if self.options.echo_namespace => response.with_namespace(namespace),
            _ => response,
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
        self.check_write(request)?;
        match request {
            Request::Version => Ok(Response::version()),
            Request::ListRepositories { page } => self.list_repositories(principal, page).await,
            Request::ListTags { repository, page } => self.list_tags(repository, page).await,
            Request::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
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
            Request::UploadBlob { repository, digest } => {
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
                let said = ChunkHeaders::new(*offset, *range, *length);
                self.append_upload(&upload, said, body).await
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
                let said = ChunkHeaders::new(*offset, *range, *length);
                self.finish_upload(&upload, digest, said, body, intents).await
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

    /// Adds what happened to a successful response, if events are enabled.
    fn with_event(
        &self,
        mut response: Response,
        action: EventAction,
        repository: &RepositoryName,
        target: impl FnOnce() -> EventTarget,
    ) -> Response {
        if self.has_events && matches!(response.status, 200..300) {
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

    /// Refuses requests that change something if nothing may be written.
    fn check_write(&self, request: &Request) -> Result<(), Error> {
        let allowed = match request {
            _ if !self.options.read_only => return Ok(()),
            Request::PutManifest { .. } | Request::DeleteManifest { .. } | Request::DeleteBlob { .. } => {
                "GET, HEAD"
            }
            Request::AppendUpload { .. } | Request::FinishUpload { .. } | Request::CancelUpload { .. } => {
                "GET"
            }
            // A path on which uploads start has no other method.
            Request::StartUpload { .. } | Request::UploadBlob { .. } | Request::MountBlob { .. } => "",
            Request::Version
            | Request::ListRepositories { .. }
            | Request::ListTags { .. }
            | Request::ListReferrers { .. }
            | Request::GetBlob { .. }
            | Request::HeadBlob { .. }
            | Request::GetManifest { .. }
            | Request::HeadManifest { .. }
            | Request::UploadStatus { .. } => return Ok(()),
        };
        let error = Error::new(
            ErrorCode::MethodNotAllowed,
            "this registry is read-only at the moment",
        );
        Err(error.with_field("Allow", allowed))
    }

    /// Refuses to delete if that is disabled; `allowed` are the other methods of the path.
    fn check_delete(&self, allowed: &'static str) -> Result<(), Error> {
        if self.options.delete {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::MethodNotAllowed,
            "deleting is switched off in this registry",
        )
        .with_field("Allow", allowed))
    }
}

impl<S: ?Sized + Storage> Clone for Registry<S> {
    fn clone(&self) -> Self {
        Self {
            storage: Arc::clone(&self.storage),
            authorizer: Arc::clone(&self.authorizer),
            options: self.options.clone(),
            has_events: self.has_events,
        }
    }
}

impl<S: ?Sized + Storage> fmt::Debug for Registry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("authorizer", &self.authorizer)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
