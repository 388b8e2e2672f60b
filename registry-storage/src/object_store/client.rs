//! The HTTP client of a store: the library's, which learns what never passes and what a redirect says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{HeaderMap, Request};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use tokio::time::timeout;

use super::answer::{Answer, text_of};

/// The longest content of an answer that is no success, in bytes; the rest is not read.
const FAILURE_BYTES: usize = 64 * 1024;

/// How long a read waits for the beginning of its answer before it is sent once more, and how long both wait then. A connection
/// whose other end is gone, or which a firewall has forgotten, says nothing for minutes, and clients wait half of one.
const REPEATED_AFTER: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(10)];

/// Creates such clients, and keeps the last one. A builder of a store creates those that ask for its keys first, and then the one
/// of all requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connector {
    /// Never locked over an await.
    last: Arc<Mutex<Option<HttpClient>>>,
}

impl Connector {
    /// Returns the client that was created last.
    pub(super) fn last(&self) -> Option<HttpClient> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = HttpClient::new(Client(ReqwestConnector::default().connect(options)?));
        let last = Some(client.clone());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(client)
    }
}

#[derive(Debug)]
struct Client(HttpClient);

#[async_trait]
impl HttpService for Client {
    /// The library repeats a request after each status of 500 or more, though 501 never passes; and of a redirect, such
    /// as S3's to another region, it keeps nothing. Both are an [`Answer`] as an error. Of any other failure, the
    /// library gets as much as it may keep.
    ///
    /// To the library, a success without entries is an empty listing, whatever else it is, such as an error or a login
    /// page. Whoever believes that deletes what the missing records name, so it is an [`Answer`] as an error, too. So is
    /// a page instead of an object, or as the answer to a write.
    ///
    /// The library fails if a success has no entity tag. It is an empty one here, which [`to_version`] knows.
    ///
    /// [`to_version`]: super::records::to_version
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let lists = request.uri().query().is_some_and(asks_for_listing);
        let condition = ["if-match", "if-none-match"]
            .into_iter()
            .find(|name| request.headers().contains_key(*name));
        let mut response = if request.method().is_safe() {
            self.read(request).await?
        } else {
            self.0.execute(request).await?
        };
        let status = response.status();
        if status.is_success() && lists {
            return listing(response).await;
        }
        if status.is_success() && is_page(response.headers()) {
            let body = beginning(response.into_body()).await?;
            return Err(refused(Answer::parse(status.as_u16(), &body)));
        }
        if status.is_success() {
            let tag = response.headers_mut().entry(ETAG);
            tag.or_insert(HeaderValue::from_static("\"\""));
            return Ok(response);
        }
        if status.as_u16() == 304 {
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
        Err(refused(answer))
    }
}

impl Client {
    /// Sends a request without a body, and once more on another connection if there is no answer for a while. The first answer
    /// counts. A failure counts only if nothing else is on its way: a store that is only slow still gives its own answer, although
    /// it takes no further connection.
    async fn read(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, _) = request.into_parts();
        let send = || {
            self.0
                .execute(Request::from_parts(head.clone(), HttpRequestBody::empty()))
        };
        let mut sent = FuturesUnordered::from_iter([send()]);
        let mut waits = REPEATED_AFTER.into_iter();
        loop {
            let next = sent.select_next_some();
            let answer = match waits.next() {
                Some(wait) => timeout(wait, next).await.ok(),
                None => Some(next.await),
            };
            match answer {
                None => sent.push(send()),
                Some(answer) if sent.is_empty() || !is_failure(&answer) => return answer,
                Some(_) => {}
            }
        }
    }
}

/// Returns whether another connection may bring another answer.
fn is_failure(answer: &Result<HttpResponse, HttpError>) -> bool {
    let status = answer.as_ref().map(|response| response.status());
    status.is_ok_and(|status| status.is_server_error() || status.as_u16() == 429) || answer.is_err()
}

fn refused(answer: Answer) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, answer)
}

/// Returns whether a success is a page for people, which something between this machine and the store sent. Some stores
/// guess that content is a page, and moto calls even nothing one, but what a store sends has fields of its own.
fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_html = kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let is_of_store = |name: &str| {
        ["x-amz-", "x-amzn-requestid", "x-ms-", "x-goog-", "x-guploader"]
            .iter()
            .any(|own| name.starts_with(own))
    };
    is_html && !headers.keys().any(|name| is_of_store(name.as_str()))
}

fn asks_for_listing(query: &str) -> bool {
    // S3 and GCS; Azure.
    query
        .split('&')
        .any(|pair| matches!(pair, "list-type=2" | "comp=list"))
}

/// Reads the answer to a request for a listing, which the library holds as a whole anyway.
async fn listing(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (head, body) = response.into_parts();
    let body = body.bytes().await?;
    let text = String::from_utf8_lossy(&body);
    if is_listing(&text) {
        return Ok(HttpResponse::from_parts(head, body.into()));
    }
    let answer = Answer::parse(head.status.as_u16(), &text);
    Err(refused(answer))
}

/// Returns whether the element that a document consists of has this name.
pub(super) fn has_root(document: &str, root: &str) -> bool {
    let mut rest = document.trim_start_matches('\u{feff}').trim_start();
    if let Some((_, after)) = rest.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")) {
        rest = after.trim_start();
    }
    let rest = rest.strip_prefix('<').and_then(|rest| rest.strip_prefix(root));
    rest.is_some_and(|rest| rest.starts_with(['>', ' ', '\t', '\r', '\n']))
}

