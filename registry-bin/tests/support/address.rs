//! Addresses for programs that are told a port, and addresses at which nobody listens.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports from which [`free_address`] chooses. They are below those that a system gives out for port 0.
const PORTS: std::ops::Range<u16> = 11_000..31_000;

/// How many ports each test program has for itself before it meets the next one's.
const PORTS_OF_A_PROCESS: u32 = 64;

/// Returns an address at which nobody listens. A test beside this one that listens on port 0 does not get it either: with such a
/// neighbour a server that should have been away was there.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(PORTS_OF_A_PROCESS);
    for _ in 0..count {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(number).expect("it is less than the number of ports");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("all of the ports {PORTS:?} are taken")
}
