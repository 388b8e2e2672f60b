//! What a test wants to go wrong, and what it wants to know.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::endpoint::Endpoint;

/// The most requests that the journal keeps; the oldest go first.
const JOURNAL: usize = 10_000;

/// A request that arrived.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalEntry {
    /// The endpoint; nothing where the request was not understood.
    pub endpoint: Option<Endpoint>,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, without its question mark.
    pub query: Option<String>,
    /// The header.
    pub header: HeaderMap,
    /// The status of the answer; nothing where there is none yet, or the connection was reset.
    pub status: Option<StatusCode>,
}

/// The journal and the faults to come, shared by all connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Script(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    journal: VecDeque<JournalEntry>,
    /// How many entries the journal lost.
    lost: u64,
    faults: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    endpoint: Endpoint,
    /// How many calls go well before this one.
    before: usize,
    effect: Effect,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Status(StatusCode),
    Delay(Duration),
    Truncate(u64),
    Reset,
}

impl Script {
    /// Notes a request. Returns its place in the journal and what goes wrong with it.
    pub(super) fn arrived(&self, entry: JournalEntry) -> (u64, Vec<Effect>) {
        let mut state = self.lock();
        let mut effects = Vec::new();
        let endpoint = entry.endpoint;
        state.faults.retain_mut(|planned| {
            if Some(planned.endpoint) != endpoint {
                return true;
            }
            let is_now = planned.before == 0;
            if is_now {
                effects.push(planned.effect);
            } else {
                planned.before -= 1;
            }
            !is_now
        });
        if state.journal.len() == JOURNAL {
            state.journal.pop_front();
            state.lost += 1;
        }
        state.journal.push_back(entry);
        let place = state.lost + state.journal.len() as u64 - 1;
        (place, effects)
    }

    /// Notes the status of an answer.
    pub(super) fn answered(&self, place: u64, status: StatusCode) {
        let mut state = self.lock();
        let index = place
            .checked_sub(state.lost)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| state.journal.get_mut(index)) {
            entry.status = Some(status);
        }
    }

    pub(super) fn journal(&self) -> Vec<JournalEntry> {
        self.lock().journal.iter().cloned().collect()
    }

    pub(super) fn clear_journal(&self) {
        let mut state = self.lock();
        state.lost += state.journal.len() as u64;
        state.journal.clear();
    }

    fn plan(&self, planned: Planned) {
        self.lock().faults.push(planned);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fault that is being planned; nothing goes wrong until one of its methods says what.
///
/// Several faults may be planned for one call: it can be late, and fail then.
#[derive(Debug)]
#[must_use = "say what goes wrong"]
pub struct Fault<'a> {
    script: &'a Script,
    endpoint: Endpoint,
    before: usize,
}

impl<'a> Fault<'a> {
    pub(super) const fn new(script: &'a Script, endpoint: Endpoint, nth: usize) -> Self {
        Self {
            script,
            endpoint,
            before: nth.saturating_sub(1),
        }
    }

    /// The call is answered with this status and an error document, and has no effect. Its body is taken whole first.
    ///
    /// # Panics
    /// Where it is not a status, 200 to 999.
    pub fn status(self, status: u16) {
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| status.as_u16() >= 200);
        assert!(status.is_some(), "a status is a number from 200 to 999");
        self.plan(status.map(Effect::Status));
    }

    /// The call is begun only after this time.
    pub fn delay(self, delay: Duration) {
        self.plan(Some(Effect::Delay(delay)));
    }

    /// The answer's body ends after this many bytes, although its header promises more: the connection is closed. In a
    /// shorter body nothing is wrong.
    pub fn truncate(self, bytes: u64) {
        self.plan(Some(Effect::Truncate(bytes)));
    }

    /// The connection is reset without an answer, and the call has no effect.
    pub fn reset(self) {
        self.plan(Some(Effect::Reset));
    }

    fn plan(self, effect: Option<Effect>) {
        if let Some(effect) = effect {
            self.script.plan(Planned {
                endpoint: self.endpoint,
                before: self.before,
                effect,
            });
        }
    }
}
