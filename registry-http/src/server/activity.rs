//! What happens on a connection, and when it was silent for too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::open_streams::Before;
use crate::limits::Limits;

/// How long the progress of a connection is measured.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How many bytes a second a connection counts as moving in its first [`RATE_WINDOW`], in which it has had no time to.
const NEW_CONNECTION_BYTES_PER_SECOND: u64 = 300 * 1024;

/// How many times what a connection moves counts: one that goes on steadily, however slowly, is worth more than those that come
/// anew each second.
const STEADY_RATE_FACTOR: u64 = 4;

/// What happens on one connection, recorded by its socket, its requests and its response bodies.
///
/// The connection is silent while the client takes nothing of what is ready for it, or requests nothing. The socket
/// alone does not show that, because an HTTP/2 client can keep the socket busy without opening the window of its
/// streams.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<ActivityState>,
    dismissed: Notify,
    /// Bytes that arrived or were accepted by the client.
    moved: AtomicU64,
    progress: Mutex<Progress>,
}

/// How many bytes a connection had moved when its rate was last asked for.
#[derive(Debug)]
struct Progress {
    at: Instant,
    moved: u64,
    rate: u64,
}

#[derive(Debug)]
struct ActivityState {
    /// Handlers and bodies that the client waits for: while there are any, the silence is on this side.
    owed: usize,
    /// Response bodies that the client has not taken completely.
    bodies: usize,
    /// Bytes wait for the socket to accept them.
    is_writing: bool,
    had_request: bool,
    /// The connection ends with a part of a request body unread.
    is_unread: bool,
    is_reset: bool,
    /// Other connections need its place.
    is_dismissed: bool,
    /// Other clients need the memory that its client holds.
    is_put_out: bool,
    speaks_http2: bool,
    /// When the client was last told, or was to be told, that the connection ends.
    leaving: Option<Instant>,
    /// When the first byte of a header arrived that is still incomplete.
    header_since: Option<Instant>,
    /// When the client last took bytes of a body, or any that had waited.
    last: Instant,
    /// When a request last made progress. Pings do not count.
    last_use: Instant,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask again at this time.
    AskAt(Instant),
    /// It is unused: close it gracefully.
    Close,
    /// The client takes nothing, or others need what it has.
    Cut,
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = ActivityState {
            owed: 0,
            bodies: 0,
            is_writing: false,
            had_request: false,
            is_unread: false,
            is_reset: false,
            is_dismissed: false,
            is_put_out: false,
            speaks_http2: false,
            leaving: None,
            header_since: None,
            last: now,
            last_use: now,
        };
        Self {
            state: Mutex::new(state),
            dismissed: Notify::new(),
            moved: AtomicU64::new(0),
            progress: Mutex::new(Progress {
                at: now,
                moved: 0,
                rate: NEW_CONNECTION_BYTES_PER_SECOND,
            }),
        }
    }

    /// Decides what to do at `now`.
    pub(super) fn verdict(&self, now: Instant, limits: &Limits) -> Verdict {
        let state = self.lock();
        if state.is_put_out {
            return Verdict::Cut;
        }
        if state.owed > 0 {
            // Often enough that a silence that begins meanwhile lasts little longer than its limit.
            return Verdict::AskAt(now + limits.response_timeout / 4);
        }
        let (since, limit, verdict) = if !state.is_idle() {
            (state.last, limits.response_timeout, Verdict::Cut)
        } else if let Some(leaving) = state.leaving {
            // What arrived before the client knew is answered; then it has some time to leave.
            (leaving.max(state.last_use), limits.drain_timeout, Verdict::Cut)
        } else if state.is_dismissed {
            return if state.had_request {
                Verdict::Close
            } else {
                Verdict::Cut
            };
        } else if let Some(begin) = state.header_since {
            (begin, limits.header_timeout, Verdict::Close)
        } else if state.had_request {
            (state.last_use, limits.idle_timeout, Verdict::Close)
        } else {
            (state.last_use, limits.header_timeout, Verdict::Close)
        };
        let end = since + limit;
        if now < end {
            // A header that begins meanwhile has a shorter limit.
            Verdict::AskAt(end.min(now + limits.header_timeout / 4))
        } else {
            verdict
        }
    }

    /// Returns when the connection became idle, or `None` if the client has a request running or an answer to take.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.is_idle().then_some(state.last_use)
    }

    /// Returns the state of the connection that a new request finds.
    pub(super) fn before(&self) -> Before {
        let state = self.lock();
        if state.is_writing {
            Before::Untaken
        } else if state.is_idle() {
            Before::Quiet
        } else {
            Before::Busy
        }
    }

    /// Asks the connection to make room for another one, unless a request comes first.
    pub(super) fn dismiss(&self) {
        self.lock().is_dismissed = true;
        self.dismissed.notify_one();
    }

    /// Ends the connection once it is idle: see [`may_end`](Self::may_end).
    pub(super) fn leave(&self) {
        self.lock().leaving = Some(Instant::now());
    }

    /// Returns whether there are answers that the client has not taken completely.
    pub(super) fn has_answers(&self) -> bool {
        self.lock().bodies > 0
    }

    /// Returns whether answers from now on are the last ones.
    pub(super) fn is_leaving(&self) -> bool {
        self.lock().leaving.is_some()
    }

    /// Returns whether an HTTP/1.1 connection ends if nothing more has arrived. HTTP/2 has a way to agree on the last
    /// request.
    pub(super) fn may_end(&self) -> bool {
        let state = self.lock();
        state.leaving.is_some() && !state.speaks_http2 && state.is_idle()
    }

    pub(super) fn begin_http2(&self) {
        self.lock().speaks_http2 = true;
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.lock().speaks_http2
    }

    /// Records that a part of an HTTP/1.1 header arrived.
    pub(super) fn header_came(&self) {
        self.lock().header_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn has_part_of_header(&self) -> bool {
        self.lock().header_since.is_some()
    }

    /// Ends the connection, even if requests are running.
    pub(super) fn put_out(&self) {
        self.lock().is_put_out = true;
        self.dismissed.notify_one();
    }

    pub(super) fn is_put_out(&self) -> bool {
        self.lock().is_put_out
    }

    /// Returns how many bytes a second moved lately, whether the server has something to do for the client, and when the
    /// client was last active. The connection with the least value is the first to be cut.
    pub(super) fn usefulness(&self, now: Instant) -> (u64, bool, Instant) {
        let rate = self.rate(now);
        let state = self.lock();
        (rate, state.owed > 0, state.last)
    }

    /// Records that bytes arrived, or that the client accepted some.
    pub(super) fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns what the progress of the connection is worth: some times the bytes a second that moved lately, since the
    /// rate was last asked for or in the second before that.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = self.moved.load(Ordering::Relaxed);
        let elapsed = now.saturating_duration_since(progress.at);
        let since = moved.saturating_sub(progress.moved);
        if elapsed < RATE_WINDOW {
            return progress.rate.max(since.saturating_mul(STEADY_RATE_FACTOR));
        }
        let rate = u128::from(since) * RATE_WINDOW.as_millis() / elapsed.as_millis().max(1);
        *progress = Progress {
            at: now,
            moved,
            rate: u64::try_from(rate)
                .unwrap_or(u64::MAX)
                .saturating_mul(STEADY_RATE_FACTOR),
        };
        progress.rate
    }

    /// Waits until the connection is asked to make room, or is cut.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }

    /// Records that the socket accepted bytes, or, if `is_pending`, that it did not.
    pub(super) fn wrote(&self, is_pending: bool) {
        let mut state = self.lock();
        let had_waited = state.is_writing;
        state.is_writing = is_pending;
        // Answers to pings are accepted at once, and are not something that the client waits for.
        if !is_pending && had_waited {
            state.touch();
        }
    }

    /// Records that a part of a body was taken.
    pub(super) fn body_taken(&self) {
        self.lock().last = Instant::now();
    }

    pub(super) fn request_began(&self) {
        let mut state = self.lock();
        state.had_request = true;
        state.is_dismissed = false;
        state.header_since = None;
        state.owed += 1;
    }

    pub(super) fn request_ended(&self) {
        self.ready();
    }

    pub(super) fn body_began(&self) {
        self.lock().bodies += 1;
    }

    pub(super) fn body_ended(&self) {
        let mut state = self.lock();
        state.bodies = state.bodies.saturating_sub(1);
        state.touch();
    }

    /// Records that a body has nothing ready.
    pub(super) fn waits(&self) {
        self.lock().owed += 1;
    }

    /// Records that a body has something ready again.
    pub(super) fn ready(&self) {
        let mut state = self.lock();
        state.owed = state.owed.saturating_sub(1);
        state.touch();
    }

    pub(super) fn leave_unread(&self) {
        self.lock().is_unread = true;
    }

    pub(super) fn is_unread(&self) -> bool {
        self.lock().is_unread
    }

    #[cfg(feature = "testing")]
    pub(super) fn is_writing(&self) -> bool {
        self.lock().is_writing
    }

    #[cfg(feature = "testing")]
    pub(super) fn reset(&self) {
        self.lock().is_reset = true;
    }

    pub(super) fn is_reset(&self) -> bool {
        self.lock().is_reset
    }

    fn lock(&self) -> MutexGuard<'_, ActivityState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActivityState {
    fn touch(&mut self) {
        self.last = Instant::now();
        self.last_use = self.last;
    }

    const fn is_idle(&self) -> bool {
        self.owed == 0 && self.bodies == 0 && !self.is_writing
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn limits() -> Limits {
        Limits {
            response_timeout: Duration::from_secs(1),
            header_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(4),
            ..Limits::default()
        }
    }

    /// Asks every tenth of a second from now on. Returns the first decision and when it is made.
    fn decision(activity: &Activity) -> Option<(u128, Verdict)> {
        let begin = Instant::now();
        (0..100_u32).find_map(|at| {
            let after = at * Duration::from_millis(100);
            match activity.verdict(begin + after, &limits()) {
                Verdict::AskAt(time) => {
                    assert!(time > begin + after);
                    None
                }
                verdict => Some((after.as_millis(), verdict)),
            }
        })
    }

    #[test]
    fn silence_is_judged_by_who_owes() {
        let activity = Activity::new();
        assert_eq!(decision(&activity), Some((2000, Verdict::Close)));
        activity.request_began();
        assert_eq!(decision(&activity), None);
        activity.request_ended();
        activity.body_began();
        assert_eq!(decision(&activity), Some((1000, Verdict::Cut)));
        activity.waits();
        assert_eq!(decision(&activity), None);
        activity.ready();
        activity.body_ended();
        assert_eq!(decision(&activity), Some((3000, Verdict::Close)));
        activity.wrote(true);
        assert_eq!(decision(&activity), Some((1000, Verdict::Cut)));
        activity.wrote(false);
        assert_eq!(decision(&activity), Some((3000, Verdict::Close)));
    }

    #[test]
    fn a_header_that_has_begun_waits_for_its_rest_and_no_longer() {
        let activity = Activity::new();
        activity.request_began();
        activity.request_ended();
        activity.header_came();
        assert_eq!(decision(&activity), Some((2000, Verdict::Close)));
        activity.request_began();
        activity.request_ended();
        assert_eq!(decision(&activity), Some((3000, Verdict::Close)));
    }

    #[test]
    fn who_leaves_is_answered_what_came_before() {
        let activity = Activity::new();
        activity.request_began();
        assert!(!activity.is_leaving());
        activity.leave();
        assert!(activity.is_leaving() && !activity.may_end());
        assert_eq!(decision(&activity), None);
        activity.request_ended();
        assert!(activity.may_end());
        assert_eq!(decision(&activity), Some((4000, Verdict::Cut)));
        activity.begin_http2();
        assert!(!activity.may_end());
    }

    #[test]
    fn who_only_pings_is_idle() {
        let activity = Activity::new();
        let begin = activity.idle_since().unwrap();
        activity.wrote(false);
        assert_eq!(activity.idle_since(), Some(begin));
        activity.wrote(true);
        activity.wrote(false);
        assert!(activity.idle_since().unwrap() > begin, "it waited for the client");
    }

    #[test]
    fn only_who_is_idle_makes_room() {
        let activity = Activity::new();
        assert!(activity.idle_since().is_some());
        activity.dismiss();
        assert_eq!(decision(&activity), Some((0, Verdict::Cut)));
        activity.request_began();
        assert_eq!((activity.idle_since(), decision(&activity)), (None, None));
        activity.dismiss();
        activity.body_began();
        activity.request_ended();
        assert_eq!(activity.idle_since(), None);
        assert_eq!(decision(&activity), Some((1000, Verdict::Cut)));
        activity.body_ended();
        assert_eq!(decision(&activity), Some((0, Verdict::Close)));
    }
}
