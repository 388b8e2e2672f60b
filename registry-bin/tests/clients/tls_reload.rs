//! Certificates that change while connections are open.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::repository::Repository;
use crate::support::server::{Server, pause};
use crate::tls_server::{Authority, TlsServer};

/// A connection to a server, for several requests in a row.
struct Secured(StreamOwned<ClientConnection, TcpStream>);

impl Secured {
    /// Connects, and trusts this authority alone.
    fn open(server: &TlsServer, authority: &Authority) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(server.host())?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    fn ask(&mut self, target: &str) -> io::Result<()> {
        self.0
            .write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    /// Reads the head of a response; what follows is its body.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("the connection goes on");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("fields are text")
    }

    fn body(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the connection goes on");
        body
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Waits until `what` is true.
pub(crate) fn until(server: &TlsServer, what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < deadline, "it does not happen: {}", server.log());
        pause();
    }
}

/// Starts a server on `data` by the certificate in `live`.
fn start(folder: &Path, data: &Path, live: &Path) -> TlsServer {
    TlsServer::start(
        folder,
        &["--storage", text(data)],
        &[
            ("REGISTRY_HTTP_TLS_CERTIFICATE", text(&live.join("server.pem"))),
            ("REGISTRY_HTTP_TLS_KEY", text(&live.join("server-key.pem"))),
        ],
    )
}

#[test]
fn certificates_change_in_every_way_and_no_connection_is_cut() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name);
    let content: Vec<u8> = (0..16_u32 << 20).map(|at| (at / 7) as u8).collect();
    let plain = Server::on(&path("data"));
    let digest = Repository::new(plain.address(), "a").push_blob(&content);
    assert!(plain.terminate().success());

    let [first, second, third, fourth] = ["first", "second", "third", "fourth"].map(Authority::new);
    for (version, authority) in [("v1", &first), ("v2", &second)] {
        fs::create_dir(path(version)).expect("a folder can be made");
        authority.issue(&path(version), "server", |_| {});
    }
    let live = path("live");
    symlink("v1", &live).expect("a link can be made");
    let server = start(folder.path(), &path("data"), &live);
    let mut idle = Secured::open(&server, &first).expect("the first certificate");
    let mut pull = Secured::open(&server, &first).expect("the first certificate");
    pull.ask(&format!("/v2/a/blobs/{digest}")).expect("it is read");
    assert!(pull.head().starts_with("HTTP/1.1 200 "));
    let begin = pull.body(1 << 16);

    let is_in_force = |authority: &Authority| Secured::open(&server, authority).is_ok();
    // As Kubernetes does it: a folder of links is swapped for another one.
    symlink("v2", path("new-link")).expect("a link can be made");
    fs::rename(path("new-link"), &live).expect("a link can be renamed");
    until(&server, || is_in_force(&second));
    assert!(!is_in_force(&first));
    // As certbot does it: files are written anew.
    third.issue(&live, "server", |_| {});
    until(&server, || is_in_force(&third));
    // As an administrator does it.
    fourth.issue(&live, "server", |_| {});
    server.signal("-HUP");
    until(&server, || is_in_force(&fourth));

    let rest = pull.body(content.len() - begin.len());
    assert!([begin, rest].concat() == content, "the pull is whole");
    for connection in [&mut idle, &mut pull] {
        connection.ask("/v2/").expect("the connection goes on");
        assert!(connection.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(connection.body(2), b"{}");
    }
}

#[test]
fn a_bad_certificate_is_told_and_the_one_before_stays_in_force() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new("private");
    authority.issue(folder.path(), "server", |_| {});
    let server = start(folder.path(), &path("data"), folder.path());
    authority.issue(folder.path(), "other", |_| {});
    authority.issue(folder.path(), "old", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    fs::write(path("nonsense"), "nonsense").expect("a file can be written");
    for (certificate, key, expected) in [
        (
            "other.pem",
            "server-key.pem",
            "does not belong to the certificate",
        ),
        ("old.pem", "old-key.pem", "expired on Jan  2 "),
        ("nonsense", "old-key.pem", "no certificate"),
    ] {
        fs::copy(path(key), path("new")).expect("a file can be copied");
        fs::rename(path("new"), path("server-key.pem")).expect("a file can be renamed");
        fs::copy(path(certificate), path("new")).expect("a file can be copied");
        fs::rename(path("new"), path("server.pem")).expect("a file can be renamed");
        until(&server, || server.log().contains(expected));
        Secured::open(&server, &authority).expect("the first certificate stays in force");
    }
    fs::remove_file(path("server.pem")).expect("a file can be removed");
    until(&server, || {
        server.log().contains("http.tls.certificate: cannot read")
    });
    Secured::open(&server, &authority).expect("the first certificate stays in force");
    let log = server.log();
    let told = log
        .lines()
        .filter(|line| line.contains("the old one stays in force"));
    assert!(
        told.clone().count() >= 4 && told.clone().all(|line| line.contains("ERROR")),
        "{log}"
    );
}

