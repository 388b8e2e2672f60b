//! Who waits how long.

use registry_storage::testing::Faulty;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::Random;

/// How many calls of each client the plan has: more than those of two pushes that begin again as often as they may.
const CALLS: u64 = 600;

/// How many writes of the slow client wait.
const WRITES: usize = 40;

/// How the calls of the clients alternate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Schedule {
    /// Each call is one turn, and all begin at once: what they do, they do in step.
    InStep,
    /// Each call takes some turns, and a client stops now and then for as long as others take for whole requests.
    Stops { slowest: usize },
    /// A request runs to its end, but for a few calls at which others have their turn.
    Switches,
    /// This client stops before each write. The others run whole requests, each of them in a row, at any time.
    Slow { client: usize },
}

impl Schedule {
    pub(super) const fn random(random: &mut Random, clients: usize) -> Self {
        match random.below(8) {
            0 => Self::InStep,
            1 => Self::Stops {
                slowest: 1 + random.below(3),
            },
            2 => Self::Switches,
            _ => Self::Slow {
                client: random.below(clients),
            },
        }
    }

    /// Returns whether this client has to take part.
    pub(super) const fn needs(self, number: usize) -> bool {
        matches!(self, Self::Slow { client } if client == number)
    }

    /// Plans the delays of a client.
    pub(super) fn apply<B>(self, number: usize, backend: &Faulty<B>, random: &mut Random) {
        let first_call = backend.calls();
        let delay = |call: usize, turns: usize| {
            backend.fault_at(first_call + call as u64, Fault::Delay(turns as u32));
        };
        // What was read is to be old by the time of the write, so most stop before one.
        let first_write = backend.writes();
        let delay_write = |write: usize, turns: usize| {
            backend.delay_write(first_write + write as u64, turns as u32);
        };
        match self {
            Self::InStep => (0..CALLS).for_each(|call| delay(call as usize, 1)),
            Self::Stops { slowest } => {
                for call in 0..CALLS {
                    delay(call as usize, 1 + random.below(slowest));
                }
                for _ in 0..random.below(3) {
                    delay_write(random.below(16), 50 + random.below(400));
                }
            }
            Self::Switches => {
                for _ in 0..random.below(4) {
                    delay(random.below(80), 1 + random.below(40));
                    delay_write(random.below(16), 1 + random.below(40));
                }
            }
            Self::Slow { client } if client == number => {
                for write in 0..WRITES {
                    delay_write(write, 1 + random.below(30));
                }
            }
            Self::Slow { .. } => {
                if random.below(3) == 0 {
                    delay_write(random.below(12), 1 + random.below(60));
                }
            }
        }
    }

    /// How many turns each of the stops of [`stop_everywhere`](Self::stop_everywhere) takes.
    pub(super) const STOP: usize = 2;

    /// Stops before each write and each listing.
    pub(super) fn stop_everywhere<B>(backend: &Faulty<B>) {
        let (first_write, first_listing) = (backend.writes(), backend.listings());
        for number in 0..CALLS {
            backend.delay_write(first_write + number, Self::STOP as u32);
            backend.delay_listing(first_listing + number, Self::STOP as u32);
        }
    }

    /// How many turns a client waits before a request, which may be its first.
    pub(super) const fn pause(self, number: usize, is_first: bool, random: &mut Random) -> usize {
        match self {
            Self::InStep => 0,
            Self::Stops { .. } => random.below(60),
            Self::Switches => random.below(10),
            Self::Slow { client } if client == number => 0,
            Self::Slow { .. } if is_first => random.below(70),
            Self::Slow { .. } => random.below(3),
        }
    }
}
