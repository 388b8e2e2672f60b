//! The states of records and the decisions of the storage protocol, as pure functions.
//!
//! Records form one chain, `tag -> manifest -> grant -> blob -> bytes`, and each of its edges follows one rule:
//!
//! 1. the parent is stored [`Pending`](State::Pending), which the collector honours as a root and readers do not see
//!    ([`enter`]);
//! 2. the child is read, after step 1 was acknowledged and never from a cache, and rescued if it is
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
//! The functions decide what to do with a record as it was read. The caller writes by compare-and-swap on the version
//! that was read, and begins again if that fails. The storage code calls them, and so does the test that explores every
//! interleaving of writers, uploaders, deleters, collectors and a sweeper.

use serde::{Deserialize, Serialize};

/// The state of a manifest, a grant or a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No record exists.
    #[default]
    Absent,
    /// Being published: a root for the collector, not seen by readers.
    Pending,
    /// Published.
    Live,
    /// Published, and found unreachable by a cycle of the collector; a push that needs it makes it Live again.
    Condemned,
    /// Gone. The record may stay as a tombstone.
    Dead,
}

impl State {
    /// Returns whether readers see the record.
    #[must_use]
    pub const fn is_visible(self) -> bool {
        matches!(self, Self::Live | Self::Condemned)
    }

    /// Returns whether the collector considers the record's children reachable.
    ///
    /// A Pending parent holds them too: that is what makes it safe to read a child after the parent was stored.
    #[must_use]
    pub const fn holds_children(self) -> bool {
        matches!(self, Self::Pending | Self::Live | Self::Condemned)
    }
}

/// What a publisher does with the parent that it finds (step 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// Store it Pending, with a new incarnation.
    Create,
    /// Another publisher stored it Pending: continue with that record and its incarnation.
    Join,
    /// Make it Live by compare-and-swap. No child needs to be checked, because it was a root all the time.
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
    /// The child exists.
    Ready,
    /// Make it Live by compare-and-swap, and read it again if that fails.
    Rescue,
    /// The child does not exist: the push is refused, or continues if missing children are allowed.
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

/// What a publisher finally does with the parent that it stored or joined (step 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Make it Live by compare-and-swap.
    Write,
    /// It is not the record of step 1 any more: begin again.
    Again,
}

/// Decides step 3 of the rule. `same` means that the record is still the one that was stored or joined.
///
/// The store does not read the record for that: its write has the version of step 1 as its condition, and begins again if that fails.
#[must_use]
pub const fn publish(parent: State, same: bool) -> Publish {
    if matches!(parent, State::Pending) && same {
        Publish::Write
    } else {
        Publish::Again
    }
}

/// Decides step 3 for a parent that was visible in step 1 and has to be written nevertheless.
///
/// Its own content is damaged, or it names bytes that are lost. `same` means that the record is still the one that was
/// read in step 1. A visible parent holds its children as a Pending one does, so only the state in the rule differs.
#[must_use]
pub const fn heal(parent: State, same: bool) -> Publish {
    if parent.is_visible() && same {
        Publish::Write
    } else {
        Publish::Again
    }
}

/// Returns the state that a blob counts as when its bytes are needed: a blob whose bytes are lost is Dead.
///
/// Bytes are lost if a visible record names them and they do not exist, or do not have their length. That is final,
/// because no name is reused. So it may be found out before the record is read, and holds for each version that names
/// them.
#[must_use]
pub const fn counted(blob: State, is_lost: bool) -> State {
    if blob.is_visible() && is_lost {
        State::Dead
    } else {
        blob
    }
}

/// Returns whether a push that was refused in step 2 makes the parent Dead that it stored or joined.
///
/// Another push that joined the same Pending finds its own step 3 refused and begins again, so no push is answered with
/// another's refusal. `same` means that the record is still the one that was stored or joined.
#[must_use]
pub const fn withdraw(parent: State, same: bool) -> bool {
    matches!(parent, State::Pending) && same
}

/// Returns whether a repository's grant allows a mount from it. The mount then follows the rule, without bytes.
#[must_use]
pub const fn may_mount(source: State) -> bool {
    source.is_visible()
}

