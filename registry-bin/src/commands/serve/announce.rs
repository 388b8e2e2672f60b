//! The messages to the person who started the server.

use std::net::SocketAddr;

use registry_http::{LineSink as _, ListenAddress};

use super::tls::Encryption;
use crate::config::Configuration;
use crate::config::sections::auth::Kind;
use crate::config::sections::log::LogFormat;
use crate::line_writer::LineWriter;
use crate::storage::StorageLocation;

/// Reports where the server listens and how to use it: in the log, and on standard output unless that is for programs.
pub(super) fn announce(
    output: &LineWriter,
    configuration: &Configuration,
    addresses: &[ListenAddress],
    location: &StorageLocation,
    encryption: Option<&Encryption>,
) {
    let scheme = if encryption.is_some() { "https" } else { "http" };
    let mut text = String::new();
    for address in addresses {
        let address = match address {
            ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
            ListenAddress::Unix(_) => address.to_string(),
        };
        tracing::info!(address, storage = %location, "listening");
        text.push_str(&format!("Listening on {address}\n"));
    }
    tell_who_is_let_in(configuration, addresses);
    if configuration.log.formatter != LogFormat::Text {
        // A program that reads request lines there expects nothing else.
        return;
    }
    text.push_str(&format!("Storing in {location}\n"));
    let tcp = addresses.iter().find_map(ListenAddress::tcp);
    let own = encryption.and_then(Encryption::self_signed);
    let reachable = match (tcp, own) {
        (Some(address), Some(own)) => Some((own.host_of(address.ip()), address.port())),
        (Some(address), None) => Some((reachable(address), address.port())),
        (None, _) => None,
    };
    if let Some((host, port)) = reachable {
        if let Some(own) = own {
            text.push_str(&own.instructions(&host, port));
        }
        if encryption.is_none() && tcp.is_some_and(|address| !address.ip().is_loopback()) {
            text.push_str(&format!(
                "Docker on other machines needs in /etc/docker/daemon.json: {{\"insecure-registries\": [\"HOST:{port}\"]}}, with \
                 HOST as they name this machine; or serve with --tls-self-signed\n"
            ));
        }
        let place = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        text.push_str(&format!(
            "Push with: docker tag IMAGE {place}/NAME && docker push {place}/NAME\n"
        ));
    }
    // In one write, so that no log line comes in between.
    output.write(text.trim_end().to_owned());
}

/// Warns if any client that reaches the server may do anything.
fn tell_who_is_let_in(configuration: &Configuration, addresses: &[ListenAddress]) {
    let tcp = addresses.iter().filter_map(ListenAddress::tcp);
    let Some(address) = tcp.into_iter().find(|address| !address.ip().is_loopback()) else {
        return;
    };
    let asks_for_certificates = !configuration.http.tls.client_authorities.is_empty();
    let is_open = configuration.auth.kind() == Kind::Nobody
        && configuration.access.rules.is_empty()
        && !asks_for_certificates;
    if is_open {
        let what = if configuration.storage.delete.enabled {
            "pull, push and delete"
        } else {
            "pull and push"
        };
        tracing::warn!(
            %address,
            "whoever reaches this address may {what}: no `auth` is configured; write for example `auth: {{htpasswd: …}}`, or listen \
             on 127.0.0.1"
        );
    }
}

fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        address.ip().to_string()
    }
}
