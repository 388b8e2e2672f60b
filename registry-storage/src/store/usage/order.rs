//! The repositories with records, in the order of the catalog.

use registry_core::{Error, RepositoryName};

use crate::backend::Backend;
use crate::key::Key;
use crate::store::Store;

/// Returns whether a repository comes after another one in the catalog.
fn is_later(repository: &RepositoryName, after: Option<&RepositoryName>) -> bool {
    after.is_none_or(|after| Key::repository(repository) > Key::repository(after))
}

/// Returns the beginnings of a name that come before it in the catalog, and whose records come after its own: `a` is before
/// `a-b`, and `a/` after `a-b/`.
fn beginnings(name: &RepositoryName) -> impl Iterator<Item = RepositoryName> {
    let text = name.as_str();
    let ends = text.match_indices(['-', '.']).map(|(at, _)| at);
    ends.filter_map(|at| text.get(..at)?.parse().ok())
}

impl<B: Backend> Store<B> {
    /// Returns the first repository with a record after another one, also one that the catalog does not have yet.
    pub(crate) async fn next_in_order(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<Option<RepositoryName>, Error> {
        let mut position = after.map(Key::start_of_later_repositories);
        loop {
            let Some(found) = self.first_repository(position).await? else {
                return Ok(None);
            };
            for beginning in beginnings(&found).filter(|beginning| is_later(beginning, after)) {
                let records = Key::all_of_repository(&beginning);
                if !self.backend.list(&records, None, 1).await?.is_empty() {
                    return Ok(Some(beginning));
                }
            }
            if is_later(&found, after) {
                return Ok(Some(found));
            }
            position = Some(Key::end_of_repository(&found));
        }
    }
}
