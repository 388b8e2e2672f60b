//! A small client for the examples: registry-core builds its requests and parses the responses, and one hyper connection
//! carries them.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use registry_core::request::{AcceptedManifests, RequestParts};
use registry_core::response::ReceivedResponse;
use registry_core::{Algorithm, Digest, ManifestView, MediaType, Reference, RepositoryName, Request, Tag};
use registry_http::HeaderFields;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One connection to a registry. Dropping the client closes it.
pub(crate) struct Client {
    host: SocketAddr,
    /// The path that the registry is below.
    pub(crate) prefix: &'static str,
    /// The value of `Authorization`.
    pub(crate) authorization: Option<String>,
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<hyper::Result<()>>,
}

/// A response with its whole body.
pub(crate) struct Answer {
    status: u16,
    header: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Returns the response for the parsers of registry-core, one for each endpoint.
    pub(crate) fn received(&self) -> ReceivedResponse<'_, HeaderFields<'_>> {
        ReceivedResponse::new(self.status, HeaderFields(&self.header), &self.body)
    }
}

impl Client {
    /// Connects to a registry whose paths begin with `/v2/`.
    pub(crate) async fn connect(host: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(host).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self {
            host,
            prefix: "",
            authorization: None,
            sender,
            _connection: task,
        })
    }

    /// Sends a request of the protocol.
    pub(crate) async fn request(&mut self, request: &Request, body: &[u8]) -> Result<Answer> {
        let mut parts = request.build();
        parts.target.insert_str(0, self.prefix);
        self.send(parts, body).await
    }

    /// Sends a request whose target is complete, such as one to an upload session: its URL is the registry's choice.
    pub(crate) async fn send(&mut self, parts: RequestParts, body: &[u8]) -> Result<Answer> {
        let mut request = http::Request::builder()
            .method(parts.method)
            .uri(parts.target)
            .header("Host", self.host.to_string());
        for (name, value) in parts.fields {
            request = request.header(name, value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)))?;
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Answer {
            status: parts.status.as_u16(),
            header: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// Pushes an image of one layer, and returns the digest of its manifest.
    pub(crate) async fn push(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        layer: &[u8],
    ) -> Result<Digest> {
        let config = b"{}";
        let (config_digest, layer_digest) = (digest(config), digest(layer));
        for (digest, blob) in [(&config_digest, &config[..]), (&layer_digest, layer)] {
            let start = Request::StartUpload {
                repository: repository.clone(),
                algorithm: None,
            };
            let session = self.request(&start, b"").await?.received().upload_started()?;
            let finish = session.finish(digest, Some(blob.len() as u64));
            self.send(finish, blob).await?.received().blob_created(digest)?;
        }
        let (image, empty, tar) = (
            MediaType::OCI_MANIFEST,
            "application/vnd.oci.empty.v1+json",
            "application/vnd.oci.image.layer.v1.tar",
        );
        let size = layer.len();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{image}","config":{{"mediaType":"{empty}","digest":"{config_digest}","size":2}},"layers":[{{"mediaType":"{tar}","digest":"{layer_digest}","size":{size}}}]}}"#
        );
        let manifest_digest = digest(manifest.as_bytes());
        let put = Request::PutManifest {
            repository: repository.clone(),
            reference: Reference::Tag(tag.clone()),
            tags: vec![],
            media_type: Some(image.parse()?),
            length: Some(manifest.len() as u64),
            if_match: None,
            if_none_match: None,
        };
        let answer = self.request(&put, manifest.as_bytes()).await?;
        Ok(answer.received().manifest_created(&manifest_digest)?.digest)
    }

    /// Pulls an image, and returns its blobs in the order of its manifest: the configuration, then the layers.
    pub(crate) async fn pull(&mut self, repository: &RepositoryName, tag: &Tag) -> Result<Vec<Bytes>> {
        let reference = Reference::Tag(tag.clone());
        let get = Request::GetManifest {
            repository: repository.clone(),
            reference: reference.clone(),
            accepted: AcceptedManifests::Any,
            if_none_match: None,
            namespace: None,
        };
        let answer = self.request(&get, b"").await?;
        let manifest = answer.received().manifest(&reference)?;
        manifest.verify(&answer.body)?;
        let manifest = ManifestView::parse(&answer.body, manifest.media_type.as_ref())?;
        let mut blobs = Vec::new();
        for child in manifest.children() {
            let get = Request::GetBlob {
                repository: repository.clone(),
                digest: child.digest.clone(),
                range: None,
                if_none_match: None,
                namespace: None,
            };
            let answer = self.request(&get, b"").await?;
            answer.received().blob(&child.digest)?;
            if digest(&answer.body) != child.digest {
                return Err(format!("{} has other content", child.digest).into());
            }
            blobs.push(answer.body);
        }
        Ok(blobs)
    }
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}
