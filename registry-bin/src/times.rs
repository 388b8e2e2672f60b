//! Points in time, formatted for people.

use registry_core::Timestamp;

/// Formats a point in time to the second: `2026-12-06T08:38:17Z`.
pub(crate) fn second(at: Timestamp) -> String {
    let text = at.to_string();
    text.split('.')
        .next()
        .map_or_else(String::new, |time| format!("{time}Z"))
}
