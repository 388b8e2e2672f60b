//! The log: its destination and format.

mod line;

use std::io::{self, IsTerminal as _};

use serde_json::{Map, Value};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use self::line::{JsonLine, JsonNames, TextLine};
use crate::config::Configuration;
use crate::config::sections::log::{LogFormat, LogLevel};
use crate::line_writer::LineWriter;

/// The target of the access log, which has one line per request.
const ACCESS: &str = "registry_http::access";

/// The targets that follow the configured level.
const OURS: [&str; 4] = [
    "registry_core",
    "registry_storage",
    "registry_http",
    "registry_bin",
];

/// The settings of the log.
#[derive(Clone, Debug)]
pub(crate) struct Logging {
    format: LogFormat,
    filter: LogFilter,
    /// The additional fields of each line.
    fields: Map<String, Value>,
}

/// Which lines are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter {
    level: LogLevel,
    /// Whether to log one line per request.
    access: bool,
}

impl LogFilter {
    /// Returns the filter of the configuration.
    pub(crate) fn of(configuration: &Configuration) -> Self {
        Self {
            level: configuration.log.level,
            access: !configuration.log.access_log.disabled,
        }
    }

    fn build(self) -> Targets {
        let level = match self.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        let access = if self.access {
            LevelFilter::INFO
        } else {
            LevelFilter::OFF
        };
        // Below the level info, libraries report more about themselves than about the registry.
        Targets::new()
            .with_default(LevelFilter::WARN)
            .with_targets(OURS.map(|target| (target, level)))
            .with_target(ACCESS, access)
    }
}

/// Changes the filter of a running log.
#[derive(Clone, Debug)]
pub(crate) struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Uses another filter from now on.
    pub(crate) fn set(&self, filter: LogFilter) {
        if let Err(error) = self.0.reload(filter.build()) {
            tracing::error!(%error, "the level of the log could not be changed");
        }
    }
}

impl Logging {
    /// Returns the log settings of the configuration.
    pub(crate) fn of(configuration: &Configuration) -> Self {
        let fields = configuration.log.fields.clone();
        Self {
            format: configuration.log.formatter,
            filter: LogFilter::of(configuration),
            fields: fields.into_iter().collect(),
        }
    }

    /// Starts the log of a command on standard error.
    pub(crate) fn start(self) -> LogHandle {
        self.start_with(BoxMakeWriter::new(io::stderr))
    }

    /// Starts the log of a server through `writer`, which writes to standard error: no request waits for a slow reader.
    /// Panic messages go there too.
    pub(crate) fn start_through(self, writer: LineWriter) -> LogHandle {
        let handle = self.start_with(BoxMakeWriter::new(writer));
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        handle
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a variable of the terminal, not of the configuration"
    )]
    fn start_with(self, writer: BoxMakeWriter) -> LogHandle {
        let (filter, handle) = reload::Layer::new(self.filter.build());
        // https://no-color.org
        let has_colors =
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = fmt::layer().with_span_events(FmtSpan::NONE).with_writer(writer);
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
