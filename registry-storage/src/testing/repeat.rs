//! Identifiers that a seed repeats, so that everything which is listed by name comes in the same order again.

use std::cell::RefCell;

use uuid::Uuid;

use super::storage_conformance::Random;

thread_local! {
    static REPEATED: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// From now on, the stores that this thread runs take their identifiers from this seed. No store may exist yet whose
/// backend has identifiers of the same seed.
pub fn repeat_identifiers(seed: u64) {
    REPEATED.set(Some(Random::new(seed)));
}

pub(crate) fn next() -> Option<Uuid> {
    REPEATED.with_borrow_mut(|repeated| {
        let random = repeated.as_mut()?;
        Some(Uuid::from_u64_pair(random.next(), random.next()))
    })
}
