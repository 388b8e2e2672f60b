//! The double's HTTP: from a request to an operation, and from its result to an answer.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use registry_core::Timestamp;

use super::bucket::{Listing, Refusal, WriteCondition};
use super::xml::{escape, texts, unescape};
use super::{BUCKET, S3Fault, S3State};

/// The largest body: a part of the second step.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

type Answer = Response<Full<Bytes>>;
type Sent = Response<BoxBody<Bytes, io::Error>>;

/// Serves a request with its fault.
pub(super) async fn serve(state: Arc<S3State>, request: Request<Incoming>) -> io::Result<Sent> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    let fault = state.faults.next(format!("{} {}", head.method, head.uri));
    match fault {
        Some(S3Fault::Status(status)) => return Ok(whole(refuse((status, code_of(status))))),
        Some(S3Fault::Answer(status, code)) => return Ok(whole(refuse_at_length((status, code)))),
        Some(S3Fault::Page) => return Ok(page()),
        Some(S3Fault::Delay(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let mut answer = answer(&state, &head, body, fault).unwrap_or_else(refuse);
    if let Some(S3Fault::Tag(tag)) = fault {
        answer.headers_mut().remove("etag");
        if !tag.is_empty() {
            answer.headers_mut().insert("etag", HeaderValue::from_static(tag));
        }
    }
    match fault {
        Some(S3Fault::LoseAnswer) => Err(io::Error::other("the answer is lost")),
        Some(S3Fault::LieAboutFailure) => Ok(whole(refuse((500, code_of(500))))),
        _ if head.method == Method::HEAD => Ok(answer.map(|_| Empty::new().map_err(|e| match e {}).boxed())),
        Some(S3Fault::CutBody) => Ok(cut(answer).await),
        _ => Ok(whole(answer)),
    }
}

fn page() -> Sent {
    let mut answer = Response::new(Full::from("<html><body>Sign in</body></html>"));
    let fields = answer.headers_mut();
    fields.insert(
        "content-type",
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    fields.insert("etag", HeaderValue::from_static("\"page\""));
    fields.insert(
        "last-modified",
        HeaderValue::from_static("Wed, 01 Jan 2025 00:00:00 GMT"),
    );
    whole(answer)
}

fn code_of(status: u16) -> &'static str {
    match status {
        409 => "ConditionalRequestConflict",
        503 => "SlowDown",
        _ => "InternalError",
    }
}

fn whole(answer: Answer) -> Sent {
    answer.map(|body| body.map_err(|never| match never {}).boxed())
}

/// Sends half of the body that was announced.
async fn cut(answer: Answer) -> Sent {
    let (mut head, body) = answer.into_parts();
    let content = body
        .collect()
        .await
        .map_or_else(|never| match never {}, |body| body.to_bytes());
    head.headers.insert("content-length", content.len().into());
    let half = content.slice(..content.len() / 2);
    let frames = [
        Ok(Frame::data(half)),
        Err(io::Error::other("the connection is cut")),
    ];
    Response::from_parts(head, BodyExt::boxed(StreamBody::new(stream::iter(frames))))
}

fn answer(
    state: &S3State,
    head: &http::request::Parts,
    body: Bytes,
    fault: Option<S3Fault>,
) -> Result<Answer, Refusal> {
    let mut query = query(head.uri.query().unwrap_or_default());
    let shown_type = take_signature(head, &mut query)?;
    let path = head.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if bucket != BUCKET {
        return Err((404, "NoSuchBucket"));
    }
    let key = decode(key);
    let names: Vec<&str> = query.keys().map(String::as_str).collect();
    let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let mut bucket = state.bucket();
    match (&head.method, &*key, &*names) {
        (&Method::GET, "", names) if value("list-type") == "2" => {
            const KNOWN: [&str; 5] = [
                "continuation-token",
                "list-type",
                "max-keys",
                "prefix",
                "start-after",
            ];
            if names.iter().any(|name| !KNOWN.contains(name)) {
                return Err((501, "NotImplemented"));
            }
            let limit = match value("max-keys") {
                _ if fault == Some(S3Fault::WholeList) => usize::MAX,
                "" => usize::MAX,
                limit => limit.parse().map_err(|_| (400, "InvalidArgument"))?,
            };
            let after = query
                .get("continuation-token")
                .or_else(|| query.get("start-after"));
            let mut listing = bucket.list(
                value("prefix"),
                after.map(String::as_str).unwrap_or_default(),
                limit,
            );
            if fault == Some(S3Fault::RepeatKey) {
                listing.objects.extend(listing.objects.last().cloned());
            }
            Ok(xml(&list_document(&listing)))
        }
        (&Method::GET, "", names) if names.contains(&"uploads") => {
            if let Some(refusal) = state.faults.refused_upload_listings() {
                return Err(refusal);
            }
            const KNOWN: [&str; 4] = ["key-marker", "max-uploads", "prefix", "uploads"];
            if names.iter().any(|name| !KNOWN.contains(name)) || !value("uploads").is_empty() {
                return Err((501, "NotImplemented"));
            }
            let limit = match value("max-uploads") {
                "" => usize::MAX,
                limit => limit.parse().map_err(|_| (400, "InvalidArgument"))?,
            };
            let page = bucket.list_uploads(value("prefix"), value("key-marker"), limit);
            Ok(xml(&page.document()))
        }
        (_, "", _) => Err((501, "NotImplemented")),
        (&Method::GET | &Method::HEAD, key, []) => {
            let object = bucket.get(key)?;
            let response = Response::builder()
                .header("etag", &object.tag)
                .header(GENERATION, object.generation)
                .header("last-modified", http_date(object.written))
                .header("accept-ranges", "bytes")
                .header(
                    "content-type",
                    shown_type.as_deref().unwrap_or("binary/octet-stream"),
                );
            if head.method == Method::HEAD {
                let head = response.header("content-length", object.content.len());
                return finish(head.body(Full::default()));
            }
            finish(match requested_range(&head.headers, object.content.len())? {
                None => response
                    .header("content-length", object.content.len())
                    .body(Full::new(object.content.slice(0..object.content.len()))),
                Some(range) => response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(
                        "content-range",
                        format!("bytes {}-{}/{}", range.start, range.end - 1, object.content.len()),
                    )
                    .body(Full::new(object.content.slice(range))),
            })
        }
        (&Method::PUT, key, []) if copy_source(&head.headers).is_some() => {
            let source = decode(copy_source(&head.headers).unwrap_or_default());
            let (_, source) = source.split_once('/').ok_or((400, "InvalidArgument"))?;
            let object = bucket.copy(source, key)?;
            Ok(xml(&format!(
                "<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>",
                escape(&object.tag)
            )))
        }
        (&Method::PUT, key, []) => {
            let condition = match write_condition(&head.headers)? {
                _ if state.faults.ignores_conditions() => WriteCondition::Nothing,
                condition => condition,
            };
            let object = bucket.put(key, body, &condition)?;
            tagged(&object.tag, Some(object.generation))
        }
        (&Method::DELETE, key, []) => {
            match write_condition(&head.headers)? {
                WriteCondition::Nothing => bucket.delete(key),
                WriteCondition::Absent => return Err((501, "NotImplemented")),
                _ if state.faults.ignores_delete_conditions() => bucket.delete(key),
                condition => bucket.delete_if(key, &condition)?,
            }
            finish(
                Response::builder()
                    .status(StatusCode::NO_CONTENT)
                    .body(Full::default()),
            )
        }
        (&Method::POST, key, ["uploads"]) => {
            let id = bucket.begin(key);
            let document = format!(
                "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>",
                escape(key)
            );
            Ok(xml(&document))
        }
        (&Method::PUT, key, ["partNumber", "uploadId"]) => {
            if copy_source(&head.headers).is_some() {
                return Err((501, "NotImplemented"));
            }
            let number = value("partNumber")
                .parse()
                .map_err(|_| (400, "InvalidArgument"))?;
            if !state.faults.takes_part(number) {
                return Err((400, "InvalidArgument"));
            }
            let tag = bucket.put_part(key, value("uploadId"), number, body)?;
            tagged(&tag, None)
        }
        (&Method::POST, key, ["uploadId"]) => {
            let list = part_list(&body)?;
            let object = bucket.complete(key, value("uploadId"), &list)?;
            let document = format!(
                "<CompleteMultipartUploadResult><Key>{}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
                escape(key),
                escape(&object.tag)
            );
            let mut answer = xml(&document);
            answer.headers_mut().insert(GENERATION, object.generation.into());
            Ok(answer)
        }
        (&Method::DELETE, key, ["uploadId"]) => {
            bucket.abort(key, value("uploadId"))?;
            finish(
                Response::builder()
                    .status(StatusCode::NO_CONTENT)
                    .body(Full::default()),
            )
        }
        _ => Err((501, "NotImplemented")),
    }
}

/// The field with the generation of an object, which only the client of Google Cloud Storage reads.
const GENERATION: &str = "x-goog-generation";

/// Takes the parameters of a signed URL out of a query, and returns the type that the content is to have. A request has either
/// them or a signed header, and only a read or a delete of an object, or a list of uploads, may have them.
fn take_signature(
    head: &http::request::Parts,
    query: &mut BTreeMap<String, String>,
) -> Result<Option<String>, Refusal> {
    const PARAMETERS: [&str; 6] = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
    ];
    let taken = PARAMETERS.map(|name| query.remove(name));
    let [_, _, _, expires, signed, signature] = &taken;
    match (head.headers.contains_key("authorization"), signature) {
        (true, None) => return Ok(None),
        (true, Some(_)) => return Err((400, "InvalidArgument")),
        (false, None) => return Err((403, "AccessDenied")),
        (false, Some(_)) => {}
    }
    if taken.iter().any(Option::is_none) {
        return Err((400, "AuthorizationQueryParametersError"));
    }
    let is_known = matches!(
        (&head.method, expires.as_deref(), query.contains_key("uploads")),
        (&Method::GET, Some("1200"), false)
            | (&Method::DELETE, Some("900"), false)
            | (&Method::GET, Some("900"), true)
    );
    if !is_known || signed.as_deref() != Some("host") {
        return Err((403, "SignatureDoesNotMatch"));
    }
    Ok(query.remove("response-content-type"))
}

/// Writes a time as HTTP does.
fn http_date(time: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    // The first day of 1970 was a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (year, month, day) = time.date();
    let month = MONTHS[usize::try_from(month).unwrap_or_default() - 1];
    let weekday = DAYS[usize::try_from(time.0 / 86_400_000 % 7).unwrap_or_default()];
    let seconds = time.0 / 1000;
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{:02} GMT",
        seconds % 60
    )
}

