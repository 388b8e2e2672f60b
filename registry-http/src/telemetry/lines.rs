//! Request logs with one line per request, for people and for programs.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use registry_core::Timestamp;
use registry_core::operation::Action;
use registry_core::printable::printable_json;
use serde::Serialize;

use super::access_log::AccessLog;
use super::observer::RequestObserver;
use super::record::RequestRecord;

/// Receives complete lines, without the line feed. Must not block.
pub trait LineSink: fmt::Debug + Send + Sync + 'static {
    /// Writes a line.
    fn write(&self, line: String);
}

/// The content and format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineFormat {
    /// Every request, in Apache's combined log format, like the distribution registry.
    Combined,
    /// Every request as a JSON object.
    Json,
    /// Every request that would change something and every refused request, as a JSON object: who wanted what, from
    /// where, and the outcome. Lines below the level are left out.
    Audit(AuditLevel),
}

/// The severity of a line in the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditLevel {
    /// The request was carried out.
    #[default]
    Info,
    /// The request was refused or invalid, or the client disconnected before it was answered.
    Warn,
    /// The request failed.
    Error,
}

/// Writes one line per request in the given format. It stays one line whatever the client sends.
#[derive(Debug)]
pub struct LineLog<S> {
    format: LineFormat,
    sink: S,
}

impl<S: LineSink> LineLog<S> {
    /// Creates a log that writes to `sink`.
    #[must_use]
    pub const fn new(format: LineFormat, sink: S) -> Self {
        Self { format, sink }
    }
}

impl<S: LineSink> RequestObserver for LineLog<S> {
    fn finished(&self, record: &RequestRecord) {
        let line = match self.format {
            LineFormat::Combined => Some(combined(record)),
            LineFormat::Json => json(record),
            LineFormat::Audit(least) => audit(record, least),
        };
        if let Some(line) = line {
            self.sink.write(line);
        }
        if !matches!(self.format, LineFormat::Audit(_)) {
            AccessLog::failed(record);
        }
    }
}

/// `HOST - USER [TIME] "METHOD TARGET VERSION" STATUS BYTES "REFERER" "AGENT"`
fn combined(record: &RequestRecord) -> String {
    let mut line = String::with_capacity(256);
    match record.client() {
        Some(address) => line.push_str(&address.to_string()),
        None => line.push('-'),
    }
    line.push_str(" - ");
    if record.principal.is_empty() {
        line.push('-');
    } else {
        escape(&mut line, record.principal.as_bytes(), true);
    }
    line.push_str(" [");
    push_time(&mut line, record.time);
    line.push_str("] \"");
    line.push_str(record.method.as_str());
    line.push(' ');
    push_target(&mut line, record);
    line.push_str(&format!(" {:?}\" ", record.version));
    match record.status {
        Some(status) => line.push_str(&status.to_string()),
        None => line.push('-'),
    }
    line.push_str(&format!(" {} \"", record.sent));
    escape(&mut line, bytes(record.referer.as_ref()), false);
    line.push_str("\" \"");
    escape(&mut line, bytes(record.user_agent.as_ref()), false);
    line.push('"');
    line
}

fn push_target(line: &mut String, record: &RequestRecord) {
    // A target contains no spaces or control characters, but a quote would end the field.
    escape(line, record.path.as_bytes(), true);
    if let Some(query) = &record.query {
        line.push('?');
        escape(line, query.as_bytes(), true);
    }
}

/// Writes `21/Nov/2026:14:58:20 +0000`.
fn push_time(line: &mut String, time: SystemTime) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let time = timestamp(time);
    let (year, month, day) = time.date();
    let month = usize::try_from(month).unwrap_or(0).saturating_sub(1);
    let month = MONTHS.get(month).unwrap_or(&"Jan");
    let seconds = time.0 / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    line.push_str(&format!(
        "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000"
    ));
}

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn bytes(field: Option<&http::HeaderValue>) -> &[u8] {
    field.map_or(b"", http::HeaderValue::as_bytes)
}

