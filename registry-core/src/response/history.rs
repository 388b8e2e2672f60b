//! What tags named before, as it is told to clients.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::name::RepositoryName;
use crate::storage::{EndReason, TagEnd, TagValue};
use crate::tag::Tag;
use crate::time::Timestamp;

/// Writes the document. It leaves out who pushed and who moved a tag: every client that may pull may read it.
pub(super) fn write(repository: &RepositoryName, values: &[TagValue]) -> Result<Vec<u8>, Error> {
    let document = Document {
        name: repository.clone(),
        values: values.iter().map(Value::of).collect(),
    };
    serde_json::to_vec(&document).map_err(Error::internal)
}

/// Reads the document; `None` if it is another one. A value with a word or time of another form is left out.
pub(super) fn read(document: &[u8]) -> Option<Vec<TagValue>> {
    let document: Document = serde_json::from_slice(document).ok()?;
    Some(document.values.into_iter().filter_map(Value::read).collect())
}

#[derive(Serialize, Deserialize)]
struct Document {
    name: RepositoryName,
    values: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    tag: Tag,
    digest: Digest,
    since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restorable_until: Option<String>,
}

impl Value {
    fn of(value: &TagValue) -> Self {
        let text = |at: Timestamp| alloc::format!("{at}");
        let end = value.end.as_ref();
        Self {
            tag: value.tag.clone(),
            digest: value.digest.clone(),
            since: text(value.since),
            until: end.map(|end| text(end.at)),
            reason: end.map(|end| end.reason.into()),
            restorable_until: end.and_then(|end| end.restorable_until).map(text),
        }
    }

    fn read(self) -> Option<TagValue> {
        let time = |text: &String| Timestamp::from_rfc3339(text);
        let end = match (&self.until, &self.reason) {
            (Some(at), Some(reason)) => Some(TagEnd {
                at: time(at)?,
                reason: reason.parse::<EndReason>().ok()?,
                principal: String::new(),
                restorable_until: self.restorable_until.as_ref().map(time).unwrap_or_default(),
            }),
            _ => None,
        };
        Some(TagValue {
            tag: self.tag,
            digest: self.digest,
            since: time(&self.since)?,
            principal: String::new(),
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Algorithm;

    proptest! {
        #[test]
        fn a_history_reads_back_without_who_did_it(
            values in proptest::collection::vec(
                ("[a-z0-9_][a-z0-9._-]{0,9}", 0_u64..200_000_000_000_000, prop::option::of((0_u64..200_000_000_000_000, 0_usize..5, prop::option::of(0_u64..200_000_000_000_000)))),
                0..5,
            ),
        ) {
            let values: Vec<TagValue> = values.into_iter().map(|(tag, since, end)| TagValue {
                digest: Digest::of(Algorithm::Sha256, tag.as_bytes()),
                tag: tag.parse().unwrap(),
                since: Timestamp(since),
                principal: "alice".into(),
                end: end.map(|(at, reason, until)| TagEnd {
                    at: Timestamp(at),
                    reason: [
                        EndReason::Moved,
                        EndReason::TagDeleted,
                        EndReason::ManifestDeleted,
                        EndReason::RepositoryDeleted,
                        EndReason::Retention(at as usize),
                    ][reason],
                    principal: "bob".into(),
                    restorable_until: until.map(Timestamp),
                }),
            }).collect();
            let document = write(&"a/b".parse().unwrap(), &values).unwrap();
            prop_assert!(!document.windows(5).any(|text| text == b"alice"));
            let mut expected = values;
            for value in &mut expected {
                value.principal.clear();
                if let Some(end) = &mut value.end {
                    end.principal.clear();
                }
            }
            prop_assert_eq!(read(&document), Some(expected));
        }
    }
}
