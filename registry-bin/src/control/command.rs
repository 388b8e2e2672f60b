//! What a command is, on either side of the socket.

use registry_core::policy::ImmutableTagRule;
use registry_storage::Maintenance;

use super::Reporter;
use super::message::Outcome;
use crate::failure::Failure;

/// Work on a store, complete in itself: what is sent to the server that has the store. Its paths are absolute, because
/// the server may run in another folder.
pub(crate) trait Command: Send + Sync + 'static {
    /// Returns whether nothing is written, so that a folder in which nothing can be written will do.
    fn only_reads(&self) -> bool {
        false
    }

    /// Returns whether it changes what clients see, as a push or a delete does: not where pulls only are served.
    fn changes_content(&self) -> bool {
        false
    }

    /// Returns what becomes of a folder that has no registry.
    fn new_folder(&self) -> NewFolder {
        NewFolder::Refused
    }

    /// Adds what the server that runs it allows, which the configuration of who asks may lack: `--storage` alone says nothing.
    #[must_use]
    fn bound_by(self, _server: &Bounds) -> Self
    where
        Self: Sized,
    {
        self
    }

    /// Runs it on an open store. Cancel safety: dropping the future stops the command, which can be started again.
    ///
    /// # Errors
    /// Why it failed.
    fn run(
        self,
        store: &dyn Maintenance,
        reporter: Reporter,
    ) -> impl Future<Output = Result<Outcome, Failure>> + Send;
}

/// What the configuration of a server allows.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// The tags that never move.
    pub(crate) immutable: Vec<ImmutableTagRule>,
}

/// What a command does with a folder that has no registry. Opening the folder would create an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewFolder {
    /// Nothing: it was probably named by mistake.
    Refused,
    /// Fills a new registry, unless the distribution registry's data is there.
    Created,
    /// Makes a registry of the distribution registry's data.
    Adopted,
}
