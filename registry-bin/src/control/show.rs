//! What a person sees of a command: a bar on a terminal, lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use registry_core::printable::Printable;

use super::message::{Message, State};
use crate::failure::{Failure, printable_lines};

/// How often a line tells the progress where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Shows messages.
#[derive(Debug)]
pub(super) struct Show {
    bar: Option<ProgressBar>,
    /// When the last line on the progress was written.
    told: Mutex<Instant>,
}

impl Show {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::no_length);
        Self {
            bar,
            told: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn message(&self, message: &Message) {
        match message {
            Message::Progress(state) => self.progress(state),
            Message::Say(line) => match &self.bar {
                // A closed output ends nothing: the command's exit code counts.
                Some(bar) => bar.suspend(|| drop(print(&Printable(line).to_string()))),
                None => drop(print(&Printable(line).to_string())),
            },
            Message::Done(_) | Message::Failed(_) => {}
        }
    }

    fn progress(&self, state: &State) {
        let Some(bar) = &self.bar else {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.elapsed() >= INTERVAL {
                *told = Instant::now();
                let of = state
                    .total
                    .map_or_else(String::new, |total| format!(" of {total}"));
                drop(writeln!(io::stderr(), "{}{of} {}", state.done, state.unit));
            }
            return;
        };
        let template = match state.total {
            Some(_) => "{bar:40} {human_pos} of {human_len} {msg}, {eta} left",
            None => "{spinner} {human_pos} {msg}, {elapsed}",
        };
        if bar.message() != state.unit {
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_message(state.unit.clone());
        }
        match state.total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_position(state.done);
        bar.tick();
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line, or several, to the standard output.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{}", printable_lines(line))
        .map_err(|cause| Failure::new("cannot write to the standard output").because(cause))
}
