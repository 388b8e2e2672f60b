//! What a request does, and what decides whether it may.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use crate::digest::Digest;
use crate::error::Error;
use crate::name::RepositoryName;
use crate::reference::Reference;
use crate::request::Request;
use crate::storage::TagFilter;
use crate::tag::Tag;
use crate::upload_id::UploadId;

/// The identity that makes a request, as determined by the embedder.
#[derive(Clone, Default)]
pub struct Principal {
    name: String,
    claims: Option<Arc<dyn Any + Send + Sync>>,
}

impl Principal {
    /// Creates the principal of requests without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Creates a principal with a name. The empty name is the anonymous principal's.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            claims: None,
        }
    }

    /// Adds what else is known, such as groups or the scopes of a token, for the [`Authorizer`].
    #[must_use]
    pub fn with_claims<T: Any + Send + Sync>(mut self, claims: Arc<T>) -> Self {
        self.claims = Some(claims);
        self
    }

    /// Returns the name. It owns upload sessions and is stored with the tags that were pushed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether no credentials were given.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.name.is_empty()
    }

    /// Returns what else is known, if it is a `T`.
    #[must_use]
    pub fn claims<T: Any>(&self) -> Option<&T> {
        self.claims.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for Principal {
    /// Leaves the claims out, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Principal").field(&self.name).finish()
    }
}

/// What is done to the target of an [`Operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Finds out that this is a registry, and whether the credentials are valid.
    Connect,
    /// Reads content.
    Pull,
    /// Adds content, points a new tag at it, or lets a tag that [lists referrers](Tag::lists_referrers) gain entries.
    Push,
    /// Points a tag elsewhere. It is checked in addition to [`Action::Push`]: if it is refused, the push continues and
    /// fails with [`TagConflict`](crate::ErrorCode::TagConflict) if the tag would move.
    Overwrite,
    /// Deletes content or a tag, or a repository with all that is in it.
    Delete,
    /// Lists what exists: the tags and referrers of a repository, and the repository itself in the list of repositories.
    List,
}

impl Action {
    /// Returns the word for it: `connect`, `pull`, `push`, `overwrite`, `delete` or `list`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an [`Operation`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The registry itself.
    Registry,
    /// The list of repositories. Without a repository: may it be requested? With one: may it contain that repository?
    Catalog,
    /// The repository itself: its tags, a new upload session, or, to delete it, all that is in it.
    Repository,
    /// A blob.
    Blob(&'a Digest),
    /// An upload session, which only the principal that started it finds.
    Upload(UploadId),
    /// A manifest by its digest. Deleting it deletes its tags.
    Manifest(&'a Digest),
    /// A tag, and the manifest that it names.
    Tag(&'a Tag),
}

/// What a request does, in the terms in which rights are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The repository, if it is about one.
    pub repository: Option<&'a RepositoryName>,
    /// What is done.
    pub action: Action,
    /// What it is done to.
    pub target: Target<'a>,
}

impl<'a> Operation<'a> {
    /// Describes what is done within a repository.
    #[must_use]
    pub const fn within(repository: &'a RepositoryName, action: Action, target: Target<'a>) -> Self {
        Self {
            repository: Some(repository),
            action,
            target,
        }
    }

    /// Returns what a request does. A push of a manifest also does the same to each further tag and
    /// [`Action::Overwrite`] to all of them, as does a restore of a tag; a mount also pulls from the source; a list of repositories also lists each
    /// of them.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        use Action::{Connect, Delete, List, Pull, Push};
        match request {
            Request::Version => Self {
                repository: None,
                action: Connect,
                target: Target::Registry,
            },
            Request::ListRepositories { .. } => Self {
                repository: None,
                action: List,
                target: Target::Catalog,
            },
            Request::GetBlob {
                repository, digest, ..
            }
            | Request::HeadBlob {
                repository, digest, ..
            } => Self::within(repository, Pull, Target::Blob(digest)),
            Request::GetManifest {
                repository,
                reference,
                ..
            }
            | Request::HeadManifest {
                repository,
                reference,
                ..
            } => Self::within(repository, Pull, reference.into()),
            Request::StartUpload { repository, .. } => Self::within(repository, Push, Target::Repository),
            Request::UploadBlob {
                repository, digest, ..
            }
            | Request::MountBlob {
                repository, digest, ..
            }
            | Request::FinishUpload {
                repository, digest, ..
            } => Self::within(repository, Push, Target::Blob(digest)),
            Request::AppendUpload { repository, id, .. }
            | Request::UploadStatus { repository, id }
            | Request::CancelUpload { repository, id } => Self::within(repository, Push, Target::Upload(*id)),
            Request::PutManifest {
                repository,
                reference,
                ..
            } => Self::within(repository, Push, reference.into()),
            Request::ListTags { repository, .. } => Self::within(repository, List, Target::Repository),
            Request::ListReferrers {
                repository, subject, ..
            } => Self::within(repository, List, Target::Manifest(subject)),
            Request::DeleteManifest {
                repository,
                reference,
                ..
            } => Self::within(repository, Delete, reference.into()),
            Request::DeleteBlob { repository, digest } => {
                Self::within(repository, Delete, Target::Blob(digest))
            }
            Request::ListTagHistory {
                repository,
                tag: Some(tag),
                ..
            } => Self::within(repository, Pull, Target::Tag(tag)),
            // It says which tags there are.
            Request::ListTagHistory {
                repository,
                tag: None,
                ..
            } => Self::within(repository, List, Target::Repository),
            Request::RestoreTag { repository, tag, .. } => Self::within(repository, Push, Target::Tag(tag)),
            Request::DeleteRepository { repository } => Self::within(repository, Delete, Target::Repository),
        }
    }
}

impl<'a> From<&'a Reference> for Target<'a> {
    fn from(reference: &'a Reference) -> Self {
        match reference {
            Reference::Tag(tag) => Self::Tag(tag),
            Reference::Digest(digest) => Self::Manifest(digest),
        }
    }
}

