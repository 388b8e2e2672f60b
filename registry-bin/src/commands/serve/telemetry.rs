//! The observers of a server's requests: logs, metrics and traces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use registry_core::Storage;
use registry_http::{AccessLog, AuditLevel, LineFormat, LineLog, Observer, RefusalLog, RequestRecord};
use registry_http::{MeteredStorage, Metrics};

use super::reload::{Change, Reloadable};
use super::traces::Traces;
use super::{dropped_lines, process};
use crate::config::Loaded;
use crate::config::sections::log::{AccessLogFormat, Log, LogLevel};
use crate::failure::Failure;
use crate::line_writer::LineWriter;

/// The observers of a server, and their outputs.
pub(super) struct Telemetry {
    pub(super) metrics: Arc<Metrics>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) traces: Traces,
    /// Standard output: the log of requests, and messages to the person who started the server.
    pub(super) output: LineWriter,
    audit: Option<LineWriter>,
    access: AccessSwitch,
}

impl Telemetry {
    /// Starts the configured logs, and the traces that the environment asks for. Must be called within a runtime.
    /// `errors` is the output of the server's own log.
    pub(super) fn start(log: &Log, errors: &LineWriter) -> Result<Self, Failure> {
        let metrics = Arc::new(Metrics::new());
        process::add(&metrics);
        let traces = Traces::start()?;
        let spans = traces.observer();
        let mut telemetry = Self {
            observers: spans.into_iter().chain([Arc::clone(&metrics) as _]).collect(),
            metrics,
            traces,
            output: LineWriter::stdout()?,
            audit: None,
            access: AccessSwitch(Arc::new(AtomicBool::new(!log.access_log.disabled))),
        };
        telemetry.add_access_log(log);
        telemetry.add_audit_log(log, errors)?;
        let writers = [errors, &telemetry.output].into_iter().chain(&telemetry.audit);
        dropped_lines::add(&telemetry.metrics, writers.cloned().collect());
        Ok(telemetry)
    }

    /// Wraps a storage so that its calls are timed and traced.
    pub(super) fn meter(
        &self,
        storage: &Arc<dyn Storage>,
        driver: &'static str,
    ) -> MeteredStorage<dyn Storage> {
        let metered = MeteredStorage::new(Arc::clone(storage), driver, Arc::clone(&self.metrics));
        self.traces.follow(metered)
    }

    /// Writes what is queued in the logs of requests. Blocks.
    pub(super) fn close(&self) {
        let writers: Vec<_> = [&self.output].into_iter().chain(&self.audit).collect();
        LineWriter::close_all(&writers);
    }

    fn add_access_log(&mut self, log: &Log) {
        let format = match log.access_log.format {
            AccessLogFormat::Combined => LineFormat::Combined,
            AccessLogFormat::Json => LineFormat::Json,
            AccessLogFormat::Text => {
                self.observers.push(Arc::new(AccessLog));
                return;
            }
        };
        self.observers.push(Arc::new(Switched {
            log: LineLog::new(format, self.output.clone()),
            access: self.access.clone(),
        }));
    }

    fn add_audit_log(&mut self, log: &Log, errors: &LineWriter) -> Result<(), Failure> {
        let level = match log.audit.level {
            LogLevel::Error => AuditLevel::Error,
            LogLevel::Warn => AuditLevel::Warn,
            LogLevel::Info | LogLevel::Debug => AuditLevel::Info,
        };
        if log.audit.is_on() {
            let writer = match &log.audit.path {
                Some(path) => {
                    let writer = LineWriter::file("audit", path);
                    let writer = writer.map_err(|failure| failure.about("log.audit.path"))?;
                    self.audit.insert(writer).clone()
                }
                None => errors.clone(),
            };
            let audit = LineLog::new(LineFormat::Audit(level), writer);
            self.observers.push(Arc::new(audit));
        }
        let has_refusals = log.audit.is_on() && log.audit.path.is_none() && level < AuditLevel::Error;
        if !has_refusals {
            self.observers.push(Arc::new(RefusalLog::new()));
        }
        Ok(())
    }

    /// Returns the part that a new configuration can change.
    pub(super) fn reloadable(&self) -> Arc<dyn Reloadable> {
        Arc::new(self.access.clone())
    }
}

/// Whether the access log is on.
#[derive(Clone, Debug)]
struct AccessSwitch(Arc<AtomicBool>);

impl Reloadable for AccessSwitch {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let is_on = !new.configuration.log.access_log.disabled;
        Ok(Box::new(move || self.0.store(is_on, Ordering::Relaxed)))
    }
}

/// An access log that can be switched off. The failures that it would report are still logged.
#[derive(Debug)]
struct Switched {
    log: LineLog<LineWriter>,
    access: AccessSwitch,
}

impl Observer for Switched {
    fn finished(&self, record: &RequestRecord) {
        if self.access.0.load(Ordering::Relaxed) {
            self.log.finished(record);
        } else {
            AccessLog::failed(record);
        }
    }
}
