//! Each rule of the protocol is needed: without it an invariant breaks.

use crate::explore::explore;
use crate::rules::{Mutation, Rules};
use crate::scenario::Scenario;

/// Explores a scenario without a rule until a violation is found, which must be the one that the rule prevents.
fn breaks(mutation: Mutation, scenario: &Scenario, expected: &str) {
    let mutated = Rules {
        mutation: Some(mutation),
    };
    let outcome = explore(scenario, &mutated);
    assert_eq!(outcome.violation.map(|(violation, _)| violation), Some(expected));
}

macro_rules! breaks {
    ($($name:ident: $mutation:ident ($w:literal, $u:literal, $c:literal, $n:literal) $({$($field:ident: $value:expr),*})? $expected:literal;)*) => {
        $(#[test]
        fn $name() {
            let scenario = Scenario { $($($field: $value,)*)? ..Scenario::new($w, $u, $c, $n) };
            breaks(Mutation::$mutation, &scenario, $expected);
        })*
    };
}

breaks! {
    a_push_rescues_the_grant: NoRescueOfGrant (1, 0, 1, 2) "a visible manifest misses a child";
    an_upload_rescues_the_blob: NoRescueOfBlob (0, 1, 1, 3) "a visible grant has no blob";
    a_pending_manifest_holds_its_children: PendingManifestHoldsNothing (1, 0, 1, 2) "a visible manifest misses a child";
    a_pending_grant_holds_its_blob: PendingGrantHoldsNothing (0, 1, 1, 3) "a visible grant has no blob";
    only_a_sealed_cycle_kills: UnsealedKill (0, 1, 2, 3) "a visible grant has no blob";
    a_version_is_new_each_time: VersionOfContent (0, 2, 1, 3) "a visible grant has no blob";
    a_name_of_bytes_is_used_once: SameBytesName (0, 1, 1, 3) "a visible blob has no bytes";
    the_sweeper_reads_sessions_before_blobs: SweepBlobsFirst (0, 1, 1, 3) "a visible blob has no bytes";
    a_session_names_its_bytes: NoSession (0, 1, 1, 3) "a visible blob has no bytes";
    a_push_confirms_its_tag: NoConfirm (1, 0, 1, 2) "a tag names nothing after every push and delete ended";
    a_delete_compares_incarnations: NoIncarnation (1, 0, 1, 2) "an acknowledged tag was lost while its manifest lives";
    an_upload_stores_its_grant_first: LateGrant (0, 1, 1, 3) "a visible grant has no blob";
    a_mount_stores_its_grant_first: LateMount (0, 0, 1, 3) { mount: true } "a mounted grant has no blob";
    a_push_stores_its_manifest_first: ChildFirst (1, 0, 1, 2) "a visible manifest misses a child";
    a_session_is_read_again_after_it_joined: NoRecheck (0, 1, 1, 3) { cancel: true } "a visible blob has no bytes";
    a_proposal_is_stored: NoProposed (0, 1, 1, 3) { crash: true, empty: true } "a visible blob has no bytes";
    an_abort_deletes_no_bytes: AbortDeletesBytes (0, 1, 1, 3) { cancel: true } "a visible blob has no bytes";
    a_push_joins_another: NoJoin (2, 0, 0, 1) { no_tag: true, strict: true } "a push was refused for no reason";
    a_push_begins_again_after_a_delete: TakeBackFirst (2, 0, 1, 2) "an acknowledged tag was lost while its manifest lives";
    a_restored_tag_is_confirmed: NoConfirmOfRestored (1, 0, 1, 2) { previous: true, blob_delete: true } "a tag names nothing after every push and delete ended";
    an_upload_looks_at_the_bytes: NoLook (0, 1, 0, 1) { loss: true } "an upload was answered 201, and its repository reads bytes that were lost before";
    a_heal_compares_versions: HealAnyVersion (0, 2, 1, 2) { loss: true, blob_delete: true, deleters: 0 } "an upload was answered 201, and its repository reads bytes that were lost before";
}
