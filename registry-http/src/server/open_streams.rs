//! The memory of HTTP/2 streams that no request accounts for.

use std::sync::Arc;

use crate::memory::{Account, Charge, MemoryUse, Refused};

/// About what HTTP/2 holds for a stream besides its request and bodies, in bytes: entries in tables that never shrink,
/// and the header of an answer that the client does not take.
const STREAM_BYTES: usize = 6 * 1024;

/// How many streams of a connection may be open, and the charge for the most there have been.
///
/// The number is an upper bound, because hyper does not show what it holds of a stream: a header that is not taken
/// outlives its request. So it counts all streams that began since nothing was running and nothing was waiting for the
/// client. One more is charged in advance, so that a request that cannot be paid for can still be answered. The first
/// one is not charged with its connection: connections that come when nothing is left are cut, and leave room for those
/// of other addresses.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    begun: usize,
    /// How many of them were refused at once.
    refused: usize,
    charge: Option<Charge>,
    /// All arrived bytes have been read since the last stream began.
    is_read: bool,
}

/// The state of the connection that a new request finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing is running, and nothing waits for the client.
    Quiet,
    /// Requests are running, and the client takes the answers.
    Busy,
    /// Bytes wait for the client.
    Untaken,
}

/// There is no memory for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is enough for an answer that says so.
    Refuse(Refused),
    /// There is none: the connection must be cut.
    Cut(Refused),
}

impl OpenStreams {
    /// Charges a stream that begins. At most `most` can be open at once.
    pub(super) fn begin(
        &mut self,
        account: &Arc<Account>,
        before: Before,
        most: usize,
    ) -> Result<(), Denied> {
        // Requests that arrived together are open together, however soon the first ones end.
        if std::mem::take(&mut self.is_read) && before != Before::Untaken {
            let refused = std::mem::take(&mut self.refused);
            self.begun = match before {
                Before::Quiet => 0,
                Before::Busy | Before::Untaken => self.begun.saturating_sub(refused),
            };
        }
        self.begun = most.min(self.begun + 1);
        self.pay(account, self.begun).map_err(Denied::Cut)?;
        self.pay(account, most.min(self.begun + 1))
            .map_err(Denied::Refuse)
    }

    /// Counts the last stream as refused at once.
    pub(super) const fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Records that all arrived bytes have been read.
    pub(super) const fn all_is_read(&mut self) {
        self.is_read = true;
    }

    fn pay(&mut self, account: &Arc<Account>, streams: usize) -> Result<(), Refused> {
        let charge = match &mut self.charge {
            Some(charge) => charge,
            None => self.charge.insert(account.charge(0, MemoryUse::Request)?),
        };
        let missing = (streams * STREAM_BYTES).saturating_sub(charge.bytes());
        if missing > 0 {
            charge.grow(missing, MemoryUse::Request)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryBudget;

    #[test]
    fn a_connection_pays_for_the_most_streams_that_may_have_been_open() {
        let budget = MemoryBudget::new(1 << 20);
        let account = budget.account(None);
        let mut streams = OpenStreams::default();
        let charged = || budget.used() / STREAM_BYTES;
        for _ in 0..3 {
            streams.begin(&account, Before::Quiet, 128).unwrap();
        }
        assert_eq!(
            charged(),
            4,
            "they came together, however soon the first ones ended"
        );
        streams.all_is_read();
        streams.begin(&account, Before::Untaken, 128).unwrap();
        assert_eq!(charged(), 5, "bytes of those before wait for the client");
        streams.all_is_read();
        for _ in 0..4 {
            streams.begin(&account, Before::Quiet, 128).unwrap();
        }
        assert_eq!(charged(), 5, "places that are there are used again");
        for _ in 0..10 {
            streams.begin(&account, Before::Busy, 7).unwrap();
        }
        assert_eq!(charged(), 7, "no more can be open");
        drop(streams);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_takes_the_answers_is_refused_and_who_does_not_is_cut() {
        let budget = MemoryBudget::new(4 * STREAM_BYTES);
        let account = budget.account(None);
        let mut streams = OpenStreams::default();
        let mut begin = |before| {
            let begun = streams.begin(&account, before, 128);
            if begun.is_err() {
                streams.refuse();
            }
            streams.all_is_read();
            begun
        };
        for _ in 0..2 {
            begin(Before::Busy).unwrap();
        }
        for _ in 0..10 {
            assert_eq!(begin(Before::Busy), Err(Denied::Refuse(Refused::Greedy)));
        }
        assert_eq!(begin(Before::Untaken), Err(Denied::Cut(Refused::Greedy)));
    }
}
