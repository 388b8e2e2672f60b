//! Keys and certificates that change while the server runs come into force, and no connection is cut.

use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::starts::Running;
use crate::support::client::Request;
use crate::support::server::until;
use crate::with_configuration;

const REFUSED: &str = "the old one stays in force";

/// Makes the folders `v1`, `v2` … with these files in them, and has the link `data` point to the first.
fn versions(folder: &Path, versions: &[&[(&str, &str)]]) {
    for (number, files) in (1..).zip(versions) {
        let version = folder.join(format!("v{number}"));
        std::fs::create_dir(&version).expect("a folder can be made");
        for (name, content) in *files {
            std::fs::write(version.join(name), content).expect("a file can be written");
        }
    }
    point(folder, "v1");
}

/// Points the link elsewhere in one step, as Kubernetes does when a secret changes.
fn point(folder: &Path, version: &str) {
    let new = folder.join("new-link");
    symlink(version, &new).expect("a link can be made");
    std::fs::rename(new, folder.join("data")).expect("a link can be replaced");
}

/// A key that signs tokens, and its name.
struct Signer {
    name: &'static str,
    key: EncodingKey,
}

impl Signer {
    fn new(name: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key can be made");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { name, key }
    }

    fn key_set(&self) -> String {
        let mut public =
            Jwk::from_encoding_key(&self.key, Algorithm::ES256).expect("a key has a public half");
        public.common.key_id = Some(self.name.to_owned());
        json!({ "keys": [public] }).to_string()
    }

    fn status(&self, server: &Running) -> u16 {
        let now = get_current_timestamp();
        let claims = json!({
            "iss": "issuer", "aud": "registry", "sub": "alice", "exp": now + 300, "nbf": now, "iat": now,
            "access": [{ "type": "repository", "name": "app", "actions": ["pull"] }],
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.name.to_owned());
        let token = encode(&header, &claims, &self.key).expect("a token can be signed");
        let request = Request::new(server.address(), "GET", "/v2/app/manifests/latest");
        request
            .header("Authorization", &format!("Bearer {token}"))
            .send()
            .status
    }
}

#[test]
fn keys_of_tokens_change_with_a_link() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let folder = with_configuration(
        "version: 0.1\nstorage: inmemory\nauth:\n  token: {realm: 'https://a/token', service: registry, issuer: issuer, jwks: data/keys.json}\n",
    );
    versions(
        folder.path(),
        &[
            &[("keys.json", &old.key_set())],
            &[("keys.json", &new.key_set())],
            &[("keys.json", "{")],
        ],
    );
    let server = Running::start_in(folder, true, &[]);
    assert_eq!((old.status(&server), new.status(&server)), (404, 401));
    point(server.folder.path(), "v2");
    until(|| new.status(&server) == 404);
    assert_eq!(old.status(&server), 401);
    point(server.folder.path(), "v3");
    server.log_with(REFUSED);
    server.log_with("config.yml: line 4: auth.token.jwks: data/keys.json: ");
    assert_eq!(new.status(&server), 404);
}

/// A certificate for `localhost`, and its key.
pub(crate) fn certificate() -> (String, String) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

pub(crate) type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// Connects as one who trusts this certificate alone.
pub(crate) fn connect(server: &Running, certificate: &str) -> std::io::Result<Encrypted> {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("it is a certificate");
    roots.add(trusted).expect("it can be trusted");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("it is a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("it is a configuration");
    let address = server.url.strip_prefix("https://").expect("it is encrypted");
    let mut socket = TcpStream::connect(address)?;
    while client.is_handshaking() {
        client.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(client, socket))
}

/// Asks over a connection that stays open.
fn ask(connection: &mut Encrypted) -> String {
    use std::io::{Read as _, Write as _};
    connection
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("the connection is open");
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    // The answer ends with the two bytes of its body.
    while !answer.ends_with(b"{}") {
        let length = connection.read(&mut part).expect("the connection is open");
        assert_ne!(length, 0, "it was closed");
        answer.extend_from_slice(&part[..length]);
    }
    String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn certificates_change_with_a_link_under_an_open_connection() {
    let ((first, first_key), (second, second_key)) = (certificate(), certificate());
    let folder = with_configuration(
        "version: 0.1\nstorage: inmemory\nhttp:\n  tls:\n    certificate: data/tls.crt\n    key: data/tls.key\n",
    );
    versions(
        folder.path(),
        &[
            &[("tls.crt", &first), ("tls.key", &first_key)],
            &[("tls.crt", &second), ("tls.key", &second_key)],
            &[("tls.crt", &first), ("tls.key", &second_key)],
        ],
    );
    let server = Running::start_in(folder, true, &[]);
    let mut open = connect(&server, &first).expect("the first certificate is in force");
    assert_eq!(ask(&mut open), "HTTP/1.1 200 OK");
    point(server.folder.path(), "v2");
    until(|| connect(&server, &second).is_ok());
    assert!(connect(&server, &first).is_err());
    // A key that is another certificate's.
    point(server.folder.path(), "v3");
    server.log_with(REFUSED);
    server.log_with("http.tls.certificate: data/tls.crt with the key data/tls.key: ");
    let mut other = connect(&server, &second).expect("the second certificate is still in force");
    assert_eq!(ask(&mut other), "HTTP/1.1 200 OK");
    assert_eq!(ask(&mut open), "HTTP/1.1 200 OK");
}
