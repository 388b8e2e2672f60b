//! The kinds of storage and of authentication, each a key. A single word may stand for one: `storage: inmemory`.

/// The kinds of storage, of which exactly one must be configured.
pub(super) const DRIVERS: [&str; 7] = ["filesystem", "inmemory", "s3", "gcs", "azure", "swift", "oss"];

/// The kinds of authentication, of which at most one may be configured.
pub(super) const AUTHENTICATORS: [&str; 4] = ["none", "silly", "htpasswd", "token"];

/// Returns whether a single word may be a kind of storage or of authentication.
pub(super) fn is_kind(word: &str) -> bool {
    // distribution's older name for `s3`.
    word == "s3aws" || DRIVERS.contains(&word) || AUTHENTICATORS.contains(&word)
}
