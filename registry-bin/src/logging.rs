//! The log: where it goes and how it looks.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::Configuration;
use crate::config::sections::log::{LogFormat, LogLevel};

/// The target of the access log, one line for each request.
const ACCESS: &str = "registry_http::access";

/// What is logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logging {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
    /// One line for each request.
    pub(crate) access: bool,
}

impl Logging {
    /// What the configuration says of the log.
    pub(crate) fn of(configuration: &Configuration) -> Self {
        Self {
            format: configuration.log.formatter,
            level: configuration.level(),
            access: !configuration.log.access_log.disabled,
        }
    }

    /// Sends the log of this process to the standard error.
    pub(crate) fn start(self) {
        let level = match self.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        };
        // Below info the libraries underneath tell more of themselves than of the registry.
        let access = if self.access { "info" } else { "off" };
        let filter = EnvFilter::new(format!(
            "warn,registry_core={level},registry_storage={level},registry_http={level},registry_bin={level},{ACCESS}={access}"
        ));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_span_events(FmtSpan::NONE)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        match self.format {
            LogFormat::Text => log.with_target(false).init(),
            LogFormat::Json | LogFormat::Logstash => log.json().flatten_event(true).init(),
        }
    }
}
