//! The client side of the socket of a running server.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

use super::message::{LINE_BYTES, Message};
use super::server::TARGET;
use super::show::Show;
use super::{Outcome, socket};
use crate::failure::Failure;
use crate::ownership::{line_of_owner, owner_note};

/// A connection to a running server.
#[derive(Debug)]
pub(super) struct Connection(UnixStream);

/// Connects to the server that has a root. Returns `None` if no server can be reached.
///
/// # Errors
/// If the socket exists and this user is not allowed to use it, or connecting fails in another way.
pub(super) async fn connect(root: &Path) -> io::Result<Option<Connection>> {
    let Ok(path) = socket::path(root) else {
        // A server could not create the socket either.
        return Ok(None);
    };
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Some(Connection(stream))),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            io::ErrorKind::PermissionDenied => {
                let line = line_of_owner(&path).map_or_else(String::new, |line| format!(": {line}"));
                let message = format!(
                    "{}: {error}{}; run the command as the user of the server{line}",
                    path.display(),
                    owner_note(&path, &error)
                );
                Err(io::Error::new(error.kind(), message))
            }
            _ => Err(error),
        },
    }
}

impl Connection {
    /// Has the server run a command. Cancel safety: dropping the future stops the command.
    pub(super) async fn ask(
        self,
        command: &(impl Serialize + Sync),
        show: &Show,
    ) -> Result<Outcome, Failure> {
        let failed = || Failure::new("the server that has the folder did not answer");
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.0))
            .await
            .map_err(|cause| failed().because(cause))?;
        let body = serde_json::to_vec(command).map_err(|cause| failed().because(cause))?;
        let request = Request::post(TARGET)
            .header(header::HOST, "registry")
            .body(Full::new(Bytes::from(body)))
            .map_err(|cause| failed().because(cause))?;
        let asking = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|cause| failed().because(cause))?;
            let status = response.status();
            let mut lines = Lines {
                body: response.into_body(),
                buffer: BytesMut::new(),
            };
            if status != StatusCode::OK {
                let text = lines.rest().await;
                return Err(Failure::new(format!("the server refused the command: {text}")));
            }
            while let Some(line) = lines.next().await.map_err(|cause| failed().because(cause))? {
                match serde_json::from_slice(&line).map_err(|cause| failed().because(cause))? {
                    Message::Done(outcome) => return Ok(outcome),
                    // The server's permissions and its view of the files are what counts.
                    Message::Failed(text) => {
                        return Err(Failure::new("the running server says").because(text));
                    }
                    message => show.message(&message),
                }
            }
            Err(Failure::new(
                "the server ended before the command was done; it can be started again",
            ))
        };
        let driving = async {
            // An error of the connection also shows as one of the answer.
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = asking => outcome,
            () = driving => Err(failed()),
        }
    }
}

/// The lines of an answer.
struct Lines {
    body: hyper::body::Incoming,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<BytesMut>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_BYTES {
                return Err(Failure::new("a line of the answer is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(cause)) => return Err(Failure::new("the answer broke off").because(cause)),
            }
        }
    }

    /// Returns the rest as text.
    async fn rest(mut self) -> String {
        while self.buffer.len() < LINE_BYTES {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => break,
            }
        }
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}