/// Returns whether a user's delete makes a manifest or a grant Dead, by compare-and-swap.
///
/// A Pending record is left alone: its push counts as after the delete.
#[must_use]
pub const fn delete(record: State) -> bool {
    record.is_visible()
}

/// Returns whether a tag names this incarnation of the manifest with its digest. A tombstone (`None`) names nothing.
///
/// The reader, the collector and the delete of a manifest all compare incarnations and not only digests, so that a tag
/// that was pushed after a delete is not mistaken for a tag from before it.
#[must_use]
pub fn names<Incarnation: PartialEq>(tag: Option<&Incarnation>, incarnation: &Incarnation) -> bool {
    tag == Some(incarnation)
}

/// What a push does after it wrote its tag, when it reads the manifest once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// The tag names a manifest that lives.
    Done,
    /// Make the manifest Live by compare-and-swap, and read it again if that fails.
    Rescue,
    /// It was deleted meanwhile: push it again.
    Again,
}

/// Decides whether a tag that was just written holds. `same` means that the incarnation is the one the tag names.
#[must_use]
pub const fn confirm(manifest: State, same: bool) -> Confirm {
    match manifest {
        State::Live if same => Confirm::Done,
        State::Condemned if same => Confirm::Rescue,
        _ => Confirm::Again,
    }
}

/// What a push that is refused after it wrote a tag does with that tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollBack {
    /// Another push wrote the tag since: leave it.
    Leave,
    /// Write what it replaced by compare-and-swap, then [`confirm`] the manifest that this names. If the answer is
    /// [`Confirm::Again`], decide once more on the version just written.
    Restore,
    /// Write a tombstone by compare-and-swap.
    WriteTombstone,
}

/// Decides how a tag is taken back.
///
/// What a tag named before is the last value that this push replaced and had not written itself: a push that begins
/// again and finds another push's tag has replaced that tag. It is known only if the tag is written by compare-and-swap
/// on the version that was read.
///
/// `same` means that the tag has the version that this push wrote. `replaced` is the state of the manifest that the tag
/// named before, and `replaced_same` means that its incarnation is the one that was named. If there was no tag before,
/// `replaced` is Absent.
#[must_use]
pub const fn roll_back(same: bool, replaced: State, replaced_same: bool) -> RollBack {
    match (same, replaced.is_visible() && replaced_same) {
        (false, _) => RollBack::Leave,
        (true, true) => RollBack::Restore,
        (true, false) => RollBack::WriteTombstone,
    }
}

/// What the commit of an upload does with the blob that it finds, while its grant is Pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The blob has bytes already: publish the grant for them.
    Use,
    /// As `Use`, after the blob was made Live by compare-and-swap.
    Rescue,
    /// The Pending blob names this session's bytes: check the session again, finish the bytes, make the blob Live.
    Finish,
    /// Mark the session as proposed by compare-and-swap, then read the blob again and [`join`] it.
    Propose,
    /// The bytes were proposed before and the Pending that named them is gone. They may be swept at any time, so the
    /// client has to send them again.
    SendAgain,
}

/// Decides how a session's bytes become a blob. `named` means that the Pending blob names the session's bytes, `open`
/// that the session is open, and `proposed` that its bytes were proposed before.
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
    /// As `Use`, after the blob was made Live by compare-and-swap.
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

/// What a commit does once its proposal is stored and its session was read again.
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

/// Returns whether a finished upload may make the blob Live with its bytes; if not, it begins again with [`offer`].
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

/// What a cycle of the collector knows about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The state of the record.
    pub state: State,
    /// Something that this cycle saw names the record.
    pub is_root: bool,
    /// The cycle that condemned it was sealed when this cycle began.
    pub is_sealed: bool,
    /// The record has been in its state for as long as the store requires (a grace; for a Pending record, the longest
    /// commit).
    pub is_old: bool,
    /// The record is written in one step with a look that shows that nothing was published since this cycle read what may
    /// name the record. Then no push can be between its look at the record and its parent, and one cycle is enough.
    pub is_certain: bool,
}

