//! What a store answered to a request that failed.

use std::borrow::Cow;
use std::fmt;

use registry_core::printable::shortened;

use super::error::chain;

/// The longest message of a store that is repeated, in bytes.
const MESSAGE_BYTES: usize = 200;

/// The failure that a store answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The store's own code, such as `NoSuchBucket`; empty if the answer has none, as that to a `HEAD`.
    pub(super) code: String,
    /// What the store says about it, in one short line; may be empty.
    pub(super) message: String,
    /// Where the bucket is, if the store says that it is not where the request was sent to.
    pub(super) region: Option<String>,
    /// The header field with the condition of the request, if the store does not implement what was asked for.
    pub(super) condition: Option<&'static str>,
}

impl Answer {
    /// Reads what S3, GCS and Azure answer: XML with a code and a message. Of anything else, such as a proxy's page, the
    /// beginning is the message.
    pub(super) fn parse(status: u16, body: &str) -> Self {
        let code = text_of(body, "Code").unwrap_or_default();
        let message = match text_of(body, "Message") {
            Some(message) => message,
            None if code.is_empty() => without_elements(body).into(),
            None => Cow::default(),
        };
        let words: Vec<&str> = message.split_whitespace().collect();
        Self {
            status,
            code: code.split_whitespace().collect(),
            message: shortened(&words.join(" "), MESSAGE_BYTES).into_owned(),
            region: text_of(body, "Region").map(Cow::into_owned),
            condition: None,
        }
    }

    /// Returns the answer that an error of the client is about, if there was one.
    pub(super) fn of(error: &object_store::Error) -> Option<Self> {
        chain(error).find_map(|cause| {
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            if let Some(answer) = cause.downcast_ref::<Self>() {
                return Some(answer.clone());
            }
            parse_text(&cause.to_string())
        })
    }

    /// Returns whether the store says that the object does not exist. It has other codes for a bucket or a key of its
    /// own that it does not know, and those to a `HEAD` have none.
    pub(super) fn names_absent_object(&self) -> bool {
        self.status == 404 && matches!(&*self.code, "NoSuchKey" | "BlobNotFound")
    }

    /// Returns whether the store says that the upload was completed or aborted, or never begun.
    pub(super) fn names_absent_upload(&self) -> bool {
        self.status == 404 && self.code == "NoSuchUpload"
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            code,
            message,
            ..
        } = self;
        write!(f, "{status}")?;
        if !code.is_empty() {
            write!(f, " {code}")?;
        }
        if !message.is_empty() {
            write!(f, ": {}", message.trim_end_matches('.'))?;
        }
        Ok(())
    }
}

impl std::error::Error for Answer {}

/// Parses the text of the client's own error, whose type is private to the library.
fn parse_text(text: &str) -> Option<Answer> {
    // A success that turns out to be a failure, which only S3 has: `InternalError` or `SlowDown`.
    if let Some(body) = text.strip_prefix("Server returned error response: ") {
        return Some(Answer::parse(503, body));
    }
    let rest = text.strip_prefix("Server returned non-2xx status code: ")?;
    let status = rest.get(..3)?.parse().ok()?;
    let body = rest.split_once(": ").map_or("", |(_, body)| body);
    Some(Answer::parse(status, body))
}

/// Returns the text of the first element with this name.
pub(super) fn text_of<'a>(xml: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(unescape(text))
}

/// Returns what is in each element with this name, none of which is in another one.
#[cfg(feature = "s3")]
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let after_each = xml.split(&*open).skip(1);
    let contents = after_each.filter_map(|after| after.split_once(&*close));
    contents.map(|(content, _)| content).collect()
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
        .into()
}

/// Leaves out the elements of a page, and keeps its text.
fn without_elements(page: &str) -> String {
    let mut pieces = page.split('<');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let after = piece.split_once('>').map_or("", |(_, after)| after);
        text.push(' ');
        text.push_str(after);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_message_are_read_from_what_stores_send() {
        for (status, body, shown) in [
            (
                404,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket</Code><Message>The specified \
                 bucket does not exist</Message><BucketName>b</BucketName></Error>",
                "404 NoSuchBucket: The specified bucket does not exist",
            ),
            (
                404,
                "\u{feff}<?xml version=\"1.0\"?><Error><Code>ContainerNotFound</Code><Message>The specified container \
                 does not exist.\nRequestId:1\nTime:2</Message></Error>",
                "404 ContainerNotFound: The specified container does not exist. RequestId:1 Time:2",
            ),
            (
                403,
                "<Error><Code>AccessDenied</Code><Message>a &lt;b&gt; &amp;amp; &#39;c&#39;</Message></Error>",
                "403 AccessDenied: a <b> &amp; 'c'",
            ),
            (
                403,
                "<Error><Code>AccessDenied</Code></Error>",
                "403 AccessDenied",
            ),
            (404, "", "404"),
            (
                502,
                "<html>\n<head><title>502 Bad Gateway</title></head>\n</html>",
                "502: 502 Bad Gateway",
            ),
            (
                400,
                "Client sent an HTTP request to an HTTPS server.\n",
                "400: Client sent an HTTP request to an HTTPS server",
            ),
        ] {
            assert_eq!(Answer::parse(status, body).to_string(), shown);
        }
        let long = format!(
            "<Error><Code>A</Code><Message>{}</Message></Error>",
            "m ".repeat(1000)
        );
        assert!(Answer::parse(400, &long).to_string().len() < 250);
    }

    #[test]
    fn only_the_code_of_an_object_names_an_absent_object() {
        for (status, code, object, upload) in [
            (404, "NoSuchKey", true, false),
            (404, "BlobNotFound", true, false),
            (404, "NoSuchUpload", false, true),
            (404, "NoSuchBucket", false, false),
            (404, "ContainerNotFound", false, false),
            (404, "XAdminUserNotFound", false, false),
            (404, "", false, false),
            (403, "NoSuchKey", false, false),
        ] {
            let answer = Answer::parse(status, &format!("<Error><Code>{code}</Code></Error>"));
            let named = (answer.names_absent_object(), answer.names_absent_upload());
            assert_eq!(named, (object, upload), "{status} {code}");
        }
    }

    #[test]
    fn what_is_no_xml_is_no_reason_to_fail() {
        for body in [
            "<",
            "<Code>",
            "</Code><Code>",
            "<Code></Code>",
            "a<b",
            "<Message>x",
            "é<é",
        ] {
            assert!(!Answer::parse(400, body).to_string().is_empty(), "{body}");
        }
    }
}
