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
use super::places::{CatalogKey, is_sealed};
use super::unfold::unfold;
use crate::error::{Error, ErrorCode};
use crate::name::RepositoryName;
use crate::operation::{Action, Authorizer, Operation, Principal, Target};
use crate::page::PageQuery;
use crate::request::Request;
use crate::response::Response;
use crate::storage::{Page, PageRequest, Storage};
use crate::tag::Tag;

/// The maximum number of pages of the storage that are read for one page of a list of which the client may not see
/// everything, unless the operator allows pages that need more.
const MAXIMUM_PAGES: usize = 10;

/// The default number of repositories on a page of the catalog, for a client that does not say how many it wants.
const CATALOG_PAGE_ITEMS: usize = 10 * PageQuery::MAXIMUM_ITEMS;

/// A list that is read page by page. It owns everything it needs, because a response outlives the request.
#[async_trait]
trait Source: Send + Sync + 'static {
    type Item: Serialize + AsRef<str> + Send;

    /// The minimum number of items to request from the storage: more than 1 if few of a page's items may remain.
    const MINIMUM_ITEMS: usize = 1;

    /// Reads a page, which may have fewer items than requested although more follow.
    async fn page(&self, page: PageRequest) -> Result<Page<Self::Item>, Error>;

    /// Spells the place at which a page of the storage ended that has nothing to show; `None` if the place must not be
    /// revealed.
    fn place(&self, place: &str) -> Option<String>;
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

    /// A deleted tag is no secret.
    fn place(&self, place: &str) -> Option<String> {
        Some(String::from(place))
    }
}

/// The repositories that a principal may see.
struct Catalog<S: ?Sized> {
    storage: Arc<S>,
    authorizer: Arc<dyn Authorizer>,
    principal: Principal,
    key: Option<CatalogKey>,
    /// The place that the client asked for.
    start: String,
}

#[async_trait]
impl<S: ?Sized + Storage> Source for Catalog<S> {
    type Item = RepositoryName;

    const MINIMUM_ITEMS: usize = PageQuery::MAXIMUM_ITEMS;

    async fn page(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        let mut page = self.storage.list_repositories(page).await?;
        page.items.retain(|repository| {
            let operation = Operation::within(repository, Action::List, Target::Catalog);
            self.authorizer.authorize(&self.principal, &operation).is_ok()
        });
        Ok(page)
    }

    fn place(&self, place: &str) -> Option<String> {
        self.key.as_ref().map(|key| key.seal(place, &self.start))
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
            namespace: None,
        };
        let most = self.options.tags_page_limit.min(PageQuery::LARGEST_ITEMS);
        match page.page_size(most) {
            None => whole_list(tags, head, page.last.clone()).await,
            Some(size) => {
                let next = |last: &str| request(page.after(last));
                one_page(tags, head, size, page.last.clone(), next).await
            }
        }
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
            key: self.options.catalog_key.clone(),
            start: page.last.clone().unwrap_or_default(),
        };
        let most = self.options.catalog_page_limit.min(PageQuery::LARGEST_ITEMS);
        let size = page
            .page_size(most)
            .unwrap_or_else(|| most.max(CATALOG_PAGE_ITEMS));
        let last = page
            .last
            .as_deref()
            .map(|last| self.open_place(last))
            .transpose()?;
        let head = String::from("{\"repositories\":[");
        let next = |last: &str| Request::ListRepositories {
            page: page.after(last),
        };
        one_page(catalog, head, size, last, next).await
    }

    /// Returns the name after which a page of the catalog continues.
    fn open_place(&self, last: &str) -> Result<String, Error> {
        if !is_sealed(last) {
            return Ok(String::from(last));
        }
        let key = self.options.catalog_key.as_ref();
        key.and_then(|key| key.open(last)).ok_or_else(|| {
            let message = "this place of the catalog is not known any more; list it from the start";
            Error::new(ErrorCode::Unsupported, message)
        })
    }
}

/// What is known about a page before it is sent.
struct Outline<T> {
    /// Its first items, at most as many as a page of the storage has.
    items: Vec<T>,
    /// Where the rest, which is not in memory, is read from.
    rest: Option<String>,
    /// The place to continue from, if there may be more.
    next: Option<String>,
}

/// Answers with a page of `size` items: the document is `head`, the items, `]}`.
///
/// Its `Link` comes before the body. A long page is read once to find its end, and again while it is sent, so that it
/// is never in memory whole.
async fn one_page<T: Source>(
    source: T,
    head: String,
    size: usize,
    last: Option<String>,
    next: impl FnOnce(&str) -> Request,
) -> Result<Response, Error> {
    let page = outline(&source, size, last).await?;
    let next = page.next.as_deref().map(next);
    let response = written(source, head, &page.items, page.rest, page.next)?;
    Ok(response.with_next_page(next.as_ref()))
}

