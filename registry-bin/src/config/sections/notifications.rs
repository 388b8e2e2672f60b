//! `notifications`: who is told of pushes, pulls and deletes.

use registry_storage::outbox::OutboxLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{ByteSize, FilePath, GoDuration, SecretFields, SecretUrl, shown};

/// Who is told of pushes, pulls and deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Notifications {
    /// What events say.
    #[schemars(extend("x-variable" = "EVENTCONFIG"))]
    pub(crate) events: Events,
    /// Who is told.
    pub(crate) endpoints: Vec<EventEndpoint>,
    /// The queue of events that wait to be sent.
    pub(crate) outbox: Outbox,
}

impl Notifications {
    /// Returns whether any endpoint is enabled.
    pub(crate) fn is_on(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.disabled)
    }

    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        let (endpoints, outbox) = (&self.endpoints, &self.outbox);
        if outbox.limit == 0 {
            problems.add(
                "notifications.outbox.limit",
                "is 0, and what cannot wait is not told; write for example 100000",
            );
        }
        if outbox.bytes.0 < OutboxLimits::LEAST_BYTES {
            problems.add(
                "notifications.outbox.bytes",
                format!(
                    "is {}, and must be at least {}",
                    outbox.bytes,
                    ByteSize(OutboxLimits::LEAST_BYTES)
                ),
            );
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = format!("notifications.endpoints[{index}]");
            problems.timer(&format!("{path}.timeout"), endpoint.timeout);
            problems.timer(&format!("{path}.backoff"), endpoint.backoff);
            if endpoint.disabled {
                continue;
            }
            problems.required(
                &format!("{path}.name"),
                endpoint.name.is_empty(),
                "the log and the metrics need one",
            );
            if !endpoint.url.is_http() {
                problems.add(
                    &format!("{path}.url"),
                    "takes a URL that begins with http:// or https://",
                );
            }
            if endpoints
                .iter()
                .take(index)
                .any(|other| other.name == endpoint.name)
            {
                problems.add(
                    &format!("{path}.name"),
                    format!(
                        "{} is the name of another endpoint; give it its own",
                        shown(&endpoint.name)
                    ),
                );
            }
        }
    }
}

/// What events say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Events {
    /// List the contents of a manifest in its events.
    #[serde(rename = "includereferences")]
    pub(crate) include_references: bool,
}

/// The queue of events that wait to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outbox {
    /// The most events that wait, at least 1; beyond that the oldest are dropped.
    pub(crate) limit: u32,
    /// The most bytes that they take, at least 1 MiB; beyond that the oldest are dropped.
    pub(crate) bytes: ByteSize,
    /// The file that they wait in, for this server alone; by default `notifications` beside the data, or memory if the data is not in a folder.
    pub(crate) path: Option<FilePath>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            limit: 100_000,
            bytes: ByteSize(64 * 1024 * 1024),
            path: None,
        }
    }
}

/// A receiver of events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EventEndpoint {
    /// Its name in the log and the metrics.
    pub(crate) name: String,
    /// Send nothing to this endpoint.
    pub(crate) disabled: bool,
    /// The URL to POST events to.
    pub(crate) url: SecretUrl,
    /// Header fields of each request, such as `Authorization: [Bearer …]`.
    pub(crate) headers: SecretFields,
    /// The longest that sending an event may take; 0 means 1s.
    pub(crate) timeout: GoDuration,
    /// The failures in a row after which sending pauses for `backoff`; 0 means 10.
    pub(crate) threshold: u32,
    /// How long to pause after `threshold` failures; 0 means 1s.
    pub(crate) backoff: GoDuration,
    /// Media types whose events are not sent.
    #[serde(rename = "ignoredmediatypes")]
    pub(crate) ignored_media_types: Vec<String>,
    /// What is not told.
    pub(crate) ignore: Ignore,
    /// The format of an event.
    pub(crate) format: EventFormat,
}

impl Default for EventEndpoint {
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
    /// Media types whose events are not sent.
    #[serde(rename = "mediatypes")]
    pub(crate) media_types: Vec<String>,
    /// Actions whose events are not sent.
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

/// The format of an event.
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
