//! For tests of backends and of what stands on them.

pub mod backend_conformance;
pub mod faulty;

pub use self::faulty::Faulty;
