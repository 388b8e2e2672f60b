//! Lists of tags and of repositories.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use super::Registry;
use super::unfold::unfold;
use crate::error::Error;
use crate::name::RepositoryName;
use crate::operation::{Action, Authorizer, Operation, Principal, Target};
use crate::page::{PageQuery, next_link};
use crate::request::Request;
use crate::response::Response;
use crate::storage::{Page, PageRequest, Storage};
use crate::tag::Tag;

/// How many pages of the storage are read for one page of a list of which the client may not see all, if there is anything to
/// answer with by then.
const MAXIMUM_PAGES: usize = 10;

/// A list that is read page by page. It owns all it needs, because a response outlives the request.
#[async_trait]
trait Source: Send + Sync + 'static {
    type Item: Serialize + AsRef<str> + Send;

    /// The fewest items to ask the storage for: more than 1 where few of them may be left of a page.
    const MINIMUM: usize = 1;

    /// Reads a page, which may have fewer items than asked for though more follow.
    async fn page(&self, page: PageRequest) -> Result<Page<Self::Item>, Error>;
}

/// The tags of a repository.
struct Tags<S: ?Sized> {
    storage: Arc<S>,
    repository: RepositoryName,
}

#[async_trait]
impl<S: ?Sized + Storage> Source for Tags<S> {
    type Item = Tag;

    async fn page(&self, page: PageRequest) -> Result<Page<Tag>, Error> {
        self.storage.list_tags(&self.repository, page).await
    }
}

/// The repositories that a principal may see.
struct Catalog<S: ?Sized> {
    storage: Arc<S>,
    authorizer: Arc<dyn Authorizer>,
    principal: Principal,
}

#[async_trait]
impl<S: ?Sized + Storage> Source for Catalog<S> {
    type Item = RepositoryName;

    const MINIMUM: usize = 100;

    async fn page(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        let mut page = self.storage.list_repositories(page).await?;
        page.items.retain(|repository| {
            let operation = Operation::within(repository, Action::List, Target::Catalog);
            self.authorizer.authorize(&self.principal, &operation).is_ok()
        });
        Ok(page)
    }
}

impl<S: ?Sized + Storage> Registry<S> {
    pub(super) async fn list_tags(
        &self,
        repository: &RepositoryName,
        page: &PageQuery,
    ) -> Result<Response, Error> {
        let tags = Tags {
            storage: Arc::clone(&self.storage),
            repository: repository.clone(),
        };
        let head = format!("{{\"name\":\"{repository}\",\"tags\":[");
        let request = |page| Request::ListTags {
            repository: repository.clone(),
            page,
        };
        list(tags, head, page, self.options.tags_page_limit, request).await
    }

    pub(super) async fn list_repositories(
        &self,
        principal: &Principal,
        page: &PageQuery,
    ) -> Result<Response, Error> {
        let catalog = Catalog {
            storage: Arc::clone(&self.storage),
            authorizer: Arc::clone(&self.authorizer),
            principal: principal.clone(),
        };
        let head = String::from("{\"repositories\":[");
        let limit = self.options.catalog_page_limit;
        list(catalog, head, page, limit, |page| Request::ListRepositories {
            page,
        })
        .await
    }
}

/// Answers with a page of at most `limit` items, or with the whole list where no page is asked for. The document is `head`, the items, `]}`.
async fn list(
    source: impl Source,
    head: String,
    query: &PageQuery,
    limit: usize,
    next: impl FnOnce(PageQuery) -> Request,
) -> Result<Response, Error> {
    let Some(size) = query.page_size() else {
        return whole_list(source, head, query.last.clone()).await;
    };
    let page = fill(&source, size.min(limit), query.last.clone()).await?;
    let mut document = head;
    write_items(&mut document, &page.items, true)?;
    document.push_str("]}");
    let link = page.next.map(|last| next_link(&next(query.after(last))));
    Ok(Response::json(document.into()).with_link(link.as_deref()))
}

/// Reads `size` items, or all that are left, or what a bounded number of pages gives.
///
/// A page is continued after one of its items, never after one that the client may not see: a link would name it. So where
/// there is nothing to see for long, the pages are read on, as they are for a whole list.
async fn fill<T: Source>(source: &T, size: usize, last: Option<String>) -> Result<Page<T::Item>, Error> {
    if size == 0 {
        // Nothing is wanted, but the list has to be there.
        source.page(PageRequest { last, limit: 1 }).await?;
        return Ok(Page {
            items: Vec::new(),
            next: None,
        });
    }
    let mut items: Vec<T::Item> = Vec::new();
    let (mut next, mut pages) = (last, 0);
    loop {
        let missing = size.saturating_sub(items.len());
        let page = source
            .page(PageRequest {
                last: next,
                limit: missing.max(T::MINIMUM),
            })
            .await?;
        let is_cut = page.items.len() > missing;
        items.extend(page.items.into_iter().take(missing));
        (next, pages) = (page.next, pages + 1);
        let has_more = is_cut || next.is_some();
        if !has_more || items.len() >= size || (pages >= MAXIMUM_PAGES && !items.is_empty()) {
            let last = items.last().map(|item| String::from(item.as_ref()));
            return Ok(Page {
                items,
                next: last.filter(|_| has_more),
            });
        }
    }
}

/// Sends the whole list, of which one page is in memory at a time.
async fn whole_list(source: impl Source, head: String, last: Option<String>) -> Result<Response, Error> {
    let limit = PageQuery::MAXIMUM;
    let first = source.page(PageRequest { last, limit }).await?;
    let mut document = head;
    write_items(&mut document, &first.items, true)?;
    let Some(next) = first.next else {
        document.push_str("]}");
        return Ok(Response::json(document.into()));
    };
    let source = Arc::new(source);
    let start = Progress::Begin {
        document,
        is_first: first.items.is_empty(),
        last: next,
    };
    Ok(Response::json_stream(unfold(start, move |progress| {
        let source = Arc::clone(&source);
        Box::pin(async move { step(&*source, progress).await })
    })))
}

/// Where the writing of a whole list stands.
enum Progress {
    /// This is to be sent first.
    Begin {
        document: String,
        is_first: bool,
        last: String,
    },
    /// The page after `last` is next; `is_first` says that no item was written yet.
    Continue { is_first: bool, last: String },
}

async fn step<T: Source>(source: &T, progress: Progress) -> Result<(Bytes, Option<Progress>), Error> {
    let (mut is_first, last) = match progress {
        Progress::Begin {
            document,
            is_first,
            last,
        } => return Ok((document.into(), Some(Progress::Continue { is_first, last }))),
        Progress::Continue { is_first, last } => (is_first, last),
    };
    let page = PageRequest {
        last: Some(last),
        limit: PageQuery::MAXIMUM,
    };
    let page = source.page(page).await?;
    let mut document = String::new();
    write_items(&mut document, &page.items, is_first)?;
    is_first &= page.items.is_empty();
    let next = page.next.map(|last| Progress::Continue { is_first, last });
    if next.is_none() {
        document.push_str("]}");
    }
    Ok((document.into(), next))
}

/// Writes items of a JSON array.
fn write_items(document: &mut String, items: &[impl Serialize], mut is_first: bool) -> Result<(), Error> {
    for item in items {
        if !is_first {
            document.push(',');
        }
        is_first = false;
        document.push_str(&serde_json::to_string(item).map_err(Error::internal)?);
    }
    Ok(())
}
