//! Listen addresses in Go's notation.

/// Splits `HOST:PORT`. An empty host means all addresses. An IPv6 address is in brackets, which are not returned.
///
/// # Errors
/// What is wrong, and what to write.
pub(crate) fn split_address(text: &str) -> Result<(&str, u16), String> {
    const TAKES: &str =
        "takes ADDRESS:PORT with a port from 0 to 65535, such as 127.0.0.1:5000, or :5000 for all addresses";
    let wrong = |why: &str| Err(format!("{TAKES}; {why}"));
    if text.contains("://") {
        return wrong("leave out the scheme: TLS is `http.tls`");
    }
    if text.contains(char::is_whitespace) {
        return wrong("there is a blank in it: remove that");
    }
    if text.contains(',') {
        return wrong("one address is taken, not several");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong("the port is missing");
    };
    let Some(port) = number(port) else {
        return wrong("this is no port");
    };
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // May have the zone of a link-local address.
        let address = inner.split_once('%').map_or(inner, |(address, _)| address);
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return wrong("no address of IPv6 stands in the brackets");
        }
        return Ok((inner, port));
    }
    if host.contains(':') {
        return wrong("an address of IPv6 stands in brackets, such as [::1]:5000");
    }
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if !host.chars().all(is_name) {
        return wrong("all addresses are no `*` but nothing: write :PORT");
    }
    Ok((host, port))
}

fn number(port: &str) -> Option<u16> {
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_is_named() {
        for text in [" 127.0.0.1:5000", "127.0.0.1: 5000", "127.0.0.1:5000\n"] {
            assert!(split_address(text).unwrap_err().contains("blank"), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_listened_at_is_no_address() {
        for (text, split) in [
            (":5000", ("", 5000)),
            ("0.0.0.0:0", ("0.0.0.0", 0)),
            ("[::1]:5000", ("::1", 5000)),
            ("[fe80::1%eth0]:5000", ("fe80::1%eth0", 5000)),
            ("registry.lan:443", ("registry.lan", 443)),
        ] {
            assert_eq!(split_address(text).unwrap(), split);
        }
        for text in [
            "http://0.0.0.0:5000",
            "*:5000",
            "::1:5000",
            "a:1,b:1",
            "[a]:5000",
            "5000",
            "127.0.0.1",
            ":http",
            ":+5",
            ":65536",
            ":",
            "",
            "a b:5000",
            "/run/registry.sock",
        ] {
            assert!(split_address(text).is_err(), "{text}");
        }
    }
}
