//! Servers to log in to: by each way, without encryption and with each kind of certificate.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::issuer::Issuer;
use crate::support::server::Server;
use crate::support::users::{PASSWORD, set_password};
use crate::tls_server::{Authority, TlsServer};

/// Alice may do everything, bob may pull what is the team's, and everybody what is public.
const ACCESS: &str = "
access:
  rules:
    - {repositories: ['public/**'], identities: [anonymous], actions: [pull]}
    - {repositories: ['team/**', 'public/**'], identities: [alice], actions: ['*']}
    - {repositories: ['team/**'], identities: [bob], actions: [pull]}
";

/// A server.
pub(crate) struct Place {
    /// What is special about it, for messages.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) host: String,
    /// Docker asks for tokens without a password, but pulls nothing by a password that it does not have.
    pub(crate) is_open_to_docker: bool,
    /// The certificate to trust, in a folder as the clients of containers/image take it; nothing without encryption.
    certificates: Option<PathBuf>,
    _issuer: Option<Issuer>,
    _server: Running,
    _folder: TempDir,
}

/// What ends with the place.
enum Running {
    Plain { _server: Server },
    Encrypted { _server: TlsServer },
}

impl Place {
    pub(crate) const fn is_encrypted(&self) -> bool {
        self.certificates.is_some()
    }

    /// Returns the option that makes a client of containers/image talk to it, such as `--dest-cert-dir`.
    pub(crate) fn option(&self, side: &str) -> Vec<String> {
        match &self.certificates {
            None => vec![format!("--{side}tls-verify=false")],
            Some(folder) => vec![format!("--{side}cert-dir"), folder.display().to_string()],
        }
    }

    /// Returns the option that makes `ctr` talk to it.
    pub(crate) fn ctr_option(&self) -> Vec<String> {
        match &self.certificates {
            None => vec!["--plain-http".to_owned()],
            Some(folder) => vec![
                "--hosts-dir".to_owned(),
                folder.join("hosts").display().to_string(),
            ],
        }
    }

    /// Makes Docker trust it for as long as the value lives; nothing where only root may do that and this is not root.
    pub(crate) fn trusted_by_docker(&self) -> Option<TrustedByDocker> {
        let Some(certificates) = &self.certificates else {
            return Some(TrustedByDocker(None));
        };
        // Docker looks for certificates nowhere else.
        let folder = PathBuf::from(format!("/etc/docker/certs.d/{}", self.host));
        if fs::create_dir_all(&folder).is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "only root may write to {}",
                folder.display()
            );
            return None;
        }
        fs::copy(certificates.join("ca.crt"), folder.join("ca.crt")).expect("a file can be copied");
        Some(TrustedByDocker(Some(folder)))
    }
}

/// A folder of the system that the test made.
pub(crate) struct TrustedByDocker(Option<PathBuf>);

impl Drop for TrustedByDocker {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            fs::remove_dir_all(folder).ok();
        }
    }
}

/// Starts all of them.
pub(crate) fn places() -> Vec<Place> {
    let ways = ["htpasswd", "built-in token", "external token"];
    let certificates = ["no encryption", "a private authority", "a certificate of its own"];
    let places = ways
        .iter()
        .flat_map(|way| certificates.iter().map(|certificate| place(way, certificate)));
    places.collect()
}

fn place(way: &str, certificate: &str) -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str| {
        folder
            .path()
            .join(name)
            .to_str()
            .expect("a plain path")
            .to_owned()
    };
    for user in ["alice", "bob"] {
        set_password(path("users").as_ref(), user, PASSWORD);
    }
    let issuer = (way == "external token").then(Issuer::start);
    let auth = match (way, &issuer) {
        (_, Some(issuer)) => format!(
            "token: {{realm: '{}', service: registry, issuer: issuer, jwks: '{}'}}",
            issuer.url(),
            issuer.key_set().display()
        ),
        ("htpasswd", _) => format!("htpasswd: {{realm: Registry, path: {}}}", path("users")),
        _ => format!(
            "token: {{service: registry, builtin: {{users: {}}}}}",
            path("users")
        ),
    };
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nauth: {{{auth}}}\n{ACCESS}",
        path("data")
    );
    fs::write(path("config.yml"), configuration).expect("a file can be written");
    let (host, server, authority) = start(folder.path(), certificate);
    let certificates = authority.map(|authority| trust(folder.path(), &host, &authority));
    Place {
        name: format!("{way}, {certificate}"),
        host,
        is_open_to_docker: way != "htpasswd",
        certificates,
        _issuer: issuer,
        _server: server,
        _folder: folder,
    }
}

/// Starts a server by the configuration in a folder. Returns also the certificate to trust.
fn start(folder: &Path, certificate: &str) -> (String, Running, Option<PathBuf>) {
    let path = |name: &str| folder.join(name).to_str().expect("a plain path").to_owned();
    let (arguments, variables, authority) = match certificate {
        "no encryption" => {
            let server = Server::configured(path("config.yml").as_ref());
            return (
                server.address().to_string(),
                Running::Plain { _server: server },
                None,
            );
        }
        "a private authority" => {
            let authority = Authority::new("private");
            authority.write(path("ca.pem").as_ref());
            authority.issue(folder, "server", |_| {});
            let variables = vec![
                ("REGISTRY_HTTP_TLS_CERTIFICATE", path("server.pem")),
                ("REGISTRY_HTTP_TLS_KEY", path("server-key.pem")),
            ];
            (vec![path("config.yml")], variables, path("ca.pem"))
        }
        _ => {
            let arguments = vec![
                path("config.yml"),
                "--tls-self-signed".to_owned(),
                "registry.example".to_owned(),
            ];
            (arguments, Vec::new(), path("data/tls/ca.pem"))
        }
    };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let server = TlsServer::start(folder, &arguments, &variables);
    (
        server.host(),
        Running::Encrypted { _server: server },
        Some(authority.into()),
    )
}

/// Makes folders by which clients trust an authority.
fn trust(folder: &Path, host: &str, authority: &Path) -> PathBuf {
    let certificates = folder.join("certificates");
    let hosts = certificates.join("hosts").join(host);
    fs::create_dir_all(&hosts).expect("a folder can be made");
    fs::copy(authority, certificates.join("ca.crt")).expect("a file can be copied");
    let text = format!(
        "server = \"https://{host}\"\n[host.\"https://{host}\"]\n  ca = \"{}\"\n",
        authority.display()
    );
    fs::write(hosts.join("hosts.toml"), text).expect("a file can be written");
    certificates
}
