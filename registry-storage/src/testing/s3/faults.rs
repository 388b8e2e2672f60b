//! Faults of the double.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Fault {
    /// It has no effect and is answered with this status: 500 (`InternalError`), 503 (`SlowDown`), 409
    /// (`ConditionalRequestConflict`) or any other.
    Status(u16),
    /// It has no effect and is answered with this status and this code.
    Answer(u16, &'static str),
    /// It has its effect, and the connection is cut instead of an answer.
    LoseAnswer,
    /// It has its effect, but is answered with 500.
    LieAboutFailure,
    /// It has its effect, and the answer has this entity tag, or none if it is empty.
    Tag(&'static str),
    /// A list has all keys, however many were asked for.
    WholeList,
    /// It waits before it has its effect.
    Delay(Duration),
    /// Half of the answer's content is sent, then the connection is cut.
    CutBody,
}

/// The switches of faults. Requests are counted from 0.
#[derive(Debug, Default)]
pub struct S3Faults(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    requests: u64,
    at: BTreeMap<u64, S3Fault>,
    lasting: Option<S3Fault>,
    seen: Vec<String>,
    ignores_conditions: bool,
}

impl S3Faults {
    /// Gives the request with this number a fault.
    pub fn fault_at(&self, request: u64, fault: S3Fault) {
        self.change(|plan| plan.at.insert(request, fault));
    }

    /// Gives a fault to the request that arrives after `others` more.
    pub fn fault_after(&self, others: u64, fault: S3Fault) {
        self.change(|plan| plan.at.insert(plan.requests + others, fault));
    }

    /// Gives all requests from now on a fault, unless they have one of their own; `None` ends that.
    pub fn fault_from_now_on(&self, fault: Option<S3Fault>) {
        self.change(|plan| plan.lasting = fault);
    }

    /// Writes without regard to `If-None-Match` and `If-Match` from now on, as some servers do.
    pub fn ignore_conditions(&self) {
        self.change(|plan| plan.ignores_conditions = true);
    }

    pub(super) fn ignores_conditions(&self) -> bool {
        self.change(|plan| plan.ignores_conditions)
    }

    /// Returns how many requests there were.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.change(|plan| plan.requests)
    }

    /// Returns method and path of the requests since the last call.
    #[must_use]
    pub fn take_seen(&self) -> Vec<String> {
        self.change(|plan| std::mem::take(&mut plan.seen))
    }

    /// Counts a request and returns its fault.
    pub(super) fn next(&self, request: String) -> Option<S3Fault> {
        self.change(|plan| {
            let number = plan.requests;
            plan.requests += 1;
            plan.seen.push(request);
            plan.at.remove(&number).or(plan.lasting)
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
