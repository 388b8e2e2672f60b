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
use crate::page::{PageQuery, next_link};
use crate::request::Request;
use crate::response::Response;
use crate::storage::{Page, PageRequest, Storage};
use crate::tag::Tag;

/// How many pages of the storage are read for one page of a list of which the client may not see all.
const MAXIMUM_PAGES: usize = 10;

/// The most repositories on a page of the catalog for a client that does not say how many it wants.
const MAXIMUM_CATALOG: usize = 10 * PageQuery::MAXIMUM;

/// A list that is read page by page. It owns all it needs, because a response outlives the request.
#[async_trait]
trait Source: Send + Sync + 'static {
    type Item: Serialize + AsRef<str> + Send;

    /// The fewest items to ask the storage for: more than 1 where few of them may be left of a page.
    const MINIMUM: usize = 1;

    /// Reads a page, which may have fewer items than asked for though more follow.
    async fn page(&self, page: PageRequest) -> Result<Page<Self::Item>, Error>;

    /// Spells the place that a page of the storage ended at, of which there is nothing to show; nothing where it cannot
    /// be told.
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

    /// A tag that was deleted is no secret.
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
    /// The place that the client asks for.
    start: String,
}

#[async_trait]
impl<S: ?Sized + Storage> Source for Catalog<S> {
    type Item = RepositoryName;

    const MINIMUM: usize = PageQuery::MAXIMUM;

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
        };
        match page.page_size() {
            None => whole_list(tags, head, page.last.clone()).await,
            Some(size) => {
                let last = page.last.clone();
                let tags = fill(&tags, size.min(self.options.tags_page_limit), last).await?;
                listed(head, &tags, |last| request(page.after(last)))
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
        let size = match page.page_size() {
            Some(size) => size.min(self.options.catalog_page_limit),
            None => MAXIMUM_CATALOG,
        };
        let last = page
            .last
            .as_deref()
            .map(|last| self.open_place(last))
            .transpose()?;
        let repositories = fill(&catalog, size, last).await?;
        let head = String::from("{\"repositories\":[");
        listed(head, &repositories, |last| Request::ListRepositories {
            page: page.after(last),
        })
    }

    /// Returns the name that a page of the catalog goes on after.
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

/// Answers with a page: the document is `head`, the items, `]}`.
fn listed<T: Serialize>(
    head: String,
    page: &Page<T>,
    next: impl FnOnce(&str) -> Request,
) -> Result<Response, Error> {
    let mut document = head;
    write_items(&mut document, &page.items, true)?;
    document.push_str("]}");
    let link = page.next.as_deref().map(|last| next_link(&next(last)));
    Ok(Response::json(document.into()).with_link(link.as_deref()))
}

/// Reads `size` items, or all that are left, or what a bounded number of pages of the storage gives, which may be none.
///
/// A page is continued after its last item. One without items is continued where the storage's ended, so that each page
/// costs a bounded number of reads; a place that the client may not see is hidden.
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
    let (mut last, mut pages) = (last, 0);
    loop {
        let missing = size.saturating_sub(items.len());
        let limit = missing.clamp(T::MINIMUM, PageQuery::MAXIMUM);
        let page = source.page(PageRequest { last, limit }).await?;
        let is_cut = page.items.len() > missing;
        items.extend(page.items.into_iter().take(missing));
        (last, pages) = (page.next, pages + 1);
        if last.is_none() && !is_cut {
            return Ok(Page { items, next: None });
        }
        if items.len() >= size || pages >= MAXIMUM_PAGES {
            let next = match items.last() {
                Some(item) => Some(String::from(item.as_ref())),
                None => last.as_deref().and_then(|last| source.place(last)),
            };
            if next.is_some() {
                return Ok(Page { items, next });
            }
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
