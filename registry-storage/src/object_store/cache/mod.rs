//! What spares requests to a bucket.

#[cfg(unix)]
mod blobs;
#[cfg(unix)]
pub(super) mod content;
#[cfg(unix)]
mod disk;
#[cfg(unix)]
mod fill;
#[cfg(unix)]
mod folder;
#[cfg(unix)]
mod index;
pub(super) mod recent_records;
pub(super) mod shared_reads;
#[cfg(unix)]
#[cfg(test)]
mod tests;

#[cfg(unix)]
pub use self::blobs::BlobCache;
#[cfg(unix)]
pub use self::folder::BlobCacheError;
#[cfg(unix)]
pub use self::index::BlobCacheStatistics;
