//! The socket of a running server: HTTP/1.1, with each command a `POST` whose answer contains its messages.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use registry_core::retention::Retention;
use registry_storage::Maintenance;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::message::Message;
use super::{Bounds, Command, Reporter, socket};
use crate::failure::Failure;
use crate::ownership::with_owner;

/// The path of the requests.
pub(super) const TARGET: &str = "/commands";

/// The longest request, in bytes.
const REQUEST_BYTES: usize = 64 * 1024;

/// How many connections are served at once. All of them are the operator's.
const MAXIMUM_CONNECTIONS: usize = 16;

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after the socket failed, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long to wait before the socket is created again, for example until there is room for it on a full disk.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// Whoever freezes a registry, for a copy or a backup, relies on it.
const SERVES_PULLS_ONLY: &str = "the configuration of this server says `storage.maintenance.readonly.enabled`, so it changes nothing; \
    restart it without that first";

/// What binds commands: what the configuration of the server says now.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) retention: watch::Receiver<Arc<Retention>>,
    /// It serves pulls only.
    pub(crate) is_read_only: bool,
}

impl Rules {
    fn bounds(&self) -> Bounds {
        Bounds {
            immutable: self.retention.borrow().immutable.clone(),
        }
    }
}

/// The socket of a server. It ends with [`ControlServer::shutdown`], or when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlServer {
    path: PathBuf,
    /// Device and inode of the socket once it is there: another server may own a folder at the same path by now.
    identity: Arc<OnceLock<(u64, u64)>>,
    task: JoinHandle<()>,
}

impl ControlServer {
    /// Listens for commands of the type `C` below a root that this process owns, so any existing socket is that of a dead server.
    /// `rules` bind each command. If the socket cannot be created, that is logged, and tried again and again.
    ///
    /// # Errors
    /// If the path is too long for a socket.
    #[expect(clippy::disallowed_methods, reason = "its owner ends it and waits for it")]
    pub(crate) fn start<C: Command + DeserializeOwned>(
        root: &Path,
        store: Arc<dyn Maintenance>,
        rules: Rules,
    ) -> io::Result<Self> {
        let path = socket::path(root)?;
        let created = Arc::new(OnceLock::new());
        let listener = listen(root, &path, &created)
            .map_err(|cause| with_owner(root, cause))
            .inspect_err(|error| {
                tracing::warn!(%error, "commands such as check and backup cannot reach this server yet; their socket is tried again");
            })
            .ok();
        let listening = listen_later(root.to_owned(), path.clone(), Arc::clone(&created), listener);
        let task = tokio::spawn(async move { accept::<C>(listening.await, store, rules).await });
        Ok(Self {
            identity: created,
            path,
            task,
        })
    }