/// Decides what a cycle does with a record.
#[must_use]
pub const fn collect(candidate: Candidate) -> Collect {
    let Candidate {
        state,
        is_root,
        is_sealed,
        is_old,
        is_certain,
    } = candidate;
    match state {
        State::Absent | State::Dead => Collect::Leave,
        State::Condemned if is_root => Collect::Revive,
        State::Live | State::Condemned if !is_root && is_old && is_certain => Collect::Kill,
        State::Condemned if !is_sealed => Collect::Condemn,
        State::Live if is_root => Collect::Leave,
        State::Live if is_old => Collect::Condemn,
        State::Condemned | State::Pending if is_old => Collect::Kill,
        State::Live | State::Condemned | State::Pending => Collect::Leave,
    }
}

/// Returns whether the sweeper may delete bytes that it listed first: no session read after that listing names them,
/// and no blob record read after the sessions does.
#[must_use]
pub const fn may_sweep(named_by_session: bool, named_by_blob: bool) -> bool {
    !named_by_session && !named_by_blob
}

/// Returns whether a blob may be made Dead at once, if it and its grants are read and it is written as one step: no
/// grant holds it, not even a Pending one, so nothing reads it and no push needs it.
///
/// If other steps may come in between, that takes two cycles ([`collect`]).
#[must_use]
pub const fn may_drop(blob: State, is_held: bool) -> bool {
    blob.is_visible() && !is_held
}

#[cfg(test)]
mod tests {
    use super::State::{Absent, Condemned, Dead, Live, Pending};
    use super::*;

    const STATES: [State; 5] = [Absent, Pending, Live, Condemned, Dead];
    const BOOLS: [bool; 2] = [false, true];

    /// The decision for each of [`STATES`], in their order.
    fn of_each<T>(decide: impl Fn(State) -> T) -> Vec<T> {
        STATES.map(decide).into()
    }

    #[test]
    fn readers_see_published_records_and_the_collector_pending_ones_too() {
        assert_eq!(of_each(State::is_visible), [false, false, true, true, false]);
        assert_eq!(of_each(State::holds_children), [false, true, true, true, false]);
    }

    #[test]
    fn enter_creates_what_is_gone_and_joins_what_is_pending() {
        let expected = [
            Enter::Create,
            Enter::Join,
            Enter::Published,
            Enter::Rescue,
            Enter::Create,
        ];
        assert_eq!(of_each(enter), expected);
    }

    #[test]
    fn require_takes_live_children_and_rescues_condemned_ones() {
        let expected = [
            Require::Missing,
            Require::Missing,
            Require::Ready,
            Require::Rescue,
            Require::Missing,
        ];
        assert_eq!(of_each(require), expected);
    }

    #[test]
    fn publish_writes_over_its_own_pending_record_only() {
        let mut expected = [Publish::Again; 5];
        assert_eq!(of_each(|state| publish(state, false)), expected);
        expected[1] = Publish::Write;
        assert_eq!(of_each(|state| publish(state, true)), expected);
    }

    #[test]
    fn heal_writes_over_the_visible_record_that_was_read_only() {
        let mut expected = [Publish::Again; 5];
        assert_eq!(of_each(|state| heal(state, false)), expected);
        (expected[2], expected[3]) = (Publish::Write, Publish::Write);
        assert_eq!(of_each(|state| heal(state, true)), expected);
    }

    #[test]
    fn a_visible_blob_whose_bytes_are_lost_counts_as_dead() {
        assert_eq!(of_each(|state| counted(state, false)), STATES);
        assert_eq!(
            of_each(|state| counted(state, true)),
            [Absent, Pending, Dead, Dead, Dead]
        );
    }

    #[test]
    fn withdraw_kills_its_own_pending_record_only() {
        assert_eq!(of_each(|state| withdraw(state, false)), [false; 5]);
        assert_eq!(
            of_each(|state| withdraw(state, true)),
            [false, true, false, false, false]
        );
    }

    #[test]
    fn a_mount_and_a_delete_need_a_visible_record() {
        assert_eq!(of_each(may_mount), [false, false, true, true, false]);
        assert_eq!(of_each(delete), [false, false, true, true, false]);
    }

    #[test]
    fn a_tag_names_one_incarnation_and_a_tombstone_none() {
        assert!(names(Some(&1), &1));
        assert!(!names(Some(&1), &2));
        assert!(!names(None, &1));
    }

