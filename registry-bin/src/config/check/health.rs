//! What must hold in `health`.

use super::Problems;
use crate::config::sections::health::Health;

pub(super) fn check(health: &Health, problems: &mut Problems<'_>) {
    for (index, check) in health.http.iter().enumerate() {
        if !check.uri.is_http() {
            problems.add(
                &format!("health.http[{index}].uri"),
                "takes a URL that begins with http:// or https://",
            );
        }
    }
    for (index, check) in health.file.iter().enumerate() {
        problems.required(
            &format!("health.file[{index}].file"),
            check.file.as_os_str().is_empty(),
            "name the file that must not exist",
        );
    }
    for (index, check) in health.tcp.iter().enumerate() {
        problems.required(
            &format!("health.tcp[{index}].addr"),
            check.addr.is_empty(),
            "write ADDRESS:PORT",
        );
    }
}
