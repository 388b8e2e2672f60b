//! The display of a command: a bar on a terminal, otherwise lines.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use registry_core::printable::Printable;

use super::message::{Message, State};
use crate::failure::{Failure, printable_lines};

/// How often a line reports the progress without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Displays messages.
#[derive(Debug)]
pub(super) struct Show {
    bar: Option<ProgressBar>,
    /// When the last progress line was written.
    shown_at: Mutex<Instant>,
}

impl Show {
    pub(super) fn new() -> Self {
        let bar = is_for_bars().then(ProgressBar::no_length);
        Self {
            bar,
            shown_at: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn message(&self, message: &Message) {
        match message {
            Message::Progress(state) => self.progress(state),
            Message::Say(line) => match &self.bar {
                // A closed output stops nothing: the command's exit code counts.
                Some(bar) => bar.suspend(|| drop(print(&Printable(line).to_string()))),
                None => drop(print(&Printable(line).to_string())),
            },
            Message::Done(_) | Message::Failed(_) => {}
        }
    }

    fn progress(&self, state: &State) {
        let Some(bar) = &self.bar else {
            let mut shown_at = self.shown_at.lock().unwrap_or_else(PoisonError::into_inner);
            if shown_at.elapsed() >= LINE_INTERVAL {
                *shown_at = Instant::now();
                drop(writeln!(io::stderr(), "{}", state.line()));
            }
            return;
        };
        let template = match (state.total, state.is_bytes) {
            (Some(_), true) => "{bar:40} {bytes} of {total_bytes} {msg}, {bytes_per_sec}, {eta} left",
            (Some(_), false) => "{bar:40} {human_pos} of {human_len} {msg}, {eta} left",
            (None, true) => "{spinner} {bytes} {msg}, {bytes_per_sec}, {elapsed}",
            (None, false) => "{spinner} {human_pos} {msg}, {elapsed}",
        };
        if bar.message() != state.unit {
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
        }
        match state.total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_position(state.done);
        bar.set_message(state.unit.clone());
        bar.tick();
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl State {
    /// Formats the progress as a line of text.
    fn line(&self) -> String {
        let amount = |number: u64| {
            if self.is_bytes {
                HumanBytes(number).to_string()
            } else {
                number.to_string()
            }
        };
        let of = self
            .total
            .map_or_else(String::new, |total| format!(" of {}", amount(total)));
        format!("{}{of} {}", amount(self.done), self.unit)
    }
}

/// Returns whether standard error is a terminal that can show a bar. A bar has no colours.
#[expect(
    clippy::disallowed_methods,
    reason = "a variable of the terminal, not of the configuration"
)]
pub(crate) fn is_for_bars() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Prints one or more lines to standard output.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    print_bytes(format!("{}\n", printable_lines(line)).as_bytes())
}

/// Prints to standard output. A reader that has read enough, as `head` has, is no failure.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to the standard output").because(cause))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_as_people_read_them() {
        let state = |is_bytes, total| State {
            unit: "copied".to_owned(),
            is_bytes,
            done: 1 << 20,
            total,
        };
        assert_eq!(state(true, Some(3 << 30)).line(), "1.00 MiB of 3.00 GiB copied");
        assert_eq!(state(false, None).line(), "1048576 copied");
    }
}
