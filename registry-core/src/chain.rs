//! The states of records and the decisions of the storage protocol, as pure functions.
//!
//! Records form one chain, `tag -> manifest -> grant -> blob -> bytes`, and each of its edges follows one rule:
//!
//! 1. the parent is stored [`Pending`](State::Pending), which the collector honours as a root and readers do not see
//!    ([`enter`]);
//! 2. the child is read, after step 1 was acknowledged and never from a cache, and rescued where it is
//!    [`Condemned`](State::Condemned) ([`require`]);
//! 3. the parent goes [`Live`](State::Live) by compare-and-swap ([`publish`]).
//!
//! ```text
//!              enter            publish            collect
//!   Absent ----------> Pending ---------> Live <------------> Condemned
//!     ^                   |                 |    require, HEAD     |
//!     |                   v                 v                      v
//!     +--- (forgotten) - Dead <---------- delete <--------- collect, a later sealed cycle
//! ```
//!
//! The functions say what to do with a record as it was read. Who calls them writes by compare-and-swap on the
//! version that was read, and begins again where that fails. The storage code calls them, and so does the test that
//! explores every interleaving of writers, uploaders, deleters, collectors and a sweeper.

use serde::{Deserialize, Serialize};

/// The state of a manifest, a grant or a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is no record.
    #[default]
    Absent,
    /// Being published: a root for the collector, not seen by readers.
    Pending,
    /// Published.
    Live,
    /// Published, and found unreachable by a cycle of the collector; whoever needs it makes it Live again.
    Condemned,
    /// Gone. The record may stay as a tombstone.
    Dead,
}

impl State {
    /// Tells whether readers see the record.
    #[must_use]
    pub const fn is_visible(self) -> bool {
        matches!(self, Self::Live | Self::Condemned)
    }
}

/// What a publisher does with the parent that it finds (step 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// Store it Pending, with a new incarnation.
    Create,
    /// Another publisher stored it Pending: go on with that record and its incarnation.
    Join,
    /// Make it Live by compare-and-swap; it needs no child to be checked, as it was a root all the time.
    Rescue,
    /// It is published already.
    Published,
}

/// Decides step 1 of the rule.
#[must_use]
pub const fn enter(parent: State) -> Enter {
    match parent {
        State::Absent | State::Dead => Enter::Create,
        State::Pending => Enter::Join,
        State::Condemned => Enter::Rescue,
        State::Live => Enter::Published,
    }
}

/// What a publisher does with a child that its parent needs (step 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// The child is there.
    Ready,
    /// Make it Live by compare-and-swap, and read it again where that fails.
    Rescue,
    /// The child is not there: the push is refused, or goes on where missing children are allowed.
    Missing,
}

/// Decides step 2 of the rule.
#[must_use]
pub const fn require(child: State) -> Require {
    match child {
        State::Live => Require::Ready,
        State::Condemned => Require::Rescue,
        State::Absent | State::Pending | State::Dead => Require::Missing,
    }
}

/// What a publisher does at last with the parent that it stored or joined (step 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Make it Live by compare-and-swap.
    Write,
    /// It is not the record of step 1 any more: begin again.
    Again,
}

/// Decides step 3 of the rule. `same` says that the record is still the one that was stored or joined.
#[must_use]
pub const fn publish(parent: State, same: bool) -> Publish {
    if matches!(parent, State::Pending) && same {
        Publish::Write
    } else {
        Publish::Again
    }
}

/// What a push does after it wrote its tag, when it reads the manifest once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// The tag names a manifest that lives.
    Done,
    /// Make the manifest Live by compare-and-swap, and read it again where that fails.
    Rescue,
    /// It was deleted meanwhile: push it again.
    Again,
}

/// Decides whether a tag that was just written holds. `same` says that the incarnation is the one the tag names.
#[must_use]
pub const fn confirm(manifest: State, same: bool) -> Confirm {
    match manifest {
        State::Live if same => Confirm::Done,
        State::Condemned if same => Confirm::Rescue,
        _ => Confirm::Again,
    }
}

