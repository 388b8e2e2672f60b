//! The record of a request.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Version};
use registry_core::operation::{Action, Operation, Target};
use registry_core::printable::shortened;
use registry_core::{Digest, Error, RepositoryName, Request, Tag};
use uuid::Uuid;

use super::span::RequestSpan;
use crate::address::PeerAddress;
use crate::connection::Connection;
use crate::proxy::{Mounted, PublicUrl};

/// The query parameters whose values may be shown: those of the protocol. Any other may hold a secret.
const SHOWN_PARAMETERS: [&str; 13] = [
    "_state",
    "account",
    "artifactType",
    "client_id",
    "digest",
    "digest-algorithm",
    "from",
    "last",
    "mount",
    "n",
    "ns",
    "scope",
    "service",
];

/// The longest texts of a client that are kept, in bytes, far more than clients need: a record is written to logs, sent
/// to other services, and queued until they accept it.
const METHOD_BYTES: usize = 32;
const PATH_BYTES: usize = 1024;
const QUERY_BYTES: usize = 2048;
const HOST_BYTES: usize = 300;
const FIELD_BYTES: usize = 512;
const PRINCIPAL_BYTES: usize = 512;

/// A request and its outcome. Texts from the client are cut: the query to 2048 bytes, the path to 1024, and others to at
/// most 512. A cut text other than the method ends with `...[N more bytes]`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestRecord {
    /// A random identifier of the request, the same in all logs, events and spans.
    pub id: Uuid,
    /// When its header had arrived.
    pub time: SystemTime,
    /// The method.
    pub method: Method,
    /// The path, as sent, without the query.
    pub path: String,
    /// The query, in which `***` replaces all parameters that are not part of the protocol.
    pub query: Option<String>,
    /// The HTTP version.
    pub version: Version,
    /// The other end of the connection, if the server reported it.
    pub peer: Option<PeerAddress>,
    /// The client's address, if a trusted proxy reported one other than its own ([`Proxied`](crate::Proxied)).
    pub forwarded_for: Option<IpAddr>,
    /// The URL at which the client reached the server, if [`Proxied`](crate::Proxied) found it.
    pub url: Option<PublicUrl>,
    /// Whether it came over TLS.
    pub is_secure: bool,
    /// The requested host, with the port if the client named one.
    pub host: Option<HeaderValue>,
    /// The field `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// The field `Referer`.
    pub referer: Option<HeaderValue>,
    /// Whether the request has the field `Authorization`.
    pub has_credentials: bool,
    /// The name of the client's principal; empty for the anonymous principal.
    pub principal: String,
    /// The kind of endpoint, as in the distribution registry's metrics: `base`, `manifest`, `tags`, `blob`,
    /// `blob_upload`, `blob_upload_chunk`, `catalog`; also `referrers`, and `other`.
    pub handler: &'static str,
    /// What the client wants to do, if the request was understood.
    pub action: Option<Action>,
    /// The repository, if the request names one.
    pub repository: Option<RepositoryName>,
    /// The tag, if the request names one.
    pub tag: Option<Tag>,
    /// The digest of the content, from the request or the response.
    pub digest: Option<Digest>,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// Bytes of the request body.
    pub received: u64,
    /// Bytes of the response body that were passed to the connection.
    pub sent: u64,
    /// The time from the header of the request to the end of the response body.
    pub duration: Duration,
    /// Whether the whole response was passed to the connection. If not, the client disconnected, or `error` has the
    /// reason.
    pub is_complete: bool,
    /// Why the request was refused or failed, with the cause.
    pub error: Option<Error>,
    /// Its span, if requests are traced.
    pub(crate) span: RequestSpan,
}

impl RequestRecord {
    #[expect(clippy::disallowed_methods, reason = "the moment of the request")]
    pub(crate) fn new(parts: &http::request::Parts) -> Self {
        let field = |name| parts.headers.get(name).cloned();
        let host = match parts.uri.authority() {
            Some(authority) => HeaderValue::try_from(host_of(authority.as_str())).ok(),
            None => field(http::header::HOST),
        };
        let connection = Connection::of(parts);
        let peer = connection.map(Connection::peer);
        let mounted = parts.extensions.get::<Mounted>();
        let path = mounted.map_or_else(|| parts.uri.path(), |mounted| &mounted.path);
        Self {
            id: Uuid::new_v4(),
            time: SystemTime::now(),
            method: shortened_method(&parts.method),
            path: shortened(path, PATH_BYTES).into_owned(),
            query: parts.uri.query().map(shown_query),
            version: parts.version,
            peer,
            forwarded_for: connection
                .and_then(Connection::client)
                .filter(|client| peer.and_then(|peer| peer.ip()) != Some(*client)),
            url: parts.extensions.get::<PublicUrl>().cloned(),
            is_secure: connection.is_some_and(|connection| connection.tls().is_some()),
            host: host.map(|host| shortened_field(host, HOST_BYTES)),
            user_agent: field(http::header::USER_AGENT).map(|agent| shortened_field(agent, FIELD_BYTES)),
            referer: field(http::header::REFERER)
                .map(|referer| shortened_field(shown_referer(&referer), FIELD_BYTES)),
            has_credentials: parts.headers.contains_key(http::header::AUTHORIZATION),
            principal: String::new(),
            handler: "other",
            action: None,
            repository: None,
            tag: None,
            digest: None,
            status: None,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            is_complete: false,
            error: None,
            span: RequestSpan::default(),
        }
    }

    pub(crate) fn set_principal(&mut self, name: &str) {
        self.principal = shortened(name, PRINCIPAL_BYTES).into_owned();
    }

