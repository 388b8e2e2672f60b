//! Faults of the double.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::testing::storage_conformance::Random;

/// How long a key is closed to another write by [`S3Faults::one_write_a_second`].
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// The longest [`S3Fault::Delay`] of [`S3Faults::at_random`], in milliseconds.
const LONGEST_DELAY_MILLIS: usize = 300;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Fault {
    /// It has no effect and is answered with this status: 500 (`InternalError`), 503 (`SlowDown`), 409
    /// (`ConditionalRequestConflict`) or any other.
    Status(u16),
    /// It has no effect and is answered with this status and this code.
    Answer(u16, &'static str),
    /// It has no effect and is answered with 200, an entity tag and a page for people, as by a proxy in between.
    Page,
    /// It has its effect, and the connection is cut instead of an answer.
    LoseAnswer,
    /// It has its effect, but is answered with 500.
    LieAboutFailure,
    /// It has its effect, and the answer has this entity tag, or none if it is empty.
    Tag(&'static str),
    /// A list has all keys, however many were asked for.
    WholeList,
    /// A list has its last key twice, as one of rclone's beside a write of that object.
    RepeatKey,
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
    ignores_delete_conditions: bool,
    refused_upload_listings: Option<(u16, &'static str)>,
    most_parts: Option<u32>,
    at_random: Option<(Random, usize)>,
    written: Option<BTreeMap<String, Instant>>,
}

impl Plan {
    /// Returns the fault of a request by chance.
    fn chance(&mut self, request: &str) -> Option<S3Fault> {
        let (random, percent) = self.at_random.as_mut()?;
        if random.below(100) >= *percent {
            return None;
        }
        Some(match random.below(7) {
            0 => S3Fault::Status(503),
            1 => S3Fault::Status(500),
            // Two writers met.
            2 if request.starts_with("PUT") => S3Fault::Status(409),
            2 => S3Fault::Answer(429, "TooManyRequests"),
            3 => S3Fault::LoseAnswer,
            4 => S3Fault::LieAboutFailure,
            5 => S3Fault::CutBody,
            _ => S3Fault::Delay(Duration::from_millis(random.below(LONGEST_DELAY_MILLIS) as u64)),
        })
    }

    /// Returns whether a request writes an object that was written a moment ago.
    fn is_too_soon(&mut self, request: &str) -> bool {
        let (Some(written), Some(key)) = (&mut self.written, request.strip_prefix("PUT ")) else {
            return false;
        };
        let now = Instant::now();
        let is_too_soon = |at: &Instant| now.duration_since(*at) < BETWEEN_WRITES;
        written.retain(|_, at| is_too_soon(at));
        // A part is no write of its object.
        if key.contains('?') || written.contains_key(key) {
            return !key.contains('?');
        }
        written.insert(key.to_owned(), now);
        false
    }
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

    /// Deletes without regard to `If-Match` from now on, as most servers did before 2025.
    pub fn ignore_delete_conditions(&self) {
        self.change(|plan| plan.ignores_delete_conditions = true);
    }

    pub(super) fn ignores_delete_conditions(&self) -> bool {
        self.change(|plan| plan.ignores_delete_conditions)
    }

    /// Refuses to list uploads from now on, with this status and this code, as a store does that has no such list, or that does not
    /// let the key read it; `None` ends that.
    pub fn refuse_upload_listings(&self, refusal: Option<(u16, &'static str)>) {
        self.change(|plan| plan.refused_upload_listings = refusal);
    }

    pub(super) fn refused_upload_listings(&self) -> Option<(u16, &'static str)> {
        self.change(|plan| plan.refused_upload_listings)
    }

    /// Takes no part of an upload beyond this number from now on, as Swift beyond 1000.
    pub fn take_parts_up_to(&self, number: u32) {
        self.change(|plan| plan.most_parts = Some(number));
    }

    pub(super) fn takes_part(&self, number: u32) -> bool {
        self.change(|plan| plan.most_parts.is_none_or(|most| number <= most))
    }

    /// Writes without regard to `If-None-Match` and `If-Match` from now on, as some servers do.
    pub fn ignore_conditions(&self) {
        self.change(|plan| plan.ignores_conditions = true);
    }

    /// Gives this share of all requests, in percent, a fault of any kind that passes; 0 ends that. The seed repeats the
    /// sequence of faults, not that of the requests.
    pub fn at_random(&self, seed: u64, percent: usize) {
        self.change(|plan| plan.at_random = Some((Random::new(seed), percent)));
    }

    /// Refuses to write an object that was written less than a second ago, as Google Cloud Storage does: 429.
    pub fn one_write_a_second(&self) {
        self.change(|plan| plan.written = Some(BTreeMap::new()));
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
            let mut fault = plan.at.remove(&number).or(plan.lasting);
            fault = fault.or_else(|| plan.chance(&request));
            if fault.is_none() && plan.is_too_soon(&request) {
                fault = Some(S3Fault::Answer(429, "SlowDown"));
            }
            plan.seen.push(request);
            fault
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
