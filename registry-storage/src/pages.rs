//! Listing records page by page.

use registry_core::Error;

use crate::backend::{Backend, LIST_LIMIT, RecordEntry, RecordTransaction};
use crate::key::Key;

/// The pages of the records under a prefix, in the byte order of their keys. A record that is written or removed
/// meanwhile is listed or not.
#[derive(Debug)]
pub(crate) struct Pages {
    prefix: Key,
    after: Option<Key>,
    is_done: bool,
}

impl Pages {
    pub(crate) const fn of(prefix: Key) -> Self {
        Self::after(prefix, None)
    }

    /// Returns the pages of the records after a key.
    pub(crate) const fn after(prefix: Key, after: Option<Key>) -> Self {
        Self {
            prefix,
            after,
            is_done: false,
        }
    }

    /// Lists the next page; returns `None` at the end.
    pub(crate) async fn next(&mut self, backend: &impl Backend) -> Result<Option<Vec<RecordEntry>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let page = backend.list(&self.prefix, self.after.as_ref(), LIST_LIMIT);
        Ok(self.turn(page.await?))
    }

    /// Lists the next page as a transaction sees it; returns `None` at the end.
    pub(crate) async fn next_in(
        &mut self,
        records: &mut dyn RecordTransaction,
    ) -> Result<Option<Vec<RecordEntry>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let page = records.list(&self.prefix, self.after.as_ref(), LIST_LIMIT);
        Ok(self.turn(page.await?))
    }

    /// Lists the next page with `list`, which takes the prefix, the last key of the page before, and the limit; returns
    /// `None` at the end. Blocks if `list` does.
    #[cfg(all(feature = "filesystem", unix))]
    pub(crate) fn next_with<E>(
        &mut self,
        list: impl FnOnce(&Key, Option<&Key>, usize) -> Result<Vec<RecordEntry>, E>,
    ) -> Result<Option<Vec<RecordEntry>>, E> {
        if self.is_done {
            return Ok(None);
        }
        let page = list(&self.prefix, self.after.as_ref(), LIST_LIMIT)?;
        Ok(self.turn(page))
    }

    fn turn(&mut self, page: Vec<RecordEntry>) -> Option<Vec<RecordEntry>> {
        // A page that is not full is the last one, which saves a request.
        self.is_done = page.len() < LIST_LIMIT;
        self.after = page.last().map(|last| last.key.clone());
        (!page.is_empty()).then_some(page)
    }
}

/// Returns the keys of a page.
pub(crate) fn keys(page: Vec<RecordEntry>) -> impl Iterator<Item = Key> {
    page.into_iter().map(|entry| entry.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Condition, Durability, Transaction};
    use crate::object_store::ObjectStoreBackend;

    struct Fill(usize);

    impl Transaction for Fill {
        type Output = Vec<usize>;

        /// Writes the records, and returns the sizes of the pages that list them.
        async fn run(self, records: &mut dyn RecordTransaction) -> Result<Vec<usize>, Error> {
            for number in 0..self.0 {
                let key = Key::from_stored(&format!("p/{number:04}"));
                records.put(&key, "x".into(), Condition::Any).await?;
            }
            let (mut pages, mut sizes) = (Pages::of(Key::from_stored("p/")), Vec::new());
            while let Some(page) = pages.next_in(records).await? {
                sizes.push(page.len());
            }
            Ok(sizes)
        }
    }

    #[tokio::test]
    async fn each_record_is_in_one_page() {
        for (count, expected) in [
            (0, &[][..]),
            (1, &[1]),
            (LIST_LIMIT, &[LIST_LIMIT]),
            (LIST_LIMIT + 1, &[LIST_LIMIT, 1]),
        ] {
            let backend = ObjectStoreBackend::memory();
            let in_transaction = backend.transact(Durability::Synced, Fill(count)).await;
            assert_eq!(in_transaction.unwrap(), expected);
            let (mut pages, mut listed) = (Pages::of(Key::from_stored("p/")), Vec::new());
            while let Some(page) = pages.next(&backend).await.unwrap() {
                listed.extend(keys(page));
            }
            assert_eq!(listed.len(), count);
            assert!(listed.is_sorted());
            assert!(
                pages.next(&backend).await.unwrap().is_none(),
                "the end stays the end"
            );
        }
    }
}