fn list_document(listing: &Listing) -> String {
    let mut document = String::from("<ListBucketResult>");
    for (key, object) in &listing.objects {
        document += &format!(
            "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag>\
             <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            escape(key),
            object.written,
            escape(&object.tag),
            object.content.len()
        );
    }
    document += &format!("<IsTruncated>{}</IsTruncated>", listing.has_more);
    if let (true, Some((last, _))) = (listing.has_more, listing.objects.last()) {
        document += &format!("<NextContinuationToken>{}</NextContinuationToken>", escape(last));
    }
    document + "</ListBucketResult>"
}

fn part_list(body: &Bytes) -> Result<Vec<(u32, String)>, Refusal> {
    const MALFORMED: Refusal = (400, "MalformedXML");
    let document = std::str::from_utf8(body).map_err(|_| MALFORMED)?;
    texts(document, "Part")
        .into_iter()
        .map(|part| {
            let number = texts(part, "PartNumber").first()?.parse().ok()?;
            Some((number, unescape(texts(part, "ETag").first()?)))
        })
        .collect::<Option<_>>()
        .ok_or(MALFORMED)
}

fn write_condition(headers: &HeaderMap) -> Result<WriteCondition, Refusal> {
    if let Some(generation) = text(headers, "x-goog-if-generation-match") {
        return match generation.parse() {
            Ok(0) => Ok(WriteCondition::Absent),
            Ok(generation) => Ok(WriteCondition::IsGeneration(generation)),
            Err(_) => Err((400, "InvalidArgument")),
        };
    }
    match (text(headers, "if-none-match"), text(headers, "if-match")) {
        (None, None) => Ok(WriteCondition::Nothing),
        (Some("*"), None) => Ok(WriteCondition::Absent),
        (None, Some(tag)) => Ok(WriteCondition::Matches(tag.to_owned())),
        _ => Err((501, "NotImplemented")),
    }
}

