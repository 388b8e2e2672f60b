//! The registry over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod client;
mod client_certificates;
mod client_http2;
mod framing;
mod listeners;
mod memory;
mod mirror;
mod observe;
mod protocol;
mod proxy;
mod pull;
mod push;
mod redirects;
mod silence;
mod stop;
mod test_double;
mod tls;
mod tokens;
mod tower;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use registry_http::{RequestObserver, RequestRecord};

/// Keeps what is told of requests.
#[derive(Clone, Debug, Default)]
struct Records(Arc<Mutex<Vec<RequestRecord>>>);

impl RequestObserver for Records {
    fn finished(&self, record: &RequestRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

impl Records {
    /// Waits for the record of the first request that `is_wanted`.
    async fn wait(&self, is_wanted: impl Fn(&RequestRecord) -> bool + Send + Sync) -> RequestRecord {
        eventually(async || {
            self.0
                .lock()
                .unwrap()
                .iter()
                .find(|record| is_wanted(record))
                .cloned()
        })
        .await
    }
}

/// Runs `check` until it returns something, for at most ten seconds.
async fn eventually<T>(mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(result) = check().await {
            return result;
        }
        assert!(Instant::now() < end, "it did not happen within ten seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

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