/// What the commit of an upload does with the blob that it finds, while its grant is Pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The blob has bytes already: publish the grant for them.
    Use,
    /// The same, after the blob was made Live by compare-and-swap.
    Rescue,
    /// The Pending blob names this session's bytes: check the session again, finish the bytes, make the blob Live.
    Finish,
    /// Mark the session as proposed by compare-and-swap, then read the blob again and [`join`] it.
    Propose,
    /// The bytes were proposed before and the Pending that named them is gone: they may be swept at any time, so
    /// the client has to send them again.
    SendAgain,
}

/// Decides how a session's bytes become a blob. `named` says that the Pending blob names the session's bytes.
#[must_use]
pub const fn offer(blob: State, named: bool, open: bool, proposed: bool) -> Offer {
    match blob {
        State::Live => Offer::Use,
        State::Condemned => Offer::Rescue,
        State::Pending if named => Offer::Finish,
        State::Absent | State::Pending | State::Dead if proposed || !open => Offer::SendAgain,
        State::Absent | State::Pending | State::Dead => Offer::Propose,
    }
}

/// What a commit does after its session was marked as proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Store the blob Pending with this session's bytes added to its proposals, then read the session again.
    Write,
    /// The blob has bytes by now.
    Use,
    /// The same, after the blob was made Live by compare-and-swap.
    Rescue,
}

/// Decides how the proposal is made.
#[must_use]
pub const fn join(blob: State) -> Join {
    match blob {
        State::Live => Join::Use,
        State::Condemned => Join::Rescue,
        State::Absent | State::Pending | State::Dead => Join::Write,
    }
}

/// What a commit does once its proposal stands and its session was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// Finish the bytes and make the blob Live, naming them.
    Finish,
    /// The session was aborted: take the proposal back.
    Withdraw,
}

/// Decides whether the bytes of a proposal may be relied on.
#[must_use]
pub const fn recheck(open: bool) -> Recheck {
    if open { Recheck::Finish } else { Recheck::Withdraw }
}

/// Tells whether a finished upload may make the blob Live with its bytes; if not, it begins again with [`offer`].
#[must_use]
pub const fn complete(blob: State, named: bool) -> bool {
    matches!(blob, State::Pending) && named
}

/// What a cycle of the collector does with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// Nothing.
    Leave,
    /// Make it Live: it was condemned and is reachable.
    Revive,
    /// Make it Condemned in this cycle.
    Condemn,
    /// Make it Dead.
    Kill,
}

/// What a cycle of the collector knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The state of the record.
    pub state: State,
    /// Something that this cycle saw names the record.
    pub is_root: bool,
    /// The cycle that condemned it was sealed when this cycle began.
    pub is_sealed: bool,
    /// The record is in its state for as long as the store asks for (a grace, the longest commit for a Pending).
    pub is_old: bool,
}

/// Decides what a cycle does with a record.
#[must_use]
pub const fn collect(candidate: Candidate) -> Collect {
    let Candidate {
        state,
        is_root,
        is_sealed,
        is_old,
    } = candidate;
    match state {
        State::Absent | State::Dead => Collect::Leave,
        State::Condemned if is_root => Collect::Revive,
        State::Condemned if !is_sealed => Collect::Condemn,
        State::Live if is_root => Collect::Leave,
        State::Live if is_old => Collect::Condemn,
        State::Condemned | State::Pending if is_old => Collect::Kill,
        State::Live | State::Condemned | State::Pending => Collect::Leave,
    }
}

/// Tells whether the sweeper may delete bytes that it listed first: no session read after that listing names them,
/// and then no blob record read after the sessions does.
#[must_use]
pub const fn may_sweep(named_by_session: bool, named_by_blob: bool) -> bool {
    !named_by_session && !named_by_blob
}
