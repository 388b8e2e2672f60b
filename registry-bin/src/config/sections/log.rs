//! `log`: what is logged, and how.

use std::collections::BTreeMap;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, Secret};

/// The log of the server and the log of its requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// The lowest level to log.
    pub(crate) level: LogLevel,
    /// The format of a line.
    pub(crate) formatter: LogFormat,
    /// Fields added to each line of the log.
    pub(crate) fields: BTreeMap<String, serde_json::Value>,
    /// One line for each request.
    #[serde(rename = "accesslog")]
    pub(crate) access_log: AccessLog,
    /// A line for each write and each refused request.
    pub(crate) audit: AuditLog,
    /// Mail on messages of some levels.
    pub(crate) hooks: Vec<LogHook>,
    /// Name the line of code of each message.
    #[serde(rename = "reportcaller")]
    pub(crate) report_caller: bool,
}

/// The lowest level to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Failures of the registry.
    Error,
    /// What needs attention.
    #[serde(alias = "warning")]
    Warn,
    /// One line for each request, and what changes.
    #[default]
    Info,
    /// What helps to find a fault.
    Debug,
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines to read.
    #[default]
    #[serde(alias = "")]
    Text,
    /// One JSON object a line.
    Json,
    /// One JSON object a line, with the keys that logstash expects.
    Logstash,
}

/// One line for each request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessLog {
    /// Write no access log.
    pub(crate) disabled: bool,
    /// The format of a line.
    pub(crate) format: AccessLogFormat,
}

/// The form of a line of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessLogFormat {
    /// As the log itself, and among its lines.
    Text,
    /// Apache's combined form, on the standard output.
    #[default]
    Combined,
    /// One JSON object a line, on the standard output.
    Json,
}

/// A line for each write and each refused request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuditLog {
    /// Write the audit log; by default if `path` is set.
    pub(crate) enabled: Option<bool>,
    /// The lowest level to write: `info` is everything, `warn` what was refused, invalid or failed, `error` what failed.
    pub(crate) level: LogLevel,
    /// The file to append to; by default standard error.
    pub(crate) path: Option<FilePath>,
}

impl AuditLog {
    /// Returns whether the audit log is on.
    pub(crate) fn is_on(&self) -> bool {
        self.enabled.unwrap_or_else(|| self.path.is_some())
    }
}

/// Mail on messages of some levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogHook {
    /// The hook does nothing.
    pub(crate) disabled: bool,
    /// `mail`.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The levels that it is about.
    pub(crate) levels: Vec<String>,
    /// The recipients, and how to reach them.
    #[schemars(extend("x-variable" = "MAILOPTIONS"))]
    pub(crate) options: MailOptions,
}

/// Whom to mail, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MailOptions {
    /// The mail server.
    pub(crate) smtp: Smtp,
    /// The sender.
    pub(crate) from: Option<String>,
    /// The recipients.
    pub(crate) to: Vec<String>,
}

/// A mail server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Smtp {
    /// Its address.
    pub(crate) addr: Option<String>,
    /// The user to log in as.
    pub(crate) username: Option<String>,
    /// The user's password.
    pub(crate) password: Option<Secret>,
    /// Do not verify its certificate.
    pub(crate) insecure: bool,
}
