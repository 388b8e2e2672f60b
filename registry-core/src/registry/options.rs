//! What an operator may configure.

use crate::manifest::DEFAULT_SIZE_LIMIT;
use crate::page::PageQuery;
use crate::registry::CatalogKey;

/// The rules of a registry that an operator may configure.
///
/// A blob has no maximum size. For one, bound what the client announces with an [`Admission`](crate::Admission), or what
/// arrives with a wrapper of the [`Storage`](crate::Storage).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The maximum size of a manifest in bytes; a larger one is refused with 413. The default is 4 MiB, which the
    /// specification asks for.
    pub manifest_size_limit: usize,
    /// The maximum number of contents that a manifest may name (configuration, layers, manifests of an index), each
    /// counted once; a manifest that names more is refused with 400. The default is 10 000, far above what any known
    /// client creates.
    pub manifest_descriptor_limit: usize,
    /// A manifest may name content that the repository does not have, such as the other platforms of an index of which
    /// one is copied. The default is `false`: then a manifest that can be pulled can be pulled whole.
    pub allow_missing_children: bool,
    /// An index may name manifests that the repository does not have; everything else that a manifest names must exist.
    /// The default is `false`.
    pub allow_sparse_indexes: bool,
    /// The maximum number of tags on a page of their list, up to [`PageQuery::LARGEST_ITEMS`]. The default is
    /// [`PageQuery::MAXIMUM_ITEMS`]. A client that does not say how many it wants gets all.
    pub tags_page_limit: usize,
    /// The maximum number of repositories on a page of the catalog, up to [`PageQuery::LARGEST_ITEMS`]. The default is
    /// [`PageQuery::MAXIMUM_ITEMS`]. A client that does not say how many it wants gets ten times [`PageQuery::MAXIMUM_ITEMS`], or
    /// this number if it is larger.
    pub catalog_page_limit: usize,
    /// Hides where a page of the catalog ends that has nothing to show: its link would name a repository that the
    /// client may not see. All servers of one storage need the same key. The default is `None`: then such a page is
    /// read on until there is something to show, however long that takes.
    pub catalog_key: Option<CatalogKey>,
    /// The maximum size in bytes of one page of a list of referrers; the rest follows through its `Link`. The default
    /// is 4 MiB, which is what a client must be ready to read. A single larger descriptor is sent alone.
    pub referrers_size_limit: usize,
    /// The size in bytes from which on a client is sent elsewhere for a blob, with 307, if the storage knows a
    /// [URL](crate::storage::BlobContent::signed_url) where it can read it. The default is `None`: content always comes from the
    /// registry.
    pub redirect_from_size: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            manifest_size_limit: DEFAULT_SIZE_LIMIT,
            manifest_descriptor_limit: 10_000,
            allow_missing_children: false,
            allow_sparse_indexes: false,
            tags_page_limit: PageQuery::MAXIMUM_ITEMS,
            catalog_page_limit: PageQuery::MAXIMUM_ITEMS,
            catalog_key: None,
            referrers_size_limit: 4 * 1024 * 1024,
            redirect_from_size: None,
        }
    }
}
