//! The server with encryption, as a process of its own, and authorities that sign its certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::tools::Daemon;

/// A server whose files are in a folder.
pub(crate) struct TlsServer {
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    process: Daemon,
}

impl TlsServer {
    /// Starts `serve` with more arguments and variables, on a port of the system's choice.
    pub(crate) fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(arguments, variables);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut process = Daemon::run(command, folder);
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        process.wait_until(folder, || log().contains("Push with"));
        let log = log();
        let (_, rest) = log
            .split_once("Listening on https://127.0.0.1:")
            .unwrap_or_else(|| panic!("no address: {log}"));
        let port = rest.lines().next().and_then(|port| port.parse().ok());
        Self {
            folder: folder.to_owned(),
            port: port.expect("a port"),
            process,
        }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends a signal, for example `-HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// Returns `serve` with these arguments.
pub(crate) fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    command.arg("serve").args(arguments);
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

/// Pushes an image to the store in `folder` by a server without encryption.
pub(crate) fn prepare(folder: &Path, name: &str) {
    let server = Server::on(folder);
    crate::samples::push_image(&Repository::new(server.address(), name), "v1");
    assert!(server.terminate().success());
}

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = Self::params(name);
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority can be made"))
    }

    /// Makes another one, which this one signs.
    pub(crate) fn below(&self, name: &str) -> Self {
        let (params, key) = Self::params(name);
        Self(CertifiedIssuer::signed_by(params, key, &self.0).expect("an authority can be made"))
    }

    fn params(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        (params, KeyPair::generate().expect("a key can be made"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Writes the authority's certificate.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.0.pem()).expect("a file can be written");
    }

    /// Writes a certificate for loopback and its key; `change` may change what it says.
    pub(crate) fn issue(&self, folder: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().expect("a key can be made");
        self.issue_for(&key, folder, name, change);
    }

    /// As [`Self::issue`], for this key.
    pub(crate) fn issue_for(
        &self,
        key: &KeyPair,
        folder: &Path,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let certificate = params
            .signed_by(key, &self.0)
            .expect("a certificate can be signed");
        let write = |file: String, text: String| {
            // As a careful program replaces a file.
            fs::write(folder.join("new"), text).expect("a file can be written");
            fs::rename(folder.join("new"), folder.join(file)).expect("a file can be renamed");
        };
        write(format!("{name}-key.pem"), key.serialize_pem());
        write(format!("{name}.pem"), certificate.pem());
    }
}
