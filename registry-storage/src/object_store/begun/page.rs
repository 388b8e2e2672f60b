//! What a store answers that is asked for the uploads of a bucket.

use registry_core::Timestamp;

use crate::object_store::answer::{elements, text_of};
use crate::object_store::client::has_root;

/// Some uploads of a bucket.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) uploads: Vec<Listed>,
    /// The key after which the next page begins; `None` at the end.
    pub(super) next: Option<String>,
}

/// An upload of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) begun: Timestamp,
}

impl Page {
    /// Parses a whole answer; `None` if it is anything else, or if there is an upload of which something is missing.
    pub(super) fn parse(document: &str) -> Option<Self> {
        const ROOT: &str = "ListMultipartUploadsResult";
        let is_whole = has_root(document, ROOT) && document.trim_end().ends_with(&format!("</{ROOT}>"));
        if !is_whole {
            return None;
        }
        let of_upload = |upload: &str| {
            Some(Listed {
                key: text_of(upload, "Key")?.into_owned(),
                id: text_of(upload, "UploadId")?.into_owned(),
                begun: time(&text_of(upload, "Initiated")?)?,
            })
        };
        let uploads: Option<Vec<Listed>> = elements(document, "Upload").into_iter().map(of_upload).collect();
        let is_truncated = text_of(document, "IsTruncated").is_some_and(|text| text == "true");
        let next = match is_truncated {
            true => Some(text_of(document, "NextKeyMarker")?.into_owned()),
            false => None,
        };
        Some(Self {
            uploads: uploads?,
            next,
        })
    }
}

/// Parses a time to the second: stores differ in how much of a second they write.
fn time(text: &str) -> Option<Timestamp> {
    let (seconds, rest) = text.split_at_checked("2026-11-30T05:12:17".len())?;
    let fraction = rest.strip_suffix('Z').or_else(|| rest.strip_suffix("+00:00"))?;
    let is_fraction = |text: &str| text.len() > 1 && text[1..].bytes().all(|byte| byte.is_ascii_digit());
    let is_read = fraction.is_empty() || (fraction.starts_with('.') && is_fraction(fraction));
    is_read
        .then(|| Timestamp::from_rfc3339(&format!("{seconds}.000Z")))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLOAD: &str = "<Upload><Key>r/a&amp;b</Key><UploadId>1 &lt;</UploadId><Initiated>2026-11-30T05:12:17.126Z</Initiated></Upload>";

    fn document(content: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListMultipartUploadsResult xmlns=\"x\">{content}</ListMultipartUploadsResult>\n"
        )
    }

    #[test]
    fn a_page_is_read_as_a_whole_or_not_at_all() {
        let begun = Timestamp::from_rfc3339("2026-11-30T05:12:17.000Z").unwrap();
        let upload = || Listed {
            key: "r/a&b".into(),
            id: "1 <".into(),
            begun,
        };
        let last = Page::parse(&document(&format!(
            "<NextKeyMarker></NextKeyMarker><IsTruncated>false</IsTruncated>{UPLOAD}{UPLOAD}"
        )));
        assert_eq!(
            last,
            Some(Page {
                uploads: vec![upload(), upload()],
                next: None
            })
        );
        let more = Page::parse(&document(&format!(
            "<NextKeyMarker>r/a&amp;b</NextKeyMarker>{UPLOAD}<IsTruncated>true</IsTruncated>"
        )));
        assert_eq!(
            more,
            Some(Page {
                uploads: vec![upload()],
                next: Some("r/a&b".into())
            })
        );
        assert_eq!(Page::parse(&document("")), Some(Page::default()));
        for other in [
            document("<IsTruncated>true</IsTruncated>"),
            document(&UPLOAD.replace("UploadId", "Id")),
            document(&UPLOAD.replace("2026", "a while ago")),
            document(UPLOAD).replace("</ListMultipartUploadsResult>", ""),
            document(UPLOAD).replace("ListMultipartUploadsResult", "ListBucketResult"),
            "<html><body>Sign in</body></html>".to_owned(),
            String::new(),
        ] {
            assert_eq!(Page::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn a_time_is_read_however_exact_it_is() {
        let expected = Timestamp::from_rfc3339("2026-11-30T05:12:17.000Z");
        for text in [
            "2026-11-30T05:12:17Z",
            "2026-11-30T05:12:17.1Z",
            "2026-11-30T05:12:17.126Z",
            "2026-11-30T05:12:17.126456789Z",
            "2026-11-30T05:12:17+00:00",
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        for text in [
            "",
            "2026-11-30T05:12:17",
            "2026-11-30T05:12:17.Z",
            "2026-11-30T05:12:17+01:00",
            "2026-13-30T05:12:17Z",
            "2026-11-30T05:12:1éZ",
            "Mon, 30 Nov 2026 05:12:17 GMT",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
