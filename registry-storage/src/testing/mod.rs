//! For tests of backends, of storages, and of what is built on them.

pub mod backend_conformance;
pub mod clock;
pub mod faulty;
pub mod observed;
pub mod repeat;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(target_os = "linux")]
pub mod small_disk;
pub mod storage_conformance;

pub use self::clock::ManualClock;
pub use self::faulty::Faulty;
pub use self::observed::Observed;
#[cfg(feature = "s3")]
pub use self::s3::S3Double;
#[cfg(target_os = "linux")]
pub use self::small_disk::SmallDisk;
