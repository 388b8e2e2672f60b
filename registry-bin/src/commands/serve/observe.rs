//! What watches the requests of a server: logs, metrics and traces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use registry_core::Storage;
use registry_http::operations::{MeteredStorage, Metrics};
use registry_http::{AccessLog, LineFormat, LineLog, LineSink, Observer, RequestRecord};

use super::process;
use super::reload::{Change, Reloadable};
use super::traces::Traces;
use crate::config::Loaded;
use crate::config::sections::log::{AccessLogFormat, Log};
use crate::failure::Failure;
use crate::line_writer::LineWriter;
use crate::logging::AUDIT;

/// The observers of a server, and what they write.
pub(super) struct Observation {
    pub(super) metrics: Arc<Metrics>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) traces: Traces,
    writers: Vec<LineWriter>,
    access: AccessSwitch,
}

impl Observation {
    /// Starts the logs that the configuration asks for, and the traces that the environment asks for, from within a
    /// runtime.
    pub(super) fn start(log: &Log) -> Result<Self, Failure> {
        let metrics = Arc::new(Metrics::new());
        process::add(&metrics);
        let traces = Traces::start()?;
        let spans = traces.observer();
        let mut observation = Self {
            observers: spans.into_iter().chain([Arc::clone(&metrics) as _]).collect(),
            metrics,
            traces,
            writers: Vec::new(),
            access: AccessSwitch(Arc::new(AtomicBool::new(!log.access_log.disabled))),
        };
        observation.add_access_log(log)?;
        observation.add_audit_log(log)?;
        Ok(observation)
    }

    /// Makes the calls of a storage be timed, and traced.
    pub(super) fn meter(
        &self,
        storage: &Arc<dyn Storage>,
        driver: &'static str,
    ) -> MeteredStorage<dyn Storage> {
        let metered = MeteredStorage::new(Arc::clone(storage), driver, Arc::clone(&self.metrics));
        self.traces.follow(metered)
    }

    /// Writes what waits in the logs. It blocks.
    pub(super) fn close(&self) {
        for writer in &self.writers {
            writer.close();
        }
    }

    fn add_access_log(&mut self, log: &Log) -> Result<(), Failure> {
        let format = match log.access_log.format {
            AccessLogFormat::Combined => LineFormat::Combined,
            AccessLogFormat::Json => LineFormat::Json,
            AccessLogFormat::Text => {
                self.observers.push(Arc::new(AccessLog));
                return Ok(());
            }
        };
        let writer = LineWriter::stdout()?;
        self.observers.push(Arc::new(Switched {
            log: LineLog::new(format, writer.clone()),
            access: self.access.clone(),
        }));
        self.writers.push(writer);
        Ok(())
    }

    fn add_audit_log(&mut self, log: &Log) -> Result<(), Failure> {
        match &log.audit.path {
            _ if log.audit.disabled => {}
            Some(path) => {
                let writer = LineWriter::file(path).map_err(|failure| failure.about("log.audit.path"))?;
                self.observers
                    .push(Arc::new(LineLog::new(LineFormat::Audit, writer.clone())));
                self.writers.push(writer);
            }
            None => {
                let audit = LineLog::new(LineFormat::Audit, ProgramLog);
                self.observers.push(Arc::new(audit));
            }
        }
        Ok(())
    }

    /// Returns what a new configuration can switch.
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

/// An access log that can be switched off. The failures that it tells of are told all the same.
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

/// Writes lines into the program's own log.
#[derive(Debug)]
struct ProgramLog;

impl LineSink for ProgramLog {
    fn write(&self, line: String) {
        tracing::info!(target: AUDIT, "{line}");
    }
}
