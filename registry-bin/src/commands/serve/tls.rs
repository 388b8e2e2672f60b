//! TLS: with the files that the configuration names, or with a certificate of our own, kept in the data folder.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use registry_http::tls::{
    CipherSuites, ClientCertificates, ClientVerification, ServerCertificate, Tls, TlsConfig, TlsOptions,
    TlsVersion,
};
use registry_storage::filesystem::create_private_folder;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::arguments::{LocalNames, Serve};
use super::reload::{Change, Reloadable, gone};
use crate::bounded_file;
use crate::config::sections::http::Http;
use crate::config::sections::tls::{ClientAuthentication, MinimumTls};
use crate::config::{DEFAULT_FOLDER, Loaded};
use crate::failure::Failure;
use crate::places::certificates_folder;
use crate::secret_file;
use crate::storage::StorageLocation;

/// How often to check whether our own certificate is about to expire.
const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_hours(6);

/// The TLS of a server, and the source of its certificate.
pub(super) struct Encryption {
    tls: Tls,
    self_signed: Option<SelfSigned>,
    /// The configuration in force, for renewals.
    http: Mutex<Http>,
}

impl Encryption {
    /// Reads or creates what is needed. Returns `None` if TLS is not configured.
    pub(super) fn start(http: &Http, self_signed: Option<SelfSigned>) -> Result<Option<Self>, Failure> {
        if http.tls.certificate.is_none() && self_signed.is_none() {
            return Ok(None);
        }
        if http.tls.certificate.is_some() && self_signed.is_some() {
            return Err(Failure::new(
                "--tls-self-signed and http.tls.certificate exclude each other; keep one",
            ));
        }
        let tls = Tls::with_config(config(http, self_signed.as_ref())?);
        Ok(Some(Self {
            tls,
            self_signed,
            http: Mutex::new(http.clone()),
        }))
    }

    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Returns the configuration in force.
    fn in_force(&self) -> Http {
        self.http.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Issues a new certificate if our own is about to expire.
    fn renew(&self) -> Result<(), Failure> {
        let http = self.in_force();
        self.tls.replace_config(config(&http, self.self_signed.as_ref())?);
        Ok(())
    }

    /// Returns our own certificate, if it is used.
    pub(super) const fn self_signed(&self) -> Option<&SelfSigned> {
        self.self_signed.as_ref()
    }
}

impl Reloadable for Encryption {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let http = &new.configuration.http;
        if http.tls.certificate.is_none() && self.self_signed.is_none() {
            return Err(Failure::of(
                "http.tls",
                "encryption cannot be switched off while the server runs: put it back, or restart the server",
            ));
        }
        let (old, tls) = (self.in_force().tls, &http.tls);
        if tls.client_authorities.is_empty() && !old.client_authorities.is_empty() {
            return Err(gone(
                "http.tls.clientcas",
                "clients without a certificate would be let in",
            ));
        }
        if old.minimum_version == MinimumTls::Tls13 && !new.tree.has("http.tls.minimumtls") {
            return Err(gone(
                "http.tls.minimumtls",
                "older versions of TLS would be spoken",
            ));
        }
        if tls.cipher_suites.is_empty() && !old.cipher_suites.is_empty() {
            return Err(gone("http.tls.ciphersuites", "all of them would be offered"));
        }
        let mut http = http.clone();
        let (clients, asked) = (old.client_authentication, tls.client_authentication);
        let is_held_back = !old.client_authorities.is_empty()
            && asked
                .unwrap_or_default()
                .is_weaker_than(clients.unwrap_or_default());
        if is_held_back {
            http.tls.client_authentication = clients;
        }
        let config = config(&http, self.self_signed.as_ref())?;
        Ok(Box::new(move || {
            if is_held_back {
                tracing::warn!(
                    "a weaker `http.tls.clientauth` waits for a restart, as another kind of `auth` does"
                );
            }
            *self.http.lock().unwrap_or_else(PoisonError::into_inner) = http;
            self.tls.replace_config(config);
        }))
    }
}

