//! The faults that a test plans, and the journal of requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::endpoint::RegistryEndpoint;

/// The most requests that the journal keeps; the oldest are dropped first.
const JOURNAL: usize = 10_000;

/// A request that arrived.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalEntry {
    /// The endpoint, or `None` if the request was not understood.
    pub endpoint: Option<RegistryEndpoint>,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, without its question mark.
    pub query: Option<String>,
    /// The header.
    pub header: HeaderMap,
    /// The status of the answer, or `None` if there is none yet, or the connection was reset.
    pub status: Option<StatusCode>,
}

/// The journal and the planned faults, shared by all connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Script(Arc<Mutex<ScriptState>>);

#[derive(Debug, Default)]
struct ScriptState {
    journal: VecDeque<JournalEntry>,
    /// How many entries the journal has dropped.
    lost: u64,
    faults: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    endpoint: RegistryEndpoint,
    /// How many calls succeed before this one.
    before: usize,
    effect: Effect,
}

/// The effect of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Status(StatusCode),
    Delay(Duration),
    Truncate(u64),
    Reset,
}

impl Script {
    /// Records a request. Returns its place in the journal and the effects of its faults.
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

    /// Records the status of an answer.
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

    fn lock(&self) -> MutexGuard<'_, ScriptState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fault that is being planned. It has no effect until one of its methods is called.
///
/// Several faults may be planned for one call: it can be delayed and then fail.
#[derive(Debug)]
#[must_use = "say what goes wrong"]
pub struct Fault<'a> {
    script: &'a Script,
    endpoint: RegistryEndpoint,
    before: usize,
}

impl<'a> Fault<'a> {
    pub(super) const fn new(script: &'a Script, endpoint: RegistryEndpoint, nth: usize) -> Self {
        Self {
            script,
            endpoint,
            before: nth.saturating_sub(1),
        }
    }

    /// Answers the call with this status and an error document, after reading its whole body. The call has no effect.
    ///
    /// # Panics
    /// If it is not a status from 200 to 999.
    pub fn status(self, status: u16) {
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| status.as_u16() >= 200);
        assert!(status.is_some(), "a status is a number from 200 to 999");
        self.plan(status.map(Effect::Status));
    }

    /// Delays the start of the call.
    pub fn delay(self, delay: Duration) {
        self.plan(Some(Effect::Delay(delay)));
    }

    /// Ends the body of the answer after this many bytes by closing the connection, although its header promises more.
    /// A shorter body is not affected.
    pub fn truncate(self, bytes: u64) {
        self.plan(Some(Effect::Truncate(bytes)));
    }

    /// Resets the connection without an answer. The call has no effect.
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
