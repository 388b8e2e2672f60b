//! What an operator may choose.

use crate::manifest::DEFAULT_SIZE_LIMIT;

/// What an operator may choose of a registry's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The most bytes of a manifest; a larger one is refused with 413. 4 MiB, which the specification asks for.
    pub manifest_size_limit: usize,
    /// Deleting is allowed, of blobs, manifests and tags alike. It is.
    pub delete: bool,
    /// A manifest may name content that the repository does not have, such as the other platforms of an index of which
    /// one is copied. It may not: then a manifest that can be pulled can be pulled whole.
    pub allow_missing_children: bool,
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
            delete: true,
            allow_missing_children: false,
            immutable_tags: false,
            referrers_size_limit: 4 * 1024 * 1024,
            echo_namespace: false,
        }
    }
}
