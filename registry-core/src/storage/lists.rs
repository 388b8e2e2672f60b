//! Lists.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use async_trait::async_trait;

use super::TagValue;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};
use crate::name::RepositoryName;
use crate::tag::Tag;

/// A part of an ordered list: at most `limit` items after `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The last item of the previous page; it need not exist.
    pub last: Option<String>,
    /// The maximum number of items to return.
    pub limit: usize,
}

/// A part of a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrersRequest {
    /// Where the previous page says to continue.
    pub last: Option<String>,
    /// The maximum number of descriptors to return.
    pub limit: usize,
    /// The maximum size in bytes of the descriptors as JSON. A single larger descriptor is returned alone.
    pub size_limit: usize,
    /// Only those whose artifact has exactly this type; `None` for all.
    pub artifact_type: Option<String>,
}

impl From<PageRequest> for ReferrersRequest {
    /// Requests referrers of any type and size.
    fn from(PageRequest { last, limit }: PageRequest) -> Self {
        Self {
            last,
            limit,
            size_limit: usize::MAX,
            artifact_type: None,
        }
    }
}

/// A part of an ordered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order that the method states.
    pub items: Vec<T>,
    /// The place to continue from, if there may be more.
    pub next: Option<String>,
}

/// Lists: a facet of [`Storage`](super::Storage), whose promises apply here.
#[async_trait]
pub trait ListStorage: Send + Sync + 'static {
    /// Lists tags in byte order. A page may have fewer items than its limit, even none, although more follow.
    ///
    /// # Errors
    /// [`NameUnknown`](crate::ErrorCode::NameUnknown) if the repository was never pushed to.
    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error>;

    /// Lists the descriptors of the manifests whose subject is `subject`, for any repository and digest. The order is
    /// the storage's own, the same for all pages of one `size_limit`; `next` is opaque.
    ///
    /// A page is filled: if it ends because of `size_limit`, less than a sixteenth of that is left, or less than two of
    /// the descriptors that follow would take. The amount read for a page is bounded nevertheless, whatever was pushed:
    /// if a filter leaves few descriptors, the page may have fewer than its limits allow, even none, although more
    /// follow.
    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error>;

    /// Lists the repositories in the order of their names. A page may have fewer items than its limit, even none,
    /// although more follow.
    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error>;

    /// Lists what the tags of a repository named before, each tag's values from the oldest to the newest, the tags in byte
    /// order; or those of one tag. The last value of a tag is followed by what it names now, if that exists; the limit does not
    /// count that. A tag without a past is listed only if it is asked for. `next` is opaque.
    ///
    /// A repository that is gone has a history, too, while something of it can be restored; any other has none.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorCode::Unsupported) if the storage keeps no history, which is the default.
    async fn list_tag_history(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        page: PageRequest,
    ) -> Result<Page<TagValue>, Error> {
        drop((repository, tag, page));
        Err(keeps_nothing())
    }
}

/// Returns the error of a storage that keeps nothing of what was moved or deleted.
pub(super) fn keeps_nothing() -> Error {
    Error::new(
        ErrorCode::Unsupported,
        "this registry keeps nothing of what was moved or deleted",
    )
}
