//! A configuration as a tree whose every value knows where it was written.

mod deserialize;
mod environment;
mod yaml;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::environment::{Applied, FILE_VARIABLE, PREFIX, apply_variables};
pub(crate) use self::yaml::parse;
use super::check;

/// Stands for a word that is not shown. No key is spelled so.
const NO_KEY: &str = "…";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This line of the file, counted from 1.
    Line(usize),
    /// This variable of the environment.
    Variable(Arc<str>),
    /// This flag of the command line.
    Flag(&'static str),
    /// Nowhere: it is what goes without saying.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What stands at a place of the tree. A scalar is its text: what it means is for the type that it is read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar {
        text: String,
        /// It was written without quotes, so it may be a number, `true` or nothing.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and what is below it.
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

    /// It says that there is nothing: an empty value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// It is text without a letter, which in Go is as good as nothing.
    fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, .. } if text.is_empty())
    }

    /// What stands at a path such as `http.tls.clientcas[0]`, each part of which is a key or an index.
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        path.split(['.', '['])
            .try_fold(self, |node, part| match &node.value {
                Value::List(items) => items.get(part.trim_end_matches(']').parse::<usize>().ok()?),
                Value::Map(_) | Value::Scalar { .. } => node.child(part),
            })
    }

    /// Both hold the same text, wherever it was written.
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

    /// What stands below a key.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => {
                let entry = entries.iter().find(|entry| entry.key == key);
                entry.map(|entry| &entry.node)
            }
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// An item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::List(items) => items.get(index),
            Value::Map(_) | Value::Scalar { .. } => None,
        }
    }

    /// A path has a value.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_some_and(|node| !node.is_null())
    }

    /// Where the value of a path was written, or what comes closest above it.
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

    /// Sets the value of a path of keys, replacing what is there and making what is missing above it.
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

    /// Removes a path of keys.
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

    /// Makes a word into a key without anything below it: `storage: inmemory` is the same as `storage: {inmemory: {}}`. A word
    /// that is none of those that are known makes a key that says nothing of it, and is no key: it may be a password.
    pub(crate) fn settle_word(&mut self) {
        if let (Value::Scalar { text, .. }, false) = (&self.value, self.is_null()) {
            let key = if check::is_kind(text) { text } else { NO_KEY };
            let entry = Entry::new(key, Self::map(Vec::new(), self.origin.clone()));
            self.value = Value::Map(vec![entry]);
        }
    }

    /// Sets the value of a key. What is not a map becomes one.
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
