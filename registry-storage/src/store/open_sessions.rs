//! How many upload sessions are open, and which of them new ones replace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry_core::{Error, ErrorCode, Timestamp, UploadId};

/// A session with bytes is replaced only after it was idle this long: its client may be about to continue.
const REPLACEABLE_IDLE_TIME: Duration = Duration::from_mins(10);

/// The open sessions that this process knows of, by principal.
#[derive(Debug)]
pub(super) struct OpenSessions {
    limit: usize,
    principals: Mutex<BTreeMap<Box<str>, Sessions>>,
}

/// The open sessions of a principal.
#[derive(Debug, Default)]
struct Sessions {
    /// When each was last used, and whether it has bytes.
    used: BTreeMap<UploadId, Place>,
    /// The same sessions, in the order in which they are replaced.
    order: BTreeSet<(Place, UploadId)>,
}

/// Sessions without a byte come first, then the least recently used ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    has_bytes: bool,
    used: Timestamp,
}

impl Sessions {
    fn insert(&mut self, id: UploadId, place: Place) {
        self.remove(id);
        self.used.insert(id, place);
        self.order.insert((place, id));
    }

    fn remove(&mut self, id: UploadId) {
        if let Some(place) = self.used.remove(&id) {
            self.order.remove(&(place, id));
        }
    }

    /// Returns the session that is replaced. A session that a request uses is skipped: it has bytes, or will have some
    /// in a moment.
    fn first(&self, now: Timestamp, is_in_use: impl Fn(UploadId) -> bool) -> Option<UploadId> {
        let mut idle = self.order.iter().filter(|(_, id)| !is_in_use(*id));
        let (place, id) = idle.next()?;
        (!place.has_bytes || now.since(place.used) > REPLACEABLE_IDLE_TIME).then_some(*id)
    }
}

impl OpenSessions {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            principals: Mutex::default(),
        }
    }

    /// Enters a new session, and returns the session that it replaces, if one has to be replaced.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`] if none can be replaced.
    pub(super) fn begin(
        &self,
        principal: &str,
        id: UploadId,
        now: Timestamp,
        is_in_use: impl Fn(UploadId) -> bool,
    ) -> Result<Option<UploadId>, Error> {
        let mut principals = self.lock();
        let sessions = principals.entry(principal.into()).or_default();
        let mut evicted = None;
        if sessions.used.len() >= self.limit {
            let first = sessions.first(now, is_in_use).ok_or_else(|| self.too_many())?;
            sessions.remove(first);
            evicted = Some(first);
        }
        let has_bytes = false;
        sessions.insert(id, Place { has_bytes, used: now });
        Ok(evicted)
    }

    /// Notes that a session is open and was used.
    pub(super) fn note(&self, principal: &str, id: UploadId, used: Timestamp, has_bytes: bool) {
        let mut principals = self.lock();
        let sessions = principals.entry(principal.into()).or_default();
        sessions.insert(id, Place { has_bytes, used });
    }

    /// Notes that a session ended.
    pub(super) fn end(&self, principal: &str, id: UploadId) {
        let mut principals = self.lock();
        if let Some(sessions) = principals.get_mut(principal) {
            sessions.remove(id);
            if sessions.used.is_empty() {
                principals.remove(principal);
            }
        }
    }

    fn too_many(&self) -> Error {
        let limit = self.limit;
        let message = format!("{limit} uploads are open already; finish or cancel some of them, or wait");
        Error::new(ErrorCode::TooManyRequests, message).with_field("Retry-After", "60")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Sessions>> {
        self.principals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
