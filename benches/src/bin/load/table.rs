//! The values that were measured, and the table of their medians.

use std::fmt::Write as _;

use crate::measure::Measure;

/// Values by measure and subject.
#[derive(Debug)]
pub(crate) struct Table {
    names: Vec<String>,
    values: Vec<(Measure, usize, f64)>,
}

impl Table {
    /// Starts a table with these columns, the first of which is compared with the others.
    pub(crate) const fn new(names: Vec<String>) -> Self {
        Self {
            names,
            values: Vec::new(),
        }
    }

    /// Adds one value.
    pub(crate) fn add(&mut self, measure: Measure, column: usize, value: f64) {
        self.values.push((measure, column, value));
    }

    fn median(&self, measure: Measure, column: usize) -> Option<f64> {
        let all = self
            .values
            .iter()
            .filter(|(of, at, _)| *of == measure && *at == column);
        let mut values: Vec<f64> = all.map(|(_, _, value)| *value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Returns the table in markdown. Ratios above 1 mean that the first column is better.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from("| measure | unit |");
        for name in &self.names {
            write!(text, " {name} |").ok();
        }
        for name in self.names.iter().skip(1) {
            write!(text, " × {name} |").ok();
        }
        let columns = 1 + 2 * self.names.len();
        write!(text, "\n|---|{}\n", "---|".repeat(columns - 1)).ok();
        for measure in Measure::ALL {
            let medians: Vec<_> = (0..self.names.len())
                .map(|column| self.median(*measure, column))
                .collect();
            if medians.iter().all(Option::is_none) {
                continue;
            }
            write!(text, "| {} | {} |", measure.title(), measure.unit()).ok();
            for median in &medians {
                match median {
                    Some(value) if *value < 100.0 => write!(text, " {value:.1} |").ok(),
                    Some(value) => write!(text, " {value:.0} |").ok(),
                    None => write!(text, " – |").ok(),
                };
            }
            let ours = medians.first().copied().flatten();
            for theirs in medians.iter().skip(1) {
                match (ours, theirs) {
                    (Some(ours), Some(theirs)) if measure.more_is_better() => {
                        write!(text, " {:.2} |", ours / theirs).ok()
                    }
                    (Some(ours), Some(theirs)) => write!(text, " {:.2} |", theirs / ours).ok(),
                    _ => write!(text, " – |").ok(),
                };
            }
            text.push('\n');
        }
        text
    }
}
