//! The problems of a configuration, as the sections find them.

use std::time::Duration;

use super::origin::Origin;
use super::problem::Problem;
use super::tree::Node;
use super::values::GoDuration;

/// The resolution of timers. Shorter times were hardly meant: a number without a unit is nanoseconds.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// The problems that were found so far, each with where its value was written.
pub(super) struct Problems<'a> {
    tree: &'a Node,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) const fn new(tree: &'a Node) -> Self {
        Self {
            tree,
            found: Vec::new(),
        }
    }

    /// Returns the configuration as it was written.
    pub(super) const fn tree(&self) -> &'a Node {
        self.tree
    }

    pub(super) fn into_found(self) -> Vec<Problem> {
        self.found
    }

    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(message).below(path);
        self.found.push(problem.at(&self.origin_of(path)));
    }

    /// Requires a value to be present.
    pub(super) fn required(&mut self, path: &str, missing: bool, remedy: &str) {
        if missing {
            self.add(path, format!("is missing; {remedy}"));
        }
    }

    /// Refuses a time below the resolution of timers. Zero selects a default.
    pub(super) fn timer(&mut self, path: &str, time: GoDuration) {
        if time != GoDuration::default() && time.0 < TIMER_RESOLUTION {
            self.add(
                path,
                format!("is {time}, and must be at least 1ms; write for example 10s"),
            );
        }
    }

    /// Refuses more than one of these keys of a section.
    pub(super) fn exclusive(&mut self, section: &str, names: &[&str]) {
        if names.len() < 2 {
            return;
        }
        let places: Vec<String> = names
            .iter()
            .map(|name| format!("`{name}` ({})", self.origin_of(&format!("{section}.{name}"))))
            .collect();
        self.add(
            section,
            format!("{} exclude each other; keep one", places.join(" and ")),
        );
    }

    fn origin_of(&self, path: &str) -> Origin {
        self.tree.origin_of(path)
    }
}
