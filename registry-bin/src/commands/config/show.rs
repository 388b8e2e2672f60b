//! `registry-bin config show`: the configuration in force as YAML, each value with its origin.

use serde_json::{Map, Value};

use crate::config::Loaded;
use crate::config::origin::Origin;
use crate::config::tree::Node;
use crate::config::values::{MASK, is_secret};
use crate::failure::Failure;

/// Lists all values that are set or have a default. Secrets are masked.
///
/// # Errors
/// None for a configuration that was loaded.
pub(crate) fn listing(loaded: &Loaded) -> Result<String, Failure> {
    let value = serde_json::to_value(&loaded.configuration)
        .map_err(|cause| Failure::new("the configuration cannot be shown").because(cause))?;
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    let mut listing = Listing {
        tree: &loaded.tree,
        file: file.unwrap_or_default(),
        text: String::new(),
    };
    if let Value::Object(sections) = &value {
        listing.map("", sections, 0);
    }
    Ok(listing.text)
}

struct Listing<'a> {
    tree: &'a Node,
    file: String,
    text: String,
}

impl Listing<'_> {
    fn map(&mut self, path: &str, map: &Map<String, Value>, depth: usize) {
        for (key, value) in map {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            match value {
                Value::Null => {}
                Value::Object(below) if below.is_empty() && self.tree.find(&path).is_none() => {}
                Value::Array(items) if items.is_empty() && self.tree.find(&path).is_none() => {}
                Value::Object(below) if !below.is_empty() => {
                    let start = self.text.len();
                    self.line(depth, &format!("{}:", name(key)));
                    let body = self.text.len();
                    self.map(&path, below, depth + 1);
                    if self.text.len() == body {
                        self.text.truncate(start);
                    }
                }
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    self.line(depth, &format!("{}:", name(key)));
                    for (index, item) in items.iter().enumerate() {
                        self.item(&format!("{path}[{index}]"), item, depth + 1);
                    }
                }
                value => {
                    let origin = self.origins(&path, value);
                    self.line(depth, &format!("{}: {}  # {origin}", name(key), single(value)));
                }
            }
        }
    }

    /// Adds an item of a list that has keys: a dash replaces the last indentation of its first line.
    fn item(&mut self, path: &str, item: &Value, depth: usize) {
        let start = self.text.len();
        match item {
            Value::Object(map) => self.map(path, map, depth + 1),
            single_value => self.line(depth + 1, &single(single_value)),
        }
        let dash = start + 2 * depth;
        if self.text.get(dash..dash + 2) == Some("  ") {
            self.text.replace_range(dash..=dash, "-");
        }
    }

    fn line(&mut self, depth: usize, text: &str) {
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Returns where a value was written, or the items of a list, to which variables may add.
    fn origins(&self, path: &str, value: &Value) -> String {
        let count = value.as_array().map_or(0, Vec::len);
        let mut origins: Vec<String> = (0..count)
            .map(|index| format!("{path}[{index}]"))
            .filter(|item| self.tree.find(item).is_some())
            .map(|item| self.origin(&item))
            .collect();
        origins.dedup();
        if origins.is_empty() {
            origins.push(self.origin(path));
        }
        origins.join(", ")
    }

    fn origin(&self, path: &str) -> String {
        match self.tree.find(path).map(|node| &node.origin) {
            Some(Origin::Line(line)) => format!("{}:{line}", self.file),
            Some(origin) => origin.to_string(),
            None => Origin::Default.to_string(),
        }
    }
}

/// Formats a value on one line, as YAML that is mostly JSON.
fn single(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(single).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// Formats a key. A secret may be in place of a free name.
fn name(key: &str) -> String {
    word(if key.contains(':') { MASK } else { key })
}

/// Formats text without quotes if YAML reads it as text, and masks a secret in the wrong place.
fn word(text: &str) -> String {
    // What is masked in part was looked at by its own kind.
    let is_masked = !text.contains(MASK) && is_secret(text);
    let text = if is_masked { MASK } else { text };
    let is_plain = text.starts_with(|character: char| character.is_ascii_alphabetic() || character == '/')
        && text
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "-_./".contains(character))
        && !matches!(
            text,
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests_support::loaded;

    const TEXT: &str = "version: 0.1\nlog:\n  fields:\n    service: registry\nstorage:\n  s3:\n    bucket: images\n    secretkey: canary\n    accesskey: canary\nhttp:\n  secret: canary\nhealth:\n  http:\n    - uri: https://user:canary@example.com/\n";

    #[test]
    fn what_is_shown_is_the_same_configuration() {
        let listing = listing(&loaded(TEXT, &[])).unwrap();
        let again = loaded(&listing, &[]);
        let original = serde_json::to_value(&loaded(TEXT, &[]).configuration).unwrap();
        assert_eq!(
            serde_json::to_value(&again.configuration).unwrap(),
            original,
            "{listing}"
        );
    }

    #[test]
    fn each_value_has_its_origin_and_secrets_are_masked() {
        let listing = listing(&loaded(TEXT, &[("REGISTRY_LOG_LEVEL", "warn")])).unwrap();
        assert!(!listing.contains("canary"), "{listing}");
        for line in [
            "    bucket: images  # config.yml:7",
            "    secretkey: \"********\"  # config.yml:8",
            "  level: warn  # environment variable REGISTRY_LOG_LEVEL",
            "  maxentries: 1000  # default",
        ] {
            assert!(listing.lines().any(|other| other == line), "{line}\n{listing}");
        }
    }

    #[test]
    fn an_item_of_a_list_that_came_by_a_variable_has_its_origin() {
        let text = "version: 0.1\nstorage: inmemory\nhttp:\n  trustedproxies: [10.0.0.1]\n";
        let listing = listing(&loaded(text, &[("REGISTRY_HTTP_TRUSTEDPROXIES_1", "10.0.0.2")])).unwrap();
        let expected = "  trustedproxies: [\"10.0.0.1/32\", \"10.0.0.2/32\"]  \
                        # config.yml:4, environment variable REGISTRY_HTTP_TRUSTEDPROXIES_1";
        assert!(listing.lines().any(|line| line == expected), "{listing}");
    }
}
