//! The signals that stop a server.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// SIGXFSZ, which has this number on Linux, the BSDs and macOS.
const FILE_SIZE: i32 = 25;

/// The signals that stop a server.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|cause| Failure::new("cannot listen to signals").because(cause));
        // Without a handler, a write beyond the file size limit (`ulimit -f`) would kill the process.
        drop(listen(SignalKind::from_raw(FILE_SIZE))?);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
