//! The list of referrers that clients keep under a tag (distribution-spec, "Referrers Tag Schema").

use std::collections::HashSet;

use serde_json::{Map, Value};

/// The size in bytes of the longest list that is compared while other writes wait: some thousand signatures.
const COMPARED_LIST_BYTES: usize = 1024 * 1024;

/// Returns whether an index contains everything that another one did, word for word, plus entries for other digests.
///
/// A new entry for a digest that was listed before would hide what the list said of it: its type, its size, its
/// annotations.
pub(super) fn only_adds_entries(before: &[u8], after: &[u8]) -> bool {
    if before.len().max(after.len()) > COMPARED_LIST_BYTES {
        return false;
    }
    let (Some((before, old)), Some((after, new))) = (parse(before), parse(after)) else {
        return false;
    };
    let mut missing: HashSet<String> = old.iter().map(Value::to_string).collect();
    let old_digests: HashSet<&Value> = old.iter().filter_map(|entry| entry.get("digest")).collect();
    let is_addition = |entry: &&Value| !missing.remove(&entry.to_string());
    let added: Vec<&Value> = new.iter().filter(is_addition).collect();
    let is_new = |entry: &&Value| {
        entry
            .get("digest")
            .is_some_and(|digest| !old_digests.contains(digest))
    };
    before == after && missing.is_empty() && !added.is_empty() && added.iter().all(is_new)
}

/// Returns the members of an index other than its entries, and the entries.
fn parse(index: &[u8]) -> Option<(Map<String, Value>, Vec<Value>)> {
    let mut members: Map<String, Value> = serde_json::from_slice(index).ok()?;
    match members.remove("manifests")? {
        Value::Array(entries) => Some((members, entries)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(members: &str, entries: &[&str]) -> String {
        format!(
            r#"{{"schemaVersion":2{members},"manifests":[{}]}}"#,
            entries.join(",")
        )
    }

    #[test]
    fn a_list_may_gain_entries_and_nothing_else() {
        const A: &str = r#"{"digest":"sha256:a","size":1,"annotations":{"signer":"a"}}"#;
        const B: &str = r#"{"digest":"sha256:b","size":1}"#;
        const C: &str = r#"{"digest":"sha256:c","size":1}"#;
        let before = index("", &[A, B]);
        let adds = |after: &str| only_adds_entries(before.as_bytes(), after.as_bytes());
        assert!(adds(&index("", &[A, B, C])));
        // In another order, and with other white space.
        assert!(adds(&index(" ", &[C, r#"{"size":1, "digest":"sha256:b"}"#, A])));
        for (what, after) in [
            ("nothing is added", index(" ", &[A, B])),
            ("an entry is gone", index("", &[A, C])),
            (
                "another size",
                index("", &[&A.replace("\"size\":1", "\"size\":2"), B, C]),
            ),
            (
                "another signer",
                index("", &[&A.replace("\"a\"", "\"evil\""), B, C]),
            ),
            (
                "an entry says more",
                index("", &[A, &B.replace("}", r#","urls":["u"]}"#), C]),
            ),
            (
                "a digest has a second entry",
                index("", &[&B.replace("\"size\":1", "\"size\":2"), A, B, C]),
            ),
            ("an entry twice", index("", &[A, A, B, C])),
            ("an entry without a digest", index("", &[A, B, "{}"])),
            (
                "a member is added",
                index(r#","annotations":{"a":"b"}"#, &[A, B, C]),
            ),
            ("no list", r#"{"schemaVersion":2,"manifests":{}}"#.to_owned()),
            ("no index", "[]".to_owned()),
        ] {
            assert!(!adds(&after), "{what}");
        }
        let long = index("", &[A, B, C]) + &" ".repeat(COMPARED_LIST_BYTES);
        assert!(!adds(&long), "others wait meanwhile");
        assert!(only_adds_entries(
            index("", &[]).as_bytes(),
            index("", &[A]).as_bytes()
        ));
    }
}