    #[test]
    fn confirm_accepts_the_incarnation_that_the_tag_names() {
        let mut expected = [Confirm::Again; 5];
        assert_eq!(of_each(|state| confirm(state, false)), expected);
        expected[2] = Confirm::Done;
        expected[3] = Confirm::Rescue;
        assert_eq!(of_each(|state| confirm(state, true)), expected);
    }

    #[test]
    fn take_back_restores_what_is_visible_and_leaves_the_tags_of_others() {
        for replaced_same in BOOLS {
            let expected = [RollBack::Leave; 5];
            assert_eq!(of_each(|state| roll_back(false, state, replaced_same)), expected);
        }
        let mut expected = [RollBack::WriteTombstone; 5];
        assert_eq!(of_each(|state| roll_back(true, state, false)), expected);
        expected[2] = RollBack::Restore;
        expected[3] = RollBack::Restore;
        assert_eq!(of_each(|state| roll_back(true, state, true)), expected);
    }

    #[test]
    fn offer_proposes_the_bytes_of_an_open_session_once() {
        for named in BOOLS {
            for open in BOOLS {
                for proposed in BOOLS {
                    let propose = if open && !proposed {
                        Offer::Propose
                    } else {
                        Offer::SendAgain
                    };
                    let pending = if named { Offer::Finish } else { propose };
                    let expected = [propose, pending, Offer::Use, Offer::Rescue, propose];
                    let decisions = of_each(|state| offer(state, named, open, proposed));
                    assert_eq!(decisions, expected, "{named} {open} {proposed}");
                }
            }
        }
    }

    #[test]
    fn join_writes_where_the_blob_has_no_bytes() {
        assert_eq!(
            of_each(join),
            [Join::Write, Join::Write, Join::Use, Join::Rescue, Join::Write]
        );
    }

    #[test]
    fn recheck_withdraws_from_an_aborted_session() {
        assert_eq!(BOOLS.map(recheck), [Recheck::Withdraw, Recheck::Finish]);
    }

    #[test]
    fn complete_needs_a_pending_blob_that_names_the_bytes() {
        assert_eq!(of_each(|state| complete(state, false)), [false; 5]);
        assert_eq!(
            of_each(|state| complete(state, true)),
            [false, true, false, false, false]
        );
    }

    #[test]
    fn collect_condemns_in_one_cycle_and_kills_in_a_later_one() {
        use Collect::{Condemn, Kill, Leave, Revive};
        // is_root, is_sealed, is_old, and the decision for each state, unless it is certain.
        let table = [
            (false, false, false, [Leave, Leave, Leave, Condemn, Leave]),
            (false, false, true, [Leave, Kill, Condemn, Condemn, Leave]),
            (false, true, false, [Leave, Leave, Leave, Leave, Leave]),
            (false, true, true, [Leave, Kill, Condemn, Kill, Leave]),
            (true, false, false, [Leave, Leave, Leave, Revive, Leave]),
            (true, false, true, [Leave, Kill, Leave, Revive, Leave]),
            (true, true, false, [Leave, Leave, Leave, Revive, Leave]),
            (true, true, true, [Leave, Kill, Leave, Revive, Leave]),
        ];
        for (is_root, is_sealed, is_old, expected) in table {
            let decisions = |is_certain| {
                of_each(|state| {
                    collect(Candidate {
                        state,
                        is_root,
                        is_sealed,
                        is_old,
                        is_certain,
                    })
                })
            };
            assert_eq!(decisions(false), expected, "{is_root} {is_sealed} {is_old}");
            let certain = if is_old && !is_root {
                vec![Leave, Kill, Kill, Kill, Leave]
            } else {
                expected.into()
            };
            assert_eq!(decisions(true), certain, "{is_root} {is_sealed} {is_old}");
        }
    }

    #[test]
    fn a_visible_blob_without_a_grant_may_be_dropped() {
        assert_eq!(of_each(|state| may_drop(state, true)), [false; 5]);
        assert_eq!(
            of_each(|state| may_drop(state, false)),
            [false, false, true, true, false]
        );
    }

    #[test]
    fn only_what_nothing_names_is_swept() {
        for by_session in BOOLS {
            for by_blob in BOOLS {
                assert_eq!(may_sweep(by_session, by_blob), !(by_session || by_blob));
            }
        }
    }
}
