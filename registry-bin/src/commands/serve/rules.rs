//! The registry's rules, as the configuration states them.

use registry_core::registry::Options;

use crate::config::Configuration;
use crate::config::sections::validation::Platforms;

/// What a registry allows.
pub(super) fn rules(configuration: &Configuration) -> Options {
    let validation = &configuration.validation;
    // In distribution, `enabled` of old goes before `disabled`.
    let is_validated = validation.enabled || !validation.disabled;
    let mut options = Options::default();
    options.delete = configuration.storage.delete.enabled;
    options.read_only = configuration.storage.maintenance.read_only.enabled;
    options.allow_sparse_indexes = !is_validated || validation.manifests.indexes.platforms == Platforms::None;
    options.catalog_page_limit = match usize::try_from(configuration.catalog.most_entries) {
        Ok(limit @ 1..) => limit.min(options.catalog_page_limit),
        _ => options.catalog_page_limit,
    };
    options.tags_page_limit = match usize::try_from(configuration.tags.most_tags) {
        Ok(limit @ 1..) => limit.min(options.tags_page_limit),
        _ => options.tags_page_limit,
    };
    options
}
