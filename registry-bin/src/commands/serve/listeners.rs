//! The sockets of a server, the messages that say where it listens, and how many connections and files it may have open.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::net as unix;
use std::path::Path;

use listenfd::ListenFd;
use registry_http::{Limits, LineSink as _, ListenAddress, Listener, MemoryBudget};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::tls::Encryption;
use crate::config::Configuration;
use crate::config::sections::auth::AuthKind;
use crate::config::sections::http::{Http, Network, UnixSocket};
use crate::config::sections::log::LogFormat;
use crate::config::values::HostPort;
use crate::failure::Failure;
use crate::line_writer::LineWriter;
use crate::ownership;
use crate::storage::StorageLocation;

/// A listening socket from the service manager (systemd.socket(5)).
pub(super) enum Inherited {
    Tcp(std::net::TcpListener),
    Unix(unix::UnixListener),
}

/// The variable in which a service manager passes the number of sockets (`sd_listen_fds(3)`).
const SOCKETS_VARIABLE: &str = "LISTEN_FDS";

/// The most sockets that are accepted from a service manager; systemd's own limit is far below it.
const MOST_SOCKETS: usize = 1024;

/// Takes the sockets that `LISTEN_FDS` counts, and removes the variable. No other thread may be running yet.
#[expect(clippy::disallowed_methods, reason = "the service manager's protocol")]
pub(super) fn inherited() -> Result<Vec<Inherited>, Failure> {
    let wrong = |what: &str| {
        Failure::new(format!(
            "{SOCKETS_VARIABLE}: {what}; a service manager sets this variable for the sockets that it passes: unset it where none does"
        ))
    };
    if let Some(count) = std::env::var_os(SOCKETS_VARIABLE).filter(|count| !count.is_empty()) {
        let count = count.to_str().and_then(|count| count.parse::<usize>().ok());
        if count.is_none_or(|count| count > MOST_SOCKETS) {
            return Err(wrong("it takes the number of the sockets"));
        }
    }
    let mut sockets = ListenFd::from_env();
    (0..sockets.len())
        .map(|place| {
            if let Ok(Some(socket)) = sockets.take_tcp_listener(place) {
                return Ok(Inherited::Tcp(socket));
            }
            match sockets.take_unix_listener(place) {
                Ok(Some(socket)) => Ok(Inherited::Unix(socket)),
                Ok(None) => Err(wrong("a socket is named twice")),
                Err(_) => Err(wrong(&format!(
                    "what is passed as socket {place} is no TCP or unix stream socket that listens"
                ))),
            }
        })
        .collect()
}

/// How many connections may wait to be accepted, as far as the system allows. When the queue is full, a client retries
/// after a second, merely because another client opens a thousand connections at once.
const BACKLOG_CONNECTIONS: u32 = 4096;

/// Whether the port is reserved before the storage is opened.
pub(super) enum Reservation {
    Made(Reserved),
    Deferred(Vec<Inherited>),
}

impl Reservation {
    /// Reserves the port before the storage is opened, so that a second server that was started by mistake reports it.
    /// With `wait`, the port is left alone meanwhile, because the server that has the storage may have it.
    pub(super) fn new(http: &Http, inherited: Vec<Inherited>, wait: bool) -> Result<Self, Failure> {
        if wait {
            Ok(Self::Deferred(inherited))
        } else {
            Reserved::new(http, inherited).map(Self::Made)
        }
    }

    /// Reserves the port now, unless that was done before.
    pub(super) fn make(self, http: &Http) -> Result<Reserved, Failure> {
        match self {
            Self::Made(reserved) => Ok(reserved),
            Self::Deferred(inherited) => Reserved::new(http, inherited),
        }
    }
}

/// A reserved address. No other process can take it, and connections are refused so far: a client should go to another
/// server or retry, rather than wait for a storage that is not open yet. Sockets of the service manager exist already,
/// and on those clients do wait.
pub(super) enum Reserved {
    Inherited(Vec<Inherited>),
    Tcp(TcpSocket),
    Unix(String),
}

