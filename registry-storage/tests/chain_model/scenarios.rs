//! The protocol holds in each of these scenarios.
//!
//! The numbers in a name are those of writers, uploaders, collectors and cycles. The number of states is part of each
//! expectation, so that a change which loses interleavings is seen.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use crate::explore::{explore, trace};
use crate::rules::Rules;
use crate::scenario::Scenario;

/// Explores a scenario to its end.
fn holds(scenario: &Scenario, expected: usize) {
    let rules = Rules::default();
    let outcome = explore(scenario, &rules);
    assert!(outcome.violation.is_none(), "{}", trace(scenario, &rules));
    assert_eq!(outcome.states, expected, "another number of states");
}

/// Tells whether the environment asks for the scenarios of millions of states.
fn is_full() -> bool {
    std::env::var_os("CHAIN_MODEL").is_some_and(|value| value == "full")
}

/// Makes a test of each scenario, which runs where the condition holds.
macro_rules! holds {
    (
        if $condition:expr;
        $($name:ident($w:literal, $u:literal, $c:literal, $n:literal)
        $({$($field:ident: $value:expr),*})? $expected:literal;)*
    ) => {
        $(#[test]
        fn $name() {
            if $condition {
                let scenario = Scenario { $($($field: $value,)*)? ..Scenario::new($w, $u, $c, $n) };
                holds(&scenario, $expected);
            }
        })*
    };
}

holds! {
    if true;

    push_1013(1, 0, 1, 3) 41_342;
    upload_0113(0, 1, 1, 3) 16_244;
    upload_0123(0, 1, 2, 3) 740_353;
    upload_0213(0, 2, 1, 3) 314_936;
    push_and_upload_1113(1, 1, 1, 3) 566_946;
    push_and_upload_without_sweeper_1113(1, 1, 1, 3) { sweeper: false } 81_315;
    two_pushes_2012(2, 0, 1, 2) { strict: true } 867_468;
    two_pushes_without_delete_2013(2, 0, 1, 3) { deleters: 0 } 3_128;
    two_pushes_of_a_new_tag_2012(2, 0, 1, 2) { no_tag: true, strict: true } 1_015_848;
    two_deletes_1013(1, 0, 1, 3) { deleters: 2 } 243_990;
    mount_0013(0, 0, 1, 3) { mount: true } 24_567;
    mount_0113(0, 1, 1, 3) { mount: true } 357_418;
    mount_and_blob_delete_0013(0, 0, 1, 3) { mount: true, blob_delete: true } 62_165;
    cancel_0113(0, 1, 1, 3) { cancel: true } 19_271;
    cancel_of_a_new_blob_0212(0, 2, 1, 2) { cancel: true, empty: true } 312_837;
    cancel_and_crash_0113(0, 1, 1, 3) { cancel: true, crash: true } 42_691;
    crash_0113(0, 1, 1, 3) { crash: true } 32_512;
    crash_of_a_new_blob_0113(0, 1, 1, 3) { crash: true, empty: true } 44_008;
    crash_0212(0, 2, 1, 2) { crash: true } 251_387;
    twins_0214(0, 2, 1, 4) { twins: true } 326_998;
    twins_and_crash_0213(0, 2, 1, 3) { twins: true, crash: true } 332_026;
    blob_delete_1013(1, 0, 1, 3) { blob_delete: true } 118_538;
    blob_delete_1012(1, 0, 1, 2) { blob_delete: true, strict: true } 53_830;
    empty_1113(1, 1, 1, 3) { empty: true } 307_493;
    restored_tag_without_delete_1013(1, 0, 1, 3) { previous: true, blob_delete: true, deleters: 0 } 127_890;
    restored_tag_1012(1, 0, 1, 2) { previous: true, blob_delete: true } 392_573;
    loss_0113(0, 1, 1, 3) { loss: true } 194_952;
    loss_and_cancel_0112(0, 1, 1, 2) { loss: true, cancel: true } 71_192;
    loss_and_mount_0013(0, 0, 1, 3) { loss: true, mount: true } 74_175;
}

holds! {
    if is_full();

    full_push_and_upload_1123(1, 1, 2, 3) 32_149_684;
    full_two_pushes_2113(2, 1, 1, 3) 28_698_926;
    full_two_uploads_1213(1, 2, 1, 3) 11_215_642;
    full_two_pushes_two_deletes_2013(2, 0, 1, 3) { deleters: 2 } 22_060_842;
    full_blob_delete_1113(1, 1, 1, 3) { blob_delete: true } 3_638_751;
    full_cancel_and_crash_0213(0, 2, 1, 3) { cancel: true, crash: true, empty: true } 6_007_626;
    full_mount_0023(0, 0, 2, 3) { mount: true } 1_675_360;
    full_loss_and_crash_0113(0, 1, 1, 3) { loss: true, crash: true } 555_975;
    full_loss_and_blob_delete_0113(0, 1, 1, 3) { loss: true, blob_delete: true } 744_461;
    full_loss_and_mount_0112(0, 1, 1, 2) { loss: true, mount: true } 1_595_181;
    full_loss_and_push_1112(1, 1, 1, 2) { loss: true } 2_731_600;
    full_loss_and_two_uploads_0212(0, 2, 1, 2) { loss: true } 7_138_531;
    full_mount_0114(0, 1, 1, 4) { mount: true } 1_365_404;
}
