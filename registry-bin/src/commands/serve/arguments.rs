//! The arguments of `serve`, and the address to listen on that follows from the names in them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum as _};

use crate::arguments::ConfigArguments;
use crate::config::sections::http::Network;
use crate::config::sections::log::{LogFormat, LogLevel};
use crate::config::{Flag, Loaded};

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  registry-bin serve                                      127.0.0.1:5000, stored in ./registry-data
  registry-bin serve --listen 0.0.0.0:5000 --storage /srv/registry
  registry-bin serve --storage s3://bucket/prefix         credentials from AWS_* variables or the instance
  registry-bin serve /etc/docker/registry/config.yml      the configuration of registry:2
  registry-bin serve --tls-self-signed registry.lan       HTTPS with a certificate of its own

The first SIGTERM or SIGINT lets running requests finish, for as long as --drain allows; the second cuts them off.")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) configuration: ConfigArguments,

    /// The address to listen on. Port 0 picks a free one. [default: http.addr of CONFIG, or 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,

    /// Serve HTTPS with a certificate for this machine's names and these, signed by an authority created once; both are
    /// kept in the data folder. The start prints how to make clients trust it. If no address is configured, listen on
    /// the one that the first NAME of this machine leads to.
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(crate) tls_self_signed: Option<Vec<String>>,

    /// The address that a name of `tls_self_signed` leads to, which the server listens on if none is configured.
    #[arg(skip)]
    pub(crate) named_address: Option<String>,

    /// If another server has the folder, wait for it to end instead of failing; if a bucket does not answer or is not
    /// there, wait for it.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Accept manifests that name content the repository does not have. [default: validation.allowmissingcontent of
    /// CONFIG]
    #[arg(long)]
    pub(crate) allow_missing_content: bool,

    /// How long running requests may take to finish after the first signal. [default: http.draintimeout of CONFIG,
    /// or 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<u64>,

    /// The format of the log, written to standard error. [default: log.formatter of CONFIG, or text]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// The lowest level to log. [default: log.level of CONFIG, or info]
    #[arg(long, value_enum)]
    pub(crate) log_level: Option<LogLevel>,
}

impl Serve {
    /// Returns the flags that override keys of the configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let flag = |path, name, value: Option<String>| value.map(|value| Flag { path, name, value });
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        [
            flag("http.addr", "--tls-self-signed", self.named_address.clone()),
            flag("http.addr", "--listen", self.listen.clone()),
            flag(
                "http.draintimeout",
                "--drain",
                self.drain.map(|seconds| format!("{seconds}s")),
            ),
            flag(
                "validation.allowmissingcontent",
                "--allow-missing-content",
                self.allow_missing_content.then(|| "true".to_owned()),
            ),
            flag(
                "log.formatter",
                "--log-format",
                word(self.log_format.and_then(|format| format.to_possible_value())),
            ),
            flag(
                "log.level",
                "--log-level",
                word(self.log_level.and_then(|level| level.to_possible_value())),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// How long a start waits for the addresses of names.
const NAME_TIMEOUT: Duration = Duration::from_secs(3);

/// The port of a registry if none is given.
const DEFAULT_PORT: u16 = 5000;

/// Names, each with an address of this machine that it leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalNames(Vec<(String, IpAddr)>);

impl LocalNames {
    /// Finds where the names of the command line lead. Blocks for some seconds at most.
    #[expect(
        clippy::disallowed_methods,
        reason = "one message for each name of the command line"
    )]
    pub(super) fn find(serve: &Serve) -> Self {
        let names = serve.tls_self_signed.clone().unwrap_or_default();
        if names.is_empty() {
            return Self::default();
        }
        let (sender, receiver) = mpsc::channel();
        // The system decides how long it looks for a name, so nobody waits for the thread itself.
        let started = thread::Builder::new().name("names".to_owned()).spawn(move || {
            for name in names {
                let address = local_address(&name);
                if sender.send(address.map(|address| (name, address))).is_err() {
                    return;
                }
            }
        });
        let mut found = Vec::new();
        if started.is_ok() {
            let end = Instant::now() + NAME_TIMEOUT;
            while let Ok(name) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                found.extend(name);
            }
        }
        Self(found)
    }

    /// Returns the address to listen on if none is configured: that of the first name which leads to this machine from
    /// elsewhere, or from this machine at another address than the default. Warns if no name leads here at all.
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
                 elsewhere, add --listen 0.0.0.0:{DEFAULT_PORT}, or have the name lead here",
                loaded.configuration.http.addr
            );
        }
        let addresses: Vec<IpAddr> = self.0.iter().map(|(_, address)| *address).collect();
        let from_elsewhere = addresses.iter().find(|address| !address.is_loopback());
        // 127.0.0.1 is the default; `::1` and 127.0.0.2 are other addresses of this machine alone.
        let has_default = addresses.contains(&Ipv4Addr::LOCALHOST.into());
        let address = from_elsewhere.or_else(|| addresses.first().filter(|_| !has_default))?;
        Some(SocketAddr::new(*address, DEFAULT_PORT).to_string())
    }

    /// Returns the name that leads to an address, unless that is for this machine alone.
    pub(super) fn name_of(&self, wanted: IpAddr) -> Option<&str> {
        let mut names = self.0.iter().filter(|(_, address)| !address.is_loopback());
        names.find_map(|(name, address)| (*address == wanted).then_some(name.as_str()))
    }
}

/// Returns the first address of a name that is one of this machine, that of IPv4 before others.
fn local_address(name: &str) -> Option<IpAddr> {
    let addresses = (name, 0).to_socket_addrs().ok()?;
    let mut addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    // Only what this machine has can be taken; nothing is sent.
    let is_local = |address: &IpAddr| !address.is_unspecified() && UdpSocket::bind((*address, 0)).is_ok();
    addresses.into_iter().find(is_local)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::tests_support::loaded;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        serve: Serve,
    }

    #[test]
    fn names_lead_here_by_an_address_of_this_machine() {
        assert_eq!(local_address("127.0.0.1"), Some([127, 0, 0, 1].into()));
        // For documentation (RFC 5737), all addresses, and names that nobody has (RFC 6761).
        for other in ["192.0.2.1", "0.0.0.0", "registry.invalid", "*.example"] {
            assert_eq!(local_address(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_leads_here_says_where_to_listen_unless_somebody_else_does() {
        let address = |places: &[[u8; 4]], more: &[&str], text: &str, variables: &[(&str, &str)]| {
            let line = ["serve", "--tls-self-signed", "registry.lan"];
            let mut serve = CommandLine::parse_from(line.into_iter().chain(more.iter().copied())).serve;
            let here = places
                .iter()
                .map(|place| ("registry.lan".to_owned(), (*place).into()));
            let loaded = loaded(text, variables);
            serve.named_address = LocalNames(here.collect()).listen_address(&serve, &loaded);
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
        let names = LocalNames(vec![here([127, 0, 0, 1].into()), here(elsewhere)]);
        assert_eq!(names.name_of(elsewhere), Some("name-of-10.0.0.5"));
        assert_eq!(names.name_of([127, 0, 0, 1].into()), None);
        assert_eq!(names.name_of([10, 0, 0, 6].into()), None);
    }
}