#[test]
fn a_stronger_demand_on_certificates_of_clients_is_in_force_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new("private");
    authority.issue(folder.path(), "server", |_| {});
    authority.write(&path("ca.pem"));
    let write = |mode: &str| {
        let text = format!(
            "version: 0.1\nstorage: inmemory\nhttp:\n  tls:\n    certificate: {}\n    key: {}\n    clientcas: [{}]\n    clientauth: {mode}\n",
            text(&path("server.pem")),
            text(&path("server-key.pem")),
            text(&path("ca.pem"))
        );
        fs::write(path("config.yml"), text).expect("a file can be written");
    };
    write("verify-client-cert-if-given");
    let server = TlsServer::start(folder.path(), &[text(&path("config.yml"))], &[]);
    let is_let_in = || {
        let mut connection = Secured::open(&server, &authority)?;
        connection.ask("/v2/")?;
        connection.0.read_exact(&mut [0])
    };
    is_let_in().expect("no certificate is asked for");
    write("require-and-verify-client-cert");
    server.signal("-HUP");
    until(&server, || is_let_in().is_err());
    assert!(!server.log().contains("waits for a restart"), "{}", server.log());
    write("verify-client-cert-if-given");
    server.signal("-HUP");
    until(&server, || {
        server.log().contains("waits for a restart, as another kind")
    });
    assert!(is_let_in().is_err());
}

#[test]
fn whose_certificates_are_asked_for_stays_when_the_key_is_gone() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new("private");
    authority.issue(folder.path(), "server", |_| {});
    authority.write(&path("ca.pem"));
    let write = |rest: &str| {
        let text = format!(
            "version: 0.1\nstorage: inmemory\nhttp:\n  tls:\n    certificate: {}\n    key: {}\n{rest}",
            text(&path("server.pem")),
            text(&path("server-key.pem"))
        );
        fs::write(path("config.yml"), text).expect("a file can be written");
    };
    let strict = format!(
        "    minimumtls: tls1.3\n    ciphersuites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n    clientcas: [{}]\n",
        text(&path("ca.pem"))
    );
    write(&strict);
    let server = TlsServer::start(folder.path(), &[text(&path("config.yml"))], &[]);
    let is_let_in = || {
        let mut connection = Secured::open(&server, &authority)?;
        connection.ask("/v2/")?;
        connection.0.read_exact(&mut [0])
    };
    assert!(is_let_in().is_err());
    let without = |key: &str| {
        let lines = strict.lines().filter(|line| !line.contains(key));
        lines.fold(String::new(), |text, line| text + line + "\n")
    };
    for key in ["clientcas", "minimumtls", "ciphersuites"] {
        write(&without(key));
        server.signal("-HUP");
        until(&server, || {
            server.log().contains(&format!("http.tls.{key}: is gone, empty"))
        });
        assert!(is_let_in().is_err(), "{key}");
    }
    write("    clientcas: []\n");
    server.signal("-HUP");
    until(&server, || {
        server.log().matches("http.tls.clientcas: is gone, empty").count() == 2
    });
    assert!(is_let_in().is_err());
    // An explicit word that lets others in waits for a restart, whatever else comes into force.
    for weaker in [
        "request-client-cert",
        "require-any-client-cert",
        "verify-client-cert-if-given",
    ] {
        let before = server
            .log()
            .matches("waits for a restart, as another kind")
            .count();
        write(&format!("{strict}    clientauth: {weaker}\n"));
        server.signal("-HUP");
        until(&server, || {
            server
                .log()
                .matches("waits for a restart, as another kind")
                .count()
                > before
        });
        assert!(is_let_in().is_err(), "{weaker}");
    }
    // Another authority may be named, and an older version.
    write(&strict.replace("tls1.3", "tls1.2"));
    server.signal("-HUP");
    until(&server, || server.log().contains("is in force"));
}
