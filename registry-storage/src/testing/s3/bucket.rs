//! The bucket of the double: its operations, without HTTP.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use registry_core::Timestamp;

use super::uploads::Upload;

/// The maximum number of keys, or of uploads, in a listing.
pub(super) const MOST_KEYS: usize = 1000;

/// The beginning of 2025.
const FIRST_MOMENT: Timestamp = Timestamp(1_735_689_600_000);

/// Objects and uploads.
#[derive(Debug)]
pub(super) struct Bucket {
    objects: BTreeMap<String, Object>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) uploads_begun: u64,
    writes: u64,
    /// The time that objects get which are written. It goes on only if a test says so.
    pub(super) now: Timestamp,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            uploads_begun: 0,
            writes: 0,
            now: FIRST_MOMENT,
        }
    }
}

/// The content of an object, in the pieces in which it came: completing an upload takes as long for a large one as for a
/// small one.
#[derive(Clone, Debug)]
pub(super) struct Content(pub(super) Vec<Bytes>);

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) content: Content,
    pub(super) tag: String,
    /// Which write it is; 0 is a part. Google Cloud Storage compares it, and not the entity tag.
    pub(super) generation: u64,
    pub(super) written: Timestamp,
}

/// The condition of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WriteCondition {
    Nothing,
    Absent,
    Matches(String),
    IsGeneration(u64),
}

/// Status and code of an error.
pub(super) type Refusal = (u16, &'static str);

const NO_SUCH_KEY: Refusal = (404, "NoSuchKey");
const PRECONDITION_FAILED: Refusal = (412, "PreconditionFailed");

/// A page of keys.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) objects: Vec<(String, Object)>,
    pub(super) has_more: bool,
}

impl Bucket {
    pub(super) fn get(&self, key: &str) -> Result<Object, Refusal> {
        self.objects.get(key).cloned().ok_or(NO_SUCH_KEY)
    }

    pub(super) fn put(
        &mut self,
        key: &str,
        content: Bytes,
        condition: &WriteCondition,
    ) -> Result<Object, Refusal> {
        match (condition, self.objects.get(key)) {
            (WriteCondition::Absent, Some(_)) => return Err(PRECONDITION_FAILED),
            (WriteCondition::Matches(_), None) => return Err(NO_SUCH_KEY),
            (WriteCondition::Matches(tag), Some(object)) if *tag != object.tag => {
                return Err(PRECONDITION_FAILED);
            }
            (WriteCondition::IsGeneration(generation), object)
                if object.is_none_or(|object| object.generation != *generation) =>
            {
                return Err(PRECONDITION_FAILED);
            }
            _ => {}
        }
        Ok(self.insert(key, Object::new(content)))
    }

    pub(super) fn insert(&mut self, key: &str, mut object: Object) -> Object {
        self.writes += 1;
        object.generation = self.writes;
        object.written = self.now;
        self.objects.insert(key.to_owned(), object.clone());
        object
    }

    pub(super) fn copy(&mut self, source: &str, key: &str) -> Result<Object, Refusal> {
        let object = self.get(source)?;
        Ok(self.insert(key, object))
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.objects.remove(key);
    }

    pub(super) fn delete_if(&mut self, key: &str, condition: &WriteCondition) -> Result<(), Refusal> {
        let object = self.get(key)?;
        let is_met = match condition {
            WriteCondition::Nothing => true,
            WriteCondition::Absent => false,
            WriteCondition::Matches(tag) => *tag == object.tag,
            WriteCondition::IsGeneration(generation) => *generation == object.generation,
        };
        if !is_met {
            return Err(PRECONDITION_FAILED);
        }
        self.delete(key);
        Ok(())
    }

    pub(super) fn list(&self, prefix: &str, after: &str, limit: usize) -> Listing {
        let start = if after >= prefix {
            Bound::Excluded(after)
        } else {
            Bound::Included(prefix)
        };
        let mut objects = self
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, object)| (key.clone(), object.clone()));
        Listing {
            objects: objects.by_ref().take(limit.min(MOST_KEYS)).collect(),
            has_more: objects.next().is_some(),
        }
    }

    pub(super) fn contents(&self) -> BTreeMap<String, Bytes> {
        let content = |(key, object): (&String, &Object)| {
            let content = &object.content;
            (key.clone(), content.slice(0..content.len()))
        };
        self.objects.iter().map(content).collect()
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Returns a range, which is within the content.
    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        let mut begins_at = 0;
        let mut joined = BytesMut::new();
        for piece in &self.0 {
            let ends_at = begins_at + piece.len();
            let (from, to) = (range.start.max(begins_at), range.end.min(ends_at));
            if from < to {
                let wanted = piece.slice(from - begins_at..to - begins_at);
                if wanted.len() == range.len() {
                    return wanted;
                }
                joined.extend_from_slice(&wanted);
            }
            begins_at = ends_at;
        }
        joined.freeze()
    }
}

/// Returns the MD5 hash of a body in hexadecimal digits.
fn md5_of(body: &[u8]) -> String {
    Md5::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Object {
    /// The entity tag is the hash of the content, as on S3.
    pub(super) fn new(content: Bytes) -> Self {
        Self {
            tag: format!("\"{}\"", md5_of(&content)),
            content: Content(vec![content]),
            generation: 0,
            written: FIRST_MOMENT,
        }
    }
}
