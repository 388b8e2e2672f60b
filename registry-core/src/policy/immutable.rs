//! Tags that never move.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Glob;
use crate::operation::{Action, Authorizer, Operation, Principal, Target};
use crate::storage::TagFilter;
use crate::{Error, ErrorCode, RepositoryName, Tag};

/// Tags that never move once they exist, selected with patterns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImmutableTagRule {
    /// The repositories; one of the patterns must match.
    pub repositories: Vec<Glob>,
    /// The tags; one of the patterns must match.
    pub tags: Vec<Glob>,
}

impl ImmutableTagRule {
    /// Returns whether a tag of a repository never moves because of this rule.
    #[must_use]
    pub fn covers(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let matches = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        matches(&self.repositories, repository.as_str()) && matches(&self.tags, tag.as_str())
    }
}

/// Refuses moves and deletes of some tags to every principal, and leaves everything else to the next authorizer.
///
/// A tag that [lists referrers](Tag::lists_referrers) may gain entries nevertheless, as for a principal that may not
/// overwrite.
///
/// The storage decides whether a tag would move when it writes the tag, so two pushes cannot both be the first. A
/// deleted tag could be pushed again with other content, so a delete is refused too, and with it that of everything
/// that the tag reaches: its manifest, the manifests of an index at any depth, layers and configurations.
#[derive(Clone, Debug)]
pub struct ImmutableTags {
    rules: Vec<ImmutableTagRule>,
    next: Arc<dyn Authorizer>,
}

impl ImmutableTags {
    /// Refuses what `rules` select, and asks `next` for everything else.
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

    fn immutable_tags(&self, repository: &RepositoryName) -> Option<TagFilter> {
        let next = self.next.immutable_tags(repository);
        let of_repository = |rule: &&ImmutableTagRule| {
            let mut globs = rule.repositories.iter();
            globs.any(|glob| glob.matches(repository.as_str()))
        };
        let rules = self.rules.iter().filter(of_repository);
        let globs: Vec<Glob> = rules.flat_map(|rule| rule.tags.iter().cloned()).collect();
        if globs.is_empty() {
            return next;
        }
        Some(Arc::new(move |tag| {
            globs.iter().any(|glob| glob.matches(tag.as_str())) || next.as_ref().is_some_and(|next| next(tag))
        }))
    }
}
