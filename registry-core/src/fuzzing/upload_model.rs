//! A naive upload, with the bytes in a vector, and a comparison of [`Upload`] with it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::hash::Hasher;
use crate::upload::{Commit, Upload};

/// Something that happens to an upload.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Bytes arrive at the end.
    Append(Vec<u8>),
    /// Bytes arrive at an offset, right or wrong.
    AppendAt(u64, Vec<u8>),
    /// Bytes are stored, but not hashed yet.
    Store(Vec<u8>),
    /// Stored bytes are hashed, up to this many more.
    CatchUp(u8),
    /// Another process continues.
    Resume,
    /// Another process continues, and cannot resume the state of the hash.
    ResumeWithoutHash,
    /// The client states the digest, or a wrong one.
    Commit(Algorithm, IsRight),
    /// The client states a digest that the registry cannot compute.
    CommitUnsupported,
    /// The client cancels.
    Abort,
}

/// Whether a digest is that of the bytes.
pub type IsRight = bool;

/// The model.
#[derive(Debug)]
struct Model {
    bytes: Vec<u8>,
    hashed: usize,
    algorithm: Algorithm,
    finished: Option<Digest>,
    aborted: bool,
}

/// Runs `operations` on an upload and on the model, and panics if they differ.
pub fn check(algorithm: Algorithm, operations: &[Operation]) {
    let mut upload = Upload::new(algorithm);
    let mut model = Model {
        bytes: Vec::new(),
        hashed: 0,
        algorithm,
        finished: None,
        aborted: false,
    };
    for operation in operations {
        upload = step(upload, &mut model, operation);
        compare(&upload, &model);
    }
}

fn compare(upload: &Upload, model: &Model) {
    let length = if model.is_open() {
        Ok(model.bytes.len() as u64)
    } else {
        Err(ErrorCode::BlobUploadUnknown)
    };
    assert_eq!(code(upload.length()), length);
    assert_eq!(code(upload.append_at(None)), length);
    assert_eq!(upload.finished_digest(), model.finished.as_ref());
    assert_eq!(upload.hasher().length(), model.hashed as u64);
    assert_eq!(upload.hasher().algorithm(), model.algorithm);
    let hashed = model.bytes.get(..model.hashed).unwrap_or_default();
    let digest = Digest::of(model.algorithm, hashed);
    assert_eq!(upload.hasher().clone().finish(), digest);
}

fn step(upload: Upload, model: &mut Model, operation: &Operation) -> Upload {
    match operation {
        Operation::Append(bytes) => append(upload, model, bytes),
        Operation::AppendAt(offset, bytes) => {
            let at = upload.append_at(Some(*offset));
            if !model.is_open() {
                assert_eq!(code(at), Err(ErrorCode::BlobUploadUnknown));
                upload
            } else if *offset != model.bytes.len() as u64 {
                assert_eq!(code(at), Err(ErrorCode::RangeInvalid));
                upload
            } else {
                assert_eq!(code(at), Ok(*offset));
                append(upload, model, bytes)
            }
        }
        Operation::Store(bytes) => {
            let hasher = upload.hasher().clone();
            let length = model.bytes.len() as u64 + bytes.len() as u64;
            let next = transition(model, upload, |upload| upload.with_progress(length, hasher));
            if model.is_open() {
                model.bytes.extend_from_slice(bytes);
            }
            next
        }
        Operation::CatchUp(count) => {
            let end = model
                .bytes
                .len()
                .min(model.hashed.saturating_add(usize::from(*count)));
            let mut hasher = upload.hasher().clone();
            hasher.update(model.bytes.get(model.hashed..end).unwrap_or_default());
            let length = model.bytes.len() as u64;
            let next = transition(model, upload, |upload| upload.with_progress(length, hasher));
            if model.is_open() {
                model.hashed = end;
            }
            next
        }
        Operation::Resume => resume(&upload, |json| json),
        Operation::ResumeWithoutHash => {
            model.hashed = 0;
            resume(&upload, |json| json.replace("\"hash\":\"1:", "\"hash\":\"0:"))
        }
        Operation::Commit(algorithm, is_right) => commit(upload, model, *algorithm, *is_right),
        Operation::CommitUnsupported => {
            let Ok(digest) = "future:0123".parse() else {
                panic!("a digest of an unknown algorithm parses");
            };
            let expected = if model.is_open() {
                ErrorCode::DigestInvalid
            } else {
                ErrorCode::BlobUploadUnknown
            };
            assert_eq!(code(upload.commit(&digest)), Err(expected));
            upload
        }
        Operation::Abort => {
            let next = transition(model, upload, Upload::aborted);
            model.aborted |= model.is_open();
            next
        }
    }
}

