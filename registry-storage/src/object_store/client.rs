//! The HTTP client of a store: the library's, which learns what never passes and what a redirect says.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};

use super::answer::Answer;

/// The longest content of an answer that is no success, in bytes; the rest is not read.
const FAILURE_BYTES: usize = 64 * 1024;

/// Creates such clients.
#[derive(Debug, Default)]
pub(crate) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Client(HttpClient);

#[async_trait]
impl HttpService for Client {
    /// The library repeats a request after each status of 500 or more, though 501 never passes; and of a redirect, such
    /// as S3's to another region, it keeps nothing. Both are an [`Answer`] as an error. Of any other failure, the
    /// library gets as much as it may keep.
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let condition = ["if-match", "if-none-match"]
            .into_iter()
            .find(|name| request.headers().contains_key(*name));
        let response = self.0.execute(request).await?;
        let status = response.status();
        if status.is_success() || status.as_u16() == 304 {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = beginning(body).await?;
        if status.as_u16() != 501 && !status.is_redirection() {
            return Ok(HttpResponse::from_parts(head, body.into()));
        }
        let mut answer = Answer::parse(status.as_u16(), &body);
        answer.condition = condition;
        if let Some(region) = head.headers.get("x-amz-bucket-region") {
            answer.region = region.to_str().ok().map(str::to_owned);
        }
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

async fn beginning(body: HttpResponseBody) -> Result<String, HttpError> {
    let mut chunks = body.bytes_stream();
    let mut content = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk: Bytes = chunk?;
        let room = FAILURE_BYTES - content.len();
        content.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if content.len() == FAILURE_BYTES {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}
