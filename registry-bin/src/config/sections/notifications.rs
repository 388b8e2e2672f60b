//! `notifications`: who is told of pushes, pulls and deletes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, GoDuration, SecretFields, SecretUrl};

/// Who is told of pushes, pulls and deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Notifications {
    /// What events say.
    #[schemars(extend("x-variable" = "EVENTCONFIG"))]
    pub(crate) events: Events,
    /// Who is told.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Where events wait until they were told.
    pub(crate) outbox: Outbox,
}

impl Notifications {
    /// Tells whether anybody is told.
    pub(crate) fn is_on(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.disabled)
    }
}

/// What events say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Events {
    /// An event of a manifest names what the manifest names.
    #[serde(rename = "includereferences")]
    pub(crate) include_references: bool,
}

/// Where events wait until they were told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outbox {
    /// The most events that wait, at least 1; beyond it the oldest are dropped.
    pub(crate) limit: u32,
    /// The most bytes that they take, at least 1 MiB; beyond it the oldest are dropped.
    pub(crate) bytes: u64,
    /// The file that they wait in, of this server alone; unless given, `notifications` beside the data, or the memory where
    /// the data is in no folder.
    pub(crate) path: Option<FilePath>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            limit: 100_000,
            bytes: 64 * 1024 * 1024,
            path: None,
        }
    }
}

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Endpoint {
    /// What the log and the metrics call it.
    pub(crate) name: String,
    /// Nothing is sent to it.
    pub(crate) disabled: bool,
    /// Where events are sent by POST.
    pub(crate) url: SecretUrl,
    /// Header fields of each request, such as `Authorization: [Bearer …]`.
    pub(crate) headers: SecretFields,
    /// How long sending an event may take; 0 means 1s.
    pub(crate) timeout: GoDuration,
    /// After how many failures in a row it is left alone for `backoff`; 0 means 10.
    pub(crate) threshold: u32,
    /// How long it is left alone after `threshold` failures; 0 means 1s.
    pub(crate) backoff: GoDuration,
    /// Media types of what is not told.
    #[serde(rename = "ignoredmediatypes")]
    pub(crate) ignored_media_types: Vec<String>,
    /// What is not told.
    pub(crate) ignore: Ignore,
    /// The form of an event.
    pub(crate) format: EventFormat,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            name: String::new(),
            disabled: false,
            url: SecretUrl::default(),
            headers: SecretFields::default(),
            timeout: GoDuration::from_secs(1),
            threshold: 10,
            backoff: GoDuration::from_secs(1),
            ignored_media_types: Vec::new(),
            ignore: Ignore::default(),
            format: EventFormat::default(),
        }
    }
}

/// What is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ignore {
    /// Media types of what is not told.
    #[serde(rename = "mediatypes")]
    pub(crate) media_types: Vec<String>,
    /// What happened to it.
    pub(crate) actions: Vec<EventAction>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventAction {
    /// Something was read.
    Pull,
    /// Something was written.
    Push,
    /// A blob of another repository was taken over.
    Mount,
    /// Something was deleted.
    Delete,
}

/// The form of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventFormat {
    /// That of distribution, with the media type of registry:3.
    #[default]
    Distribution,
    /// The same with the media type of registry:2, for receivers that look at it.
    #[serde(rename = "distribution-v1")]
    DistributionVersion1,
    /// An event of the `CloudEvents` specification, as JSON.
    CloudEvents,
}
