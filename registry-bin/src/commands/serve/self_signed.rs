//! A certificate authority and a certificate of our own, kept in the data folder.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use registry_http::tls::ServerCertificate;
use registry_storage::filesystem::create_private_folder;

use super::names::NamesHere;
use crate::bounded_file;
use crate::failure::Failure;
use crate::secret_file;

/// How long the authority is valid. Each client must be made to trust its successor manually.
const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 3650);

/// How long a certificate is valid. Clients refuse certificates that are valid for more than 398 days.
const LIFE: Duration = Duration::from_hours(24 * 397);

/// How long before its expiry a certificate is renewed.
const RENEWAL: Duration = Duration::from_hours(24 * 30);

/// How far validity is backdated, for clients whose clock is slow.
const EARLY: Duration = Duration::from_hours(1);

/// A certificate for some names, and the folder that holds it and its authority.
#[derive(Clone, Debug)]
pub(super) struct SelfSigned {
    folder: PathBuf,
    names: Vec<String>,
    here: NamesHere,
}

impl SelfSigned {
    /// Creates one for this machine's names and `more`, of which `here` lead to this machine. Nothing is read or written yet.
    pub(super) fn new(folder: PathBuf, more: &[String], here: NamesHere) -> Result<Self, Failure> {
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
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        Ok(Self { folder, names, here })
    }

    /// Returns the existing certificate, or a new one if there is none, it expires soon, or the names have changed.
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
                .kept(now + RENEWAL)
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
            match ServerCertificate::from_pem(&certificate, &key, now + LIFE) {
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
        params.not_before = (now - EARLY).into();
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
        params.not_before = (now - EARLY).into();
        params.not_after = (now + LIFE).into();
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
            self.here
                .at(address)
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
        Ok(SelfSigned::new(PathBuf::new(), &more, NamesHere::default())?.names)
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
    fn what_is_made_is_kept_until_the_names_change() {
        let folder = tempfile::tempdir().unwrap();
        let make = |more: &[String]| {
            let own = SelfSigned::new(folder.path().join("a/tls"), more, NamesHere::default()).unwrap();
            let expires = own.certificate().unwrap().expires();
            assert!(expires > SystemTime::now() + RENEWAL);
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
        let own = SelfSigned::new("/data/it's".into(), &[], NamesHere::default()).unwrap();
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
