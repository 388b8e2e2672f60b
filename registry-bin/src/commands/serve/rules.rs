//! The registry's options, as configured.

use registry_core::page::PageQuery;
use registry_core::registry::{CatalogKey, Options};
use uuid::Uuid;

use crate::config::Configuration;
use crate::config::sections::validation::Platforms;

/// Returns the options of a registry.
pub(super) fn rules(configuration: &Configuration) -> Options {
    let validation = &configuration.validation;
    // As in distribution, the old key `enabled` takes precedence over `disabled`.
    let is_validated = validation.enabled || !validation.disabled;
    let mut options = Options::default();
    options.delete = configuration.storage.delete.enabled;
    options.read_only = configuration.storage.maintenance.read_only.enabled;
    options.allow_sparse_indexes = !is_validated || validation.manifests.indexes.platforms == Platforms::None;
    options.allow_missing_children = validation.allow_missing_content;
    options.manifest_descriptor_limit = match usize::try_from(validation.manifests.most_descriptors) {
        Ok(limit @ 1..) => limit,
        _ => options.manifest_descriptor_limit,
    };
    options.catalog_page_limit = match usize::try_from(configuration.catalog.most_entries) {
        Ok(limit @ 1..) => limit.min(PageQuery::LARGEST),
        _ => options.catalog_page_limit,
    };
    options.tags_page_limit = match usize::try_from(configuration.tags.most_tags) {
        Ok(limit @ 1..) => limit.min(PageQuery::LARGEST),
        _ => options.tags_page_limit,
    };
    options.catalog_key = Some(catalog_key(configuration));
    options
}

/// Returns the key that hides positions in the catalog: the secret that all servers of one storage share, or otherwise
/// a random one of this process.
fn catalog_key(configuration: &Configuration) -> CatalogKey {
    match &configuration.http.secret {
        Some(secret) => CatalogKey::new(secret.reveal().as_bytes()),
        None => {
            let random = [Uuid::new_v4(), Uuid::new_v4()];
            CatalogKey::new(&random.map(Uuid::into_bytes).concat())
        }
    }
}