/// Decides which principal may do what; the embedder supplies it.
///
/// What depends on more than who asks for what, such as a quota, is an [`Admission`](crate::Admission).
///
/// ```
/// use registry_core::operation::{Action, Operation};
/// use registry_core::{Authorizer, Error, ErrorCode, Principal};
///
/// /// Lets every client read, and each user write below its own name.
/// #[derive(Debug)]
/// struct OwnRepositories;
///
/// impl Authorizer for OwnRepositories {
///     fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
///         let is_read = matches!(operation.action, Action::Connect | Action::Pull | Action::List);
///         let owner = operation.repository.and_then(|name| name.as_str().split('/').next());
///         if is_read || owner == Some(principal.name()) {
///             Ok(())
///         } else if principal.is_anonymous() {
///             // The authenticator adds the field that asks for credentials.
///             Err(ErrorCode::Unauthorized.into())
///         } else {
///             Err(Error::new(ErrorCode::Denied, "you may write below your own name"))
///         }
///     }
/// }
///
/// let bob = Principal::new("bob");
/// let push = registry_core::Request::parse("PUT", "/v2/bob/app/manifests/1", &[("", ""); 0][..])?;
/// assert!(OwnRepositories.authorize(&bob, &Operation::of(&push)).is_ok());
/// let other = registry_core::Request::parse("PUT", "/v2/alice/app/manifests/1", &[("", ""); 0][..])?;
/// assert!(OwnRepositories.authorize(&bob, &Operation::of(&other)).is_err());
/// # Ok::<(), Error>(())
/// ```
pub trait Authorizer: fmt::Debug + Send + Sync {
    /// Decides whether `principal` may do `operation`. It answers from memory: a request waits for it, and a list of
    /// repositories calls it once for each.
    ///
    /// # Errors
    /// The answer to the client: [`Unauthorized`](crate::ErrorCode::Unauthorized), with the field `WWW-Authenticate`,
    /// if other credentials could help; [`Denied`](crate::ErrorCode::Denied); or
    /// [`NameUnknown`](crate::ErrorCode::NameUnknown), to hide that something exists.
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error>;

    /// Returns the filter of the tags of a repository that no principal may move or delete, so that what they reach
    /// stays too; `None` if there are no such tags, and then a delete of content reads no tag. The default is `None`.
    /// An authorizer that wraps another one returns that one's answer.
    fn immutable_tags(&self, repository: &RepositoryName) -> Option<TagFilter> {
        let _ = repository;
        None
    }
}

/// Allows every principal everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize(&self, _: &Principal, _: &Operation<'_>) -> Result<(), Error> {
        Ok(())
    }
}