    /// Stops the running commands, and removes the socket.
    pub(crate) async fn shutdown(mut self) {
        self.task.abort();
        // The task was aborted, so its result does not matter.
        drop((&mut self.task).await);
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        if self
            .identity
            .get()
            .is_none_or(|created| identity(&self.path) != Some(*created))
        {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket for commands was not removed");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns a listener once there is one.
async fn listen_later(
    root: PathBuf,
    path: PathBuf,
    created: Arc<OnceLock<(u64, u64)>>,
    mut listener: Option<UnixListener>,
) -> UnixListener {
    loop {
        if let Some(listener) = listener {
            return listener;
        }
        sleep(LISTEN_PAUSE).await;
        listener = listen(&root, &path, &created).ok();
        if listener.is_some() {
            tracing::info!("commands such as check and backup reach this server now");
        }
    }
}

/// Creates a socket that only this user can ever connect to: it is created in a private folder, and moved into place
/// when its mode is set. The folder stays, because a disk that is full at the next start has no block for another one.
fn listen(root: &Path, path: &Path, created: &OnceLock<(u64, u64)>) -> io::Result<UnixListener> {
    let private = socket::private(root);
    let made = private.join("s");
    for stale in [path, &made] {
        remove_socket(stale)?;
    }
    match DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(&private, Permissions::from_mode(0o700))?,
    }
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    if let Some(identity) = identity(path) {
        created.get_or_init(|| identity);
    }
    Ok(listener)
}

fn remove_socket(path: &Path) -> io::Result<()> {
    socket::require_socket(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn accept<C: Command + DeserializeOwned>(
    listener: UnixListener,
    store: Arc<dyn Maintenance>,
    rules: Rules,
) {
    let permits = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match stream {
            Ok((stream, _)) => {
                let (store, rules) = (Arc::clone(&store), rules.clone());
                connections.spawn(async move {
                    serve::<C>(stream, store, rules).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the socket for commands failed; it is tried again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<C: Command + DeserializeOwned>(stream: UnixStream, store: Arc<dyn Maintenance>, rules: Rules) {
    let service = service_fn(move |request| answer::<C>(request, Arc::clone(&store), rules.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for a command ended early");
    }
}

type Lines = StreamBody<std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;
type Answer = Response<Either<Full<Bytes>, Lines>>;

async fn answer<C: Command + DeserializeOwned>(
    request: Request<Incoming>,
    store: Arc<dyn Maintenance>,
    rules: Rules,
) -> Result<Answer, Infallible> {
    if request.method() != Method::POST || request.uri().path() != TARGET {
        return Ok(refusal(
            StatusCode::NOT_FOUND,
            format!("commands are sent by POST to {TARGET}"),
        ));
    }
    let body = Limited::new(request.into_body(), REQUEST_BYTES).collect();
    let body = match timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Err(_) => return Ok(refusal(StatusCode::REQUEST_TIMEOUT, "the command did not come")),
        Ok(Err(error)) => return Ok(refusal(StatusCode::BAD_REQUEST, error.to_string())),
    };
    Ok(match serde_json::from_slice::<C>(&body) {
        Ok(command) => {
            let asked = String::from_utf8_lossy(&body);
            tracing::info!(command = %asked, "a command came through the socket");
            if rules.is_read_only && command.changes_content() {
                return Ok(refusal(StatusCode::FORBIDDEN, SERVES_PULLS_ONLY));
            }
            let command = command.bound_by(&rules.bounds());
            Response::new(Either::Right(StreamBody::new(Box::pin(lines(command, store)))))
        }
        Err(error) => refusal(
            StatusCode::BAD_REQUEST,
            format!("the server does not know this command; is it another version? ({error})"),
        ),
    })
}

fn refusal(status: StatusCode, text: impl Into<String>) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(text.into().into())));
    *response.status_mut() = status;
    response
}

/// Runs the command while its messages are taken: when the client disconnects, the stream is dropped, and the command
/// with it.
fn lines(
    command: impl Command,
    store: Arc<dyn Maintenance>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    let (reporter, messages) = Reporter::new();
    let work = Box::pin(async move { last(command.run(&*store, reporter).await) });
    let working = stream::unfold(
        (Some(work), messages, None),
        |(mut work, mut messages, mut end)| async move {
            loop {
                let Some(running) = &mut work else {
                    // Messages from before the end come before it.
                    let message = match messages.next().await {
                        Some(message) => Some(message),
                        None => end.take(),
                    };
                    return message.map(|message| (message, (work, messages, end)));
                };
                tokio::select! {
                    biased;
                    Some(message) = messages.next() => return Some((message, (work, messages, end))),
                    outcome = running => {
                        end = Some(outcome);
                        work = None;
                    }
                }
            }
        },
    );
    working.map(|message| {
        let mut line = serde_json::to_vec(&message).unwrap_or_default();
        line.push(b'\n');
        Ok(Frame::data(line.into()))
    })
}

fn last(outcome: Result<super::Outcome, Failure>) -> Message {
    match outcome {
        Ok(outcome) => Message::Done(outcome),
        Err(failure) => Message::Failed(failure.to_string()),
    }
}
