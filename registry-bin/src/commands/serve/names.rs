//! The names of `--tls-self-signed` that lead to this machine, and the address to listen on that follows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Serve;
use crate::config::Loaded;
use crate::config::sections::http::Network;

/// How long a start waits for the addresses of names.
const PATIENCE: Duration = Duration::from_secs(3);

/// The port of a registry, where nobody says another.
const PORT: u16 = 5000;

/// Names, each with an address of this machine that it leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct NamesHere(Vec<(String, IpAddr)>);

impl NamesHere {
    /// Finds where the names of the command line lead. Blocks for some seconds at most.
    pub(super) fn find(serve: &Serve) -> Self {
        let names = serve.tls_self_signed.clone().unwrap_or_default();
        if names.is_empty() {
            return Self::default();
        }
        let (sender, receiver) = mpsc::channel();
        // The system decides how long it looks for a name, so nobody waits for the thread itself.
        let started = thread::Builder::new().name("names".to_owned()).spawn(move || {
            for name in names {
                let address = address_here(&name);
                if sender.send(address.map(|address| (name, address))).is_err() {
                    return;
                }
            }
        });
        let mut found = Vec::new();
        if started.is_ok() {
            let end = Instant::now() + PATIENCE;
            while let Ok(name) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                found.extend(name);
            }
        }
        Self(found)
    }

    /// Returns the address to listen on if nobody names one: that of the first name which leads to this machine from elsewhere,
    /// or from this machine at another address than the default.
    /// Warns if no name leads here at all.
    pub(super) fn listen_address(&self, serve: &Serve, loaded: &Loaded) -> Option<String> {
        let is_free = loaded.configuration.http.net == Network::Tcp && !loaded.tree.has("http.addr");
        let names = serve.tls_self_signed.as_deref().unwrap_or_default();
        if !is_free || names.is_empty() {
            return None;
        }
        if self.0.is_empty() {
            tracing::warn!(
                names = names.join(", "),
                "no name of --tls-self-signed leads to this machine, so the server listens on {} alone; to be reached from \
                 elsewhere, add --listen 0.0.0.0:{PORT}, or have the name lead here",
                loaded.configuration.http.addr
            );
        }
        let addresses: Vec<IpAddr> = self.0.iter().map(|(_, address)| *address).collect();
        let from_elsewhere = addresses.iter().find(|address| !address.is_loopback());
        // 127.0.0.1 is the default; `::1` and 127.0.0.2 are other addresses of this machine alone.
        let has_default = addresses.contains(&Ipv4Addr::LOCALHOST.into());
        let address = from_elsewhere.or_else(|| addresses.first().filter(|_| !has_default))?;
        Some(SocketAddr::new(*address, PORT).to_string())
    }

    /// Returns the name that leads to an address, unless that is for this machine alone.
    pub(super) fn at(&self, wanted: IpAddr) -> Option<&str> {
        let mut names = self.0.iter().filter(|(_, address)| !address.is_loopback());
        names.find_map(|(name, address)| (*address == wanted).then_some(name.as_str()))
    }
}

/// Returns the first address of a name that is one of this machine, that of IPv4 before others.
fn address_here(name: &str) -> Option<IpAddr> {
    let addresses = (name, 0).to_socket_addrs().ok()?;
    let mut addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    // Only what this machine has can be taken; nothing is sent.
    let is_here = |address: &IpAddr| !address.is_unspecified() && UdpSocket::bind((*address, 0)).is_ok();
    addresses.into_iter().find(is_here)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Arguments, Command};
    use crate::config::tests_support::loaded;

    #[test]
    fn names_lead_here_by_an_address_of_this_machine() {
        assert_eq!(address_here("127.0.0.1"), Some([127, 0, 0, 1].into()));
        // For documentation (RFC 5737), all addresses, and names that nobody has (RFC 6761).
        for other in ["192.0.2.1", "0.0.0.0", "registry.invalid", "*.example"] {
            assert_eq!(address_here(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_leads_here_says_where_to_listen_unless_somebody_else_does() {
        let address = |places: &[[u8; 4]], more: &[&str], text: &str, variables: &[(&str, &str)]| {
            let line = ["registry-bin", "serve", "--tls-self-signed", "registry.lan"];
            let arguments = Arguments::parse_from(line.into_iter().chain(more.iter().copied()));
            let Command::Serve(mut serve) = arguments.command else {
                panic!("it serves");
            };
            let here = places
                .iter()
                .map(|place| ("registry.lan".to_owned(), (*place).into()));
            let loaded = loaded(text, variables);
            serve.named_address = NamesHere(here.collect()).listen_address(&serve, &loaded);
            let mut flags = serve.flags();
            flags.retain(|flag| flag.path == "http.addr");
            flags.pop().map(|flag| (flag.name, flag.value))
        };
        let (here, memory) = (
            [[127, 0, 0, 1], [10, 0, 0, 5]],
            "version: 0.1\nstorage: inmemory\n",
        );
        let by_name = Some(("--tls-self-signed", "10.0.0.5:5000".to_owned()));
        assert_eq!(address(&here, &[], memory, &[]), by_name);
        assert_eq!(address(&here[..1], &[], memory, &[]), None);
        let by_loopback = Some(("--tls-self-signed", "127.0.0.2:5000".to_owned()));
        assert_eq!(address(&[[127, 0, 0, 2]], &[], memory, &[]), by_loopback);
        assert_eq!(address(&[[127, 0, 0, 2], [127, 0, 0, 1]], &[], memory, &[]), None);
        assert_eq!(address(&[], &[], memory, &[]), None);
        let in_file = format!("{memory}http: {{addr: ':1'}}\n");
        assert_eq!(address(&here, &[], &in_file, &[]), None);
        assert_eq!(address(&here, &[], memory, &[("REGISTRY_HTTP_ADDR", ":1")]), None);
        let by_flag = Some(("--listen", ":1".to_owned()));
        assert_eq!(address(&here, &["--listen", ":1"], memory, &[]), by_flag);
    }

    #[test]
    fn commands_name_what_leads_to_an_address_from_elsewhere() {
        let elsewhere: IpAddr = [10, 0, 0, 5].into();
        let here = |address| (format!("name-of-{address}"), address);
        let names = NamesHere(vec![here([127, 0, 0, 1].into()), here(elsewhere)]);
        assert_eq!(names.at(elsewhere), Some("name-of-10.0.0.5"));
        assert_eq!(names.at([127, 0, 0, 1].into()), None);
        assert_eq!(names.at([10, 0, 0, 6].into()), None);
    }
}
