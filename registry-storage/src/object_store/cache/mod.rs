//! What spares requests to a bucket.

pub(super) mod shared_reads;