/// The stand-in for a server without TLS.
pub(super) struct Unencrypted;

impl Reloadable for Unencrypted {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        if new.configuration.http.tls.certificate.is_some() {
            return Err(Failure::of(
                "http.tls",
                "encryption cannot be switched on while the server runs; restart it",
            ));
        }
        Ok(Box::new(|| ()))
    }
}

/// A task that renews our own certificate before it expires.
pub(super) struct Renewal(JoinHandle<()>);

impl Renewal {
    /// Starts the task if our own certificate is used.
    #[expect(clippy::disallowed_methods, reason = "its owner aborts it when dropped")]
    pub(super) fn start(encryption: &Arc<Encryption>) -> Option<Self> {
        encryption.self_signed.as_ref()?;
        let encryption = Arc::clone(encryption);
        Some(Self(tokio::spawn(async move {
            loop {
                sleep(RENEWAL_CHECK_INTERVAL).await;
                if let Err(failure) = block_in_place(|| encryption.renew()) {
                    tracing::error!(%failure, "the certificate cannot be renewed; it stays in force");
                }
            }
        })))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the files, or creates what is needed.
pub(super) fn config(http: &Http, self_signed: Option<&SelfSigned>) -> Result<TlsConfig, Failure> {
    let certificate = match (self_signed, &http.tls.certificate, &http.tls.key) {
        (Some(own), ..) => own.certificate()?,
        (None, Some(chain), Some(key)) => read_certificate(chain, key)?,
        (None, ..) => {
            return Err(Failure::of("http.tls", "takes both `certificate` and `key`"));
        }
    };
    let mut options = TlsOptions::new(certificate);
    options.http2 = !http.http2.disabled;
    options.minimum_version = match http.tls.minimum_version {
        MinimumTls::Tls12 => TlsVersion::Tls12,
        MinimumTls::Tls13 => TlsVersion::Tls13,
    };
    if !http.tls.cipher_suites.is_empty() {
        let (suites, left_out) = CipherSuites::from_names(&http.tls.cipher_suites)
            .map_err(|cause| Failure::of("http.tls.ciphersuites", "cannot be used").because(cause))?;
        if !left_out.is_empty() {
            let suites = left_out.join(", ");
            tracing::warn!(suites, "these cipher suites are too weak and not offered");
        }
        options.cipher_suites = suites;
    }
    options.clients = clients(http)?;
    let config = options.into_config();
    config.map_err(|cause| Failure::of("http.tls", "cannot be used").because(cause))
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are read and made at this moment"
)]
fn read_certificate(chain: &Path, key: &Path) -> Result<ServerCertificate, Failure> {
    let chain_text = read("http.tls.certificate", chain)?;
    let key_text = read("http.tls.key", key)?;
    ServerCertificate::from_pem(&chain_text, &key_text, SystemTime::now()).map_err(|cause| {
        let (chain, key) = (chain.display(), key.display());
        Failure::of("http.tls.certificate", format!("{chain} with the key {key}")).because(cause)
    })
}

fn clients(http: &Http) -> Result<Option<ClientCertificates>, Failure> {
    let files = &http.tls.client_authorities;
    if files.is_empty() {
        return Ok(None);
    }
    let texts = files.iter().map(|file| read("http.tls.clientcas", file));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let verification = match http.tls.client_authentication.unwrap_or_default() {
        ClientAuthentication::RequestClientCert => ClientVerification::Request,
        ClientAuthentication::RequireAnyClientCert => ClientVerification::RequireAny,
        ClientAuthentication::VerifyClientCertIfGiven => ClientVerification::VerifyIfGiven,
        ClientAuthentication::RequireAndVerifyClientCert => ClientVerification::RequireAndVerify,
    };
    let clients = ClientCertificates::from_pem(texts, verification);
    Ok(Some(clients.map_err(|cause| {
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        Failure::of("http.tls.clientcas", files.join(", ")).because(cause)
    })?))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    bounded_file::read(path)
        .map_err(|cause| Failure::of(key, format!("cannot read {}", path.display())).because(cause))
}

/// How long the authority is valid. Each client must be made to trust its successor manually.
const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 3650);

