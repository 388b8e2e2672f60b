//! The registry over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod client;
mod push;

/// Returns the sha256 digest of `bytes`.
fn digest(bytes: &[u8]) -> String {
    registry_core::Digest::of(registry_core::Algorithm::Sha256, bytes).to_string()
}

/// Returns bytes that differ from place to place.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}
