//! What a command says while it is done: one JSON object a line.

use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes.
pub(super) const LINE_LIMIT: usize = 1024 * 1024;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Message {
    /// How far it came.
    Progress(State),
    /// Something for the person who started it.
    Say(String),
    /// It was done; the last line.
    Done(Outcome),
    /// It was not done; the last line.
    Failed(String),
}

/// How far a command came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// What is counted, in the plural; of bytes, what is done with them.
    pub(super) unit: String,
    #[serde(default)]
    pub(super) is_bytes: bool,
    pub(super) done: u64,
    pub(super) total: Option<u64>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// In words.
    pub(crate) text: String,
    /// Whether the command's exit code says so.
    pub(crate) is_success: bool,
}