/// How long a certificate is valid. Clients refuse certificates that are valid for more than 398 days.
const CERTIFICATE_LIFE: Duration = Duration::from_hours(24 * 397);

/// How long before its expiry a certificate is renewed.
const RENEWAL_BEFORE_EXPIRY: Duration = Duration::from_hours(24 * 30);

/// How far validity is backdated, for clients whose clock is slow.
const BACKDATING: Duration = Duration::from_hours(1);

/// A certificate for some names, and the folder that holds it and its authority.
#[derive(Clone, Debug)]
pub(super) struct SelfSigned {
    folder: PathBuf,
    names: Vec<String>,
    local: LocalNames,
}

impl SelfSigned {
    /// Returns our own certificate, if the command line asks for one. Nothing is read or written yet.
    pub(super) fn of(serve: &Serve, loaded: &Loaded, local: LocalNames) -> Result<Option<Self>, Failure> {
        let Some(names) = &serve.tls_self_signed else {
            return Ok(None);
        };
        let root = match StorageLocation::of(&loaded.configuration.storage)? {
            StorageLocation::Folder(root) => root,
            StorageLocation::Memory | StorageLocation::Bucket(_) => PathBuf::from(DEFAULT_FOLDER),
        };
        Self::new(certificates_folder(&root), names, local).map(Some)
    }

    /// Creates one for this machine's names and `more`, of which `local` lead to this machine.
    fn new(folder: PathBuf, more: &[String], local: LocalNames) -> Result<Self, Failure> {
        let mut names: Vec<String> = Vec::new();
        for name in more {
            if !is_name(name) {
                return Err(Failure::new(format!(
                    "--tls-self-signed {name:?} is neither a host name nor an address; a configuration file goes before the flag"
                )));
            }
            names.push(name.to_ascii_lowercase());
        }
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let own = own.trim().to_ascii_lowercase();
        if is_name(&own) {
            names.push(own);
        }
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        Ok(Self { folder, names, local })
    }

