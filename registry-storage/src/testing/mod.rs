//! For tests of backends and of what stands on them.

pub mod backend_conformance;
pub mod faulty;
#[cfg(feature = "s3")]
pub mod s3;

pub use self::faulty::Faulty;
#[cfg(feature = "s3")]
pub use self::s3::S3Double;
