//! A repository on a server under test, and what is pushed to it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{Request, Response, target_of, with_query};
use super::content::sha256;

/// OCI image manifest.
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub(crate) const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What clients accept when they pull a manifest.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI image configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, uncompressed.
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The empty descriptor's media type.
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Any bytes.
pub(crate) const OCTETS: &str = "application/octet-stream";

/// A repository of a registry: requests below its path, and pushes in one line.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// Where the registry listens.
    pub(crate) address: SocketAddr,
    /// The repository's name.
    pub(crate) name: String,
    /// What requests show in the field `Authorization`.
    pub(crate) authorization: Option<String>,
}

impl Repository {
    /// Names a repository of the registry at `address`; nothing is sent.
    pub(crate) fn new(address: SocketAddr, name: impl Into<String>) -> Self {
        Self {
            address,
            name: name.into(),
            authorization: None,
        }
    }

    /// Makes requests show this in the field `Authorization`.
    pub(crate) fn with_authorization(mut self, value: &str) -> Self {
        self.authorization = Some(value.to_owned());
        self
    }

    fn authorized<'a>(&self, request: Request<'a>) -> Request<'a> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    /// Names a repository below this one, for a test that needs a second.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        Self {
            name: format!("{}/{name}", self.name),
            ..self.clone()
        }
    }

    /// Returns the path of `rest` in this repository, as in `/v2/NAME/tags/list`.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }

    /// Starts a request to `rest` in this repository.
    pub(crate) fn request<'a>(&self, method: &str, rest: &str) -> Request<'a> {
        self.authorized(Request::new(self.address, method, &self.path(rest)))
    }

    /// Starts a request to what a `Location` names.
    pub(crate) fn follow<'a>(&self, method: &str, location: &str) -> Request<'a> {
        self.authorized(Request::new(self.address, method, &target_of(location)))
    }

    /// Sends a GET that accepts every type of manifest, as clients do, also to another host if the answer says so.
    pub(crate) fn get(&self, rest: &str) -> Response {
        self.request("GET", rest)
            .header("Accept", MANIFESTS)
            .send_and_follow()
    }

    /// Sends a HEAD that accepts every type of manifest.
    pub(crate) fn head(&self, rest: &str) -> Response {
        self.request("HEAD", rest).header("Accept", MANIFESTS).send()
    }

    /// Sends a DELETE.
    pub(crate) fn delete(&self, rest: &str) -> Response {
        self.request("DELETE", rest).send()
    }

    /// Opens an upload session and returns its location.
    pub(crate) fn open_upload(&self) -> String {
        let response = self.request("POST", "blobs/uploads/").send();
        let session = response.received().upload_started();
        let session = session.unwrap_or_else(|error| panic!("{error}: {}", response.summary()));
        target_of(session.location.as_str())
    }

    /// Sends a chunk with its `Content-Range`.
    pub(crate) fn patch(&self, location: &str, start: u64, chunk: &[u8]) -> Response {
        let range = format!("{start}-{}", start + chunk.len() as u64 - 1);
        let request = self.follow("PATCH", location).header("Content-Type", OCTETS);
        request.header("Content-Range", &range).body(chunk).send()
    }

    /// Closes an upload without a body.
    pub(crate) fn close_upload(&self, location: &str, digest: &str) -> Response {
        self.follow("PUT", &with_query(location, "digest", digest)).send()
    }

    /// Pushes a blob by POST and PUT and returns its digest.
    pub(crate) fn push_blob(&self, content: &[u8]) -> String {
        let digest = sha256(content);
        self.push_blob_as(&digest, content);
        digest
    }

    /// Pushes a blob under the digest given.
    pub(crate) fn push_blob_as(&self, digest: &str, content: &[u8]) {
        let target = with_query(&self.open_upload(), "digest", digest);
        let put = self
            .follow("PUT", &target)
            .header("Content-Type", OCTETS)
            .body(content)
            .send();
        put.expect_status(201);
    }

    /// Sends a manifest.
    pub(crate) fn put_manifest(&self, reference: &str, media_type: &str, content: &[u8]) -> Response {
        let request = self.request("PUT", &format!("manifests/{reference}"));
        request.header("Content-Type", media_type).body(content).send()
    }

    /// Pushes a manifest, requires 201 and returns its sha256 digest.
    pub(crate) fn push_manifest(&self, reference: &str, media_type: &str, content: &[u8]) -> String {
        self.put_manifest(reference, media_type, content)
            .expect_status(201);
        sha256(content)
    }

    /// Pushes a config and a layer that `seed` determines, and an image of them under `reference`.
    pub(crate) fn push_image(&self, reference: &str, seed: &str) -> Image {
        let config = json!({"architecture": "amd64", "os": "linux", "seed": seed}).to_string();
        let layer = format!("layer {seed}");
        self.push_blob(config.as_bytes());
        self.push_blob(layer.as_bytes());
        let manifest = image(
            &descriptor(CONFIG, config.as_bytes()),
            &[descriptor(LAYER, layer.as_bytes())],
        );
        let content = manifest.to_string().into_bytes();
        let digest = self.push_manifest(reference, IMAGE, &content);
        Image {
            digest,
            content,
            config: sha256(config.as_bytes()),
            layer: sha256(layer.as_bytes()),
        }
    }

    /// Returns the tags as the unpaged list has them.
    pub(crate) fn tags(&self) -> Vec<String> {
        let response = self.get("tags/list");
        let list = response.received().tags();
        let list = list.unwrap_or_else(|error| panic!("{error}: {}", response.summary()));
        list.items.iter().map(ToString::to_string).collect()
    }
}