/// Finds the end of a page. The page has `size` items, or all that are left, or those from a bounded number of pages of
/// the storage, which may be none.
///
/// A page is continued after its last item. A page without items is continued where the storage's page ended, so that
/// each page costs a bounded number of reads; a place that the client may not see is hidden.
async fn outline<T: Source>(
    source: &T,
    size: usize,
    mut last: Option<String>,
) -> Result<Outline<T::Item>, Error> {
    let mut page = Outline {
        items: Vec::new(),
        rest: None,
        next: None,
    };
    if size == 0 {
        // No items are wanted, but the list has to exist.
        source.page(PageRequest { last, limit: 1 }).await?;
        return Ok(page);
    }
    let most_pages = size.div_ceil(PageQuery::MAXIMUM_ITEMS).max(MAXIMUM_PAGES);
    let (mut count, mut pages) = (0_usize, 0);
    let mut last_item = None;
    loop {
        let missing = size.saturating_sub(count);
        let limit = missing.clamp(T::MINIMUM_ITEMS, PageQuery::MAXIMUM_ITEMS);
        let begin = last.clone();
        let mut read = source.page(PageRequest { last, limit }).await?;
        let is_cut = read.items.len() > missing;
        read.items.truncate(missing);
        count = count.saturating_add(read.items.len());
        if let Some(item) = read.items.last() {
            last_item = Some(String::from(item.as_ref()));
        }
        if page.rest.is_none() {
            let kept = page.items.len().saturating_add(read.items.len());
            if kept <= PageQuery::MAXIMUM_ITEMS {
                page.items.append(&mut read.items);
            } else {
                page.rest = begin;
            }
        }
        (last, pages) = (read.next, pages + 1);
        if last.is_none() && !is_cut {
            return Ok(page);
        }
        if count >= size || pages >= most_pages {
            page.next = last_item
                .take()
                .or_else(|| last.as_deref().and_then(|last| source.place(last)));
            if page.next.is_some() {
                return Ok(page);
            }
        }
    }
}

/// Sends the whole list, with one page in memory at a time.
async fn whole_list(source: impl Source, head: String, last: Option<String>) -> Result<Response, Error> {
    let limit = PageQuery::MAXIMUM_ITEMS;
    let first = source.page(PageRequest { last, limit }).await?;
    written(source, head, &first.items, first.next, None)
}

/// Writes the first items, and reads the rest while it is sent: everything after `rest`, up to the item `end` if given.
fn written<T: Source>(
    source: T,
    head: String,
    items: &[T::Item],
    rest: Option<String>,
    end: Option<String>,
) -> Result<Response, Error> {
    let mut document = head;
    write_items(&mut document, items, true)?;
    let Some(last) = rest else {
        document.push_str("]}");
        return Ok(Response::json(document.into()));
    };
    let source = Arc::new(source);
    let start = Progress::Begin {
        document,
        is_first: items.is_empty(),
        last,
    };
    let end = end.map(Arc::<str>::from);
    Ok(Response::json_stream(unfold(start, move |progress| {
        let (source, end) = (Arc::clone(&source), end.clone());
        Box::pin(async move { step(&*source, end.as_deref(), progress).await })
    })))
}

/// How far a list is written.
enum Progress {
    /// This is sent first.
    Begin {
        document: String,
        is_first: bool,
        last: String,
    },
    /// The page after `last` is next; `is_first` means that no item was written yet.
    Continue { is_first: bool, last: String },
}

async fn step<T: Source>(
    source: &T,
    end: Option<&str>,
    progress: Progress,
) -> Result<(Bytes, Option<Progress>), Error> {
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
        limit: PageQuery::MAXIMUM_ITEMS,
    };
    let mut page = source.page(page).await?;
    let is_within = |place: &str| end.is_none_or(|end| place <= end);
    page.items.retain(|item| is_within(item.as_ref()));
    // The last item may be gone since the outline was made.
    let is_ended = |last: &String| end.is_some_and(|end| last.as_str() >= end);
    let mut document = String::new();
    write_items(&mut document, &page.items, is_first)?;
    is_first &= page.items.is_empty();
    let next = page.next.filter(|last| !is_ended(last));
    let next = next.map(|last| Progress::Continue { is_first, last });
    if next.is_none() {
        document.push_str("]}");
    }
    Ok((document.into(), next))
}

/// Writes items of a JSON array.
fn write_items(
    document: &mut String,
    items: &[impl Serialize + AsRef<str>],
    mut is_first: bool,
) -> Result<(), Error> {
    // Each item has quotes and a comma; then comes the end of the document.
    let size = items.iter().map(|item| item.as_ref().len().saturating_add(3));
    document.reserve_exact(size.fold(2, usize::saturating_add));
    for item in items {
        if !is_first {
            document.push(',');
        }
        is_first = false;
        document.push_str(&serde_json::to_string(item).map_err(Error::internal)?);
    }
    Ok(())
}
