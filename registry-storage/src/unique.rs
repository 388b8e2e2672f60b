//! What is new each time: nonces, incarnations and names.

use uuid::Uuid;

/// Returns a random identifier. No other one is the same.
pub(crate) fn unique() -> Uuid {
    #[cfg(feature = "testing")]
    if let Some(repeated) = crate::testing::repeat::next() {
        return repeated;
    }
    Uuid::new_v4()
}
