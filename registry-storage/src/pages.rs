//! Listing records page by page.

use std::iter::Peekable;
use std::vec;

use registry_core::Error;

use crate::backend::{Backend, LIST_LIMIT, RecordEntry, RecordTransaction, VersionedRecord};
use crate::chain::State;
use crate::key::Key;
use crate::record::state_of_size;

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

/// How many values are read at once, and how many bytes of them, unless one alone has more.
const VALUES_PER_READ: usize = 256;
const BYTES_PER_READ: u64 = 4 << 20;

/// The records under a prefix with their values, some at once, in the byte order of their keys. A value is read after its
/// key was listed; one that was removed meanwhile is `None`.
#[derive(Debug)]
pub(crate) struct Values<F> {
    pages: Pages,
    listed: Peekable<vec::IntoIter<RecordEntry>>,
    is_read: F,
}

impl<F: Fn(&RecordEntry) -> bool> Values<F> {
    /// Reads the records whose entry in the listing `is_read` accepts.
    pub(crate) fn of(prefix: Key, is_read: F) -> Self {
        Self {
            pages: Pages::of(prefix),
            listed: Vec::new().into_iter().peekable(),
            is_read,
        }
    }

    /// Reads the next values; returns `None` at the end.
    pub(crate) async fn next(
        &mut self,
        backend: &impl Backend,
    ) -> Result<Option<Vec<(Key, Option<VersionedRecord>)>>, Error> {
        while self.listed.peek().is_none() {
            let Some(mut page) = self.pages.next(backend).await? else {
                return Ok(None);
            };
            page.retain(&self.is_read);
            self.listed = page.into_iter().peekable();
        }
        let (mut keys, mut bytes) = (Vec::new(), 0_u64);
        while let Some(entry) = self.listed.next_if(|entry| {
            keys.is_empty()
                || keys.len() < VALUES_PER_READ && bytes.saturating_add(entry.size) <= BYTES_PER_READ
        }) {
            bytes = bytes.saturating_add(entry.size);
            keys.push(entry.key);
        }
        let values = backend.get_all(&keys).await?;
        Ok(Some(keys.into_iter().zip(values).collect()))
    }
}

/// Returns the keys of a page.
pub(crate) fn keys(page: Vec<RecordEntry>) -> impl Iterator<Item = Key> {
    page.into_iter().map(|entry| entry.key)
}

/// Returns the keys of the records of a page that are not Dead.
pub(crate) fn living_keys(page: Vec<RecordEntry>) -> impl Iterator<Item = Key> {
    let is_living = |entry: &RecordEntry| state_of_size(entry.size) != State::Dead;
    keys(page.into_iter().filter(is_living).collect())
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

    struct Put(Vec<(String, usize)>);

    impl Transaction for Put {
        type Output = ();

        async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
            for (name, size) in self.0 {
                let key = Key::from_stored(&format!("p/{name}"));
                records.put(&key, vec![b'x'; size].into(), Condition::Any).await?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn each_value_is_read_once_and_not_too_many_at_once() {
        let backend = ObjectStoreBackend::memory();
        let half = usize::try_from(BYTES_PER_READ / 2).unwrap();
        let small = (0..2 * VALUES_PER_READ + 1).map(|number| (format!("a{number:04}"), 1));
        let large = [half, half, 1, 3 * half, half].into_iter().enumerate();
        let large = large.map(|(number, size)| (format!("b{number}"), size));
        let skipped = [("c0".to_owned(), 7), ("c1".to_owned(), 1)];
        let all: Vec<_> = small.chain(large).chain(skipped).collect();
        backend.transact(Durability::Synced, Put(all)).await.unwrap();
        let mut values = Values::of(Key::from_stored("p/"), |entry: &RecordEntry| entry.size != 7);
        let (mut reads, mut names) = (Vec::new(), Vec::new());
        while let Some(read) = values.next(&backend).await.unwrap() {
            reads.push(read.len());
            names.extend(
                read.into_iter()
                    .map(|(key, value)| (key, value.unwrap().value.len())),
            );
        }
        assert_eq!(reads, [VALUES_PER_READ, VALUES_PER_READ, 2, 2, 1, 2]);
        assert!(names.is_sorted() && names.iter().all(|(_, size)| *size != 7));
        assert_eq!(names.len(), 2 * VALUES_PER_READ + 7);
        assert!(values.next(&backend).await.unwrap().is_none());
    }
}
