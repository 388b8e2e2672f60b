//! A client that sends exactly what it is told.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use registry_core::response::{ReceivedResponse, ResponseError};
use registry_core::{Algorithm, Digest};
use registry_http::HeaderFields;
use registry_http::testing::TestRegistry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) header: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.header
            .get(name)
            .unwrap_or_else(|| panic!("no field {name}: {self:?}"))
            .to_str()
            .unwrap()
    }

    /// Requires that crane repeats the request: it looks at the code, and at `Retry-After` does not.
    pub(crate) fn expect_refusal_that_passes(&self) {
        let code = match self.status.as_u16() {
            429 => "TOOMANYREQUESTS",
            503 => "UNAVAILABLE",
            _ => panic!("{self:?}"),
        };
        assert_eq!(self.code(), code);
        assert_eq!(self.field("Content-Type"), "application/json");
        assert_eq!(self.field("Retry-After"), "1");
    }

    /// Returns the answer as a client of the protocol reads it.
    pub(crate) fn received(&self) -> ReceivedResponse<'_, HeaderFields<'_>> {
        ReceivedResponse::new(self.status.as_u16(), HeaderFields(&self.header), &self.body)
    }

    /// Returns the code of the error that the answer reports.
    pub(crate) fn code(&self) -> String {
        let Err(ResponseError::Refused(refusal)) = self.received().version() else {
            panic!("not refused: {self:?}");
        };
        refusal.errors[0].code_text.clone()
    }
}

/// One HTTP/1.1 connection, by hand.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) const fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends what may not be taken to its end.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends the header of a request.
    pub(crate) async fn head(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: registry\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head).await;
    }

    /// Sends a request with a body of known length and returns the answer.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let length = body.len().to_string();
        let mut fields = fields.to_vec();
        if !matches!(method, "GET" | "HEAD" | "DELETE") {
            fields.push(("Content-Length", &length));
        }
        self.head(method, target, &fields).await;
        self.send(body).await;
        self.answer(method).await
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.call("GET", target, &[], b"").await
    }

    /// Sends a request whose body has no known length, in chunks.
    pub(crate) async fn call_chunked(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("Transfer-Encoding", "chunked"));
        self.head(method, target, &fields).await;
        for chunk in body.chunks(1000) {
            self.send(format!("{:x}\r\n", chunk.len())).await;
            self.send(chunk).await;
            self.send("\r\n").await;
        }
        self.send("0\r\n\r\n").await;
        self.answer(method).await
    }

    /// Reads an answer; the connection must not end before the answer does.
    pub(crate) async fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).await.unwrap()
    }

    /// Reads an answer, or returns what there was before the connection ended or failed.
    pub(crate) async fn try_answer(&mut self, method: &str) -> Result<Answer, Vec<u8>> {
        let (status, header) = loop {
            while self.head_length().is_none() {
                self.more().await?;
            }
            let (status, header) = self.take_head();
            // "100 Continue" comes before the answer.
            if !status.is_informational() {
                break (status, header);
            }
        };
        let is_bodiless = method == "HEAD" || matches!(status.as_u16(), 204 | 304);
        let length = header
            .get("content-length")
            .map(|length| length.to_str().unwrap().parse::<usize>().unwrap());
        let body = match length {
            _ if is_bodiless => Vec::new(),
            Some(length) => {
                while self.read.len() < length {
                    self.more().await?;
                }
                self.read.drain(..length).collect()
            }
            None => self.chunks().await?,
        };
        Ok(Answer {
            status,
            header,
            body: body.into(),
        })
    }

    /// Reads until the connection ends; `Err` where it ended by a reset.
    pub(crate) async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.read).await?;
        Ok(std::mem::take(&mut self.read))
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.read.windows(2).position(|window| window == b"\r\n") {
                    Some(end) => break end,
                    None => self.more().await?,
                }
            };
            let line: Vec<u8> = self.read.drain(..end + 2).collect();
            let length = usize::from_str_radix(std::str::from_utf8(&line[..end]).unwrap(), 16).unwrap();
            while self.read.len() < length + 2 {
                self.more().await?;
            }
            body.extend(self.read.drain(..length));
            self.read.drain(..2);
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn more(&mut self) -> Result<(), Vec<u8>> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(std::mem::take(&mut self.read)),
        }
    }

    fn head_length(&self) -> Option<usize> {
        let end = self.read.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(end + 4)
    }

    fn take_head(&mut self) -> (StatusCode, HeaderMap) {
        let head: Vec<u8> = self.read.drain(..self.head_length().unwrap()).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        (status, header)
    }
}

/// Connects from another address of the loopback interface, as all clients but such are at 127.0.0.1.
pub(crate) async fn connect_from(address: u8, registry: &TestRegistry) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, address], 0).into()).unwrap();
    Client::of(socket.connect(registry.address()).await.unwrap())
}

/// Starts an upload and returns the path of its session, by which it goes on wherever it stands.
pub(crate) async fn start_upload(client: &mut Client, repository: &str) -> String {
    let answer = client
        .call("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"")
        .await;
    let session = answer.received().upload_started().unwrap();
    session.location.as_str().split('?').next().unwrap().to_owned()
}

/// Pushes a blob and returns its digest.
pub(crate) async fn push_blob(client: &mut Client, repository: &str, blob: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha256, blob);
    let target = format!("/v2/{repository}/blobs/uploads/");
    let session = client.call("POST", &target, &[], b"").await;
    let session = session.received().upload_started().unwrap();
    let answer = client.call("PATCH", session.location.as_str(), &[], blob).await;
    let session = answer
        .received()
        .chunk_accepted(&session, blob.len() as u64)
        .unwrap();
    let target = session.finish(&digest, Some(0)).target;
    let answer = client.call("PUT", &target, &[], b"").await;
    answer.received().blob_created(&digest).unwrap();
    digest.to_string()
}
