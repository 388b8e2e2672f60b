//! Constraints on and between the values of a configuration.

mod access;
mod auth;
mod backup;
mod health;
mod http;
mod notifications;
mod storage;
mod timers;
mod tls;

use super::Configuration;
use super::problem::{Problem, alternatives};
use super::supported;
use super::tree::Node;

/// The kinds of storage, of which exactly one must be configured.
pub(super) const DRIVERS: [&str; 7] = ["filesystem", "inmemory", "s3", "gcs", "azure", "swift", "oss"];

/// The kinds of authentication, of which at most one may be configured.
const AUTHENTICATORS: [&str; 4] = ["none", "silly", "htpasswd", "token"];

/// Returns whether a single word may be a kind of storage or of authentication.
pub(super) fn is_kind(word: &str) -> bool {
    // distribution's older name for `s3`.
    word == "s3aws" || DRIVERS.contains(&word) || AUTHENTICATORS.contains(&word)
}

/// Returns the kinds of storage that are configured.
pub(super) fn drivers(tree: &Node) -> Vec<&'static str> {
    named(tree, "storage", &DRIVERS)
}

fn named(tree: &Node, section: &str, names: &[&'static str]) -> Vec<&'static str> {
    let section = tree.child(section);
    let is_named = |name: &&str| section.is_some_and(|section| section.child(name).is_some());
    names.iter().copied().filter(is_named).collect()
}

/// Returns everything that is wrong or not supported.
pub(super) fn problems(configuration: &Configuration, tree: &Node) -> Vec<Problem> {
    let mut problems = Problems {
        tree,
        found: Vec::new(),
    };
    let drivers = drivers(tree);
    if drivers.is_empty() {
        let usual: Vec<&str> = DRIVERS.iter().copied().take(5).collect();
        problems.add(
            "storage",
            format!(
                "where to store is missing; name {} below it",
                alternatives(&usual)
            ),
        );
    }
    problems.exclusive("storage", &drivers);
    problems.exclusive("auth", &named(tree, "auth", &AUTHENTICATORS));
    storage::check(&configuration.storage, &mut problems);
    auth::check(&configuration.auth, &mut problems);
    access::check(configuration, &mut problems);
    backup::check(configuration, &mut problems);
    http::check(&configuration.http, &mut problems);
    tls::check(&configuration.http.tls, &mut problems);
    notifications::check(&configuration.notifications, &mut problems);
    health::check(&configuration.health, &mut problems);
    timers::check(configuration, &mut problems);
    if problems.found.is_empty() {
        problems.found = supported::refusals(configuration, tree);
    }
    problems.found
}

struct Problems<'a> {
    tree: &'a Node,
    found: Vec<Problem>,
}

impl Problems<'_> {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(message).below(path);
        self.found.push(problem.at(&self.tree.origin_of(path)));
    }

    /// Requires a value to be present.
    fn required(&mut self, path: &str, missing: bool, remedy: &str) {
        if missing {
            self.add(path, format!("is missing; {remedy}"));
        }
    }

    fn exclusive(&mut self, section: &str, names: &[&str]) {
        if names.len() < 2 {
            return;
        }
        let places: Vec<String> = names
            .iter()
            .map(|name| format!("`{name}` ({})", self.tree.origin_of(&format!("{section}.{name}"))))
            .collect();
        self.add(
            section,
            format!("{} exclude each other; keep one", places.join(" and ")),
        );
    }
}
