//! Lines of the log.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A line to read, with the operator's fields at its end.
pub(super) struct TextLine {
    line: Format<Full, SystemTime>,
    suffix: String,
}

impl TextLine {
    pub(super) fn new(fields: &Map<String, Value>, is_colourful: bool) -> Self {
        let suffix = fields.iter().map(|(name, value)| match value {
            Value::String(text) => format!(" {name}={text}"),
            other => format!(" {name}={other}"),
        });
        Self {
            line: Format::default().with_target(false).with_ansi(is_colourful),
            suffix: suffix.collect(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.suffix.is_empty() {
            return self.line.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}{}", line.trim_end_matches('\n'), self.suffix)
    }
}

/// What the parts of a line are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonNames {
    time: &'static str,
    message: &'static str,
    /// What logstash calls the version of its form.
    version: Option<&'static str>,
}

impl JsonNames {
    /// The names in distribution's lines.
    pub(super) const PLAIN: Self = Self {
        time: "time",
        message: "msg",
        version: None,
    };

    /// The names that logstash expects.
    pub(super) const LOGSTASH: Self = Self {
        time: "@timestamp",
        message: "message",
        version: Some("@version"),
    };
}

/// A line that is one JSON object.
pub(super) struct JsonLine {
    fields: Map<String, Value>,
    names: JsonNames,
}

impl JsonLine {
    pub(super) fn new(fields: Map<String, Value>, names: JsonNames) -> Self {
        Self { fields, names }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line {
            object: self.fields.clone(),
            message: self.names.message,
        };
        event.record(&mut line);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut add = |name: &str, value: &str| line.object.insert(name.to_owned(), value.into());
        add(self.names.time, &time);
        add("level", level(*event.metadata().level()));
        if let Some(version) = self.names.version {
            add(version, "1");
        }
        writeln!(writer, "{}", Value::Object(line.object))
    }
}

/// The level as distribution names it.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Takes what an event says.
struct Line {
    object: Map<String, Value>,
    message: &'static str,
}

impl Line {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name() {
            "message" => self.message,
            name => name,
        };
        self.object.insert(name.to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fields() -> Map<String, Value> {
        [("service".to_owned(), Value::from("registry"))]
            .into_iter()
            .collect()
    }

    fn logged(
        line: impl FormatEvent<tracing_subscriber::Registry, tracing_subscriber::fmt::format::DefaultFields>
        + Send
        + Sync
        + 'static,
    ) -> String {
        let output = Output::default();
        let writer = output.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(line)
            .finish();
        tracing::subscriber::with_default(log, || tracing::warn!(count = 3, name = "a\"b", "two\nlines"));
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_operators_fields() {
        for (names, time, message) in [
            (JsonNames::PLAIN, "time", "msg"),
            (JsonNames::LOGSTASH, "@timestamp", "message"),
        ] {
            let text = logged(JsonLine::new(fields(), names));
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let line: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line[message], "two\nlines");
            assert_eq!(line["level"], "warning");
            assert_eq!(line["service"], "registry");
            assert_eq!(
                (&line["count"], &line["name"]),
                (&Value::from(3), &Value::from("a\"b"))
            );
            assert!(line[time].as_str().unwrap().ends_with('Z'), "{text}");
            assert_eq!(line.get("@version").is_some(), names.version.is_some());
        }
    }

    #[test]
    fn text_ends_with_the_operators_fields() {
        let text = logged(TextLine::new(&fields(), false));
        assert!(
            text.contains("WARN") && text.ends_with(" service=registry\n"),
            "{text}"
        );
    }
}
