//! Which images of a layout become which repositories.

use std::collections::{BTreeMap, BTreeSet};

use registry_core::RepositoryName;
use serde::de::DeserializeOwned;

use super::index::{INDEX_FILE, LAYOUT_FILE, LayoutVersion, Listed, Listing};
use super::source::Source;
use super::{INDEX_BYTES, LayoutError};

/// Which entries become which repository. The layout need not say that for all of them.
pub(super) type Plan = BTreeMap<Option<RepositoryName>, Vec<Listed>>;

pub(super) async fn plan(source: &Source, wanted: &[RepositoryName]) -> Result<Plan, LayoutError> {
    let version: LayoutVersion = json(source, LAYOUT_FILE).await?;
    if !version.is_known() {
        let version = version.image_layout_version;
        let reason = format!("its layout has the version {version}, and this program knows 1.0.0");
        return Err(source.malformed(reason));
    }
    let index: Listing = json(source, INDEX_FILE).await?;
    let entries: Vec<_> = index
        .manifests
        .into_iter()
        .map(|entry| (entry.name.repository.clone(), entry))
        .collect();
    let names: BTreeSet<_> = entries.iter().filter_map(|(name, _)| name.clone()).collect();
    let only = match (wanted, names.len()) {
        ([single], 0 | 1) => Some(single.clone()),
        ([], 1) => names.first().cloned(),
        ([], 0) if !entries.is_empty() => {
            let reason = "it does not say of which repository it is; name the one to import it to";
            return Err(source.malformed(reason));
        }
        _ => None,
    };
    if only.is_none()
        && let Some(missing) = wanted.iter().find(|name| !names.contains(name))
    {
        let known: Vec<_> = names.iter().take(10).map(RepositoryName::as_str).collect();
        let reason = format!(
            "nothing in it is of {missing}; it has {} repositories: {}{}",
            names.len(),
            known.join(", "),
            if names.len() > known.len() { ", …" } else { "" }
        );
        return Err(source.malformed(reason));
    }
    let mut plan = Plan::new();
    for (name, entry) in entries {
        let name = only.clone().or(name);
        if only.is_some() || wanted.is_empty() || name.as_ref().is_some_and(|name| wanted.contains(name)) {
            plan.entry(name).or_default().push(entry);
        }
    }
    Ok(plan)
}

async fn json<T: DeserializeOwned + Send + 'static>(source: &Source, path: &str) -> Result<T, LayoutError> {
    let Some(read) = source.read_json(path, INDEX_BYTES).await? else {
        let hint = if source.find("manifest.json").await?.is_some() {
            "; what `docker save` wrote before Docker 25 is converted by `skopeo copy docker-archive:FILE oci:DIR`"
        } else {
            ""
        };
        return Err(source.malformed(format!("it is no image layout, as it has no file {path}{hint}")));
    };
    Ok(read)
}
