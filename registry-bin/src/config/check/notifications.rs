//! What must hold in `notifications`.

use super::Problems;
use crate::config::sections::notifications::Notifications;

pub(super) fn check(notifications: &Notifications, problems: &mut Problems<'_>) {
    let endpoints = &notifications.endpoints;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = format!("notifications.endpoints[{index}]");
        if endpoint.disabled {
            continue;
        }
        problems.required(
            &format!("{path}.name"),
            endpoint.name.is_empty(),
            "the log and the metrics need one",
        );
        if !endpoint.url.is_http() {
            problems.add(
                &format!("{path}.url"),
                "takes a URL that begins with http:// or https://",
            );
        }
        if endpoints
            .iter()
            .take(index)
            .any(|other| other.name == endpoint.name)
        {
            problems.add(
                &format!("{path}.name"),
                format!(
                    "{:?} is the name of another endpoint; give it its own",
                    endpoint.name
                ),
            );
        }
    }
}
