//! What operators see of a server: the logs of its requests, metrics, traces, and the listener for metrics and health.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_core::Storage;
use registry_core::printable::with_causes;
use registry_http::{
    AccessLog, AuditLevel, CheckOptions, DebugService, Limits, LineFormat, LineLog, Listener, MeteredStorage,
    Metrics, RefusalLog, RequestObserver, RequestRecord, Server, ServerHealth,
};
use registry_storage::Maintenance;
use registry_storage::object_store::BlobCache;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;

use super::listeners::bind_tcp;
use super::reload::{Change, Reloadable};
use crate::config::sections::health::HttpCheck;
use crate::config::sections::log::{AccessLogFormat, Log, LogLevel};
use crate::config::values::GoDuration;
use crate::config::{Configuration, Loaded};
use crate::failure::Failure;
use crate::line_writer::LineWriter;
use crate::traces::Traces;

/// The observers of a server, and their outputs.
pub(super) struct Telemetry {
    pub(super) metrics: Arc<Metrics>,
    pub(super) observers: Vec<Arc<dyn RequestObserver>>,
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
        metrics.register(|registry| registry.register_collector(Box::new(ProcessMetrics::new())));
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
        let dropped = DroppedLines(writers.cloned().collect());
        telemetry
            .metrics
            .register(|registry| registry.register_collector(Box::new(dropped)));
        Ok(telemetry)
    }

    /// Adds what a storage reports about itself to the metrics.
    pub(super) fn add_storage(&self, store: Arc<dyn Maintenance>) {
        self.add(StorageMetrics(store));
    }

    /// Adds what a cache of blobs reports about itself to the metrics.
    pub(super) fn add_blob_cache(&self, cache: BlobCache) {
        self.add(BlobCacheMetrics(cache));
    }

    /// Adds metrics that are looked up when they are asked for.
    pub(super) fn add(&self, collector: impl Collector) {
        self.metrics
            .register(|registry| registry.register_collector(Box::new(collector)));
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

impl RequestObserver for Switched {
    fn finished(&self, record: &RequestRecord) {
        if self.access.0.load(Ordering::Relaxed) {
            self.log.finished(record);
        } else {
            AccessLog::failed(record);
        }
    }
}

/// What the kernel reports about this process at the time of each scrape, with the names of Prometheus' own libraries.
#[derive(Debug)]
struct ProcessMetrics {
    /// When the process began, in seconds since 1970.
    started: f64,
}

impl ProcessMetrics {
    #[expect(clippy::disallowed_methods, reason = "the metric is the moment of the start")]
    fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: started.as_secs_f64(),
        }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        let cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time that was used",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(seconds).encode(cpu)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").map(|files| files.count() as f64);
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that is in use",
                field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0),
            ),
            (
                "process_virtual_memory_bytes",
                "Memory that is addressed",
                field(&status, "VmSize:").map(|kibibytes| kibibytes * 1024.0),
            ),
            (
                "process_open_fds",
                "Files and connections that are open",
                files.ok(),
            ),
            (
                "process_max_fds",
                "Files and connections that may be open",
                field(&limits, "Max open files"),
            ),
            (
                "process_start_time_seconds",
                "When it began, in seconds since 1970",
                Some(self.started),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}

/// Returns the first number after the name of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many lines of each of the program's own logs were dropped.
#[derive(Debug)]
struct DroppedLines(Vec<LineWriter>);

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut lines = encoder.encode_descriptor(
            "registry_log_dropped_lines",
            "Lines of logs that were dropped, because nobody took them in time or they could not be written",
            None,
            MetricType::Counter,
        )?;
        for writer in &self.0 {
            ConstCounter::new(writer.dropped()).encode(lines.encode_family(&[("log", writer.name())])?)?;
        }
        Ok(())
    }
}

/// What a cache of blobs has, and has done.
#[derive(Debug)]
struct BlobCacheMetrics(BlobCache);

