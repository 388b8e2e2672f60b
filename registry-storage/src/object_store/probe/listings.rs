//! Listings: what they show, in which order, and how they continue.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::list::PaginatedListOptions;

use super::{Probe, ProbeError, Promise, value};
use crate::backend::Condition;

/// The characters of the keys of records, in the order of their bytes. Servers that keep objects as files sort `a/b` as a file in a
/// folder.
const NAMES: [&str; 8] = ["B", "a!", "a-b", "a.b", "a/b", "a0", "a_b", "ab"];

/// A key that does not exist, before `a-b`.
const ABSENT: &str = "a,";

/// The size of a page, so that there are several.
const PAGE: usize = 3;

/// How many pages are read at most: more are a listing without an end.
const MOST_PAGES: usize = 20;

impl Probe<'_> {
    pub(super) async fn listings(&self) -> Result<(), ProbeError> {
        let writes: Vec<_> = NAMES
            .into_iter()
            .rev()
            .map(|name| self.write_listed(name))
            .collect();
        let writes = stream::iter(writes).buffered(NAMES.len());
        writes.try_collect::<()>().await?;
        let listed = self.list(Promise::Listings, None, 1000).await?;
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        if sorted != NAMES {
            let found = format!(
                "a listing right after writes did not show exactly them ({} for {})",
                listed.join(" "),
                NAMES.join(" ")
            );
            return Err(ProbeError::broken(Promise::Listings, found));
        }
        if listed != NAMES {
            let found = format!(
                "it lists keys in another order than that of their bytes ({} for {})",
                listed.join(" "),
                NAMES.join(" ")
            );
            return Err(ProbeError::broken(Promise::Order, found));
        }
        self.pages().await?;
        let deletes: Vec<_> = NAMES.into_iter().map(|name| self.delete_listed(name)).collect();
        let deletes = stream::iter(deletes).buffered(NAMES.len());
        deletes.try_collect::<()>().await?;
        let listed = self.list(Promise::Listings, None, 1000).await?;
        if !listed.is_empty() {
            let found = format!("a listing right after deletes still showed {}", listed.join(" "));
            return Err(ProbeError::broken(Promise::Listings, found));
        }
        Ok(())
    }

    async fn write_listed(&self, name: &str) -> Result<(), ProbeError> {
        let key = self.key(&format!("list/{name}"));
        self.must_write(Promise::Listings, &key, &value(), &Condition::Absent)
            .await
            .map(drop)
    }

    async fn delete_listed(&self, name: &str) -> Result<(), ProbeError> {
        let key = self.key(&format!("list/{name}"));
        self.delete(Promise::Listings, &key).await
    }

    /// Listings continue after each key, and after one that is gone.
    async fn pages(&self) -> Result<(), ProbeError> {
        for (after, expected) in [
            (None, NAMES.as_slice()),
            (Some(ABSENT), NAMES.split_at(2).1),
            (Some("a.b"), NAMES.split_at(4).1),
            (Some("a/b"), NAMES.split_at(5).1),
            (Some("ab"), &[]),
        ] {
            let listed = self.list(Promise::Pages, after, PAGE).await?;
            if listed != expected {
                let found = format!(
                    "a listing in pages of {PAGE} after {:?} gave {:?}, not {:?}",
                    after.unwrap_or_default(),
                    listed.join(" "),
                    expected.join(" ")
                );
                return Err(ProbeError::broken(Promise::Pages, found));
            }
        }
        Ok(())
    }

    /// Lists names after one, to the end, in pages of a size: with the store's token as long as it gives one, and otherwise
    /// after the last key, as the listings of records do.
    async fn list(
        &self,
        promise: Promise,
        after: Option<&str>,
        size: usize,
    ) -> Result<Vec<String>, ProbeError> {
        let folder = format!("{}{}list/", self.backend.root, self.folder);
        let mut names: Vec<String> = Vec::new();
        let mut after = after.map(str::to_owned);
        let mut page_token = None;
        for _ in 0..MOST_PAGES {
            let options = PaginatedListOptions {
                offset: after.as_ref().map(|name| format!("{folder}{name}")),
                max_keys: Some(size),
                page_token,
                ..PaginatedListOptions::default()
            };
            let request = self.backend.store.list_paginated(Some(&folder), options);
            let page = self.backend.run(0, request).await;
            let page = page.map_err(|error| ProbeError::of(promise, error))?;
            let is_full = page.result.objects.len() >= size;
            for object in page.result.objects {
                let key = object.location.as_ref();
                names.push(key.strip_prefix(&*folder).unwrap_or(key).to_owned());
            }
            page_token = page.page_token;
            if page_token.is_none() {
                if !is_full {
                    return Ok(names);
                }
                after = names.last().cloned();
            }
        }
        Err(ProbeError::broken(promise, "a listing in pages has no end"))
    }
}