    /// Returns the existing certificate, or a new one if there is none, it expires soon, or the names have changed.
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates are read and made at this moment"
    )]
    pub(super) fn certificate(&self) -> Result<ServerCertificate, Failure> {
        let failed = || Failure::new(format!("--tls-self-signed: cannot use {}", self.folder.display()));
        let now = SystemTime::now();
        // A certificate and its key are two files: two servers that create them at once could leave a mismatched pair.
        let _lock = secret_file::lock(&self.folder.join("lock")).map_err(|cause| failed().because(cause))?;
        let is_new = self
            .keep_authority(now)
            .map_err(|cause| failed().because(cause))?;
        if !is_new
            && let Some(certificate) = self
                .kept(now + RENEWAL_BEFORE_EXPIRY)
                .map_err(|cause| failed().because(cause))?
        {
            return Ok(certificate);
        }
        self.issue(now).map_err(|cause| failed().because(cause))?;
        let made = self.kept(now).map_err(|cause| failed().because(cause))?;
        made.ok_or_else(|| failed().because("the certificate that was just made cannot be read"))
    }

    /// Returns the file of the authority's certificate.
    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Creates an authority if there is no valid one. Returns whether it did.
    fn keep_authority(&self, now: SystemTime) -> io::Result<bool> {
        if let Some((certificate, key)) = self.pair("ca")? {
            // The authority must outlive what it signs.
            match ServerCertificate::from_pem(&certificate, &key, now + CERTIFICATE_LIFE) {
                Ok(_) => return Ok(false),
                Err(problem) => {
                    tracing::warn!(%problem, "a new authority is made; clients have to trust it");
                }
            }
        }
        let mut params = CertificateParams::default();
        let name = self.names.first().map_or("localhost", String::as_str);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("registry authority of {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BACKDATING).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let key = KeyPair::generate().map_err(cannot_make)?;
        let certificate = params.self_signed(&key).map_err(cannot_make)?;
        self.write("ca", &certificate.pem(), &key)?;
        Ok(true)
    }

    /// Issues a certificate.
    fn issue(&self, now: SystemTime) -> io::Result<()> {
        let Some((authority, authority_key)) = self.pair("ca")? else {
            return Err(ErrorKind::NotFound.into());
        };
        let text = |bytes| String::from_utf8(bytes).map_err(io::Error::other);
        let authority_key = KeyPair::from_pem(&text(authority_key)?).map_err(cannot_make)?;
        let issuer = Issuer::from_ca_cert_pem(&text(authority)?, authority_key).map_err(cannot_make)?;
        let mut params = CertificateParams::new(self.names.clone()).map_err(cannot_make)?;
        let name = self.names.first().map_or("localhost", String::as_str);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATING).into();
        params.not_after = (now + CERTIFICATE_LIFE).into();
        let key = KeyPair::generate().map_err(cannot_make)?;
        let certificate = params.signed_by(&key, &issuer).map_err(cannot_make)?;
        self.write("server", &certificate.pem(), &key)?;
        secret_file::write(&self.folder.join("names"), &self.names.join("\n"))
    }

    /// Returns the existing certificate, if it is for the same names and valid at `time`.
    fn kept(&self, time: SystemTime) -> io::Result<Option<ServerCertificate>> {
        let names = match bounded_file::read_to_string(&self.folder.join("names")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            names => names?,
        };
        if names != self.names.join("\n") {
            return Ok(None);
        }
        let Some((chain, key)) = self.pair("server")? else {
            return Ok(None);
        };
        Ok(ServerCertificate::from_pem(&chain, &key, time).ok())
    }

    /// Reads a certificate and its key.
    fn pair(&self, name: &str) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let read = |file: String| match bounded_file::read(&self.folder.join(file)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            bytes => bytes.map(Some),
        };
        Ok(read(format!("{name}.pem"))?.zip(read(format!("{name}-key.pem"))?))
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> io::Result<()> {
        create_private_folder(&self.folder)?;
        secret_file::write(&self.folder.join(format!("{name}-key.pem")), &key.serialize_pem())?;
        let path = self.folder.join(format!("{name}.pem"));
        secret_file::write(&path, certificate)?;
        fs::set_permissions(path, Permissions::from_mode(0o644))
    }

    /// Returns instructions for clients to trust the certificate of a server at `host` and `port`.
    pub(super) fn instructions(&self, host: &str, port: u16) -> String {
        let authority = absolute(&self.authority());
        let authority = quoted(&authority.display().to_string());
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        // Clients do not write the default port.
        let place = if port == 443 {
            bracketed
        } else {
            format!("{bracketed}:{port}")
        };
        let copy = |folder: &str| format!("sudo install -D -m 644 {authority} {folder}/{place}/ca.crt");
        let mut text = format!(
            "Certificate for {}. Clients trust it by:\n",
            self.names.join(", ")
        );
        let lines = [
            ("docker", copy("/etc/docker/certs.d")),
            ("podman", copy("/etc/containers/certs.d")),
            (
                "containerd",
                format!(
                    "{} && printf 'server = \"https://{place}\"\\n[host.\"https://{place}\"]\\n  ca = \"/etc/containerd/certs.d/{place}/ca.crt\"\\n' | sudo tee /etc/containerd/certs.d/{place}/hosts.toml",
                    copy("/etc/containerd/certs.d")
                ),
            ),
            ("curl", format!("curl --cacert {authority} https://{place}/v2/")),
        ];
        for (client, command) in lines {
            // Writing to a string does not fail.
            writeln!(text, "  {client:<11} {command}").unwrap_or_default();
        }
        text
    }

    /// Returns the name or the address by which clients reach an address that the server listens on.
    pub(super) fn host_of(&self, address: IpAddr) -> String {
        let first_name = || self.names.first().map_or("localhost", String::as_str);
        if address.is_unspecified() {
            first_name().to_owned()
        } else {
            self.local
                .name_of(address)
                .map_or_else(|| address.to_string(), str::to_owned)
        }
    }
}