/// An image that was pushed.
#[derive(Debug)]
pub(crate) struct Image {
    /// The manifest's digest.
    pub(crate) digest: String,
    /// The manifest.
    pub(crate) content: Vec<u8>,
    /// The configuration's digest.
    pub(crate) config: String,
    /// The layer's digest.
    pub(crate) layer: String,
}

/// Returns a descriptor of `content`.
pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

/// Returns an image manifest.
pub(crate) fn image(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers})
}

/// Returns an image index.
pub(crate) fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}

/// Returns the strings of a JSON array.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    let items = value
        .as_array()
        .unwrap_or_else(|| panic!("an array is expected, not {value}"));
    items
        .iter()
        .map(|item| item.as_str().expect("an array of strings").to_owned())
        .collect()
}

impl Response {
    /// Requires this status.
    ///
    /// # Panics
    /// If it is another; the message shows the response.
    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.summary());
    }

    /// Requires a header with this value.
    #[track_caller]
    pub(crate) fn expect_header(&self, name: &str, value: &str) {
        assert_eq!(self.header(name), Some(value), "{name} of {}", self.summary());
    }

    /// Requires an error of one of these statuses with a body as the specification has it, and one of these codes.
    #[track_caller]
    pub(crate) fn expect_error(&self, statuses: &[u16], codes: &[&str]) {
        assert!(
            statuses.contains(&self.status),
            "{statuses:?} is expected: {}",
            self.summary()
        );
        let errors = self.json()["errors"].clone();
        let errors = errors
            .as_array()
            .unwrap_or_else(|| panic!("no errors in {}", self.summary()));
        assert!(!errors.is_empty(), "an error is expected: {}", self.summary());
        for error in errors {
            let code = error["code"].as_str().unwrap_or_default();
            assert!(codes.contains(&code), "{codes:?} is expected: {}", self.summary());
        }
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.summary()))
    }

    /// Returns the `Location`.
    #[track_caller]
    pub(crate) fn location(&self) -> String {
        let location = self
            .header("Location")
            .unwrap_or_else(|| panic!("no Location: {}", self.summary()));
        target_of(location)
    }

    /// Returns the response for a message, with its body cut short.
    pub(crate) fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        format!("{} {:?} {body:?}", self.status, self.headers)
    }
}
