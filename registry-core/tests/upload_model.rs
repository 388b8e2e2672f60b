//! Uploads, compared with a vector of bytes and two flags.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use proptest::prelude::*;
use registry_core::fuzzing::upload_model::{Operation, check};
use registry_core::upload::Commit;
use registry_core::{Algorithm, Digest, ErrorCode, Hasher, Upload, UploadSnapshot, fuzzing};
use serde_json::{Value, json};

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(Algorithm::ALL.to_vec())
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => content().prop_map(Operation::Append),
        2 => (0..300_u64, content()).prop_map(|(offset, bytes)| Operation::AppendAt(offset, bytes)),
        1 => content().prop_map(|bytes| Operation::AppendAt(0, bytes)),
        2 => content().prop_map(Operation::Store),
        2 => any::<u8>().prop_map(Operation::CatchUp),
        3 => Just(Operation::Resume),
        1 => Just(Operation::ResumeWithoutHash),
        1 => algorithm().prop_map(|algorithm| Operation::Commit(algorithm, true)),
        2 => algorithm().prop_map(|algorithm| Operation::Commit(algorithm, false)),
        1 => Just(Operation::CommitUnsupported),
        1 => Just(Operation::Abort),
    ]
}

proptest! {
    #[test]
    fn an_upload_does_what_the_model_does(
        algorithm in algorithm(),
        operations in prop::collection::vec(operation(), 0..20),
    ) {
        check(algorithm, &operations);
    }

    #[test]
    fn any_bytes_spell_operations(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        fuzzing::upload_operations(&bytes);
    }

    #[test]
    fn any_record_is_refused_or_goes_on(
        version in prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!(null))],
        length: u64,
        algorithm in prop::sample::select(vec!["sha256", "sha512", "md5"]),
        hash in any::<String>(),
        phase in prop::sample::select(vec![json!("open"), json!("aborted"), json!({"finished": "sha256:"})]),
    ) {
        let record = json!({
            "version": version, "length": length, "algorithm": algorithm, "hash": hash, "phase": phase,
        });
        fuzzing::session_snapshot(record.to_string().as_bytes());
    }

    #[test]
    fn any_bytes_as_record_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        fuzzing::session_snapshot(&bytes);
    }
}

fn upload_of(content: &[u8]) -> Upload {
    Upload::new(Algorithm::Sha256).appended(content).unwrap()
}

fn record(upload: &Upload) -> Value {
    serde_json::to_value(upload.snapshot()).unwrap()
}

fn resume(record: Value) -> Result<Upload, registry_core::Error> {
    Upload::resume(serde_json::from_value::<UploadSnapshot>(record).unwrap())
}

#[test]
fn a_record_is_that_of_version_1() {
    let empty = Upload::new(Algorithm::Sha512);
    let hash = empty.hasher().snapshot();
    let expected = json!({
        "version": 1, "length": 0, "algorithm": "sha512", "hash": hash.as_str(), "phase": "open",
    });
    assert_eq!(record(&empty), expected);
    let digest = Digest::of(Algorithm::Sha256, b"a");
    let finished = upload_of(b"a").finished(digest.clone()).unwrap();
    assert_eq!(record(&finished)["phase"], json!({"finished": digest.as_str()}));
    let aborted = upload_of(b"a").aborted().unwrap();
    assert_eq!(record(&aborted)["phase"], json!("aborted"));
}

#[test]
fn a_record_of_another_version_is_an_error_of_the_registry() {
    let mut newer = record(&upload_of(b"a"));
    newer["version"] = json!(2);
    assert_eq!(resume(newer).unwrap_err().code(), ErrorCode::Internal);
}

#[test]
fn a_hash_that_does_not_fit_the_record_is_not_used() {
    let content = [7; 200];
    let digest = Digest::of(Algorithm::Sha256, &content);
    let ahead = upload_of(&[7; 201]).hasher().snapshot();
    let mut other = Hasher::new(Algorithm::Sha512);
    other.update(&content);
    for hash in ["", "garbage", ahead.as_str(), other.snapshot().as_str()] {
        let mut damaged = record(&upload_of(&content));
        damaged["hash"] = json!(hash);
        let upload = resume(damaged).unwrap();
        assert_eq!(upload.length().unwrap(), 200);
        assert_eq!(upload.commit(&digest).unwrap(), Commit::Rehash(Algorithm::Sha256));
    }
}

#[test]
fn a_hasher_that_is_ahead_of_the_bytes_is_not_used() {
    let hasher = upload_of(b"abc").hasher().clone();
    let upload = Upload::new(Algorithm::Sha256).with_progress(2, hasher).unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"ab");
    assert_eq!(upload.commit(&digest).unwrap(), Commit::Rehash(Algorithm::Sha256));
}

#[test]
fn a_refusal_tells_the_client_what_to_do() {
    let upload = upload_of(b"abc");
    let message = upload.append_at(Some(7)).unwrap_err().message().to_owned();
    assert!(
        message.contains("3 bytes") && message.contains("not at 7"),
        "{message}"
    );
}

#[test]
fn an_empty_upload_is_the_empty_blob() {
    for algorithm in Algorithm::ALL {
        let upload = Upload::new(algorithm);
        let digest = Digest::of(algorithm, b"");
        assert_eq!(upload.commit(&digest).unwrap(), Commit::Matches);
    }
}
