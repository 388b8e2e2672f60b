//! Lists.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use async_trait::async_trait;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
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
}