/// Returns whether a document is a listing, and names as much as it says that it does.
fn is_listing(document: &str) -> bool {
    if has_root(document, "EnumerationResults") {
        return true;
    }
    let says = |name: &str| text_of(document, name).unwrap_or_default();
    let is_whole = says("IsTruncated") != "true" || !says("NextContinuationToken").is_empty();
    let counts_some = says("KeyCount").parse::<u64>().is_ok_and(|count| count > 0);
    let has_some = document.contains("<Contents") || document.contains("<CommonPrefixes");
    has_root(document, "ListBucketResult") && is_whole && (has_some || !counts_some)
}

/// Reads the beginning of the body of a failure.
pub(super) async fn beginning(body: HttpResponseBody) -> Result<String, HttpError> {
    first_bytes(body, FAILURE_BYTES).await
}

/// Reads at most as many bytes of a text; the rest is not read.
pub(super) async fn first_bytes(body: HttpResponseBody, most: usize) -> Result<String, HttpError> {
    let mut chunks = body.bytes_stream();
    let mut content = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk: Bytes = chunk?;
        let room = most - content.len();
        content.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if content.len() == most {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use http::StatusCode;

    use super::*;

    /// A store on one connection of which nothing comes back.
    #[derive(Clone, Debug, Default)]
    struct HalfOpen {
        silent: usize,
        requests: Arc<AtomicUsize>,
    }

    /// A store that answers after seven seconds, and takes one connection: another is refused, or its request is.
    #[derive(Clone, Debug, Default)]
    struct Slow {
        is_connected: Arc<AtomicBool>,
        status: Option<StatusCode>,
    }

    #[async_trait]
    impl HttpService for Slow {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            let mut response = HttpResponse::new(Bytes::new().into());
            if self.is_connected.swap(true, Ordering::Relaxed) {
                let refused = || HttpError::new(HttpErrorKind::Connect, std::io::Error::other("refused"));
                *response.status_mut() = self.status.ok_or_else(refused)?;
                return Ok(response);
            }
            tokio::time::sleep(Duration::from_secs(7)).await;
            Ok(response)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_slow_is_not_given_up_because_it_takes_no_further_request() {
        for status in [
            None,
            Some(StatusCode::SERVICE_UNAVAILABLE),
            Some(StatusCode::TOO_MANY_REQUESTS),
        ] {
            let store = Slow {
                status,
                ..Slow::default()
            };
            let request = Request::builder().uri("http://store/key");
            let request = request.body(HttpRequestBody::empty()).unwrap();
            let answer = Client(HttpClient::new(store)).call(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{status:?}");
        }
    }

    #[async_trait]
    impl HttpService for HalfOpen {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            if self.requests.fetch_add(1, Ordering::Relaxed) < self.silent {
                std::future::pending::<()>().await;
            }
            Ok(HttpResponse::new(Bytes::from_static(b"content").into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_an_answer_is_sent_once_more_and_a_write_is_not() {
        use http::Method;

        let ask = async |method: Method, silent: usize| {
            let store = HalfOpen {
                silent,
                ..HalfOpen::default()
            };
            let client = Client(HttpClient::new(store.clone()));
            let request = Request::builder().method(method).uri("http://store/key");
            let request = request.body(HttpRequestBody::empty()).unwrap();
            let begun = tokio::time::Instant::now();
            let answer = timeout(Duration::from_secs(30), client.call(request)).await;
            (
                answer.is_ok(),
                begun.elapsed().as_secs(),
                store.requests.load(Ordering::Relaxed),
            )
        };
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(ask(method.clone(), 0).await, (true, 0, 1));
            assert_eq!(ask(method.clone(), 1).await, (true, 5, 2));
            assert_eq!(ask(method.clone(), 2).await, (true, 15, 3));
            assert_eq!(ask(method, 3).await, (false, 30, 3));
        }
        for method in [Method::PUT, Method::POST, Method::DELETE] {
            assert_eq!(ask(method, 1).await, (false, 30, 1));
        }
    }

    #[test]
    fn only_a_listing_that_is_whole_is_one() {
        for (document, expected) in [
            (
                "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>",
                true,
            ),
            (
                "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"x\"><Name>b</Name></ListBucketResult>",
                true,
            ),
            (
                "<ListBucketResult><KeyCount>1</KeyCount><Contents><Key>a</Key></Contents><IsTruncated>true</IsTruncated>\
                 <NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
                true,
            ),
            (
                "<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"x\"><Blobs/></EnumerationResults>",
                true,
            ),
            ("<Error><Code>InternalError</Code></Error>", false),
            ("<html><body>Sign in</body></html>", false),
            ("<ListBucketResults></ListBucketResults>", false),
            (
                "<ListBucketResult><KeyCount>5</KeyCount></ListBucketResult>",
                false,
            ),
            (
                "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
                false,
            ),
            ("", false),
        ] {
            assert_eq!(is_listing(document), expected, "{document}");
        }
    }

    #[test]
    fn a_page_has_no_field_of_a_store() {
        for (kind, field, expected) in [
            ("text/html", "server", true),
            ("Text/HTML; charset=utf-8", "etag", true),
            ("text/html", "x-amz-request-id", false),
            ("text/html", "x-ms-version", false),
            // moto has no other field of its own.
            ("text/html; charset=utf-8", "x-amzn-requestid", false),
            ("application/xml", "server", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(field, HeaderValue::from_static("a"));
            assert_eq!(is_page(&headers), expected, "{kind} {field}");
        }
    }

    #[test]
    fn requests_for_listings_are_known_by_their_query() {
        for (query, expected) in [
            ("list-type=2&max-keys=5", true),
            ("restype=container&comp=list", true),
            ("comp=blocklist", false),
            ("uploads", false),
        ] {
            assert_eq!(asks_for_listing(query), expected, "{query}");
        }
    }
}
