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
    /// The last item of the page before; it need not exist.
    pub last: Option<String>,
    /// The most items to return.
    pub limit: usize,
}

/// A part of a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrersRequest {
    /// Where the page before says to go on.
    pub last: Option<String>,
    /// The most descriptors to return.
    pub limit: usize,
    /// The most bytes that they take as JSON. One that alone takes more is returned alone.
    pub size_limit: usize,
    /// Only those whose artifact has exactly this type.
    pub artifact_type: Option<String>,
}

impl From<PageRequest> for ReferrersRequest {
    /// Asks for referrers of any type and size.
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
    /// The items, in the order of their bytes.
    pub items: Vec<T>,
    /// The place to go on from, where there may be more.
    pub next: Option<String>,
}

/// Lists: a facet of [`Storage`](super::Storage), whose promises hold here.
#[async_trait]
pub trait ListStorage: Send + Sync + 'static {
    /// Lists tags in the order of their bytes. A page may have fewer than its limit, even none, though more follow.
    ///
    /// # Errors
    /// [`NameUnknown`](crate::ErrorCode::NameUnknown) where the repository was never pushed to.
    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error>;

    /// Lists the descriptors of the manifests whose subject is `subject`, of any repository and digest. The order is
    /// the storage's own, the same for all pages of one `size_limit`; `next` is opaque.
    ///
    /// A page is filled: where it ends because of `size_limit`, less than a sixteenth of that is left, or less than two of
    /// the descriptors that follow would take. What is read for a page is bounded nevertheless, whatever others pushed: where a
    /// filter leaves few, it may have fewer descriptors than its limits allow, even none, though more follow.
    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error>;

    /// Lists the repositories in the order of their names. A page may have fewer than its limit, even none, though
    /// more follow.
    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error>;
}
