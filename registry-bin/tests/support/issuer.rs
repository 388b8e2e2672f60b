//! A token server of somebody else's: it knows the users of the tests and grants what it is asked for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::users::basic;

/// A token server that runs until the test's process ends.
pub(crate) struct Issuer {
    address: SocketAddr,
    folder: TempDir,
    key: Arc<Mutex<Key>>,
}

/// What it signs with.
pub(crate) struct Key {
    id: String,
    private: EncodingKey,
    public: Jwk,
}

impl Key {
    pub(crate) fn new(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key can be made");
        let private = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256).expect("a key has a public half");
        public.common.key_id = Some(id.to_owned());
        Self {
            id: id.to_owned(),
            private,
            public,
        }
    }

    /// Returns a token of `claims`; `change` may change its header.
    pub(crate) fn sign(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        change(&mut header);
        encode(&header, claims, &self.private).expect("a token can be signed")
    }
}

/// Returns the claims of a user's token.
pub(crate) fn claims(user: &str, access: &Value) -> Value {
    let now = get_current_timestamp();
    json!({
        "iss": "issuer", "aud": "registry", "sub": user, "exp": now + 300, "nbf": now, "iat": now, "access": access,
    })
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let issuer = Self {
            address: listener.local_addr().expect("a socket has an address"),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            key: Arc::new(Mutex::new(Key::new("key-1"))),
        };
        issuer.rotate("key-1");
        let key = Arc::clone(&issuer.key);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let key = key.lock().unwrap_or_else(PoisonError::into_inner);
                // A client that goes away is the test's to notice.
                drop(answer(stream, &key));
            }
        });
        issuer
    }

    /// Signs with a new key from now on, and no longer publishes the old one.
    pub(crate) fn rotate(&self, id: &str) {
        let key = Key::new(id);
        let set = json!({ "keys": [key.public] }).to_string();
        std::fs::write(self.key_set(), set).expect("a file can be written");
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Returns a token of `claims`; `change` may change its header.
    pub(crate) fn sign(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        key.sign(claims, change)
    }

    /// Returns where clients get tokens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Returns the file of its keys.
    pub(crate) fn key_set(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }

    /// Returns the URL of its keys, or of another place: `moved` leads to them, `huge` has no end for long.
    pub(crate) fn key_set_url(&self, place: &str) -> String {
        format!("http://{}/{place}", self.address)
    }
}

/// Answers one request: 405 to POST, as Docker Hub does, which clients have to take for a hint to use GET.
fn answer(stream: TcpStream, key: &Key) -> std::io::Result<()> {
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
        _ if request.starts_with("GET /keys ") => ("200 OK", json!({ "keys": [key.public] })),
        _ if request.starts_with("GET /moved ") => ("302 Found\r\nLocation: /keys", json!({})),
        _ if request.starts_with("GET /huge ") => ("200 OK", json!({ "keys": " ".repeat(2 << 20) })),
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

fn token(user: &str, request: &str, key: &Key) -> String {
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
    key.sign(&claims(user, &Value::Array(access)), |_| {})
}
