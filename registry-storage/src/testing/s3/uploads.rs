//! Uploads in parts of the double.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use registry_core::Timestamp;

use super::BUCKET;
use super::bucket::{Bucket, Content, MOST_KEYS, Object, Refusal};
use super::xml::escape;

/// The smallest size of a part that is not the last.
const SMALLEST_PART: usize = 5 * 1024 * 1024;

/// The maximum number of parts of an upload.
const MOST_PARTS: u32 = 10_000;

const NO_SUCH_UPLOAD: Refusal = (404, "NoSuchUpload");

#[derive(Debug)]
pub(super) struct Upload {
    key: String,
    /// Which upload it is.
    number: u64,
    begun: Timestamp,
    parts: BTreeMap<u32, Object>,
}

/// A page of uploads: key, identifier, and when each was begun.
#[derive(Debug)]
pub(super) struct UploadPage {
    pub(super) uploads: Vec<(String, String, Timestamp)>,
    pub(super) has_more: bool,
}

impl UploadPage {
    /// Returns the page as Amazon writes it, with more than is read.
    pub(super) fn document(&self) -> String {
        let mut document = format!(
            "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>{BUCKET}</Bucket><KeyMarker></KeyMarker>"
        );
        if let (true, Some((key, id, _))) = (self.has_more, self.uploads.last()) {
            document += &format!(
                "<NextKeyMarker>{}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>",
                escape(key)
            );
        }
        document += &format!("<IsTruncated>{}</IsTruncated>", self.has_more);
        for (key, id, begun) in &self.uploads {
            document += &format!(
                "<Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiator><ID>i</ID></Initiator><Owner><ID>o</ID></Owner>\
                 <StorageClass>STANDARD</StorageClass><Initiated>{begun}</Initiated></Upload>",
                escape(key)
            );
        }
        document + "</ListMultipartUploadsResult>"
    }
}

impl Bucket {
    /// Lists uploads in the order of their keys, and those of one key as they were begun. Those of `after` are left out.
    pub(super) fn list_uploads(&self, prefix: &str, after: &str, limit: usize) -> UploadPage {
        let is_listed = |key: &str| key.starts_with(prefix) && (after.is_empty() || key > after);
        let uploads = self.uploads.iter().filter(|(_, upload)| is_listed(&upload.key));
        let mut uploads: Vec<_> = uploads.collect();
        uploads.sort_by_key(|(_, upload)| (&upload.key, upload.number));
        let limit = limit.min(MOST_KEYS);
        let page = uploads.iter().take(limit);
        UploadPage {
            uploads: page
                .map(|(id, upload)| (upload.key.clone(), (*id).clone(), upload.begun))
                .collect(),
            has_more: uploads.len() > limit,
        }
    }

    pub(super) fn begin(&mut self, key: &str) -> String {
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        let upload = Upload {
            key: key.to_owned(),
            number: self.uploads_begun,
            begun: self.now,
            parts: BTreeMap::new(),
        };
        self.uploads.insert(id.clone(), upload);
        id
    }

    pub(super) fn put_part(
        &mut self,
        key: &str,
        id: &str,
        number: u32,
        content: Bytes,
    ) -> Result<String, Refusal> {
        if !(1..=MOST_PARTS).contains(&number) {
            return Err((400, "InvalidArgument"));
        }
        let part = Object::new(content);
        let tag = part.tag.clone();
        self.upload(key, id)?.parts.insert(number, part);
        Ok(tag)
    }

    pub(super) fn complete(
        &mut self,
        key: &str,
        id: &str,
        list: &[(u32, String)],
    ) -> Result<Object, Refusal> {
        let upload = self.upload(key, id)?;
        if list.is_empty() {
            return Err((400, "MalformedXML"));
        }
        if !list.is_sorted_by(|one, next| one.0 < next.0) {
            return Err((400, "InvalidPartOrder"));
        }
        let mut pieces = Vec::new();
        let mut hasher = DefaultHasher::new();
        for (at, (number, tag)) in list.iter().enumerate() {
            let part = match upload.parts.get(number) {
                Some(part) if part.tag == *tag => part,
                _ => return Err((400, "InvalidPart")),
            };
            if at + 1 < list.len() && part.content.len() < SMALLEST_PART {
                return Err((400, "EntityTooSmall"));
            }
            tag.hash(&mut hasher);
            pieces.extend_from_slice(&part.content.0);
        }
        let object = Object {
            content: Content(pieces),
            tag: format!("\"{:016x}-{}\"", hasher.finish(), list.len()),
            generation: 0,
            written: self.now,
        };
        self.uploads.remove(id);
        Ok(self.insert(key, object))
    }

    pub(super) fn abort(&mut self, key: &str, id: &str) -> Result<(), Refusal> {
        self.upload(key, id)?;
        self.uploads.remove(id);
        Ok(())
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.uploads.len()
    }

    pub(super) fn parts_of_open_uploads(&self) -> usize {
        self.uploads.values().map(|upload| upload.parts.len()).sum()
    }

    fn upload(&mut self, key: &str, id: &str) -> Result<&mut Upload, Refusal> {
        self.uploads
            .get_mut(id)
            .filter(|upload| upload.key == key)
            .ok_or(NO_SUCH_UPLOAD)
    }
}
