//! A registry for the tests of other programs: real HTTP, memory for storage, and faults on request.

mod blocking;
mod endpoint;
mod registry;
mod script;
mod service;

pub use self::blocking::BlockingTestRegistry;
pub use self::endpoint::Endpoint;
pub use self::registry::{TestRegistry, TestRegistryBuilder};
pub use self::script::{Fault, JournalEntry};

/// What a test registry keeps its content in.
pub type TestStorage = registry_storage::Store<registry_storage::ObjectStoreBackend>;
