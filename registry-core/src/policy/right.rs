//! Actions as rules write them.

use alloc::borrow::Cow;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::str::FromStr;

use serde::de::{Deserializer, EnumAccess, Error as _, VariantAccess as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::operation::{Action, Operation, Target};

/// What a rule allows: an action, or all of them. As text: one of [`Right::WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// This action. A rule has no word for [`Action::Connect`], which every client may do.
    Only(Action),
    /// All actions: `*`.
    All,
}

impl Right {
    /// The words for all rights.
    pub const WORDS: &'static [&'static str] = &["pull", "push", "delete", "list", "overwrite", "*"];

    /// Returns the word for the right in a rule.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Only(action) => action.as_str(),
            Self::All => "*",
        }
    }

    pub(super) fn allows(self, operation: &Operation<'_>) -> bool {
        match self {
            Self::All => true,
            // A principal that may read a manifest may read what refers to it: signatures are looked up with every
            // pull.
            Self::Only(Action::Pull)
                if operation.action == Action::List && matches!(operation.target, Target::Manifest(_)) =>
            {
                true
            }
            Self::Only(action) => action == operation.action,
        }
    }
}

/// A text that is not the word for a right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no action of a rule: use pull, push, overwrite, delete, list or *")]
pub struct InvalidRight(pub String);

impl FromStr for Right {
    type Err = InvalidRight;

    fn from_str(text: &str) -> Result<Self, InvalidRight> {
        let actions = [
            Action::Pull,
            Action::Push,
            Action::Overwrite,
            Action::Delete,
            Action::List,
        ];
        match text {
            "*" => Ok(Self::All),
            _ => actions
                .into_iter()
                .find(|action| action.as_str() == text)
                .map(Self::Only)
                .ok_or_else(|| InvalidRight(text.to_string())),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Right {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Right {
    /// Reads an enum of words, so that a format can say which there are.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Right", Self::WORDS, RightVisitor)
    }
}

struct RightVisitor;

impl<'de> Visitor<'de> for RightVisitor {
    type Value = Right;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an action of a rule")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Right, A::Error> {
        let (word, variant) = data.variant::<Cow<'de, str>>()?;
        variant.unit_variant()?;
        word.parse()
            .map_err(|_| A::Error::unknown_variant(&word, Right::WORDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_a_right_and_written_as_it_is_read() {
        for word in Right::WORDS {
            let right: Right = word.parse().unwrap();
            assert_eq!(right.to_string(), *word);
            let json = serde_json::to_string(&right).unwrap();
            assert_eq!(serde_json::from_str::<Right>(&json).unwrap(), right);
        }
        for text in ["connect", "", "Pull", "all", "pull,push"] {
            assert_eq!(text.parse::<Right>(), Err(InvalidRight(text.to_string())));
            let json = serde_json::to_string(text).unwrap();
            let message = serde_json::from_str::<Right>(&json).unwrap_err().to_string();
            assert!(message.contains("`overwrite`"), "{message}");
        }
    }
}