/// Returns the bucket and the key of which an object is to be a copy.
fn copy_source(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-amz-copy-source").or_else(|| text(headers, "x-goog-copy-source"))
}

fn requested_range(headers: &HeaderMap, size: usize) -> Result<Option<Range<usize>>, Refusal> {
    let Some(range) = text(headers, "range") else {
        return Ok(None);
    };
    let bounds = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let last = |text: &str| match text {
        "" => Some(usize::MAX - 1),
        number => number.parse::<usize>().ok(),
    };
    let bounds = bounds.and_then(|(first, end)| Some((first.parse().ok()?, last(end)?)));
    match bounds {
        Some((first, last)) if first <= last && first < size => Ok(Some(first..size.min(last + 1))),
        Some(_) => Err((416, "InvalidRange")),
        None => Err((501, "NotImplemented")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
        .collect()
}

/// Decodes percent-encoding.
fn decode(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        let escaped = match (byte, rest) {
            (b'%', [high, low, after @ ..]) => hex(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        match escaped {
            Some((byte, after)) => {
                decoded.push(byte);
                bytes = after;
            }
            None => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn tagged(tag: &str, generation: Option<u64>) -> Result<Answer, Refusal> {
    let mut response = Response::builder().header("etag", tag);
    if let Some(generation) = generation {
        response = response.header(GENERATION, generation);
    }
    finish(response.body(Full::default()))
}

fn xml(document: &str) -> Answer {
    let document = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{document}");
    Response::new(Full::new(document.into()))
}

fn refuse((status, code): Refusal) -> Answer {
    let mut answer = xml(&format!("<Error><Code>{code}</Code></Error>"));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// Refuses with as much as stores send to help a developer.
fn refuse_at_length((status, code): Refusal) -> Answer {
    let mut answer = refuse((status, code));
    if !code.is_empty() {
        let request = "PUT\n/bucket/key\n".repeat(200);
        let document = format!(
            "<Error><Code>{code}</Code><Message>The double &quot;says&quot; so.</Message><CanonicalRequest>{request}\
             </CanonicalRequest></Error>"
        );
        *answer.body_mut() = Full::new(document.into());
    }
    answer
}

fn finish(answer: http::Result<Answer>) -> Result<Answer, Refusal> {
    answer.map_err(|_| (500, "InternalError"))
}
