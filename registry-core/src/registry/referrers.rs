//! Lists of referrers.

use alloc::string::String;

use super::Registry;
use crate::digest::Digest;
use crate::error::Error;
use crate::name::RepositoryName;
use crate::page::PageQuery;
use crate::referrers::referrers_index;
use crate::request::Request;
use crate::response::Response;
use crate::storage::{ReferrersRequest, Storage};

/// The default number of descriptors on a page, for a client that does not say how many it wants.
const PAGE_DESCRIPTORS: usize = 10_000;

impl<S: ?Sized + Storage> Registry<S> {
    /// Lists referrers. A manifest or repository that does not exist has none.
    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        query: &PageQuery,
    ) -> Result<Response, Error> {
        let request = ReferrersRequest {
            last: query.last.clone(),
            limit: query
                .page_size(PageQuery::MAXIMUM_ITEMS)
                .unwrap_or(PAGE_DESCRIPTORS),
            size_limit: self.options.referrers_size_limit,
            artifact_type: artifact_type.map(String::from),
        };
        let page = self.storage.list_referrers(repository, subject, request).await?;
        let index = referrers_index(&page.items)?;
        let next = page.next.map(|last| Request::ListReferrers {
            repository: repository.clone(),
            subject: subject.clone(),
            artifact_type: artifact_type.map(String::from),
            page: query.after(last),
            namespace: None,
        });
        Ok(Response::referrers(index, artifact_type.is_some()).with_next_page(next.as_ref()))
    }
}
