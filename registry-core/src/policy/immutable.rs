//! Tags that never move.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Glob;
use crate::operation::{Action, Authorizer, Operation, Principal, Target};
use crate::{Error, ErrorCode, RepositoryName, Tag};

/// Tags that never move once they are there, by pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImmutableTagRule {
    /// The repositories; one of the patterns has to match.
    pub repositories: Vec<Glob>,
    /// The tags; one of the patterns has to match.
    pub tags: Vec<Glob>,
}

impl ImmutableTagRule {
    fn covers(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let matches = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        matches(&self.repositories, repository.as_str()) && matches(&self.tags, tag.as_str())
    }
}

/// Refuses to everybody to move or delete some tags, and leaves all else to the next authorizer.
///
/// Whether a tag would move is decided by the storage when it is written, so two pushes cannot both be the first. A
/// deleted tag could be pushed anew with other content, so a delete is refused too, and with it that of the manifest that the
/// tag names.
#[derive(Clone, Debug)]
pub struct ImmutableTags {
    rules: Vec<ImmutableTagRule>,
    next: Arc<dyn Authorizer>,
}

impl ImmutableTags {
    /// Refuses what `rules` say, and asks `next` for all else.
    #[must_use]
    pub const fn new(rules: Vec<ImmutableTagRule>, next: Arc<dyn Authorizer>) -> Self {
        Self { rules, next }
    }
}

impl Authorizer for ImmutableTags {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        self.next.authorize(principal, operation)?;
        if let (Action::Overwrite | Action::Delete, Some(repository), Target::Tag(tag)) =
            (operation.action, operation.repository, operation.target)
            && self.rules.iter().any(|rule| rule.covers(repository, tag))
        {
            let message = format!("the tag {tag} is immutable; push another tag");
            return Err(Error::new(ErrorCode::TagConflict, message));
        }
        Ok(())
    }
}
