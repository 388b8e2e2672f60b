//! Listings of records, compared with a sorted map.

#![expect(clippy::disallowed_methods, reason = "the tasks of a kit end with its test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::steps::{key, list, put, value};
use crate::backend::{Backend, Condition, RecordEntry};
use crate::key::Key;

type Model = BTreeMap<Key, u64>;

async fn fill<B: Backend>(backend: &B, keys: impl IntoIterator<Item = String>) -> Model {
    let mut model = Model::new();
    for text in keys {
        let (key, value) = (key(&text), value(&text));
        put(backend, &key, &value, Condition::Absent).await.unwrap();
        model.insert(key, value.len() as u64);
    }
    model
}

fn expected(model: &Model, prefix: &Key, after: Option<&Key>, limit: usize) -> Vec<RecordEntry> {
    model
        .iter()
        .filter(|(key, _)| {
            key.as_str().starts_with(prefix.as_str()) && after.is_none_or(|after| *key > after)
        })
        .take(limit)
        .map(|(key, size)| RecordEntry {
            key: key.clone(),
            size: *size,
        })
        .collect()
}

async fn check<B: Backend>(backend: &B, model: &Model, prefix: &Key, after: Option<&Key>, limit: usize) {
    let expected = expected(model, prefix, after, limit);
    let entries = backend.list(prefix, after, limit).await.unwrap();
    assert_eq!(entries, expected, "{limit} of {prefix} after {after:?}");
    let entries = list(backend, prefix.clone(), after.cloned(), limit)
        .await
        .unwrap();
    assert_eq!(
        entries, expected,
        "in a transaction: {limit} of {prefix} after {after:?}"
    );
}

fn repositories() -> Vec<String> {
    ["a", "a/b", "a-b", "a.b", "a0", "a_b", "ab", "b", "b/a/c"]
        .iter()
        .flat_map(|name| {
            [
                format!("catalog/{name}!"),
                format!("repositories/{name}/!/tags/1.0"),
                format!("repositories/{name}/!/tags/Latest"),
                format!("repositories/{name}/!/tags/_x"),
                format!("repositories/{name}/!/tags/latest"),
            ]
        })
        .collect()
}

/// Pages of every size, put together, are the keys in byte order.
pub async fn lists_pages_in_order<B: Backend>(backend: Arc<B>) {
    let model = fill(&*backend, repositories()).await;
    for limit in [1, 2, 7, 1000] {
        for prefix in ["catalog/", "repositories/a/!/tags/", "repositories/", "none/"] {
            let prefix = key(prefix);
            let mut after: Option<Key> = None;
            loop {
                check(&*backend, &model, &prefix, after.as_ref(), limit).await;
                let page = expected(&model, &prefix, after.as_ref(), limit);
                match page.last() {
                    Some(last) => after = Some(last.key.clone()),
                    None => break,
                }
            }
        }
    }
}

/// A prefix need not end with a slash.
pub async fn lists_by_any_beginning_of_a_key<B: Backend>(backend: Arc<B>) {
    let model = fill(&*backend, repositories()).await;
    for prefix in [
        "catalog/a",
        "catalog/a!",
        "repositories/a",
        "repositories/a/!/tags/l",
        "c",
        "z",
    ] {
        check(&*backend, &model, &key(prefix), None, 100).await;
    }
}

/// The key to continue after may be gone, or before or after all keys with the prefix.
pub async fn lists_after_keys_that_are_not_there<B: Backend>(backend: Arc<B>) {
    let model = fill(&*backend, repositories()).await;
    let prefix = key("catalog/");
    for after in [
        "catalog/a/",
        "catalog/a5!",
        "catalog/zzz",
        "catalog/!",
        "catalog/b/a",
    ] {
        check(&*backend, &model, &prefix, Some(&key(after)), 3).await;
    }
}

/// An entry has the size of the value.
pub async fn lists_sizes<B: Backend>(backend: Arc<B>) {
    let mut model = Model::new();
    for size in [36, 37, 1000, 100_000] {
        let key = key(&format!("uploads/{size}"));
        let mut content = value("").to_vec();
        content.resize(size, b'.');
        put(&*backend, &key, &content.into(), Condition::Absent)
            .await
            .unwrap();
        model.insert(key, size as u64);
    }
    check(&*backend, &model, &key("uploads/"), None, 10).await;
}

/// Several records are read at once, with `None` for one that does not exist; sizes are returned without reading.
pub async fn reads_several<B: Backend>(backend: Arc<B>) {
    let model = fill(&*backend, repositories()).await;
    let mut keys: Vec<Key> = model.keys().cloned().collect();
    for absent in ["catalog/", "catalog/a", "none"] {
        keys.insert(keys.len() / 2, key(absent));
    }
    // Some may be kept in memory.
    backend.get(&keys[1]).await.unwrap();
    for _ in 0..2 {
        let values = backend.get_all(&keys).await.unwrap();
        let sizes = backend.sizes(&keys).await.unwrap();
        assert_eq!((values.len(), sizes.len()), (keys.len(), keys.len()));
        for ((key, value), size) in keys.iter().zip(values).zip(sizes) {
            assert_eq!(size, model.get(key).copied(), "{key}");
            assert_eq!(value, backend.get(key).await.unwrap(), "{key}");
        }
    }
    assert!(backend.get_all(&[]).await.unwrap().is_empty());
    assert!(backend.sizes(&[]).await.unwrap().is_empty());
}

/// All characters that keys consist of, and the longest keys, are returned unchanged.
pub async fn keeps_special_and_long_keys<B: Backend>(backend: Arc<B>) {
    let component = "n".repeat(200);
    let keys = [
        "registry.json".to_owned(),
        "repositories/a__b---c.d/!/tags/A_b.C-d".to_owned(),
        format!(
            "repositories/{component}/=/{}/!/tags/{}",
            "r".repeat(55),
            "t".repeat(128)
        ),
        format!(
            "blobs/sha512/ab/{}/in/{component}/(/{}!",
            "f".repeat(128),
            "r".repeat(55)
        ),
        format!(
            "repositories/{component}/!/referrers/sha512/{}/sha512/{}.{}",
            "a".repeat(128),
            "b".repeat(128),
            "0a1b".repeat(8)
        ),
        "blobs/sha256+b64u/ab/ab=_-/record".to_owned(),
    ];
    let model = fill(&*backend, keys).await;
    for text in model.keys() {
        let stored = backend.get(text).await.unwrap().unwrap();
        assert!(stored.value.starts_with(text.as_str().as_bytes()), "{text}");
    }
    check(&*backend, &model, &key(""), None, 100).await;
}

/// A bucket answers with at most 1000 keys.
pub async fn lists_more_than_a_page_of_a_bucket<B: Backend>(backend: Arc<B>) {
    let mut model = Model::new();
    for hundred in 0..11 {
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let backend = Arc::clone(&backend);
                tokio::spawn(
                    async move { fill(&*backend, [format!("uploads/{hundred:02}{number:02}")]).await },
                )
            })
            .collect();
        for task in tasks {
            model.extend(task.await.unwrap());
        }
    }
    let prefix = key("uploads/");
    check(&*backend, &model, &prefix, None, 1000).await;
    check(&*backend, &model, &prefix, Some(&key("uploads/0999")), 1000).await;
}