    pub(crate) fn set_request(&mut self, request: &Request) {
        let operation = Operation::of(request);
        self.handler = handler(request);
        self.action = Some(operation.action);
        self.repository = operation.repository.cloned();
        match operation.target {
            Target::Blob(digest) | Target::Manifest(digest) => self.digest = Some(digest.clone()),
            Target::Tag(tag) => self.tag = Some(tag.clone()),
            Target::Registry | Target::Catalog | Target::Repository | Target::Upload(_) => {}
        }
    }

    /// Returns the address of the client, if it has one: the one that a trusted proxy reported, or otherwise that of
    /// the peer.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.forwarded_for.or_else(|| self.peer?.ip())
    }

    /// Returns the client's address that a trusted proxy reported, or otherwise that of the peer with its port.
    pub(crate) fn shown_client(&self) -> Option<String> {
        let forwarded_for = self.forwarded_for.map(|client| client.to_string());
        forwarded_for.or_else(|| self.peer.map(|peer| peer.to_string()))
    }

    /// Returns whether the request was refused. A request that is malformed, comes at the wrong time, or is for something
    /// that does not exist, was not.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self.status, Some(401 | 403 | 405 | 409 | 412 | 429))
    }

    /// Returns whether the request would change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

const fn handler(request: &Request) -> &'static str {
    match request {
        Request::Version => "base",
        Request::ListRepositories { .. } => "catalog",
        Request::ListTags { .. } => "tags",
        Request::ListTagHistory { .. } => "tag_history",
        Request::RestoreTag { .. } => "tag_restore",
        Request::DeleteRepository { .. } => "repository",
        Request::ListReferrers { .. } => "referrers",
        Request::GetBlob { .. } | Request::HeadBlob { .. } | Request::DeleteBlob { .. } => "blob",
        Request::StartUpload { .. } | Request::MountBlob { .. } | Request::UploadBlob { .. } => "blob_upload",
        Request::AppendUpload { .. }
        | Request::FinishUpload { .. }
        | Request::UploadStatus { .. }
        | Request::CancelUpload { .. } => "blob_upload_chunk",
        Request::GetManifest { .. }
        | Request::HeadManifest { .. }
        | Request::PutManifest { .. }
        | Request::DeleteManifest { .. } => "manifest",
    }
}

/// Removes credentials, which do not belong in an authority but may be there.
fn host_of(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Formats a query with only the values of known parameters. A question mark separates parameters too, as when a
/// request is parsed.
fn shown_query(query: &str) -> String {
    let mut shown = String::new();
    for part in query.split_inclusive(['&', '?']) {
        let (pair, sign) = match part.strip_suffix(['&', '?']) {
            Some(pair) => part.split_at(pair.len()),
            None => (part, ""),
        };
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let is_shown = SHOWN_PARAMETERS.contains(&name) || name == "tag" || pair.is_empty();
        shown.push_str(if is_shown { pair } else { "***" });
        shown.push_str(sign);
    }
    shortened(&shown, QUERY_BYTES).into_owned()
}

/// Cuts a long method, which is not one of the protocol's.
fn shortened_method(method: &Method) -> Method {
    let kept = method.as_str().as_bytes().get(..METHOD_BYTES);
    kept.and_then(|kept| Method::from_bytes(kept).ok())
        .unwrap_or_else(|| method.clone())
}

fn shortened_field(field: HeaderValue, most: usize) -> HeaderValue {
    if field.len() <= most {
        return field;
    }
    // A value that is not text is cut as well.
    let text = String::from_utf8_lossy(field.as_bytes());
    HeaderValue::try_from(shortened(&text, most).as_bytes())
        .unwrap_or_else(|_| HeaderValue::from_static("***"))
}

/// Removes credentials and the query from a referer, which may hold secrets of another site.
fn shown_referer(referer: &HeaderValue) -> HeaderValue {
    let shown = referer.to_str().ok().and_then(|text| {
        let text = text.split(['?', '#']).next()?;
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path) = rest
            .split_once('/')
            .map_or((rest, ""), |(host, path)| (host, path));
        HeaderValue::try_from(format!("{scheme}://{}/{path}", host_of(authority))).ok()
    });
    shown.unwrap_or_else(|| HeaderValue::from_static("***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uri: &str, fields: &[(&'static str, &'static str)]) -> RequestRecord {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        RequestRecord::new(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_what_is_of_the_protocol_is_kept_of_a_query() {
        for (query, shown) in [
            ("n=10&last=a%2Fb", "n=10&last=a%2Fb"),
            ("mount=sha256:0&from=a&token=canary", "mount=sha256:0&from=a&***"),
            ("canary", "***"),
            ("password=canary&digest=x", "***&digest=x"),
            ("tag=v1&tag=v2", "tag=v1&tag=v2"),
        ] {
            let record = record(&format!("/v2/?{query}"), &[]);
            assert_eq!(record.query.as_deref(), Some(shown));
            assert_eq!(record.path, "/v2/");
        }
        assert_eq!(record("/v2/", &[]).query, None);
    }

    #[test]
    fn hosts_and_referers_are_kept_without_credentials() {
        let get = |value: Option<HeaderValue>| value.unwrap().to_str().unwrap().to_owned();
        assert_eq!(get(record("/", &[("host", "a:5000")]).host), "a:5000");
        assert_eq!(
            get(record("http://user:canary@b:1/", &[("host", "a")]).host),
            "b:1"
        );
        for (referer, shown) in [
            ("https://u:canary@a/b?canary", "https://a/b"),
            ("https://a", "https://a/"),
            ("canary", "***"),
        ] {
            assert_eq!(get(record("/", &[("referer", referer)]).referer), shown);
        }
    }
}