/// Writes a client's text like Apache's server: quotes and backslashes are escaped with a backslash, and bytes other
/// than printable ASCII as `\xhh`. If `is_bare`, so are spaces, which would end the field.
fn escape(line: &mut String, text: &[u8], is_bare: bool) {
    for byte in text {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            b' ' if is_bare => line.push_str("\\x20"),
            b' '..=b'~' => line.push(char::from(*byte)),
            _ => line.push_str(&format!("\\x{byte:02x}")),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<AuditLevel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    principal: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    protocol: String,
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    received: u64,
    sent: u64,
    /// Milliseconds, with microseconds as decimals.
    duration_ms: f64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl<'a> Line<'a> {
    fn of(record: &'a RequestRecord) -> Self {
        let text = |field: Option<&http::HeaderValue>| {
            field.map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned())
        };
        let (trace_id, span_id) = record.span.identifiers().unzip();
        Self {
            time: timestamp(record.time).to_string(),
            level: None,
            event: None,
            id: record.id.to_string(),
            trace_id,
            span_id,
            outcome: None,
            client: record.shown_client(),
            principal: &record.principal,
            action: record.action.map(Action::as_str),
            repository: record.repository.as_ref().map(|name| name.as_str()),
            tag: record.tag.as_ref().map(|tag| tag.as_str()),
            digest: record.digest.as_ref().map(|digest| digest.as_str()),
            method: record.method.as_str(),
            path: &record.path,
            query: record.query.as_deref(),
            protocol: format!("{:?}", record.version),
            status: record.status,
            error: record.error.as_ref().map(|error| error.code().as_str()),
            received: record.received,
            sent: record.sent,
            duration_ms: record.duration.as_micros() as f64 / 1000.0,
            complete: record.is_complete,
            host: text(record.host.as_ref()),
            referer: text(record.referer.as_ref()),
            user_agent: text(record.user_agent.as_ref()),
        }
    }
}

fn json(record: &RequestRecord) -> Option<String> {
    encode(&Line::of(record))
}

fn encode(line: &Line<'_>) -> Option<String> {
    serde_json::to_string(line).ok().map(printable_json)
}

/// Writes who did or wanted what. Returns `None` for a read that was not refused, or if the level is below `least`.
fn audit(record: &RequestRecord, least: AuditLevel) -> Option<String> {
    let status = record.status;
    let is_refused = record.is_refused();
    if !is_refused && !record.is_write() {
        return None;
    }
    // Without a body, or if a mount is not possible, the blob that a POST names does not exist yet.
    let is_start = record.handler == "blob_upload" && status == Some(202);
    let (level, outcome) = match status {
        _ if is_start => (AuditLevel::Info, "started"),
        _ if is_refused => (AuditLevel::Warn, "refused"),
        Some(200..400) => (AuditLevel::Info, "done"),
        Some(400..500) => (AuditLevel::Warn, "invalid"),
        // The client disconnected before it was answered; its request may have been carried out.
        None => (AuditLevel::Warn, "unknown"),
        Some(_) => (AuditLevel::Error, "failed"),
    };
    if level < least {
        return None;
    }
    let mut line = Line {
        level: Some(level),
        event: Some("audit"),
        outcome: Some(outcome),
        ..Line::of(record)
    };
    if is_start {
        line.digest = None;
    }
    encode(&line)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use http::Request;
    use registry_core::printable::is_printable;
    use registry_core::{Error, ErrorCode};
    use serde_json::Value;

    use super::*;
    use crate::address::PeerAddress;

    fn record(method: &str, uri: &str, agent: &[u8]) -> RequestRecord {
        let request = Request::builder().method(method).uri(uri);
        let request = request
            .header("user-agent", agent)
            .header("referer", "http://x/y");
        let mut record = RequestRecord::new(&request.body(()).unwrap().into_parts().0);
        record.time = UNIX_EPOCH + Duration::from_millis(1_795_273_100_076);
        record.peer = Some(PeerAddress::Tcp(([10, 0, 0, 1], 4711).into()));
        record.status = Some(200);
        record.sent = 396;
        record
    }

    #[test]
    fn the_combined_format_is_that_of_apache() {
        let mut record = record("GET", "/v2/a/b/manifests/t?ns=x&token=canary", b"agent/1 (x)");
        let line = "10.0.0.1 - - [21/Nov/2026:14:58:20 +0000] \"GET /v2/a/b/manifests/t?ns=x&*** HTTP/1.1\" 200 396 \
                    \"http://x/y\" \"agent/1 (x)\"";
        assert_eq!(combined(&record), line);
        record.principal = "alice".into();
        record.peer = Some(PeerAddress::Unix);
        record.status = None;
        assert!(combined(&record).starts_with("- - alice ["));
        assert!(combined(&record).contains("HTTP/1.1\" - 396 "));
    }

    #[test]
    fn nothing_that_a_client_sends_forges_a_line() {
        let mut record = record("GET", "/v2/", b"a\" 200 \\\tb\xff");
        record.principal = "eve\n127.0.0.1 - - [x] \"GET\u{1b}[31m\u{2028}".into();
        let line = combined(&record);
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        assert!(line.ends_with("\"a\\\" 200 \\\\\\x09b\\xff\""), "{line}");
        let user = line.split(' ').nth(2).unwrap();
        assert!(user.starts_with("eve\\x0a127.0.0.1\\x20-"), "{line}");
        for line in [json(&record).unwrap(), audit_refused(record)] {
            assert!(!line.contains(['\n', '\u{1b}']), "{line}");
            let value: Value = serde_json::from_str(&line).unwrap();
            assert!(value["principal"].as_str().unwrap().contains('\n'));
        }
    }

    fn audit_refused(mut record: RequestRecord) -> String {
        record.status = Some(403);
        audit(&record, AuditLevel::Info).unwrap()
    }

    #[test]
    fn every_write_and_every_refusal_is_audited() {
        for (method, status, error, outcome) in [
            ("GET", Some(200), None, None),
            ("HEAD", Some(404), Some(ErrorCode::BlobUnknown), None),
            ("GET", Some(500), Some(ErrorCode::Internal), None),
            ("GET", Some(401), Some(ErrorCode::Unauthorized), Some("refused")),
            (
                "GET",
                Some(429),
                Some(ErrorCode::TooManyRequests),
                Some("refused"),
            ),
            ("PUT", Some(201), None, Some("done")),
            ("PUT", Some(403), Some(ErrorCode::Denied), Some("refused")),
            ("PUT", Some(409), Some(ErrorCode::TagConflict), Some("refused")),
            (
                "PUT",
                Some(400),
                Some(ErrorCode::ManifestInvalid),
                Some("invalid"),
            ),
            (
                "DELETE",
                Some(405),
                Some(ErrorCode::MethodNotAllowed),
                Some("refused"),
            ),
            ("PATCH", Some(503), Some(ErrorCode::Unavailable), Some("failed")),
            ("PATCH", None, None, Some("unknown")),
        ] {
            let mut record = record(method, "/v2/a/b/manifests/t", b"x");
            let request = registry_core::Request::parse(method, "/v2/a/b/manifests/t", &[("", "")][..]);
            if let Ok(request) = request {
                record.set_request(&request);
            }
            record.status = status;
            record.error = error.map(Error::from);
            let line = audit(&record, AuditLevel::Info);
            let line = line.map(|line| serde_json::from_str::<Value>(&line).unwrap());
            assert_eq!(
                line.as_ref().map(|line| line["outcome"].as_str().unwrap()),
                outcome,
                "{method} {status:?}"
            );
            if let (Some(line), "PUT") = (line, method) {
                assert_eq!(line["event"], "audit");
                assert_eq!((&line["repository"], &line["tag"]), (&"a/b".into(), &"t".into()));
                assert_eq!(
                    (&line["action"], &line["client"]),
                    (&"push".into(), &"10.0.0.1:4711".into())
                );
                assert_eq!(line["error"].as_str(), error.map(ErrorCode::as_str));
            }
        }
    }

    #[test]
    fn an_upload_that_a_blob_was_named_for_is_started_and_not_done() {
        let digest = format!("sha256:{:064}", 1);
        for (query, status, outcome) in [
            (String::new(), 202, "started"),
            (format!("digest={digest}"), 202, "started"),
            (format!("mount={digest}&from=b"), 202, "started"),
            (format!("digest={digest}"), 201, "done"),
            (format!("mount={digest}&from=b"), 201, "done"),
            (format!("digest={digest}"), 400, "invalid"),
        ] {
            let path = "/v2/a/blobs/uploads/";
            let mut record = record("POST", &format!("{path}?{query}"), b"x");
            let target = format!("{path}?{query}");
            let request = registry_core::Request::parse("POST", &target, &[("", "")][..]);
            record.set_request(&request.unwrap());
            record.status = Some(status);
            let line = audit(&record, AuditLevel::Info).unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["outcome"], outcome, "{query} {status}");
            let is_named = outcome != "started";
            assert_eq!(line["digest"] == digest.as_str(), is_named, "{query} {status}");
        }
    }

    #[test]
    fn the_audit_log_leaves_out_what_is_below_its_level() {
        let at = |status, least| {
            let mut record = record("PUT", "/v2/a/manifests/t", b"x");
            record.status = Some(status);
            let line = audit(&record, least)?;
            Some(serde_json::from_str::<Value>(&line).unwrap()["level"].clone())
        };
        for (status, level, kept) in [
            (201, "info", [true, false, false]),
            (403, "warn", [true, true, false]),
            (503, "error", [true, true, true]),
        ] {
            let least = [AuditLevel::Info, AuditLevel::Warn, AuditLevel::Error];
            let found = least.map(|least| at(status, least));
            assert_eq!(found, kept.map(|is_kept| is_kept.then(|| level.into())));
        }
    }

    #[test]
    fn a_line_is_cut_where_a_client_sends_64_kib() {
        let agent = "a".repeat(65_536);
        let half = "b".repeat(30_000);
        let path = format!("/v2/{half}?n={half}");
        let mut record = record("PUT", &path, agent.as_bytes());
        record.set_principal(&agent);
        for line in [
            combined(&record),
            json(&record).unwrap(),
            audit(&record, AuditLevel::Info).unwrap(),
        ] {
            assert!(line.len() < 6000, "{}", line.len());
            assert!(line.contains("a...[65024 more bytes]"), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_client_sends_is_one_printable_line(
            text in proptest::prelude::any::<String>(),
            field in proptest::collection::vec(0x20_u8..=0xff, 0..64),
        ) {
            let mut record = record("PUT", "/v2/", b"x");
            record.principal.clone_from(&text);
            record.path.clone_from(&text);
            record.query = Some(text.clone());
            let field = http::HeaderValue::from_bytes(&field).ok();
            record.user_agent.clone_from(&field);
            record.referer.clone_from(&field);
            record.host = field;
            let agent = "\u{80}\u{85}\u{9f}\u{202e}\u{2066}\u{2028}";
            for agent in [record.user_agent.clone(), http::HeaderValue::from_bytes(agent.as_bytes()).ok()] {
                record.user_agent = agent;
                for line in [json(&record).unwrap(), audit(&record, AuditLevel::Info).unwrap()] {
                    proptest::prop_assert!(line.chars().all(is_printable), "{}", line);
                    let value: Value = serde_json::from_str(&line).unwrap();
                    proptest::prop_assert_eq!(value["path"].as_str(), Some(&*text));
                }
                let line = combined(&record);
                proptest::prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", line);
            }
        }
    }

    #[derive(Clone, Debug, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl LineSink for Lines {
        fn write(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn several_logs_are_told_at_once() {
        let (access, audit) = (Lines::default(), Lines::default());
        let observers: Vec<Arc<dyn RequestObserver>> = vec![
            Arc::new(LineLog::new(LineFormat::Json, access.clone())),
            Arc::new(LineLog::new(LineFormat::Audit(AuditLevel::Info), audit.clone())),
        ];
        observers.finished(&record("GET", "/v2/", b"x"));
        observers.finished(&record("PUT", "/v2/", b"x"));
        assert_eq!(access.0.lock().unwrap().len(), 2);
        assert_eq!(audit.0.lock().unwrap().len(), 1);
    }
}