impl Reserved {
    /// Reserves the port, or uses the sockets of the service manager.
    fn new(http: &Http, inherited: Vec<Inherited>) -> Result<Self, Failure> {
        if !inherited.is_empty() {
            tracing::info!(
                address = http.addr,
                "sockets of the service manager are used in place of http.addr"
            );
            return Ok(Self::Inherited(inherited));
        }
        if http.net == Network::Unix {
            return Ok(Self::Unix(http.addr.clone()));
        }
        require_apart(http)?;
        reserve(&http.addr)
            .map(Self::Tcp)
            .map_err(|cause| cannot_listen("http.addr", &http.addr, cause))
    }

    /// Starts to listen.
    pub(super) async fn listen(
        self,
        http: &Http,
        encryption: Option<&Encryption>,
    ) -> Result<Vec<Listener>, Failure> {
        let listeners = match self {
            Self::Inherited(sockets) => {
                let listeners: Result<Vec<_>, _> = sockets.into_iter().map(Inherited::listener).collect();
                listeners.map_err(|cause| Failure::new("a socket of LISTEN_FDS").because(cause))?
            }
            Self::Tcp(socket) => {
                let listener = socket.listen(BACKLOG_CONNECTIONS).and_then(Listener::tcp);
                vec![listener.map_err(|cause| cannot_listen("http.addr", &http.addr, cause))?]
            }
            Self::Unix(path) => vec![bind_unix(&path, &http.unix).await?],
        };
        // distribution has no switch for HTTP/2 without TLS; here, `h2c.enabled: false` turns it off.
        let has_http2 = http.h2c.enabled.unwrap_or(!http.http2.disabled);
        let listeners = listeners.into_iter().map(|listener| match encryption {
            Some(encryption) => listener.with_tls(encryption.tls()),
            None if has_http2 => listener,
            None => listener.without_http2(),
        });
        Ok(listeners.collect())
    }
}

/// Reserves the first address that this machine has.
fn reserve(text: &str) -> io::Result<TcpSocket> {
    let mut reserved = Err(ErrorKind::AddrNotAvailable.into());
    for address in resolve(text)? {
        reserved = reserve_address(address);
        match &reserved {
            // If another process has the port for IPv6, do not fall back to IPv4 only.
            Err(error) if error.kind() != ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    reserved
}

fn reserve_address(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // All addresses include those of IPv4, whatever the system's default (`bindv6only`) is.
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // Recently closed connections do not block the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Inherited {
    fn listener(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Listener::tcp(TcpListener::from_std(socket)?)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Listener::unix(UnixListener::from_std(socket)?)
            }
        }
    }
}

async fn bind_unix(path: &str, file: &UnixSocket) -> Result<Listener, Failure> {
    let group = group_of(file)?;
    let mode = file.mode.map(|mode| mode.0);
    Listener::bind_unix(path, mode, group).await.map_err(|cause| {
        let message = format!("cannot listen at the unix socket {path}; name another");
        Failure::of("http.addr", message).because(ownership::with_owner(Path::new(path), cause))
    })
}

/// Finds the ID of the group of a socket. This process must be able to give the socket to it.
fn group_of(file: &UnixSocket) -> Result<Option<u32>, Failure> {
    let Some(group) = &file.group else {
        return Ok(None);
    };
    let wrong = |what: String| Failure::of("http.unix.group", what);
    let number = ownership::group_id(group)
        .ok_or_else(|| wrong(format!("/etc/group has no group {group}; write its number")))?;
    if !ownership::may_give_to_group(number) {
        return Err(wrong(format!(
            "the socket cannot have the group {group}, because {} is not in it; add the user to the group, or name another one",
            ownership::this_user()
        )));
    }
    Ok(Some(number))
}

