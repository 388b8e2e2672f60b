//! The list of all behaviours.

/// Defines a test for each behaviour of [`testing::storage_conformance`](crate::testing::storage_conformance).
///
/// The argument is the name of an `async fn() -> Subject` in the same module, which creates an empty storage; a second
/// one creates the subject of the behaviours in [`crash`](crate::testing::storage_conformance::crash). With `ignore =
/// "reason"` the tests are ignored unless requested. The caller needs `tokio` with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! storage_conformance_tests {
    ($constructor:ident) => {
        $crate::storage_conformance_tests!(@all [] $constructor $constructor);
    };
    ($constructor:ident, ignore = $reason:literal) => {
        $crate::storage_conformance_tests!(@all [#[ignore = $reason]] $constructor $constructor);
    };
    ($constructor:ident, $crash_constructor:ident) => {
        $crate::storage_conformance_tests!(@all [] $constructor $crash_constructor);
    };
    (@all $attributes:tt $constructor:ident $crash_constructor:ident) => {
        $crate::storage_conformance_tests!(@storage $attributes "current_thread" $constructor blobs
            any_size_reads_back unknown_blob ranges repositories_are_isolated push_again delete delete_while_open
            mount mount_of_what_is_not_there repositories_of_a_blob many_readers);
        $crate::storage_conformance_tests!(@storage $attributes "current_thread" $constructor uploads
            any_split_is_the_whole appends_around_part_ends wrong_offset empty sessions_are_private cancel
            wrong_digest algorithms repeated_commit interrupted_body takeover_by_append takeover_by_a_repeated_append
            takeover_by_cancel_and_commit dropped_append other_bytes_after_a_dropped_append
            a_finish_that_fails_leaves_the_session_as_it_was a_session_goes_on_after_a_finish_that_failed
            sessions_are_independent commit_of_what_is_there);
        $crate::storage_conformance_tests!(@storage $attributes "current_thread" $constructor manifests
            exact_bytes unknown_manifest missing_children child_manifests manifest_is_no_blob delete_and_push_again
            two_digests_of_the_same_bytes delete_of_a_blob_that_is_named delete_of_a_repository);
        $crate::storage_conformance_tests!(@storage $attributes "current_thread" $constructor tags
            tags_move several_tags immutable some_immutable absent if_match delete_by_tag delete_by_digest history_and_restore);
        $crate::storage_conformance_tests!(@storage $attributes "multi_thread" $constructor immutable
            a_list_of_referrers_may_grow lists_of_referrers_that_grow_at_once
            what_a_tag_reaches_stays hollow_images_get_no_immutable_tag pushes_against_deletes
            many_children_and_tags);
        $crate::storage_conformance_tests!(@storage $attributes "current_thread" $constructor listings
            tags_like_a_sorted_set odd_pages tags_of_no_repository catalog);
        $crate::storage_conformance_tests!(@storage $attributes "current_thread" $constructor referrers
            order_and_pages lists_are_separate delete_and_push_again pages_by_size_and_type
            a_filter_that_matches_none_reads_a_few_pages a_page_is_filled_though_a_large_descriptor_follows);
        $crate::storage_conformance_tests!(@storage $attributes "multi_thread" $constructor concurrency
            writers_of_one_tag one_winner compare_and_swap compare_and_delete readers_of_a_moving_tag uploads_of_one_digest
            uploads_mounts_and_deletes_of_one_blob delete_against_push refused_pushes_against_deletes
            pushes_of_one_manifest refused_and_accepted_push_of_one_manifest pushes_against_deletes_elsewhere
            cancel_against_commit commits_of_one_session appends_to_one_session);
        $crate::storage_conformance_tests!(@subject $attributes $crash_constructor crash
            dropped_requests single_faults everything_outlives_the_process another_process_resumes);
    };
    (@storage $attributes:tt $flavor:literal $constructor:ident $module:ident $($behaviour:ident)*) => {
        mod $module {
            $($crate::storage_conformance_tests!(@test $attributes $flavor $behaviour {
                let subject = super::$constructor().await;
                $crate::testing::storage_conformance::$module::$behaviour(subject.storage()).await;
            });)*
        }
    };
    (@subject $attributes:tt $constructor:ident $module:ident $($behaviour:ident)*) => {
        mod $module {
            $($crate::storage_conformance_tests!(@test $attributes "current_thread" $behaviour {
                let subject = super::$constructor().await;
                $crate::testing::storage_conformance::$module::$behaviour(subject).await;
            });)*
        }
    };
    (@test [$(#[$attribute:meta])?] $flavor:literal $behaviour:ident $body:block) => {
        $(#[$attribute])?
        #[tokio::test(flavor = $flavor)]
        async fn $behaviour() $body
    };
}
