//! A configuration as a tree of values with their origins.

mod deserialize;
mod environment;
mod yaml;

pub(crate) use self::environment::{Applied, FILE_VARIABLE, PREFIX, apply_variables};
pub(crate) use self::yaml::parse;
use super::kinds::is_kind;
use super::origin::Origin;

/// Replaces a word that is not shown. No key has this name.
const NO_KEY: &str = "…";

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A value of the tree. A scalar is plain text: the type that it is read as determines its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar {
        text: String,
        /// It was written without quotes, so it may be a number, `true` or null.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_origin: Origin,
    pub(crate) node: Node,
}

impl Entry {
    fn new(key: &str, node: Node) -> Self {
        Self {
            key: key.to_owned(),
            key_origin: node.origin.clone(),
            node,
        }
    }
}

impl Node {
    pub(crate) fn map(entries: Vec<Entry>, origin: Origin) -> Self {
        Self {
            value: Value::Map(entries),
            origin,
        }
    }

    pub(crate) fn null(origin: &Origin) -> Self {
        let value = Value::Scalar {
            text: String::new(),
            plain: true,
        };
        Self {
            value,
            origin: origin.clone(),
        }
    }

    pub(crate) fn text(text: impl Into<String>, origin: Origin) -> Self {
        Self {
            value: Value::Scalar {
                text: text.into(),
                plain: false,
            },
            origin,
        }
    }

    /// Returns whether it is null: an empty value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Returns whether it is empty text, which in Go counts as no value.
    fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, .. } if text.is_empty())
    }

    /// Returns the node at a path such as `http.tls.clientcas[0]`, each part of which is a key or an index.
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        path.split(['.', '['])
            .try_fold(self, |node, part| match &node.value {
                Value::List(items) => items.get(part.trim_end_matches(']').parse::<usize>().ok()?),
                Value::Map(_) | Value::Scalar { .. } => node.child(part),
            })
    }

    /// Returns whether both have the same content, wherever it was written.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Scalar { text, .. }, Value::Scalar { text: other, .. }) => text == other,
            (Value::List(items), Value::List(others)) => {
                items.len() == others.len()
                    && items
                        .iter()
                        .zip(others)
                        .all(|(item, other)| item.says_the_same_as(other))
            }
            (Value::Map(entries), Value::Map(others)) => {
                let is_same = |entry: &Entry| {
                    let other = other.child(&entry.key);
                    other.is_some_and(|other| entry.node.says_the_same_as(other))
                };
                entries.len() == others.len() && entries.iter().all(is_same)
            }
            _ => false,
        }
    }

    /// Returns the value of a key.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => {
                let entry = entries.iter().find(|entry| entry.key == key);
                entry.map(|entry| &entry.node)
            }
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// Returns an item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::List(items) => items.get(index),
            Value::Map(_) | Value::Scalar { .. } => None,
        }
    }

    /// Returns whether a path has a value other than null.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_some_and(|node| !node.is_null())
    }

    /// Returns where the value at a path was written, or otherwise the closest one above it.
    pub(crate) fn origin_of(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(node) = self.find(path) {
                return node.origin.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.origin.clone(),
            }
        }
    }

    /// Sets the value at a path of keys, replacing any existing one and creating missing parents.
    pub(crate) fn set(&mut self, path: &str, value: Self) {
        match path.split_once('.') {
            None => self.set_key(path, value),
            Some((key, rest)) => {
                let mut child = self
                    .child(key)
                    .cloned()
                    .unwrap_or_else(|| Self::null(&value.origin));
                child.set(rest, value);
                self.set_key(key, child);
            }
        }
    }

    /// Removes the value at a path of keys.
    pub(crate) fn remove(&mut self, path: &str) {
        if let Value::Map(entries) = &mut self.value {
            match path.split_once('.') {
                None => entries.retain(|entry| entry.key != path),
                Some((key, rest)) => {
                    if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) {
                        entry.node.remove(rest);
                    }
                }
            }
        }
    }

    /// Turns a word into a key with an empty map: `storage: inmemory` is the same as `storage: {inmemory: {}}`. An
    /// unknown word becomes a placeholder that is not a valid key, because it may be a password.
    pub(crate) fn settle_word(&mut self) {
        if let (Value::Scalar { text, .. }, false) = (&self.value, self.is_null()) {
            let key = if is_kind(text) { text } else { NO_KEY };
            let entry = Entry::new(key, Self::map(Vec::new(), self.origin.clone()));
            self.value = Value::Map(vec![entry]);
        }
    }

    /// Sets the value of a key. Anything but a map is replaced by one.
    fn set_key(&mut self, key: &str, value: Self) {
        if let Value::Map(entries) = &mut self.value {
            match entries.iter_mut().find(|entry| entry.key == key) {
                Some(entry) => entry.node = value,
                None => entries.push(Entry::new(key, value)),
            }
        } else {
            self.value = Value::Map(vec![Entry::new(key, value)]);
        }
    }
}
