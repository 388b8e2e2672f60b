//! Buckets: what a push costs and may take, what they answer, promise, lose and forget, and what spares requests to them.

#![expect(clippy::unwrap_used, reason = "test code")]

#[expect(unused_macros, reason = "each test program uses its own part")]
#[macro_use]
#[path = "../support/backends.rs"]
mod backends;

#[expect(dead_code, reason = "each test program uses its own part")]
#[macro_use]
#[path = "../support/stores.rs"]
mod stores;

#[cfg(feature = "s3")]
mod abandoned;
#[path = "../support/any_s3.rs"]
mod any_s3;
#[cfg(all(feature = "s3", feature = "filesystem", unix))]
mod blob_cache;
#[cfg(feature = "s3")]
mod bucket_caches;
#[cfg(all(feature = "gcs", feature = "azure"))]
mod cloud_answers;
mod parts;
mod probe;
mod requests;
mod s3_faults;
mod sessions;
#[cfg(feature = "s3")]
mod signed_urls;
mod slow_uploads;
#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;
mod tombstones;