/// Hides the error of the library, which may quote a key.
fn cannot_make(_: rcgen::Error) -> io::Error {
    io::Error::other("a certificate cannot be made; remove the folder, and a new authority is made")
}

/// Returns whether this is a host name (RFC 1123, section 2.1), optionally with a leading `*.`, or an address.
fn is_name(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_file = [".yml", ".yaml"].iter().any(|end| host.ends_with(end));
    host.len() <= 253 && !is_file && host.split('.').all(is_label)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Quotes a path for a shell, if necessary.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@".contains(&byte);
    if text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(more: &[&str]) -> Result<Vec<String>, Failure> {
        let more: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
        Ok(SelfSigned::new(PathBuf::new(), &more, LocalNames::default())?.names)
    }

    #[test]
    fn names_are_those_of_the_machine_and_those_that_are_given() {
        let found = names(&["Registry.Example", "10.0.0.1", "localhost", "*.example"]).unwrap();
        assert_eq!(
            found[..4],
            ["registry.example", "10.0.0.1", "localhost", "*.example"]
        );
        assert!(found.contains(&"::1".to_owned()) && found.contains(&"127.0.0.1".to_owned()));
        assert_eq!(found.iter().filter(|name| *name == "localhost").count(), 1);
        for wrong in ["config.yml", "a/b", "", "a b", "-a", "a..b", "a_b", "https://a"] {
            assert!(names(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests are programs of their own")]
    fn what_is_made_is_kept_until_the_names_change() {
        let folder = tempfile::tempdir().unwrap();
        let make = |more: &[String]| {
            let own = SelfSigned::new(folder.path().join("a/tls"), more, LocalNames::default()).unwrap();
            let expires = own.certificate().unwrap().expires();
            assert!(expires > SystemTime::now() + RENEWAL_BEFORE_EXPIRY);
            let file = |name: &str| fs::read(own.folder.join(name)).unwrap();
            for key in ["ca-key.pem", "server-key.pem"] {
                let mode = fs::metadata(own.folder.join(key)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
            (file("ca.pem"), file("server.pem"))
        };
        let (authority, server) = make(&[]);
        assert_eq!(make(&[]), (authority.clone(), server.clone()));
        let (same, other) = make(&["registry.example".into()]);
        assert_eq!(same, authority);
        assert_ne!(other, server);
        // The lost key was the authority's, so everything is created anew.
        fs::remove_file(folder.path().join("a/tls/ca-key.pem")).unwrap();
        let (new, _) = make(&["registry.example".into()]);
        assert_ne!(new, authority);
    }

    #[test]
    fn instructions_are_ready_to_paste() {
        let own = SelfSigned::new("/data/it's".into(), &[], LocalNames::default()).unwrap();
        let text = own.instructions("registry.example", 5000);
        let authority = "'/data/it'\\''s/ca.pem'";
        for line in [
            format!("sudo install -D -m 644 {authority} /etc/docker/certs.d/registry.example:5000/ca.crt\n"),
            format!("curl --cacert {authority} https://registry.example:5000/v2/\n"),
        ] {
            assert!(text.contains(&line), "{text}");
        }
        assert!(own.instructions("::1", 443).contains("https://[::1]/v2/"));
    }
}
