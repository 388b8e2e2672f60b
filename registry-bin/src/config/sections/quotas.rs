//! `quotas`: what repositories may have together.

use std::collections::BTreeSet;

use registry_core::quota;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{InvalidValue, parse_all};
use super::patterns::patterns_of_none;
use crate::config::problems::Problems;
use crate::config::values::ByteSize;

/// What the repositories that match may have together. Every quota that matches a repository applies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quota {
    /// Patterns of repositories: `*` is any text without a slash, `**` any text.
    pub(crate) repositories: Vec<String>,
    /// The most bytes of blobs and manifests. A blob counts in each repository that has it.
    #[serde(default)]
    pub(crate) bytes: Option<ByteSize>,
    /// The most manifests.
    #[serde(default)]
    pub(crate) manifests: Option<u64>,
    /// The most tags.
    #[serde(default)]
    pub(crate) tags: Option<u64>,
}

/// Returns the quotas in the form that the registry uses.
///
/// # Errors
/// The first key with an invalid value.
pub(crate) fn quotas(quotas: &[Quota]) -> Result<Vec<quota::Quota>, InvalidValue> {
    let quotas = quotas.iter().enumerate().map(|(index, quota)| {
        Ok(quota::Quota {
            repositories: parse_all(&format!("quotas[{index}].repositories"), &quota.repositories)?,
            bytes: quota.bytes.map(|bytes| bytes.0),
            manifests: quota.manifests,
            tags: quota.tags,
        })
    });
    quotas.collect()
}

/// Checks the values.
pub(in crate::config) fn check(entries: &[Quota], problems: &mut Problems<'_>) {
    if let Err(InvalidValue { path, message }) = quotas(entries) {
        problems.add(&path, message);
    }
    for (index, quota) in entries.iter().enumerate() {
        problems.required(
            &format!("quotas[{index}].repositories"),
            quota.repositories.is_empty(),
            "write `[\"**\"]` for all",
        );
        let mut earlier = entries.iter().take(index);
        if let Some(same) = earlier.position(|other| patterns(other) == patterns(quota)) {
            problems.add(
                &format!("quotas[{index}].repositories"),
                format!("are those of quotas[{same}]; write all limits there"),
            );
        }
        if quota.bytes.is_none() && quota.manifests.is_none() && quota.tags.is_none() {
            problems.add(
                &format!("quotas[{index}]"),
                "limits nothing; write for example `bytes: 50GiB`",
            );
        }
    }
}

/// Returns what is surprising about quotas: the key, and a sentence of which it is the subject.
pub(in crate::config) fn remarks(entries: &[Quota]) -> Vec<(String, String)> {
    let mut remarks = Vec::new();
    // The values are checked elsewhere.
    for (index, quota) in quotas(entries).unwrap_or_default().iter().enumerate() {
        let path = format!("quotas[{index}]");
        remarks.extend(patterns_of_none(&path, &quota.repositories));
        for (key, limit, what) in [
            ("bytes", quota.bytes, "nothing"),
            ("manifests", quota.manifests, "no manifest"),
            ("tags", quota.tags, "no tag"),
        ] {
            if limit == Some(0) {
                remarks.push((
                    format!("{path}.{key}"),
                    format!("is 0, so {what} can be pushed to these repositories"),
                ));
            }
        }
    }
    remarks
}

/// Returns the patterns, whose order does not matter.
fn patterns(quota: &Quota) -> BTreeSet<&str> {
    quota.repositories.iter().map(String::as_str).collect()
}
