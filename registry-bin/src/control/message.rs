//! The messages of a running command: one JSON object per line.

use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes.
pub(super) const LINE_BYTES: usize = 1024 * 1024;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Message {
    /// The progress.
    Progress(State),
    /// A line for the person who started the command.
    Say(String),
    /// The command was completed; the last message.
    Done(Outcome),
    /// The command failed; the last message.
    Failed(String),
}

/// The progress of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// What is counted, in the plural; for bytes, what is done with them.
    pub(super) unit: String,
    #[serde(default)]
    pub(super) is_bytes: bool,
    pub(super) done: u64,
    pub(super) total: Option<u64>,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// A description for people.
    pub(crate) text: String,
    /// Whether the command exits with success.
    pub(crate) is_success: bool,
}
