//! Why a command failed, for the person who started it.

use std::error::Error;
use std::fmt;

use registry_core::printable::Printable;

/// What was wrong, with which value, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Where in the configuration the cause was written.
    place: Option<String>,
    /// The key of the configuration that is at fault.
    key: Option<String>,
    message: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            place: None,
            key: None,
            message: message.into(),
            cause: None,
        }
    }

    /// The same for what a key of the configuration says.
    pub(crate) fn of(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::new(message)
        }
    }

    /// Says that a key of the configuration is at fault.
    #[must_use]
    pub(crate) fn about(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The key of the configuration that is at fault, if it is one.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Says where in the configuration the key was written.
    #[must_use]
    pub(crate) fn at(mut self, place: String) -> Self {
        self.place = Some(place);
        self
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Prints the failure and its causes to the standard error.
    #[expect(
        clippy::print_stderr,
        reason = "the command's last word is for the terminal, not for the log"
    )]
    pub(crate) fn print(&self) {
        eprintln!("{}", self.last_word());
    }

    /// The failure and its causes as the last that a command says.
    pub(crate) fn last_word(&self) -> String {
        format!("error: {}", printable_lines(&self.to_string()))
    }
}

/// Makes a text printable that may have several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| Printable(line).to_string()).collect();
    lines.join("\n")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        let mut text = self.message.clone();
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        while let Some(error) = cause {
            let told = error.to_string();
            // Some errors tell their causes themselves.
            if !text.contains(&told) {
                text.push_str(": ");
                text.push_str(&told);
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl Error for Failure {}
