//! Metrics of the process, with the names of Prometheus' own libraries.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_http::Metrics;
use rustix::time::{ClockId, clock_gettime};

/// Adds what the kernel reports about this process at the time of each scrape.
pub(super) fn add(metrics: &Metrics) {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let process = Process {
        started: started.as_secs_f64(),
    };
    metrics.register(|registry| registry.register_collector(Box::new(process)));
}

#[derive(Debug)]
struct Process {
    /// When the process began, in seconds since 1970.
    started: f64,
}

impl Collector for Process {
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
