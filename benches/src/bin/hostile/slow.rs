//! A client over HTTP/1.1 that can leave what it began.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// The media type of an image's manifest.
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    location: Option<String>,
}

impl Answer {
    /// Returns an error unless the status is one of `statuses`.
    pub(crate) fn expect(&self, statuses: &[u16]) -> Result<(), String> {
        if statuses.contains(&self.status) {
            Ok(())
        } else {
            let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
            Err(format!("answered {}: {body}", self.status))
        }
    }
}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects from `address`.
    pub(crate) async fn connect(server: SocketAddr, address: Ipv4Addr) -> Result<Self, String> {
        Ok(Self {
            stream: BufReader::new(connect(server, address).await?),
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, String> {
        self.begin(method, target, fields, body.len()).await?;
        self.send(body).await?;
        self.answer(method == "HEAD").await
    }

    /// Sends the head of a request whose body is `length` bytes.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        length: usize,
    ) -> Result<(), String> {
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: registry\r\nContent-Length: {length}\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|error| error.to_string())
    }

    /// Takes nothing, and waits until the server has closed the connection.
    pub(crate) async fn closed(&self) {
        let stream = self.stream.get_ref();
        loop {
            match stream.ready(Interest::READABLE | Interest::WRITABLE).await {
                Ok(ready) if !ready.is_read_closed() && !ready.is_write_closed() => {}
                _ => return,
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Reads an answer; one to `HEAD` has no body.
    pub(crate) async fn answer(&mut self, is_head: bool) -> Result<Answer, String> {
        let status = self.line().await?;
        let status = status.get(9..12).and_then(|status| status.parse().ok());
        let status = status.ok_or("the connection was closed")?;
        let (mut length, mut location) = (0, None);
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "location" => location = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; if is_head { 0 } else { length }];
        let read = self.stream.read_exact(&mut body).await;
        read.map_err(|error| error.to_string())?;
        Ok(Answer {
            status,
            body,
            location,
        })
    }

    async fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await;
        read.map_err(|error| error.to_string())?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// Pushes a manifest as an image's.
    pub(crate) async fn put_manifest(&mut self, target: &str, manifest: &[u8]) -> Result<Answer, String> {
        self.request("PUT", target, &[("Content-Type", IMAGE)], manifest)
            .await
    }

    /// Pushes a blob.
    pub(crate) async fn push_blob(&mut self, repository: &str, content: &[u8]) -> Result<(), String> {
        let target = format!("{repository}/blobs/uploads/");
        let begun = self.request("POST", &target, &[], b"").await?;
        begun.expect(&[202])?;
        let location = begun.location.ok_or("no Location")?;
        let path = location
            .split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()))
            .unwrap_or(location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let target = format!("{path}{separator}digest={}", blob_of(content));
        self.request("PUT", &target, &[], content).await?.expect(&[201])
    }
}

/// Opens a connection from `address`, with a small buffer for what comes, so that what is not read stays with the server.
pub(crate) async fn connect(server: SocketAddr, address: Ipv4Addr) -> Result<TcpStream, String> {
    let open = async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        socket.bind((address, 0).into())?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        std::io::Result::Ok(stream)
    };
    open.await.map_err(|error| format!("connect: {error}"))
}

/// Returns the digest of a content.
pub(crate) fn blob_of(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Returns the manifest of an image whose configuration is a blob of this content; `more` is further members.
pub(crate) fn manifest_of(content: &[u8], more: &str) -> Vec<u8> {
    let (digest, size) = (blob_of(content), content.len());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size}}},"layers":[]{more}}}"#
    )
    .into_bytes()
}
