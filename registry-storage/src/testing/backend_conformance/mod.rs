//! What every [`Backend`](crate::Backend) must do: one check for each behaviour.
//!
//! ```no_run
//! # mod tests {
//! use registry_storage::ObjectStoreBackend;
//!
//! registry_storage::backend_conformance_tests!(async || (ObjectStoreBackend::memory(), ()));
//! # }
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a check fails by a panic"
)]

pub mod bytes;
pub mod listings;
pub mod records;
mod steps;

/// Expands to one test for each check of the kit.
///
/// The argument is an asynchronous function or closure that returns an empty backend and a value that must live as long
/// as it (a temporary folder, a server). It is called once for each test. With `, ignore = "why"` after it, the tests
/// run only with `cargo test -- --ignored`.
#[macro_export]
macro_rules! backend_conformance_tests {
    ($constructor:expr) => {
        $crate::backend_conformance_tests! { @all [], $constructor }
    };
    ($constructor:expr, ignore = $reason:literal) => {
        $crate::backend_conformance_tests! { @all [#[ignore = $reason]], $constructor }
    };
    (@all $attributes:tt, $constructor:expr) => {
        $crate::backend_conformance_tests! { @module records, $attributes, $constructor,
            absent_records_read_as_nothing
            creates_only_where_absent
            updates_only_the_version_compared
            updates_nothing_where_absent
            overwrites_whatever_is_there
            returns_the_version_that_is_read
            shows_writes_to_every_reader
            gives_no_version_twice
            lets_one_of_many_creators_win
            lets_one_of_many_updaters_win
            loses_no_increment
            forgets_only_the_version_compared
            removes_whatever_is_there
            keeps_large_values
            tells_versions_and_sizes
            returns_the_error_of_a_sequence
        }
        $crate::backend_conformance_tests! { @module listings, $attributes, $constructor,
            lists_pages_in_order
            lists_by_any_beginning_of_a_key
            lists_after_keys_that_are_not_there
            lists_sizes
            reads_several
            keeps_special_and_long_keys
            lists_more_than_a_page_of_a_bucket
        }
        $crate::backend_conformance_tests! { @module bytes, $attributes, $constructor,
            absent_bytes_read_as_nothing
            finishes_parts_and_tail
            finishes_bytes_of_less_than_a_part
            reads_ranges
            finishes_again
            uses_the_number_of_a_lost_part_again
            leaves_out_parts_that_are_not_named
            refuses_parts_that_were_overwritten
            goes_on_with_parts_of_a_writer_before
            aborts_what_was_begun
            deletes_bytes
            lists_names_in_order
            gives_memory_back
            has_usable_part_sizes
        }
    };
    (@module $module:ident, $attributes:tt, $constructor:expr, $($check:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the constructor names what it needs")]
            use super::*;

            $($crate::backend_conformance_tests! { @test $module, $attributes, $constructor, $check })*
        }
    };
    (@test $module:ident, [$(#[$attribute:meta])?], $constructor:expr, $check:ident) => {
        $(#[$attribute])?
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let (backend, _guard) = ($constructor)().await;
            let backend = ::std::sync::Arc::new(backend);
            $crate::testing::backend_conformance::$module::$check(backend).await;
        }
    };
}