/// Listens on the address that a key of the configuration names.
pub(super) fn bind_tcp(key: &str, text: &str) -> Result<TcpListener, Failure> {
    reserve(text)
        .and_then(|socket| socket.listen(BACKLOG_CONNECTIONS))
        .map_err(|cause| cannot_listen(key, text, cause))
}

/// Checks that the group exists.
pub(super) fn check_unix(file: &UnixSocket) -> Result<(), Failure> {
    group_of(file).map(drop)
}

/// Requires that both listeners can coexist. The system lets both reserve the same port until they listen, so the
/// conflict would be found late, and reported for the wrong key.
pub(super) fn require_apart(http: &Http) -> Result<(), Failure> {
    let Some(debug) = http.debug.addr.as_deref().filter(|_| http.net == Network::Tcp) else {
        return Ok(());
    };
    // An address that cannot be resolved is reported elsewhere.
    let (first, second) = (resolve(&http.addr), resolve(debug));
    let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
    if first
        .iter()
        .any(|one| second.iter().any(|other| overlap(one, other)))
    {
        let message = format!(
            "{debug} is taken by `http.addr`, which is {}; write another port",
            http.addr
        );
        return Err(Failure::of("http.debug.addr", message));
    }
    Ok(())
}

/// Returns whether one of two sockets takes what the other needs. The unspecified IPv6 address includes IPv4.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let takes =
        |all: &SocketAddr, part: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || part.is_ipv4());
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || takes(one, other) || takes(other, one))
}

/// Checks that this machine has the address, which a name may lack, and that this process may use the port. The address
/// stays free.
pub(super) fn check(key: &str, text: &str) -> Result<(), Failure> {
    match reserve(text) {
        // A running server may have the address.
        Err(cause) if cause.kind() != ErrorKind::AddrInUse => Err(cannot_listen(key, text, cause)),
        _ => Ok(()),
    }
}

fn cannot_listen(key: &str, text: &str, cause: io::Error) -> Failure {
    if cause.kind() == ErrorKind::PermissionDenied {
        let message = format!(
            "cannot listen on {text} as {}: ports this low are for root, or for who has CAP_NET_BIND_SERVICE; name another \
             port, or let a service manager or a container pass this one on",
            ownership::this_user()
        );
        return Failure::of(key, message).because(cause);
    }
    Failure::of(key, format!("cannot listen on {text}; name another address")).because(cause)
}

