//! The log: where it goes and how it looks.

mod line;

use std::io::{self, IsTerminal as _};

use serde_json::{Map, Value};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use self::line::{JsonLine, JsonNames, TextLine};
use crate::config::Configuration;
use crate::config::sections::log::{LogFormat, LogLevel};
use crate::line_writer::LineWriter;

/// The target of the access log, one line for each request.
const ACCESS: &str = "registry_http::access";

/// What is logged.
#[derive(Clone, Debug)]
pub(crate) struct Logging {
    format: LogFormat,
    filter: LogFilter,
    /// What each line says in addition.
    fields: Map<String, Value>,
}

/// Which lines are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter {
    level: LogLevel,
    /// One line for each request.
    access: bool,
}

impl LogFilter {
    /// What the configuration says of it.
    pub(crate) fn of(configuration: &Configuration) -> Self {
        Self {
            level: configuration.log.level,
            access: !configuration.log.access_log.disabled,
        }
    }

    fn build(self) -> EnvFilter {
        let level = match self.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        };
        // Below info the libraries underneath tell more of themselves than of the registry.
        let access = if self.access { "info" } else { "off" };
        EnvFilter::new(format!(
            "warn,registry_core={level},registry_storage={level},registry_http={level},registry_bin={level},{ACCESS}={access}"
        ))
    }
}

/// Changes the filter of a log that runs.
#[derive(Clone, Debug)]
pub(crate) struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Logs by another filter from now on.
    pub(crate) fn set(&self, filter: LogFilter) {
        if let Err(error) = self.0.reload(filter.build()) {
            tracing::error!(%error, "the level of the log could not be changed");
        }
    }
}

impl Logging {
    /// What the configuration says of the log.
    pub(crate) fn of(configuration: &Configuration) -> Self {
        let fields = configuration.log.fields.clone();
        Self {
            format: configuration.log.formatter,
            filter: LogFilter::of(configuration),
            fields: fields.into_iter().collect(),
        }
    }

    /// Sends the log of a command to the standard error.
    pub(crate) fn start(self) -> LogHandle {
        self.start_with(BoxMakeWriter::new(io::stderr))
    }

    /// Sends the log of a server through `writer`, which writes to the standard error: no request waits for whoever
    /// reads it. What a thread that panics has to say goes there too.
    pub(crate) fn start_through(self, writer: LineWriter) -> LogHandle {
        let handle = self.start_with(BoxMakeWriter::new(writer));
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        handle
    }

    fn start_with(self, writer: BoxMakeWriter) -> LogHandle {
        let (filter, handle) = reload::Layer::new(self.filter.build());
        // https://no-color.org
        let has_colors =
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = fmt::layer()
            .with_span_events(FmtSpan::NONE)
            .with_writer(writer)
            .with_ansi(has_colors);
        let lines = match self.format {
            LogFormat::Text => lines
                .event_format(TextLine::new(&self.fields, has_colors))
                .boxed(),
            LogFormat::Json => lines
                .event_format(JsonLine::new(self.fields, JsonNames::PLAIN))
                .boxed(),
            LogFormat::Logstash => lines
                .event_format(JsonLine::new(self.fields, JsonNames::LOGSTASH))
                .boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        LogHandle(handle)
    }
}
