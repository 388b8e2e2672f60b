//! Where values of a configuration come from.

use std::fmt;
use std::sync::Arc;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This line of the file, counted from 1.
    Line(usize),
    /// This variable of the environment.
    Variable(Arc<str>),
    /// This flag of the command line.
    Flag(&'static str),
    /// No source: it is a default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}