impl Collector for BlobCacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counted = self.0.statistics();
        let mut reads = encoder.encode_descriptor(
            "registry_blob_cache_reads",
            "Blobs and ranges that clients pulled, by where they were",
            None,
            MetricType::Counter,
        )?;
        for (place, count) in [
            ("folder", counted.from_files),
            ("fetch", counted.from_fetches),
            ("bucket", counted.from_bucket),
        ] {
            ConstCounter::new(count).encode(reads.encode_family(&[("from", place)])?)?;
        }
        for (name, help, value) in [
            (
                "registry_blob_cache_fetches",
                "Blobs that were begun to be fetched into the folder",
                counted.fetches,
            ),
            (
                "registry_blob_cache_evicted_blobs",
                "Blobs that were removed from the folder for others",
                counted.evicted,
            ),
        ] {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        for (name, help, value) in [
            (
                "registry_blob_cache_blobs",
                "Blobs that the folder has as a whole",
                counted.blobs,
            ),
            (
                "registry_blob_cache_bytes",
                "What the folder's files have, those that are being written included",
                counted.bytes,
            ),
            (
                "registry_blob_cache_limit_bytes",
                "What they may have",
                counted.size,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}

/// What a storage reports about itself at the time of each scrape: whether it writes, how much space it has, and how
/// much is in it.
#[derive(Debug)]
struct StorageMetrics(Arc<dyn Maintenance>);

impl Collector for StorageMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.0.write_state();
        let gauge = encoder.encode_descriptor(
            "registry_storage_writes_stopped",
            "1 while nothing is written after an error of the disk, else 0",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(state.stopped.is_some())).encode(gauge)?;
        let gauge = encoder.encode_descriptor(
            "registry_storage_full",
            "1 while pushes are refused because the disk is full, or hardly any space is left, else 0",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(state.lacks_space.is_some())).encode(gauge)?;
        let mut gauges = Vec::new();
        if let Some(space) = state.space {
            gauges.push((
                "registry_storage_free_bytes",
                "What the disk still takes, beside what is kept for deletes, when its health was checked last",
                space.free,
            ));
            gauges.push((
                "registry_storage_size_bytes",
                "How large the disk is, whoever uses it",
                space.size,
            ));
        }
        if let Some((contents, swept)) = self.0.counted_contents() {
            gauges.push((
                "registry_storage_blobs",
                "Blobs at the last sweep of everything, each counted once, whatever number of repositories has it",
                contents.blobs,
            ));
            gauges.push((
                "registry_storage_blob_bytes",
                "The size of these blobs",
                contents.bytes,
            ));
            gauges.push((
                "registry_storage_swept_timestamp_seconds",
                "When the last sweep ended, in seconds since 1970",
                swept.0 / 1000,
            ));
        }
        let scrubbed = self.0.scrubbed();
        for (name, help, value) in [
            (
                "registry_scrub_blobs",
                "Blobs whose content was compared with its digest in the background",
                scrubbed.blobs,
            ),
            (
                "registry_scrub_bytes",
                "Bytes that were read for that",
                scrubbed.bytes,
            ),
            (
                "registry_scrub_broken_blobs",
                "Blobs among them whose content is lost or wrong",
                scrubbed.broken,
            ),
            (
                "registry_scrub_unreadable_blobs",
                "Blobs among them that could not be read",
                scrubbed.unreadable,
            ),
        ] {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}

/// Starts the listener for metrics and health, if it is configured.
pub(super) fn start_debug_listener(
    configuration: &Configuration,
    health: &ServerHealth,
    metrics: &Arc<Metrics>,
) -> Result<Option<Server>, Failure> {
    let debug = &configuration.http.debug;
    let Some(text) = &debug.addr else {
        return Ok(None);
    };
    let failed = || Failure::of("http.debug.addr", format!("cannot listen on {text}"));
    let listener = bind_tcp("http.debug.addr", text)?;
    let address = listener.local_addr().map_err(|cause| failed().because(cause))?;
    let mut service = DebugService::new(health.clone());
    if debug.prometheus.enabled {
        service = service.with_metrics(&*debug.prometheus.path, Arc::clone(metrics));
    }
    let server =
        Listener::tcp(listener).and_then(|listener| Server::serve([listener], service, Limits::default()));
    let server = server.map_err(|cause| failed().because(cause))?;
    let has_metrics = debug.prometheus.enabled;
    tracing::info!(%address, has_metrics, "health and metrics for operators");
    Ok(Some(server))
}

/// Starts the configured health checks.
pub(super) fn start_health_checks(
    configuration: &Configuration,
    health: &ServerHealth,
    store: &Arc<dyn Maintenance>,
) -> Result<(), Failure> {
    let checks = &configuration.health;
    let storage = Arc::clone(store);
    health.add_remark(move || storage.write_state().lacks_space);
    if checks.storage.enabled {
        let options = check_options(
            checks.storage.interval,
            GoDuration::default(),
            checks.storage.threshold,
        );
        let store = Arc::clone(store);
        health.watch("storagedriver", options, move || {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let probed = store.probe().await;
                probed.map_err(|error| with_causes(error.to_string(), error.source()))
            })
        });
    }
    if configuration
        .storage
        .s3
        .as_ref()
        .is_some_and(|s3| s3.single_writer)
    {
        let store = Arc::clone(store);
        // It asks nobody. Whoever sends pushes here should learn at once that they are refused.
        let options = check_options(GoDuration(Duration::from_secs(1)), GoDuration::default(), 1);
        health.watch("singlewriter", options, move || {
            let stopped = store.write_state().stopped;
            Box::pin(std::future::ready(stopped.map_or(Ok(()), Err)))
        });
    }
    for check in &checks.file {
        let options = check_options(check.interval, GoDuration::default(), check.threshold);
        let path: PathBuf = check.file.to_path_buf();
        health.watch(path.display().to_string(), options, move || {
            let path = path.clone();
            Box::pin(async move {
                match tokio::fs::try_exists(&path).await {
                    Ok(false) => Ok(()),
                    Ok(true) => Err("file exists".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            })
        });
    }
    for check in &checks.tcp {
        let options = check_options(check.interval, check.timeout, check.threshold);
        let address = check.addr.clone();
        health.watch(check.addr.clone(), options, move || {
            let address = address.clone();
            Box::pin(async move {
                let connected = TcpStream::connect(&address).await;
                connected
                    .map(drop)
                    .map_err(|error| format!("cannot connect: {error}"))
            })
        });
    }
    for (index, check) in checks.http.iter().enumerate() {
        start_http_check(check, health).map_err(|cause| {
            Failure::of(format!("health.http[{index}]"), "cannot be watched").because(cause)
        })?;
    }
    Ok(())
}

fn start_http_check(check: &HttpCheck, health: &ServerHealth) -> Result<(), Box<dyn Error + Send + Sync>> {
    let url = reqwest::Url::parse(check.uri.reveal())?;
    // The user, password and query may be secret.
    let name = format!(
        "{}://{}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    );
    let headers = check.headers.to_map();
    let expected = if check.status == 0 { 200 } else { check.status };
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let options = check_options(check.interval, check.timeout, check.threshold);
    health.watch(name, options, move || {
        let request = client.head(url.clone()).headers(headers.clone());
        Box::pin(async move {
            match request.send().await {
                Ok(response) if response.status().as_u16() == expected => Ok(()),
                Ok(response) => Err(format!("it answered {}", response.status())),
                Err(error) => Err(error.without_url().to_string()),
            }
        })
    });
    Ok(())
}

const fn check_options(interval: GoDuration, timeout: GoDuration, threshold: u32) -> CheckOptions {
    CheckOptions {
        interval: interval.0,
        threshold,
        timeout: timeout.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_names() {
        let text = "VmSize:\t  100 kB\nVmRSS:\t 7 kB\nMax open files            20000                20000                files\n";
        for (name, number) in [
            ("VmRSS:", Some(7.0)),
            ("Max open files", Some(20000.0)),
            ("VmSwap:", None),
        ] {
            assert_eq!(field(text, name), number);
        }
        assert_eq!(field("Max open files unlimited", "Max open files"), None);
    }
}
