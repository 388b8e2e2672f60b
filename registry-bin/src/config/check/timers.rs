//! Constraints on times that timers measure.

use std::time::Duration;

use super::Problems;
use crate::config::Configuration;
use crate::config::values::GoDuration;

/// The resolution of timers. Shorter times were hardly meant: a number without a unit is nanoseconds.
const LEAST: Duration = Duration::from_millis(1);

/// Refuses times below the resolution of timers. Zero selects a default.
pub(super) fn check(configuration: &Configuration, problems: &mut Problems<'_>) {
    let health = &configuration.health;
    let mut times = vec![(
        "health.storagedriver.interval".to_owned(),
        health.storage.interval,
    )];
    for (index, check) in health.file.iter().enumerate() {
        times.push((format!("health.file[{index}].interval"), check.interval));
    }
    for (index, check) in health.http.iter().enumerate() {
        times.push((format!("health.http[{index}].interval"), check.interval));
        times.push((format!("health.http[{index}].timeout"), check.timeout));
    }
    for (index, check) in health.tcp.iter().enumerate() {
        times.push((format!("health.tcp[{index}].interval"), check.interval));
        times.push((format!("health.tcp[{index}].timeout"), check.timeout));
    }
    for (index, endpoint) in configuration.notifications.endpoints.iter().enumerate() {
        let path = format!("notifications.endpoints[{index}]");
        times.push((format!("{path}.timeout"), endpoint.timeout));
        times.push((format!("{path}.backoff"), endpoint.backoff));
    }
    let purging = &configuration.storage.maintenance.upload_purging;
    let interval = purging.interval.unwrap_or_default();
    times.push(("storage.maintenance.uploadpurging.interval".to_owned(), interval));
    for (path, time) in times {
        if time != GoDuration::default() && time.0 < LEAST {
            problems.add(
                &path,
                format!("is {time}, and must be at least 1ms; write for example 10s"),
            );
        }
    }
}
