//! The error of a command, for the person who ran it.

use std::error::Error;
use std::fmt;

use registry_core::printable::{Printable, with_causes};

/// What was wrong, with which value, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Where in the configuration the key was written.
    place: Option<String>,
    /// The key of the configuration that caused the failure.
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

    /// Creates a failure that a key of the configuration caused.
    pub(crate) fn of(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::new(message)
        }
    }

    /// Sets the key of the configuration that caused the failure.
    #[must_use]
    pub(crate) fn about(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Returns the key of the configuration that caused the failure, if there is one.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Sets where in the configuration the key was written.
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

    /// Prints the failure and its causes to standard error.
    #[expect(
        clippy::print_stderr,
        reason = "the command's last word is for the terminal, not for the log"
    )]
    pub(crate) fn print(&self) {
        eprintln!("{}", self.last_word());
    }

    /// Returns the failure and its causes as the last line of a command's output.
    pub(crate) fn last_word(&self) -> String {
        format!("error: {}", printable_lines(&self.to_string()))
    }
}

/// Makes text printable, keeping its line breaks.
pub(crate) fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| Printable(line).to_string()).collect();
    lines.join("\n")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        let mut cause = self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static));
        // A message for clients, such as "busy", says less than its own cause.
        while let Some(error) = cause.and_then(|cause| cause.downcast_ref::<registry_core::Error>())
            && error.code().status() >= 500
            && error.source().is_some()
        {
            cause = error.source();
        }
        f.write_str(&with_causes(self.message.clone(), cause))
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_for_clients_gives_way_to_its_cause() {
        let error = registry_core::Error::internal(std::io::Error::other("the disk is on fire"));
        let shown = |error: registry_core::Error| Failure::new("cannot work").because(error).to_string();
        assert_eq!(shown(error), "cannot work: the disk is on fire");
        let alone = registry_core::Error::from(registry_core::ErrorCode::Unavailable);
        assert_eq!(shown(alone.clone()), format!("cannot work: {alone}"));
    }

    #[test]
    fn a_page_in_the_place_of_an_answer_is_one_short_line() {
        let page = format!(
            "<html>\n  <body>\n{}</body>\n</html>",
            "<p>Bad gateway</p>\n".repeat(50)
        );
        let text = Failure::new("cannot use s3://b/").because(page).to_string();
        assert!(
            text.starts_with("cannot use s3://b/: <html> <body> <p>Bad gateway</p> <p>"),
            "{text}"
        );
        assert!(!text.contains('\n') && text.len() < 350, "{text}");
        let long = "a".repeat(1000);
        assert!(Failure::new("b").because(&*long).to_string().contains(&long));
    }
}
