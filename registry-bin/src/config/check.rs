//! The check of a whole configuration. What each section requires of its values is in the section's file.

use super::Configuration;
use super::kinds::{AUTHENTICATORS, DRIVERS};
use super::problem::{Problem, alternatives};
use super::problems::Problems;
use super::sections::{quotas, retention};
use super::supported;
use super::tree::Node;

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
    let mut problems = Problems::new(tree);
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
    let has_folder = configuration.storage.filesystem.is_some();
    configuration.storage.check(&mut problems);
    configuration.auth.check(&mut problems);
    configuration.access.check(&configuration.auth, &mut problems);
    configuration.tags.check(&mut problems);
    configuration.backup.check(has_folder, &mut problems);
    configuration.collector.check(&mut problems);
    retention::check(&configuration.retention, &mut problems);
    quotas::check(&configuration.quotas, &mut problems);
    configuration.scrub.check(&mut problems);
    configuration.http.check(&mut problems);
    configuration.notifications.check(&mut problems);
    configuration.health.check(&mut problems);
    let mut problems = problems.into_found();
    if problems.is_empty() {
        problems = supported::refusals(configuration, tree);
    }
    problems
}
