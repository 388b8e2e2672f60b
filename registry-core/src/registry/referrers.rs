//! Lists of referrers.

use alloc::string::String;
use alloc::vec::Vec;

use super::Registry;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::name::RepositoryName;
use crate::page::{PageQuery, next_link};
use crate::referrers::{filter_by_artifact_type, referrers_index};
use crate::request::Request;
use crate::response::Response;
use crate::storage::{Page, PageRequest, Storage};

/// How many descriptors are read first. Each may be as large as a manifest, so few are read until their size is known.
const FIRST_LIMIT: usize = 16;

/// The most descriptors that are read at a time.
const MAXIMUM_LIMIT: usize = 256;

/// The most descriptors that are read for one page, of which a filter may leave few.
const MAXIMUM_READ: usize = 10_000;

impl<S: ?Sized + Storage> Registry<S> {
    /// Lists referrers. A manifest or repository that does not exist has none.
    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        query: &PageQuery,
    ) -> Result<Response, Error> {
        let mut collector = Collector::new(query, self.options.referrers_size_limit);
        while let Some(page) = collector.next_request() {
            let mut page = self.storage.list_referrers(repository, subject, page).await?;
            let read = page.items.len();
            if let Some(artifact_type) = artifact_type {
                filter_by_artifact_type(&mut page.items, artifact_type);
            }
            collector.add(page, read)?;
        }
        let index = referrers_index(&collector.descriptors)?;
        let link = collector.link().map(|last| {
            next_link(&Request::ListReferrers {
                repository: repository.clone(),
                subject: subject.clone(),
                artifact_type: artifact_type.map(String::from),
                page: query.after(last),
            })
        });
        Ok(Response::referrers(index, artifact_type.is_some()).with_link(link.as_deref()))
    }
}

/// Collects pages of the storage up to a size. The place to go on from is known only between them, so a page that is
/// too much is read again later, or at once with a lower limit where it is the first.
struct Collector {
    descriptors: Vec<Descriptor>,
    /// The bytes of the descriptors as JSON.
    size: usize,
    size_limit: usize,
    /// How many descriptors the client wants yet, if it says.
    wanted: Option<usize>,
    /// How many were read, with those that the filter dropped.
    read: usize,
    limit: usize,
    last: Option<String>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Nothing was taken yet.
    Empty,
    /// There is more.
    More,
    /// There is more, for another page.
    Full,
    /// That was all.
    Complete,
}

impl Collector {
    fn new(query: &PageQuery, size_limit: usize) -> Self {
        let wanted = query.page_size();
        Self {
            descriptors: Vec::new(),
            size: 0,
            size_limit,
            wanted,
            read: 0,
            limit: FIRST_LIMIT,
            last: query.last.clone(),
            state: if wanted == Some(0) {
                State::Complete
            } else {
                State::Empty
            },
        }
    }

    /// Returns what to read next.
    fn next_request(&self) -> Option<PageRequest> {
        matches!(self.state, State::Empty | State::More).then(|| PageRequest {
            last: self.last.clone(),
            limit: self.wanted.map_or(self.limit, |wanted| wanted.min(self.limit)),
        })
    }

    /// Takes a page that was read, after the filter; `read` is how many it had before.
    fn add(&mut self, page: Page<Descriptor>, read: usize) -> Result<(), Error> {
        let size = page.items.iter().try_fold(0_usize, |sum, descriptor| {
            let text = serde_json::to_vec(descriptor).map_err(Error::internal)?;
            Ok::<_, Error>(sum.saturating_add(text.len()).saturating_add(1))
        })?;
        if self.size.saturating_add(size) > self.size_limit {
            if self.state == State::More {
                self.state = State::Full;
                return Ok(());
            }
            if self.limit > 1 && read > 1 {
                self.limit = self.limit.min(read) / 2;
                return Ok(());
            }
        }
        let average = size.checked_div(page.items.len()).unwrap_or_default().max(1);
        self.size = self.size.saturating_add(size);
        self.read = self.read.saturating_add(read);
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(page.items.len()));
        self.descriptors.extend(page.items);
        self.limit = (self.size_limit.saturating_sub(self.size) / average).clamp(1, MAXIMUM_LIMIT);
        self.last = page.next;
        self.state = if self.last.is_none() {
            State::Complete
        } else if self.wanted == Some(0) || self.read >= MAXIMUM_READ || self.size >= self.size_limit {
            State::Full
        } else {
            State::More
        };
        Ok(())
    }

    /// Returns the place that the next page goes on from, if there is one.
    fn link(&self) -> Option<&str> {
        self.last.as_deref().filter(|_| self.state == State::Full)
    }
}