fn append(upload: Upload, model: &mut Model, bytes: &[u8]) -> Upload {
    let next = transition(model, upload, |upload| upload.appended(bytes));
    if model.is_open() {
        if model.hashed == model.bytes.len() {
            model.hashed += bytes.len();
        }
        model.bytes.extend_from_slice(bytes);
    }
    next
}

fn commit(mut upload: Upload, model: &mut Model, algorithm: Algorithm, is_right: bool) -> Upload {
    let actual = Digest::of(algorithm, &model.bytes);
    let digest = if is_right {
        actual.clone()
    } else {
        Digest::of(algorithm, &[&model.bytes[..], b"!"].concat())
    };
    let mut answer = upload.commit(&digest);
    if model.finished.as_ref() == Some(&digest) {
        assert_eq!(code(answer), Ok(Commit::AlreadyFinished));
        return upload;
    }
    if !model.is_open() {
        assert_eq!(code(answer), Err(ErrorCode::BlobUploadUnknown));
        return upload;
    }
    if model.algorithm != algorithm || model.hashed != model.bytes.len() {
        assert_eq!(code(answer), Ok(Commit::Rehash(algorithm)));
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&model.bytes);
        let length = model.bytes.len() as u64;
        upload = transition(model, upload, |upload| upload.with_progress(length, hasher));
        (model.algorithm, model.hashed) = (algorithm, model.bytes.len());
        answer = upload.commit(&digest);
    }
    match answer {
        Ok(answer) => {
            assert_eq!((answer, is_right), (Commit::Matches, true));
            model.finished = Some(digest.clone());
            let Ok(finished) = upload.finished(digest) else {
                panic!("an open session can be finished");
            };
            finished
        }
        Err(error) => {
            assert_eq!((error.code(), is_right), (ErrorCode::DigestInvalid, false));
            assert!(error.message().contains(actual.as_str()) && error.message().contains(digest.as_str()));
            upload
        }
    }
}

/// Converts an upload to JSON, which `edit` may change, and back.
fn resume(upload: &Upload, edit: impl Fn(String) -> String) -> Upload {
    let Ok(json) = serde_json::to_string(&upload.snapshot()) else {
        panic!("a snapshot can be written");
    };
    match serde_json::from_str(&edit(json)).map(Upload::resume) {
        Ok(Ok(upload)) => upload,
        failure => panic!("a snapshot can be read: {failure:?}"),
    }
}

/// Runs a transition that only an open session allows.
fn transition(
    model: &Model,
    upload: Upload,
    transition: impl FnOnce(Upload) -> Result<Upload, Error>,
) -> Upload {
    match (transition(upload.clone()), model.is_open()) {
        (Ok(next), true) => next,
        (Err(error), false) if error.code() == ErrorCode::BlobUploadUnknown => upload,
        (result, _) => panic!("{result:?} of {model:?}"),
    }
}

impl Model {
    fn is_open(&self) -> bool {
        self.finished.is_none() && !self.aborted
    }
}

fn code<T: Debug>(result: Result<T, Error>) -> Result<T, ErrorCode> {
    result.map_err(|error| error.code())
}

/// Decodes the algorithm and operations from `bytes`; every input has a decoding.
#[must_use]
pub fn decode(bytes: &[u8]) -> (Algorithm, Vec<Operation>) {
    let mut rest = bytes.iter().copied();
    let algorithm = |byte: u8| {
        if byte.is_multiple_of(2) {
            Algorithm::Sha256
        } else {
            Algorithm::Sha512
        }
    };
    let hinted = algorithm(rest.next().unwrap_or_default());
    let mut operations = Vec::new();
    while let (Some(kind), Some(argument)) = (rest.next(), rest.next()) {
        // Twice the argument, to reach beyond the 128 bytes of a block.
        let content = || alloc::vec![argument; usize::from(argument) * 2];
        operations.push(match kind % 16 {
            0..=2 => Operation::Append(content()),
            3 | 4 => Operation::AppendAt(u64::from(argument) * 2, content()),
            5 | 6 => Operation::Store(content()),
            7 | 8 => Operation::CatchUp(argument),
            9 | 10 => Operation::Resume,
            11 => Operation::ResumeWithoutHash,
            12 => Operation::Commit(algorithm(argument), true),
            13 => Operation::Commit(algorithm(argument), false),
            14 => Operation::CommitUnsupported,
            _ => Operation::Abort,
        });
    }
    (hinted, operations)
}
