//! A registry for the tests of other programs: real HTTP, in-memory storage, and faults on demand.

mod blocking;
mod endpoint;
mod registry;
mod script;
mod service;

pub use self::blocking::BlockingTestRegistry;
pub use self::endpoint::RegistryEndpoint;
pub use self::registry::{TestRegistry, TestRegistryBuilder};
pub use self::script::{Fault, JournalEntry};

/// The storage of a test registry.
pub type TestStorage = registry_storage::Store<registry_storage::ObjectStoreBackend>;
