//! Metrics of the program's own logs.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use registry_http::Metrics;

use crate::line_writer::LineWriter;

/// Adds metrics of how many lines of each log were dropped.
pub(super) fn add(metrics: &Metrics, writers: Vec<LineWriter>) {
    metrics.register(|registry| registry.register_collector(Box::new(DroppedLines(writers))));
}

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
