//! What the writer's thread is asked to do.

use registry_core::Error;

use super::transaction::SqliteTransaction;
use crate::backend::Durability;

/// A command for the thread.
pub(super) enum Command {
    /// Run a transaction.
    Run(Durability, Box<dyn Job>),
    /// Check whether writing has ended.
    Wake,
    /// Run what waits, then end.
    Stop,
}

/// A transaction with its type erased.
pub(super) trait Job: Send {
    /// Runs the steps, and returns whether they are to be kept.
    fn run(&mut self, records: &mut SqliteTransaction<'_>) -> bool;

    /// Returns whether it may use the space that is reserved for deletes.
    fn is_freeing(&self) -> bool {
        false
    }

    /// Prepares to run once more, after the commit failed; returns `false` if it needs the room that was lacking, or
    /// already ran twice. `is_room` says whether there may be room for a job that frees space.
    fn run_again(&mut self, _is_room: bool) -> bool {
        false
    }

    /// Sends the answer, after the end of the transaction.
    fn answer(self: Box<Self>, outcome: Result<(), Error>);
}
