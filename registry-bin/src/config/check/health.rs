//! Constraints on `health`.

use super::Problems;
use crate::config::sections::health::Health;
use crate::config::values::split_address;

pub(super) fn check(health: &Health, problems: &mut Problems<'_>) {
    for (index, check) in health.http.iter().enumerate() {
        if !check.uri.is_http() {
            problems.add(
                &format!("health.http[{index}].uri"),
                "takes a URL that begins with http:// or https://",
            );
        }
        if check.status != 0 && !(100..600).contains(&check.status) {
            problems.add(
                &format!("health.http[{index}].statuscode"),
                format!("is {}, which no answer has; write for example 200", check.status),
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
        let path = format!("health.tcp[{index}].addr");
        match split_address(&check.addr) {
            _ if check.addr.is_empty() => problems.add(&path, "is missing; write ADDRESS:PORT"),
            Err(problem) => problems.add(&path, problem),
            Ok(("", _) | (_, 0)) => problems.add(
                &path,
                "takes an address and a port to connect to, such as 127.0.0.1:6379",
            ),
            Ok(_) => {}
        }
    }
}