/// Resolves the addresses to listen on.
fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    let address =
        HostPort::parse(text).map_err(|problem| io::Error::new(ErrorKind::InvalidInput, problem))?;
    address.listen_addresses()
}

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
    warn_of_open_access(configuration, addresses);
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
fn warn_of_open_access(configuration: &Configuration, addresses: &[ListenAddress]) {
    let tcp = addresses.iter().filter_map(ListenAddress::tcp);
    let Some(address) = tcp.into_iter().find(|address| !address.ip().is_loopback()) else {
        return;
    };
    let asks_for_certificates = !configuration.http.tls.client_authorities.is_empty();
    let is_open = configuration.auth.kind() == AuthKind::Nobody
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

/// Files that are open besides those of connections and blobs: records, logs, listening sockets, and what is opened
/// only briefly. If few files may be open, it is half of them, but never fewer than a server with some clients needs.
const OTHER_FILES: u64 = 128;
const FEWEST_OTHER_FILES: u64 = 48;

/// With fewer files than this, hardly any are left for clients.
const FEWEST_FILES: u64 = 64;

/// The most files of blobs that are open at once.
const MOST_BLOB_FILES: usize = 16_384;

/// The inverse of the part of the files for pulls that is kept for requests which check for a blob.
const LOOKUP_DIVISOR: usize = 8;

/// The division of the limit on open files. No part takes from another, so that stalled clients do not block
/// connections, pushes or the log; and no address gets all of a part.
#[derive(Debug)]
pub(super) struct OpenFiles {
    pub(super) limits: Limits,
    /// How many files of blobs may be open.
    pub(super) blobs: usize,
    /// How many files may be open in total.
    files: u64,
}

impl OpenFiles {
    /// Raises the limit of this process as far as possible, as Go programs do, and divides it. Logs a shortage.
    ///
    /// # Errors
    /// If so few files may be open that no client could be served.
    pub(super) fn divide(http: &Http) -> Result<Self, Failure> {
        let divided = Self::of(http)?;
        if divided.is_short(http) {
            tracing::warn!(
                files = divided.files,
                connections = divided.limits.connections,
                pulls = divided.limits.downloads,
                pushes = divided.limits.uploads,
                "few files may be open (ulimit -n), so there are fewer connections, pulls and pushes at once"
            );
        }
        Ok(divided)
    }

    fn is_short(&self, http: &Http) -> bool {
        self.limits.connections < http.limits.connections.get()
    }

    /// Describes by how much the configuration is not met, and why, if it is not.
    pub(super) fn shortage(&self, http: &Http) -> Option<String> {
        let limits = &self.limits;
        self.is_short(http).then(|| {
            format!(
                "few files may be open ({}, ulimit -n), so there are fewer connections, pulls and pushes at once: {}, {} and {}",
                self.files, limits.connections, limits.downloads, limits.uploads
            )
        })
    }

    /// Like [`divide`](Self::divide), without logging a shortage.
    pub(super) fn of(http: &Http) -> Result<Self, Failure> {
        let configured = &http.limits;
        let mut limits = Limits::default();
        limits.memory = MemoryBudget::new(configured.memory.get());
        limits.connections = configured.connections.get();
        limits.requests = configured.requests.get();
        limits.streams = configured.streams.get();
        limits.header = configured.header.get();
        let timeouts = &http.timeouts;
        limits.handshake_timeout = timeouts.handshake.0;
        limits.header_timeout = timeouts.header.0;
        limits.request_body_timeout = timeouts.body.0;
        limits.response_timeout = timeouts.answer.0;
        limits.idle_timeout = timeouts.idle.0;
        // If the limit cannot be read, whatever forbids that has also set it.
        let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
            tracing::debug!(%error, "the limit on open files stays as it is");
            rlimit::getrlimit(rlimit::Resource::NOFILE).map(|(soft, _)| soft)
        });
        let files = files.unwrap_or(1024);
        if files < FEWEST_FILES {
            return Err(Failure::new(format!(
                "only {files} files may be open at once (ulimit -n), and connections are files too; allow at least {FEWEST_FILES}, \
                 better 1024 or more"
            )));
        }
        let free = free(files);
        limits.connections = limits.connections.min(free / 2);
        let blobs = free.saturating_sub(limits.connections).min(MOST_BLOB_FILES);
        // The same division as in the storage.
        limits.uploads = blobs / 4;
        let downloads = blobs - limits.uploads;
        limits.downloads = downloads - downloads / LOOKUP_DIVISOR;
        Ok(Self { blobs, limits, files })
    }
}

/// Returns how many files are left for clients.
fn free(files: u64) -> usize {
    let others = (files / 2).clamp(FEWEST_OTHER_FILES, OTHER_FILES);
    usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_take_the_port_of_each() {
        let overlaps = |one: &str, other: &str| {
            let (one, other) = (resolve(one).unwrap(), resolve(other).unwrap());
            one.iter()
                .any(|one| other.iter().any(|other| overlap(one, other)))
        };
        for (one, other) in [
            (":5000", "127.0.0.1:5000"),
            ("127.0.0.1:5000", "0.0.0.0:5000"),
            ("[::1]:5000", ":5000"),
            ("[::]:5000", "127.0.0.1:5000"),
            ("localhost:5000", "127.0.0.1:5000"),
        ] {
            assert!(overlaps(one, other), "{one} {other}");
        }
        for (one, other) in [
            (":5000", ":5001"),
            (":0", ":0"),
            ("127.0.0.1:5000", "127.0.0.2:5000"),
            ("0.0.0.0:5000", "[::1]:5000"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }
}
