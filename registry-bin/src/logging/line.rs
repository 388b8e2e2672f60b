//! Log lines. Each event is one line of printable text of bounded length, whatever it contains.

use std::fmt::{self, Write as _};

use registry_core::printable::{Printable, printable_json, shortened};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The longest field or message, in bytes.
const FIELD_BYTES: usize = 8192;

/// A text line, with the operator's fields at its end.
pub(super) struct TextLine {
    suffix: String,
    is_colourful: bool,
}

impl TextLine {
    pub(super) fn new(fields: &Map<String, Value>, is_colourful: bool) -> Self {
        let suffix = fields.iter().map(|(name, value)| match value {
            Value::String(text) => format!(" {name}={}", Printable(text)),
            other => format!(" {name}={other}"),
        });
        Self {
            suffix: suffix.collect(),
            is_colourful,
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
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = *event.metadata().level();
        if self.is_colourful {
            let colour = colour(level);
            write!(
                writer,
                "\u{1b}[2m{time}\u{1b}[0m \u{1b}[{colour}m{level:>5}\u{1b}[0m "
            )?;
        } else {
            write!(writer, "{time} {level:>5} ")?;
        }
        writeln!(writer, "{}{}{}", text.message, text.fields, self.suffix)
    }
}

/// Returns the colour of a level on a terminal.
const fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Collects the message and fields of an event as text.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &shortened(value, FIELD_BYTES));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let value = shortened(&value, FIELD_BYTES);
        let value = Printable(&value);
        // Writing to a string cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value}"),
            // The source location that the crate `log` adds.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

/// The names of the parts of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonNames {
    time: &'static str,
    message: &'static str,
    /// The name under which logstash expects the version of its format.
    version: Option<&'static str>,
}

impl JsonNames {
    /// The names in distribution's log.
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

/// A line with one JSON object.
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
        writeln!(
            writer,
            "{}",
            printable_json(Value::Object(line.object).to_string())
        )
    }
}

/// Returns the name of the level in distribution's log.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Collects the message and fields of an event as JSON.
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
        self.add(field, shortened(value, FIELD_BYTES));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, shortened(&format!("{value:?}"), FIELD_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use registry_core::printable::is_printable;

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

    fn logged(line: impl Form) -> String {
        logged_by(line, || {
            tracing::warn!(count = 3, name = "a\"b", "two\nlines");
        })
    }

    trait Form:
        FormatEvent<tracing_subscriber::Registry, tracing_subscriber::fmt::format::DefaultFields>
        + Send
        + Sync
        + 'static
    {
    }

    impl Form for TextLine {}
    impl Form for JsonLine {}

    fn logged_by(line: impl Form, log_something: impl FnOnce()) -> String {
        let output = Output::default();
        let writer = output.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(line)
            .finish();
        tracing::subscriber::with_default(log, log_something);
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
            text.ends_with("Z  WARN two\\nlines count=3 name=\"a\\\"b\" service=registry\n"),
            "{text}"
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_told_is_one_printable_line(text in proptest::prelude::any::<String>()) {
            let said = format!("{text}\u{85}\u{9b}\u{202e}\u{2066}\u{2028}");
            let say = || tracing::info!(shown = %said, quoted = &*said, "{said}");
            let json = || JsonLine::new(fields(), JsonNames::PLAIN);
            for line in [logged_by(TextLine::new(&fields(), false), say), logged_by(json(), say)] {
                let line = line.strip_suffix('\n').unwrap();
                proptest::prop_assert!(line.chars().all(is_printable), "{}", line);
            }
            let line: Value = serde_json::from_str(&logged_by(json(), say)).unwrap();
            for name in ["msg", "shown", "quoted"] {
                proptest::prop_assert_eq!(line[name].as_str(), Some(&*said));
            }
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "x".repeat(100_000);
        let say = || tracing::info!(shown = %long, quoted = &*long, "{long}");
        for line in [
            logged_by(TextLine::new(&fields(), false), say),
            logged_by(JsonLine::new(fields(), JsonNames::PLAIN), say),
        ] {
            assert!(line.len() < 4 * FIELD_BYTES, "{}", line.len());
            assert!(line.contains("more bytes]"), "{line}");
        }
    }
}
