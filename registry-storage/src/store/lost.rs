//! Reports of lost content, so that a client which asks again and again does not fill the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use registry_core::{Digest, RepositoryName, Timestamp};

/// How long a blob is not reported again.
const PAUSE: Duration = Duration::from_mins(1);

/// How many blobs are remembered. If more are lost, some are reported more often.
const REMEMBERED: usize = 1000;

/// When each lost blob was reported last, and how often it was asked for since.
#[derive(Debug, Default)]
pub(super) struct LostBlobs(Mutex<BTreeMap<Digest, (Timestamp, u64)>>);

impl LostBlobs {
    /// Reports that a blob of which the content was lost was asked for.
    pub(super) fn report(&self, repository: &RepositoryName, digest: &Digest, now: Timestamp) {
        if let Some(unreported) = self.count(digest, now) {
            tracing::error!(
                %repository,
                %digest,
                unreported,
                "the content of a blob was lost; a push of the blob heals it"
            );
        }
    }

    /// Counts a request. If it is to be reported, returns how many were not since the last report.
    fn count(&self, digest: &Digest, now: Timestamp) -> Option<u64> {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |then: Timestamp| then <= now && now.since(then) < PAUSE;
        if let Some((then, unreported)) = reported.get_mut(digest) {
            if is_recent(*then) {
                *unreported += 1;
                return None;
            }
            *then = now;
            return Some(std::mem::take(unreported));
        }
        if reported.len() >= REMEMBERED {
            reported.retain(|_, (then, _)| is_recent(*then));
        }
        if reported.len() >= REMEMBERED {
            reported.pop_first();
        }
        reported.insert(digest.clone(), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use registry_core::Algorithm;

    use super::*;

    #[test]
    fn a_lost_blob_is_reported_once_a_minute() {
        let lost = LostBlobs::default();
        let digest = |number: usize| Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        let at = |seconds: u64| Timestamp(seconds * 1000);
        assert_eq!(lost.count(&digest(0), at(100)), Some(0));
        assert_eq!(lost.count(&digest(1), at(101)), Some(0));
        assert_eq!(lost.count(&digest(0), at(159)), None);
        assert_eq!(lost.count(&digest(0), at(159)), None);
        assert_eq!(lost.count(&digest(0), at(160)), Some(2));
        // The clock was set back.
        assert_eq!(lost.count(&digest(0), at(10)), Some(0));
        for number in 0..3 * REMEMBERED {
            lost.count(&digest(number), at(20));
        }
        let remembered = lost.0.lock().unwrap().len();
        assert!(remembered <= REMEMBERED, "{remembered}");
    }
}
