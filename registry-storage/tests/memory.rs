//! The conformance kit over the memory of the process.

use std::sync::Arc;

use registry_storage::testing::storage_conformance::Subject;
use registry_storage::{ObjectStoreBackend, Store};

async fn memory() -> Subject {
    let backend = ObjectStoreBackend::memory();
    let store = Store::new(backend.clone());
    Subject::new(Arc::new(store)).with_reopen(move || {
        let backend = backend.clone();
        async move { Arc::new(Store::new(backend)) as _ }
    })
}

registry_storage::storage_conformance_tests!(memory);
