//! What an operator may choose.

use crate::manifest::DEFAULT_SIZE_LIMIT;
use crate::page::PageQuery;
use crate::registry::CatalogKey;

/// What an operator may choose of a registry's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The most bytes of a manifest; a larger one is refused with 413. 4 MiB, which the specification asks for.
    pub manifest_size_limit: usize,
    /// The most contents that a manifest may name (configuration, layers, manifests of an index), each counted once; one
    /// that names more is refused with 400. 10 000, far above what any known client makes.
    pub manifest_descriptor_limit: usize,
    /// Deleting is allowed, of blobs, manifests and tags alike. It is.
    pub delete: bool,
    /// A manifest may name content that the repository does not have, such as the other platforms of an index of which
    /// one is copied. It may not: then a manifest that can be pulled can be pulled whole.
    pub allow_missing_children: bool,
    /// An index may name manifests that the repository does not have; all else that a manifest names must be there.
    /// It may not.
    pub allow_sparse_indexes: bool,
    /// Nothing may be written or deleted: such requests are refused with 405. It may.
    pub read_only: bool,
    /// The most tags on a page of their list, up to [`PageQuery::LARGEST`]. It is [`PageQuery::MAXIMUM`]. A client that
    /// does not say how many it wants gets all.
    pub tags_page_limit: usize,
    /// The most repositories on a page of the catalog, up to [`PageQuery::LARGEST`]. It is [`PageQuery::MAXIMUM`]. A
    /// client that does not say how many it wants gets ten times that, or this where it is more.
    pub catalog_page_limit: usize,
    /// What hides where a page of the catalog ends that has nothing to show: its link would name a repository that the
    /// client may not see. Servers of one storage need the same. Without it, and that is the default, such a page is
    /// read on until there is something to show, however long that takes.
    pub catalog_key: Option<CatalogKey>,
    /// A tag never moves once it is there; it may be deleted. It does move. For a rule that depends on the tag or on
    /// who pushes, refuse [`Action::Overwrite`](crate::operation::Action::Overwrite) instead.
    pub immutable_tags: bool,
    /// The most bytes of one page of a list of referrers; the rest is behind its `Link`. 4 MiB, which is what a
    /// client must be ready to read. A single larger descriptor is sent alone.
    pub referrers_size_limit: usize,
    /// Responses to requests with the parameter `ns` say so in `OCI-Namespace`, which is for a storage that does
    /// serve other registries' content. They do not.
    pub echo_namespace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            manifest_size_limit: DEFAULT_SIZE_LIMIT,
            manifest_descriptor_limit: 10_000,
            delete: true,
            allow_missing_children: false,
            allow_sparse_indexes: false,
            read_only: false,
            tags_page_limit: PageQuery::MAXIMUM,
            catalog_page_limit: PageQuery::MAXIMUM,
            catalog_key: None,
            immutable_tags: false,
            referrers_size_limit: 4 * 1024 * 1024,
            echo_namespace: false,
        }
    }
}
