//! Durations without a unit, which are nanoseconds although mostly seconds are meant.

use serde_json::Value;

use super::Configuration;
use super::tree::{self, Node, Origin};
use super::values::GoDuration;

/// A duration without a unit: its key, where it was written, and its number.
pub(crate) type BareDuration = (String, Origin, u64);

/// Finds the durations that were written without a unit. 0 needs none.
pub(crate) fn bare_durations(configuration: &Configuration, tree: &Node) -> Vec<BareDuration> {
    let mut found = Vec::new();
    let read = serde_json::to_value(configuration).unwrap_or_default();
    find("", &read, tree, &mut found);
    found
}

fn find(path: &str, value: &Value, tree: &Node, found: &mut Vec<BareDuration>) {
    match value {
        Value::Object(below) => {
            for (key, value) in below {
                let separator = if path.is_empty() { "" } else { "." };
                find(&format!("{path}{separator}{key}"), value, tree, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                find(&format!("{path}[{index}]"), value, tree, found);
            }
        }
        // Other text of digits stays as it is. Reading a duration adds its unit.
        Value::String(read) if read.ends_with('s') => {
            let Some(node) = tree.find(path) else { return };
            let tree::Value::Scalar { text, .. } = &node.value else {
                return;
            };
            let (Ok(number), true) = (
                text.parse(),
                serde_json::from_value::<GoDuration>(value.clone()).is_ok(),
            ) else {
                return;
            };
            if number > 0 {
                found.push((path.to_owned(), node.origin.clone(), number));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests_support::loaded;

    #[test]
    fn durations_without_a_unit_are_found() {
        let text = "version: 0.1\nstorage: {inmemory: , maintenance: {uploadpurging: {age: 1h}}}\n\
                    http: {draintimeout: 30, secret: 10}\nhealth: {tcp: [{addr: 'a:1', timeout: 0, interval: 5000000}]}\n";
        let loaded = loaded(text, &[]);
        let found = bare_durations(&loaded.configuration, &loaded.tree);
        let expected = [
            ("health.tcp[0].interval", 4, 5_000_000),
            ("http.draintimeout", 3, 30),
        ];
        let expected = expected.map(|(key, line, number)| (key.to_owned(), Origin::Line(line), number));
        assert_eq!(found, expected);
    }
}
