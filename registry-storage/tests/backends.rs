//! Every backend under the conformance kit.

use registry_storage::ObjectStoreBackend;

mod memory {
    use super::*;

    registry_storage::backend_conformance_tests!(async || (ObjectStoreBackend::memory(), ()));
}

mod faulty_without_faults {
    use super::*;
    use registry_storage::testing::Faulty;

    registry_storage::backend_conformance_tests!(async || (Faulty::new(ObjectStoreBackend::memory()), ()));
}
