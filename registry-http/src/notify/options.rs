//! The options of notifications, and why they may not work.

/// Options of all notifications.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NotificationOptions {
    /// Whether events of manifests include what the manifest references.
    pub include_references: bool,
    /// The host and port of this registry, by which receivers distinguish several.
    pub source: String,
    /// The beginning of content URLs, such as `https://registry.example`. By default, the URL that the client used.
    pub base_url: Option<String>,
}

/// Why notifications cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifierError {
    /// An endpoint is misconfigured.
    #[error("the endpoint {name:?} cannot be used: {reason}")]
    Endpoint {
        /// The endpoint's name.
        name: String,
        /// What is wrong, without secrets.
        reason: String,
    },
    /// The HTTP client cannot be created.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
}
