//! Constraints on `notifications`.

use registry_storage::outbox::OutboxLimits;

use super::Problems;
use crate::config::sections::notifications::Notifications;
use crate::config::values::shown;

pub(super) fn check(notifications: &Notifications, problems: &mut Problems<'_>) {
    let (endpoints, outbox) = (&notifications.endpoints, &notifications.outbox);
    if outbox.limit == 0 {
        problems.add(
            "notifications.outbox.limit",
            "is 0, and what cannot wait is not told; write for example 100000",
        );
    }
    if outbox.bytes < OutboxLimits::LEAST_BYTES {
        problems.add(
            "notifications.outbox.bytes",
            format!(
                "is {}, and must be at least {}, which is 1 MiB",
                outbox.bytes,
                OutboxLimits::LEAST_BYTES
            ),
        );
    }
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
                    "{} is the name of another endpoint; give it its own",
                    shown(&endpoint.name)
                ),
            );
        }
    }
}
