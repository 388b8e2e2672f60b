//! An observer that keeps what it receives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::check::RecordFinding;
use crate::observer::{Finding, MaintenanceObserver, Step};

/// Keeps what an operation reports.
#[derive(Debug, Default)]
pub struct Observed {
    steps: Mutex<Vec<(Step, u64, Option<u64>)>>,
    findings: Mutex<Vec<Finding>>,
}

impl Observed {
    /// Returns the progress so far: each step, how much of it was done, and the total.
    #[must_use]
    pub fn steps(&self) -> Vec<(Step, u64, Option<u64>)> {
        lock(&self.steps).clone()
    }

    /// Returns the findings so far as text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lock(&self.findings).iter().map(ToString::to_string).collect()
    }

    /// Returns the findings.
    #[must_use]
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the findings of a check.
    #[must_use]
    pub fn into_records(self) -> Vec<RecordFinding> {
        let findings = self.into_findings().into_iter();
        let records = findings.filter_map(|finding| match finding {
            Finding::Record(finding) => Some(finding),
            _ => None,
        });
        records.collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl MaintenanceObserver for Observed {
    fn step(&self, step: Step, done: u64, total: Option<u64>) {
        lock(&self.steps).push((step, done, total));
    }

    async fn found(&self, finding: Finding) {
        lock(&self.findings).push(finding);
    }
}
