//! Every storage under the conformance kit.

use std::sync::Arc;

use registry_storage::ObjectStoreBackend;
use registry_storage::testing::Faulty;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::{Random, Subject};

mod memory {
    use super::*;

    async fn memory() -> Subject {
        Subject::over(Arc::new(ObjectStoreBackend::memory()))
    }

    registry_storage::storage_conformance_tests!(memory);
}

mod faulty {
    use super::*;

    async fn without_faults() -> Subject {
        let backend = Arc::new(Faulty::new(ObjectStoreBackend::memory()));
        Subject::over(Arc::clone(&backend)).with_faults(backend)
    }

    registry_storage::storage_conformance_tests!(without_faults);
}

mod delayed {
    use super::*;

    /// Memory never makes anybody wait, so that on it requests do not interleave; here they do, at every call.
    async fn delayed() -> Subject {
        let backend = Faulty::new(ObjectStoreBackend::memory());
        let mut random = Random::new(1);
        for call in 0..30_000 {
            backend.fault_at(call, Fault::Delay(random.below(4) as u32));
        }
        Subject::over(Arc::new(backend))
    }

    registry_storage::storage_conformance_tests!(delayed);
}
