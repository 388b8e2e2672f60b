//! `health`: what is watched.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{FilePath, GoDuration, HostPort, SecretFields, SecretUrl};

/// What is watched, and shown by `/debug/health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthChecks {
    /// The storage.
    #[serde(rename = "storagedriver")]
    pub(crate) storage: StorageCheck,
    /// Files that must not exist.
    #[schemars(extend("x-variable" = "FILECHECKERS"))]
    pub(crate) file: Vec<FileCheck>,
    /// URLs that must answer.
    #[schemars(extend("x-variable" = "HTTPCHECKERS"))]
    pub(crate) http: Vec<HttpCheck>,
    /// Addresses that must accept connections.
    #[schemars(extend("x-variable" = "TCPCHECKERS"))]
    pub(crate) tcp: Vec<TcpCheck>,
}

impl HealthChecks {
    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        problems.timer("health.storagedriver.interval", self.storage.interval);
        for (index, check) in self.http.iter().enumerate() {
            let path = format!("health.http[{index}]");
            problems.timer(&format!("{path}.interval"), check.interval);
            problems.timer(&format!("{path}.timeout"), check.timeout);
            if !check.uri.is_http() {
                problems.add(
                    &format!("{path}.uri"),
                    "takes a URL that begins with http:// or https://",
                );
            }
            if check.status != 0 && !(100..600).contains(&check.status) {
                problems.add(
                    &format!("{path}.statuscode"),
                    format!("is {}, which no answer has; write for example 200", check.status),
                );
            }
        }
        for (index, check) in self.file.iter().enumerate() {
            problems.timer(&format!("health.file[{index}].interval"), check.interval);
            problems.required(
                &format!("health.file[{index}].file"),
                check.file.as_os_str().is_empty(),
                "name the file that must not exist",
            );
        }
        for (index, check) in self.tcp.iter().enumerate() {
            let path = format!("health.tcp[{index}]");
            problems.timer(&format!("{path}.interval"), check.interval);
            problems.timer(&format!("{path}.timeout"), check.timeout);
            let path = format!("{path}.addr");
            match HostPort::parse(&check.addr) {
                _ if check.addr.is_empty() => problems.add(&path, "is missing; write ADDRESS:PORT"),
                Err(problem) => problems.add(&path, problem),
                Ok(HostPort { host: "", .. } | HostPort { port: 0, .. }) => problems.add(
                    &path,
                    "takes an address and a port to connect to, such as 127.0.0.1:6379",
                ),
                Ok(_) => {}
            }
        }
    }
}

const TEN_SECONDS: GoDuration = GoDuration::from_secs(10);

/// A check of the storage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StorageCheck {
    /// Check that the disk reads and writes, or that the bucket answers, by one small read.
    pub(crate) enabled: bool,
    /// The time between two checks; 0 means 10s.
    pub(crate) interval: GoDuration,
    /// The failures in a row after which the check counts as failed; 0 means 1.
    pub(crate) threshold: u32,
}

impl Default for StorageCheck {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: TEN_SECONDS,
            threshold: 3,
        }
    }
}

/// A check that a file does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileCheck {
    /// The file; the check fails while it exists.
    pub(crate) file: FilePath,
    /// The time between two checks; 0 means 10s.
    pub(crate) interval: GoDuration,
    /// The failures in a row after which the check counts as failed; 0 means 1.
    pub(crate) threshold: u32,
}

impl Default for FileCheck {
    fn default() -> Self {
        Self {
            file: FilePath::default(),
            interval: TEN_SECONDS,
            threshold: 0,
        }
    }
}

/// A check that a URL answers to HEAD.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpCheck {
    /// The URL.
    pub(crate) uri: SecretUrl,
    /// Header fields of the request.
    pub(crate) headers: SecretFields,
    /// The expected status; 0 means 200.
    #[serde(rename = "statuscode")]
    pub(crate) status: u16,
    /// The longest that a check may take; 0 means the interval.
    pub(crate) timeout: GoDuration,
    /// The time between two checks; 0 means 10s.
    pub(crate) interval: GoDuration,
    /// The failures in a row after which the check counts as failed; 0 means 1.
    pub(crate) threshold: u32,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            uri: SecretUrl::default(),
            headers: SecretFields::default(),
            status: 0,
            timeout: GoDuration::default(),
            interval: TEN_SECONDS,
            threshold: 0,
        }
    }
}

/// A check that an address accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TcpCheck {
    /// The address.
    pub(crate) addr: String,
    /// The longest that a check may take; 0 means the interval.
    pub(crate) timeout: GoDuration,
    /// The time between two checks; 0 means 10s.
    pub(crate) interval: GoDuration,
    /// The failures in a row after which the check counts as failed; 0 means 1.
    pub(crate) threshold: u32,
}

impl Default for TcpCheck {
    fn default() -> Self {
        Self {
            addr: String::new(),
            timeout: GoDuration::default(),
            interval: TEN_SECONDS,
            threshold: 0,
        }
    }
}
