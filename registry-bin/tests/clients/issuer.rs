//! A token server of somebody else's: it knows the users of the tests and grants what it is asked for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::users::basic;

const KEY: &str = "key-1";

/// A token server that runs until the test's process ends.
pub(crate) struct Issuer {
    address: SocketAddr,
    folder: TempDir,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key can be made");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key has a public half");
        public.common.key_id = Some(KEY.to_owned());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let set = json!({ "keys": [public] }).to_string();
        std::fs::write(folder.path().join("keys.json"), set).expect("a file can be written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a socket has an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is the test's to notice.
                drop(answer(stream, &key));
            }
        });
        Self { address, folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub(crate) fn key_set(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }
}

/// Answers one request: 405 to POST, as Docker Hub does, which clients have to take for a hint to use GET.
fn answer(stream: TcpStream, key: &EncodingKey) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut authorization = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        if name.eq_ignore_ascii_case("authorization") {
            authorization = Some(value.to_owned());
        }
    }
    let user = match authorization.as_deref() {
        None => Some(""),
        Some(value) => ["alice", "bob"].into_iter().find(|user| basic(user) == value),
    };
    let (status, body) = match user {
        _ if request.starts_with("POST") => ("405 Method Not Allowed", json!({})),
        None => ("401 Unauthorized", json!({"details": "wrong"})),
        Some(user) => {
            let token = token(user, &request, key);
            ("200 OK", json!({ "token": token, "expires_in": 300 }))
        }
    };
    let body = body.to_string();
    write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn token(user: &str, request: &str, key: &EncodingKey) -> String {
    let query = request
        .split_whitespace()
        .nth(1)
        .and_then(|target| target.split_once('?'));
    let parameters = query.map_or("", |(_, query)| query).split('&');
    let scopes = parameters.filter_map(|parameter| parameter.strip_prefix("scope="));
    let decoded = scopes.map(|scope| {
        scope
            .replace("%3A", ":")
            .replace("%2F", "/")
            .replace("%2C", ",")
            .replace("%20", "+")
    });
    let access: Vec<Value> = decoded
        .flat_map(|scopes| scopes.split('+').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let actions: Vec<_> = actions.split(',').collect();
            Some(json!({ "type": kind, "name": name, "actions": actions }))
        })
        .collect();
    let now = get_current_timestamp();
    let claims = json!({
        "iss": "issuer", "aud": "registry", "sub": user, "exp": now + 300, "nbf": now, "iat": now, "access": access,
    });
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(KEY.to_owned());
    encode(&header, &claims, key).expect("a token can be signed")
}
