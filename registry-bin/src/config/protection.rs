//! The protecting keys, which a merely empty value does not remove.
//!
//! A variable of a container is empty if its intended value was not set. So an empty value never removes protection;
//! `~` does so explicitly.

use super::origin::Origin;
use super::problem::Problem;
use super::tree::{Entry, Node, Value};

/// The keys that decide who may do what, or keep something closed, each with everything below it. Without them, more is
/// open.
pub(crate) const PROTECTING: &[&str] = &[
    "access",
    "auth",
    "http.headers",
    "http.ratelimit",
    "http.tls.certificate",
    "http.tls.ciphersuites",
    "http.tls.clientauth",
    "http.tls.clientcas",
    "http.tls.key",
    "http.tls.minimumtls",
    TRUSTED_PROXIES,
    "log.audit",
    "storage.maintenance.readonly",
    "storage.s3.encrypt",
    "storage.s3.keyid",
    "storage.s3.usefipsendpoint",
    "tags.immutable",
];

/// An empty list of proxies is a value: it trusts none.
const TRUSTED_PROXIES: &str = "http.trustedproxies";

/// Refuses the effect of a variable on a tree if it replaces a protecting value with an empty one.
pub(super) fn check(before: &Node, after: &Node, variable: &Origin) -> Result<(), Problem> {
    for path in PROTECTING {
        let Some(old) = before.find(path) else {
            continue;
        };
        if let Some((path, origin)) = taken_away(path, old, closest(after, path)) {
            let place = match origin {
                Origin::Line(line) => format!("line {line} of the file"),
                origin => origin.to_string(),
            };
            let problem = Problem::new(format!(
                "is empty, and would take away what {place} says; give it a value or unset the variable, or write `~` to take that away"
            ));
            return Err(problem.below(&path).at(variable));
        }
    }
    Ok(())
}

/// Returns the protecting keys that are present with an empty value, and where that was written. `~` is an explicit
/// absence and not included.
pub(crate) fn empty(tree: &Node) -> Vec<(String, Origin)> {
    let mut found = Vec::new();
    for path in PROTECTING {
        if let Some(node) = tree.find(path) {
            find_empty(path, node, &mut found);
        }
    }
    found
}

fn find_empty(path: &str, node: &Node, found: &mut Vec<(String, Origin)>) {
    if is_empty(path, node) {
        found.push((path.to_owned(), node.origin.clone()));
    } else if let Value::Map(entries) = &node.value {
        for Entry { key, node, .. } in entries {
            find_empty(&format!("{path}.{key}"), node, found);
        }
    }
}

/// Returns the node at a path, or otherwise the closest one above it.
fn closest<'a>(tree: &'a Node, path: &str) -> Option<&'a Node> {
    let ends = path.match_indices('.').map(|(end, _)| end).rev();
    let paths = std::iter::once(path).chain(ends.filter_map(|end| path.get(..end)));
    paths.into_iter().find_map(|path| tree.find(path))
}

/// Finds a protecting value that is now empty. One that was replaced by another value was meant to be.
fn taken_away(path: &str, old: &Node, new: Option<&Node>) -> Option<(String, Origin)> {
    let new = new?;
    if !protects(path, old) {
        return None;
    }
    if is_empty(path, new) {
        return Some((path.to_owned(), old.origin.clone()));
    }
    match &old.value {
        Value::Map(entries) => entries
            .iter()
            .find_map(|Entry { key, node, .. }| taken_away(&format!("{path}.{key}"), node, new.child(key))),
        Value::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| taken_away(&format!("{path}[{index}]"), item, new.item(index))),
        Value::Scalar { .. } => None,
    }
}

/// Returns whether a value protects anything.
fn protects(path: &str, node: &Node) -> bool {
    let is_off = |text: &str| matches!(text, "false" | "no" | "off");
    match &node.value {
        _ if node.is_null() || is_empty(path, node) => false,
        Value::Scalar { text, .. } => !is_off(text),
        Value::Map(entries) => entries.iter().any(|entry| entry.key != "none"),
        Value::List(_) => true,
    }
}

/// Returns whether there is no value and no explicit absence.
fn is_empty(path: &str, node: &Node) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => text.trim().is_empty(),
        Value::List(items) => items.is_empty() && path != TRUSTED_PROXIES,
        Value::Map(entries) => entries.is_empty() && !path.ends_with(".none"),
    }
}
