//! A registry service that records requests and fails as a test planned.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use registry_core::{Error, ErrorCode};
use tokio::time::{Sleep, sleep};

use super::TestStorage;
use super::endpoint::RegistryEndpoint;
use super::script::{Effect, JournalEntry, Script};
use crate::server::ConnectionReset;
use crate::service::{HeaderFields, RegistryService, ResponseBody, response_head};

/// How often to check whether the client took what was sent before a body is cut short.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(super) struct ScriptedService {
    pub(super) service: RegistryService<TestStorage>,
    pub(super) script: Script,
}

/// The connection must be closed.
#[derive(Debug, thiserror::Error)]
#[error("the test wanted the connection to end here")]
pub(super) struct Ended;

impl ScriptedService {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<ScriptedBody>, Ended> {
        let (place, effects) = self.script.arrived(entry(&request));
        let connection = request.extensions().get::<ConnectionReset>().cloned();
        let mut status = None;
        let mut left = None;
        let mut is_reset = false;
        for effect in effects {
            match effect {
                Effect::Status(wanted) => status = Some(wanted),
                Effect::Delay(delay) => sleep(delay).await,
                Effect::Truncate(bytes) => left = Some(bytes),
                Effect::Reset => is_reset = true,
            }
        }
        if is_reset {
            if let Some(connection) = connection {
                connection.arm();
            }
            return Err(Ended);
        }
        let response = match status {
            Some(status) => refuse(request, status).await?.map(Either::Right),
            None => self.service.answer(request).await.map(Either::Left),
        };
        self.script.answered(place, response.status());
        Ok(response.map(|inner| ScriptedBody {
            inner,
            left,
            connection,
            look: None,
        }))
    }
}

impl Service<Request<Incoming>> for ScriptedService {
    type Response = Response<ScriptedBody>;
    type Error = Ended;
    type Future = BoxFuture<'static, Result<Self::Response, Ended>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

fn entry(request: &Request<Incoming>) -> JournalEntry {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let fields = HeaderFields(request.headers());
    let parsed = registry_core::Request::parse(request.method().as_str(), target, &fields);
    JournalEntry {
        endpoint: parsed.ok().as_ref().map(RegistryEndpoint::of),
        method: request.method().clone(),
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
        header: request.headers().clone(),
        status: None,
    }
}

/// Reads the whole request and answers `status`.
async fn refuse(request: Request<Incoming>, status: StatusCode) -> Result<Response<Full<Bytes>>, Ended> {
    let version = request.version();
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|_| Ended)?;
    }
    let code = ErrorCode::ALL
        .iter()
        .find(|code| code.status() == status.as_u16());
    let error = Error::new(
        *code.unwrap_or(&ErrorCode::Unsupported),
        "the test wanted this to fail",
    );
    let mut response = registry_core::Response::from(error);
    response.status = status.as_u16();
    let head = response_head(&response, version, false);
    let body = match response.body {
        registry_core::response::ResponseBody::Bytes(bytes) => bytes,
        _ => Bytes::new(),
    };
    Ok(head.map(|()| Full::new(body)))
}

/// A body that may end early.
#[derive(Debug)]
pub(super) struct ScriptedBody {
    inner: Either<ResponseBody, Full<Bytes>>,
    /// How many bytes are sent before the body fails.
    left: Option<u64>,
    connection: Option<ConnectionReset>,
    look: Option<Pin<Box<Sleep>>>,
}

impl ScriptedBody {
    /// Waits until the previous bytes have been written, because a failing body would discard them.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let is_writing = self.connection.as_ref().is_some_and(ConnectionReset::is_writing);
            let look = match &mut self.look {
                Some(_) if !is_writing => return Poll::Ready(()),
                Some(look) => look,
                None => self.look.insert(Box::pin(sleep(LOOK))),
            };
            std::task::ready!(look.as_mut().poll(context));
            if is_writing {
                self.look = Some(Box::pin(sleep(LOOK)));
            }
        }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = crate::server::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == Some(0) {
            return self.poll_cut(context).map(|()| Some(Err(Ended.into())));
        }
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let left = &mut self.left;
        Poll::Ready(Some(Ok(frame.map_data(|mut data| {
            if let Some(left) = left {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(data.len() as u64);
            }
            data
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.left != Some(0) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
