//! The object store backend against a bucket that fails, conflicts, and loses answers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::{Error, ErrorCode, Timestamp};
use registry_storage::backend::{
    Condition, Durability, Expect, Part, RecordTransaction, StagedBytes, Stat, Transaction, Version,
};
use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Fault;
use registry_storage::{Backend as _, BytesName, Key, ObjectStoreBackend};

/// Faults that the backend or its client overcome wherever they happen.
const PASSING: [S3Fault; 4] = [
    S3Fault::Status(500),
    S3Fault::Status(503),
    S3Fault::LoseAnswer,
    S3Fault::LieAboutFailure,
];

struct Put(Key, Bytes, Condition);

impl Transaction for Put {
    type Output = Option<Version>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Option<Version>, Error> {
        records.put(&self.0, self.1, self.2).await
    }
}

struct Complete(StagedBytes, Vec<Part>, Bytes);

impl Transaction for Complete {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.complete_bytes(&self.0, &self.1, self.2).await
    }
}

struct StatOf(Key);

impl Transaction for StatOf {
    type Output = Option<Stat>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Option<Stat>, Error> {
        records.stat(&self.0).await
    }
}

struct Remove(Key);

impl Transaction for Remove {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.remove(&self.0).await
    }
}

fn value(text: &str) -> Bytes {
    Bytes::from(format!("{text} {}", uuid::Uuid::new_v4()))
}

async fn put(
    backend: &ObjectStoreBackend,
    key: &Key,
    value: &Bytes,
    condition: Condition,
) -> Result<Option<Version>, Error> {
    let put = Put(key.clone(), value.clone(), condition);
    backend.transact(Durability::Synced, put).await
}

async fn read(backend: &ObjectStoreBackend, name: &BytesName, size: u64) -> Result<Vec<u8>, Error> {
    let content = backend.open_bytes(name, Expect::Nothing).await?.unwrap();
    let mut stream = content.read(0..size);
    let mut gathered = Vec::new();
    while let Some(chunk) = stream.next().await {
        gathered.extend_from_slice(&chunk?);
    }
    Ok(gathered)
}

/// A record is created, read and updated; bytes are written, completed, read and deleted; what is left is listed.
async fn life(backend: &ObjectStoreBackend, round: usize) -> Result<(), Error> {
    let key = Key::from_stored(&format!("uploads/{round}"));
    let first = value("first");
    let created = put(backend, &key, &first, Condition::Absent).await?.unwrap();
    let stored = backend.get(&key).await?.unwrap();
    assert_eq!((&stored.value, &stored.version), (&first, &created));
    let second = value("second");
    let updated = put(backend, &key, &second, Condition::Matches(created.clone())).await?;
    assert!(updated.is_some());
    let stale = put(backend, &key, &first, Condition::Matches(created)).await?;
    assert_eq!(stale, None);
    assert_eq!(put(backend, &key, &first, Condition::Absent).await?, None);

    let name = BytesName::random(Timestamp(1_700_000_000_000));
    let part = Bytes::from(vec![u8::try_from(round % 251).unwrap(); backend.part_size(0)]);
    let token = backend.begin_bytes(&name).await?;
    let bytes = StagedBytes {
        name: name.clone(),
        token,
    };
    let mut writer = backend.write_bytes(&bytes, Arc::new(())).await?;
    let tag = writer.write(0, 0, part.clone()).await?.unwrap();
    writer.close().await?;
    let size = part.len() as u64;
    let complete = Complete(bytes.clone(), vec![Part { size, tag }], Bytes::from("tail"));
    backend.transact(Durability::Synced, complete).await?;
    let content = read(backend, &name, size + 4).await?;
    assert!(content == [&part, &b"tail"[..]].concat());
    assert_eq!(backend.list_bytes(None, 10).await?, std::slice::from_ref(&name));
    backend.delete_bytes(&name).await?;
    assert_eq!(backend.list_bytes(None, 10).await?, []);
    let page = backend.list(&key, None, 10).await?;
    assert_eq!(page.first().unwrap().size, second.len() as u64);
    Ok(())
}

#[tokio::test]
async fn each_single_fault_at_each_request_is_overcome() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    life(&backend, 0).await.unwrap();
    let requests = double.faults().requests();
    assert!(
        requests >= 14,
        "{requests} requests: {:?}",
        double.faults().take_seen()
    );
    let mut round = 0;
    for fault in PASSING {
        for request in 0..requests {
            round += 1;
            double.faults().fault_after(request, fault);
            life(&backend, round)
                .await
                .unwrap_or_else(|error| panic!("{fault:?} at {request}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn answers_cut_in_the_middle_harm_nothing() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    life(&backend, 0).await.unwrap();
    let requests = double.faults().requests();
    for request in 0..requests {
        let round = usize::try_from(request).unwrap() + 1;
        double.faults().fault_after(request, S3Fault::CutBody);
        if let Err(error) = life(&backend, round).await {
            assert_eq!(error.code(), ErrorCode::Unavailable, "at {request}: {error:?}");
        }
        for name in backend.list_bytes(None, 10).await.unwrap() {
            backend.delete_bytes(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn reading_goes_on_after_more_cuts_than_the_client_retries() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    let name = BytesName::random(Timestamp(0));
    let whole: Bytes = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let bytes = StagedBytes {
        name: name.clone(),
        token: None,
    };
    let complete = Complete(bytes, Vec::new(), whole.clone());
    backend.transact(Durability::Synced, complete).await.unwrap();
    for request in 0..9 {
        double.faults().fault_after(request, S3Fault::CutBody);
    }
    let content = read(&backend, &name, whole.len() as u64).await.unwrap();
    assert!(content == whole);
}

/// rclone breaks off many reads of an object that is being overwritten.
#[tokio::test]
async fn a_record_is_read_again_after_more_cuts_than_the_client_retries() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    let key = Key::from_stored("a");
    let written = value(&"1".repeat(4_000_000));
    put(&backend, &key, &written, Condition::Absent).await.unwrap();
    for request in 0..6 {
        double.faults().fault_after(request, S3Fault::CutBody);
    }
    assert_eq!(backend.get(&key).await.unwrap().unwrap().value, written);
    // But not for ever.
    double.faults().fault_from_now_on(Some(S3Fault::CutBody));
    let error = backend.get(&key).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn bytes_shorter_than_their_record_says_are_an_error() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    let bytes = StagedBytes {
        name: BytesName::random(Timestamp(0)),
        token: None,
    };
    let complete = Complete(bytes.clone(), Vec::new(), Bytes::from("short"));
    backend.transact(Durability::Synced, complete).await.unwrap();
    let error = read(&backend, &bytes.name, 10).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Internal);
}

#[tokio::test]
async fn a_conflict_that_let_no_one_win_is_tried_again() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    // Those of the second and third may be removed: a write of the same value may bring them back if it was done before, and 409 says that
    // it was not.
    for (key, first) in [
        ("uploads/a", Condition::Absent),
        ("blobs/sha256/a", Condition::Absent),
        ("repositories/a/!/blobs/sha256/a", Condition::Any),
    ] {
        let key = Key::from_stored(key);
        let mut condition = first;
        for text in ["created", "updated"] {
            double.faults().fault_after(0, S3Fault::Status(409));
            let written = put(&backend, &key, &value(text), condition).await.unwrap();
            condition = Condition::Matches(written.unwrap());
        }
    }
}

#[tokio::test]
async fn a_conflict_that_another_won_is_lost() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let key = Key::from_stored("uploads/a");
    let others = value("another's");
    let version = put(&backend, &key, &others, Condition::Absent).await.unwrap();
    double.faults().fault_after(0, S3Fault::Status(409));
    let lost = put(&backend, &key, &value("mine"), Condition::Absent).await;
    assert_eq!(lost.unwrap(), None);
    let stored = backend.get(&key).await.unwrap().unwrap();
    assert_eq!((stored.value, Some(stored.version)), (others, version));
}

#[tokio::test]
async fn a_bucket_that_stays_down_is_unavailable_and_not_asked_for_ever() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    for request in 0..100 {
        double.faults().fault_at(request, S3Fault::Status(503));
    }
    let key = Key::from_stored("uploads/a");
    for error in [
        backend.get(&key).await.unwrap_err(),
        backend.list(&key, None, 10).await.unwrap_err(),
        put(&backend, &key, &value("a"), Condition::Absent)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}");
    }
    assert!(double.faults().requests() < 30, "{}", double.faults().requests());
    assert!(double.objects().is_empty());
}

/// Beside an overwrite, some stores answer with the tag of one body and another body.
#[tokio::test]
async fn a_body_that_is_not_its_tags_is_read_again() {
    let other = S3Fault::Tag("\"0cc175b9c0f1b6a831c399e269772661\"");
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let (key, value) = (Key::from_stored("uploads/a"), value("a"));
    let version = put(&backend, &key, &value, Condition::Absent)
        .await
        .unwrap()
        .unwrap();
    double.faults().fault_after(0, other);
    double.faults().fault_after(1, other);
    let read = backend.get(&key).await.unwrap().unwrap();
    assert_eq!((&read.value, &read.version), (&value, &version));
    // One that stays so is what it is, and nothing more is compared: a bucket that was encrypted otherwise has such.
    double.faults().fault_from_now_on(Some(other));
    assert_ne!(backend.get(&key).await.unwrap().unwrap().version, version);
    let before = double.faults().requests();
    assert_ne!(backend.get(&key).await.unwrap().unwrap().version, version);
    assert_eq!(double.faults().requests() - before, 1);
}

#[tokio::test]
async fn a_listing_that_is_not_in_order_for_a_moment_is_asked_for_again() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    for name in ["a", "b"] {
        let key = Key::from_stored(&format!("uploads/{name}"));
        put(&backend, &key, &value(name), Condition::Absent)
            .await
            .unwrap();
    }
    let folder = Key::from_stored("uploads/");
    double.faults().fault_after(0, S3Fault::RepeatKey);
    double.faults().fault_after(1, S3Fault::RepeatKey);
    assert_eq!(backend.list(&folder, None, 10).await.unwrap().len(), 2);
    double.faults().fault_from_now_on(Some(S3Fault::RepeatKey));
    let before = double.faults().requests();
    let error = backend.list(&folder, None, 10).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("lists its keys out of order"), "{cause}");
    assert!(double.faults().requests() - before < 10);
}

#[tokio::test]
async fn a_page_that_is_larger_than_was_asked_for_is_cut() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        let key = Key::from_stored(&format!("uploads/{name}"));
        put(&backend, &key, &value(name), Condition::Absent)
            .await
            .unwrap();
    }
    double.faults().fault_from_now_on(Some(S3Fault::WholeList));
    let folder = Key::from_stored("uploads/");
    let listed = async |after: Option<&Key>, limit| {
        let page = backend.list(&folder, after, limit).await.unwrap();
        page.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    let first = listed(None, 2).await;
    assert_eq!(first, ["uploads/a", "uploads/b"].map(Key::from_stored));
    let rest = listed(first.last(), 3).await;
    assert_eq!(
        rest,
        ["uploads/c", "uploads/d", "uploads/e"].map(Key::from_stored)
    );
    assert_eq!(listed(rest.last(), 3).await, []);
}

#[tokio::test]
async fn everything_lies_below_the_prefix() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("/one/two/").unwrap();
    let neighbour = double.backend("one/two-three").unwrap();
    let key = Key::from_stored("uploads/a");
    put(&backend, &key, &value("mine"), Condition::Absent)
        .await
        .unwrap();
    put(&neighbour, &key, &value("other"), Condition::Absent)
        .await
        .unwrap();
    let keys: Vec<_> = double.objects().into_keys().collect();
    assert_eq!(keys, ["one/two-three/uploads/a", "one/two/uploads/a"]);
    let everything = Key::from_stored("");
    assert_eq!(backend.list(&everything, None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_upload_that_was_not_needed_is_aborted() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let name = BytesName::random(Timestamp(0));
    let token = backend.begin_bytes(&name).await.unwrap();
    assert_eq!(double.open_uploads(), 1);
    let complete = Complete(StagedBytes { name, token }, Vec::new(), Bytes::from("all of it"));
    backend.transact(Durability::Synced, complete).await.unwrap();
    assert_eq!((double.open_uploads(), double.objects().len()), (0, 1));
}

/// A store that fails with status 200, as S3 does in places, or a login page. An empty listing would let a sweep delete what the
/// records name that it did not see.
#[tokio::test]
async fn a_listing_that_is_none_is_not_an_empty_one() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let key = Key::from_stored("uploads/a");
    put(&backend, &key, &value("a"), Condition::Absent).await.unwrap();
    double
        .faults()
        .fault_from_now_on(Some(S3Fault::Answer(200, "InternalError")));
    for error in [
        backend.list(&key, None, 10).await.err(),
        backend.list_bytes(None, 10).await.err(),
    ] {
        let error = error.unwrap();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            cause.contains("the store answered 200 InternalError")
                && cause.contains("no store answers like this"),
            "{cause}"
        );
    }
    double.faults().fault_from_now_on(None);
    assert_eq!(backend.list(&key, None, 10).await.unwrap().len(), 1);
}

/// A connection of which nothing comes back, as one that a firewall forgot, costs some seconds and is no failure.
#[tokio::test]
async fn reads_get_an_answer_although_a_connection_is_silent() {
    let silent = S3Fault::Delay(Duration::from_secs(600));
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let (key, value) = (Key::from_stored("uploads/a"), value("a"));
    put(&backend, &key, &value, Condition::Absent).await.unwrap();
    for others in 0..4 {
        double.faults().fault_after(others, silent);
    }
    let (read, stat, sizes, listed) = tokio::join!(
        backend.get(&key),
        backend.transact(Durability::Synced, StatOf(key.clone())),
        backend.sizes(std::slice::from_ref(&key)),
        backend.list(&key, None, 10),
    );
    assert_eq!(read.unwrap().unwrap().value, value);
    assert!(stat.unwrap().is_some());
    assert!(sizes.unwrap().iter().all(Option::is_some));
    assert_eq!(listed.unwrap().len(), 1);
}

/// Answers that say nothing about an object: the bucket is gone, or the access key (versitygw answers 404), a right or the
/// address, or a proxy answers.
const SAYING_NOTHING: [S3Fault; 10] = [
    S3Fault::Answer(404, "NoSuchBucket"),
    S3Fault::Answer(404, "XAdminUserNotFound"),
    S3Fault::Answer(404, ""),
    S3Fault::Answer(403, "AccessDenied"),
    S3Fault::Answer(403, ""),
    S3Fault::Answer(401, ""),
    S3Fault::Answer(400, "ExpiredToken"),
    S3Fault::Answer(301, "PermanentRedirect"),
    S3Fault::Answer(302, ""),
    S3Fault::Page,
];

#[tokio::test]
async fn what_says_nothing_about_an_object_is_an_outage_and_nothing_is_absent() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let key = Key::from_stored("uploads/a");
    let bytes = StagedBytes {
        name: BytesName::random(Timestamp(0)),
        token: backend
            .begin_bytes(&BytesName::random(Timestamp(0)))
            .await
            .unwrap(),
    };
    let mut writer = backend.write_bytes(&bytes, Arc::new(())).await.unwrap();
    let part = Part {
        size: 1,
        tag: "\"a\"".into(),
    };
    let complete = || Complete(bytes.clone(), vec![part.clone()], Bytes::new());
    let other = Key::from_stored("uploads/b");
    let version = put(&backend, &other, &value("b"), Condition::Absent)
        .await
        .unwrap()
        .unwrap();
    let on_version = || Condition::Matches(version.clone());
    for fault in SAYING_NOTHING {
        double.faults().fault_from_now_on(Some(fault));
        for (call, error) in [
            ("get", backend.get(&key).await.err()),
            (
                "stat",
                backend
                    .transact(Durability::Synced, StatOf(key.clone()))
                    .await
                    .err(),
            ),
            ("sizes", backend.sizes(std::slice::from_ref(&key)).await.err()),
            ("list", backend.list(&key, None, 10).await.err()),
            (
                "create",
                put(&backend, &key, &value("a"), Condition::Absent).await.err(),
            ),
            (
                "update",
                put(&backend, &other, &value("a"), on_version()).await.err(),
            ),
            (
                "put",
                put(&backend, &key, &value("a"), Condition::Any).await.err(),
            ),
            (
                "remove",
                backend
                    .transact(Durability::Synced, Remove(key.clone()))
                    .await
                    .err(),
            ),
            ("read", read(&backend, &bytes.name, 10).await.err()),
            ("size", backend.bytes_size(&bytes.name).await.err()),
            (
                "open",
                backend.open_bytes(&bytes.name, Expect::Size(10)).await.err(),
            ),
            ("write", writer.write(0, 0, Bytes::from("a")).await.err()),
            (
                "complete",
                backend.transact(Durability::Synced, complete()).await.err(),
            ),
            ("abort", backend.abort_bytes(&bytes).await.err()),
            ("delete", backend.delete_bytes(&bytes.name).await.err()),
        ] {
            let error = error.unwrap_or_else(|| panic!("{call} took {fault:?} for an answer"));
            assert_eq!(
                error.code(),
                ErrorCode::Unavailable,
                "{call}, {fault:?}: {error:?}"
            );
        }
    }
    double.faults().fault_from_now_on(None);
    assert!(backend.get(&key).await.unwrap().is_none());
    let stat = backend.transact(Durability::Synced, StatOf(key.clone())).await;
    assert_eq!(stat.unwrap(), None);
    assert_eq!(backend.bytes_size(&bytes.name).await.unwrap(), None);
    let error = writer.write(0, 0, Bytes::from("a")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BlobUploadUnknown, "{error:?}");
}

#[tokio::test]
async fn asking_for_a_record_is_one_request_whether_or_not_it_exists() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let (there, absent) = (Key::from_stored("uploads/a"), Key::from_stored("uploads/b"));
    let content = value("a");
    let version = put(&backend, &there, &content, Condition::Absent).await.unwrap();
    for (key, expected) in [
        (&there, version.map(|version| (version, content.len() as u64))),
        (&absent, None),
    ] {
        let before = double.faults().requests();
        let stat = backend
            .transact(Durability::Synced, StatOf(key.clone()))
            .await
            .unwrap();
        assert_eq!(stat.map(|stat| (stat.version, stat.size)), expected);
        assert_eq!(double.faults().requests() - before, 1, "{key:?}");
    }
}

#[tokio::test]
async fn what_a_store_does_not_implement_is_asked_for_once_and_named() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let key = Key::from_stored("uploads/a");
    let version = put(&backend, &key, &value("a"), Condition::Absent)
        .await
        .unwrap()
        .unwrap();
    double
        .faults()
        .fault_from_now_on(Some(S3Fault::Answer(501, "NotImplemented")));
    for (condition, named) in [
        (Condition::Absent, "conditional writes (if-none-match)"),
        (Condition::Matches(version), "conditional writes (if-match)"),
        (Condition::Any, "does not implement this request"),
    ] {
        let before = double.faults().requests();
        let error = put(&backend, &key, &value("b"), condition).await.unwrap_err();
        assert_eq!(double.faults().requests() - before, 1, "{error:?}");
        assert_eq!(error.code(), ErrorCode::Internal);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            cause.contains(named) && cause.contains("501 NotImplemented"),
            "{cause}"
        );
    }
}

/// rclone keeps the bytes that came first.
#[tokio::test]
async fn a_store_that_takes_no_other_bytes_for_a_part_makes_the_client_begin_anew() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let name = BytesName::random(Timestamp(0));
    let token = backend.begin_bytes(&name).await.unwrap();
    let bytes = StagedBytes { name, token };
    let mut writer = backend.write_bytes(&bytes, Arc::new(())).await.unwrap();
    let tag = writer.write(0, 0, Bytes::from("a")).await.unwrap().unwrap();
    let refusal = S3Fault::Answer(501, "NotImplemented");
    double.faults().fault_after(0, refusal);
    let refused = writer.write(0, 0, Bytes::from("b")).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BlobUploadInvalid, "{refused:?}");
    double.faults().fault_after(0, refusal);
    let complete = Complete(bytes, vec![Part { size: 1, tag }], Bytes::from("tail"));
    let refused = backend.transact(Durability::Synced, complete).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BlobUploadInvalid, "{refused:?}");
}

#[tokio::test]
async fn an_empty_entity_tag_is_no_version() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("p").unwrap();
    let key = Key::from_stored("uploads/a");
    // Empty, or missing.
    for tag in ["\"\"", ""] {
        let key = Key::from_stored(&format!("uploads/{}", tag.len()));
        let empty = S3Fault::Tag(tag);
        // The write, and the first look at what was written.
        double.faults().fault_after(0, empty);
        double.faults().fault_after(1, empty);
        let created = put(&backend, &key, &value("a"), Condition::Absent)
            .await
            .unwrap()
            .unwrap();
        double.faults().fault_after(0, empty);
        assert_eq!(backend.get(&key).await.unwrap().unwrap().version, created);
        double.faults().fault_after(0, empty);
        let stat = backend.transact(Durability::Synced, StatOf(key.clone())).await;
        assert_eq!(stat.unwrap().unwrap().version, created);
        let updated = put(&backend, &key, &value("b"), Condition::Matches(created)).await;
        assert!(updated.unwrap().is_some());
    }
    // It is not read for ever.
    put(&backend, &key, &value("c"), Condition::Absent).await.unwrap();
    for tag in ["\"\"", "W/\"\"", ""] {
        double.faults().fault_from_now_on(Some(S3Fault::Tag(tag)));
        let before = double.faults().requests();
        backend.get(&key).await.unwrap_err();
        let stat = backend.transact(Durability::Synced, StatOf(key.clone())).await;
        stat.unwrap_err();
        put(&backend, &key, &value("d"), Condition::Absent)
            .await
            .unwrap_err();
        assert!(double.faults().requests() - before < 20, "{tag}");
    }
}

/// Without a tag the list of parts cannot name it, which is said of the part, not of a completion hours later.
#[tokio::test]
async fn a_part_without_an_entity_tag_is_an_error_of_that_part() {
    let double = S3Double::start().await.unwrap();
    let backend = double.backend("").unwrap();
    let part = Bytes::from(vec![1; 5 << 20]);
    for tag in ["", "\"\"", "W/\"\""] {
        let name = BytesName::random(Timestamp(0));
        let token = backend.begin_bytes(&name).await.unwrap();
        let staged = StagedBytes { name, token };
        let mut writer = backend.write_bytes(&staged, Arc::new(())).await.unwrap();
        let written = writer.write(0, 0, part.clone()).await.unwrap();
        double.faults().fault_after(0, S3Fault::Tag(tag));
        let error = writer.write(1, 5 << 20, part.clone()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable, "{tag}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("no entity tag"), "{cause}");
        // It may pass: the part is sent again.
        let again = writer.write(1, 5 << 20, part.clone()).await.unwrap();
        let parts = [written, again].map(|tag| Part {
            size: 5 << 20,
            tag: tag.unwrap(),
        });
        // So it is with the last one, which the completion sends.
        let complete = || Complete(staged.clone(), parts.to_vec(), Bytes::from_static(b"tail"));
        double.faults().fault_after(0, S3Fault::Tag(tag));
        let completed = backend.transact(Durability::Synced, complete()).await;
        let error = completed.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable, "{tag}");
        backend.transact(Durability::Synced, complete()).await.unwrap();
        let size = backend.bytes_size(&staged.name).await.unwrap();
        assert_eq!(size, Some((10 << 20) + 4));
    }
}

#[tokio::test]
async fn a_completion_that_is_repeated_after_its_answer_was_lost_is_a_success() {
    let refusals = [
        S3Fault::Answer(404, "NoSuchUpload"),
        S3Fault::Answer(403, "AccessDenied"),
        S3Fault::Answer(400, "InvalidRequest"),
    ];
    for fault in refusals {
        let double = S3Double::start().await.unwrap();
        let backend = double.backend("p").unwrap();
        let name = BytesName::random(Timestamp(0));
        let bytes = StagedBytes {
            token: backend.begin_bytes(&name).await.unwrap(),
            name,
        };
        let mut writer = backend.write_bytes(&bytes, Arc::new(())).await.unwrap();
        let content = Bytes::from("all of it");
        let tag = writer.write(0, 0, content.clone()).await.unwrap().unwrap();
        let size = content.len() as u64;
        let complete = |size, tag| Complete(bytes.clone(), vec![Part { size, tag }], Bytes::new());
        // Not completed yet, so there is nothing that could be taken for a success.
        double.faults().fault_after(0, fault);
        let early = complete(size, tag.clone());
        backend.transact(Durability::Synced, early).await.unwrap_err();
        let first = complete(size, tag.clone());
        backend.transact(Durability::Synced, first).await.unwrap();
        double.faults().fault_after(0, fault);
        let repeated = complete(size, tag.clone());
        backend.transact(Durability::Synced, repeated).await.unwrap();
        double.faults().fault_after(0, fault);
        let of_other_size = complete(size + 1, tag);
        backend
            .transact(Durability::Synced, of_other_size)
            .await
            .unwrap_err();
    }
}

/// The double must not let pass what a bucket would not.
#[tokio::test(flavor = "multi_thread")]
async fn the_double_is_strict() {
    let double = S3Double::start().await.unwrap();
    let signed = "authorization: AWS4-HMAC-SHA256 Credential=double\r\n";
    for (request, headers, status) in [
        ("GET /bucket/a", "", "403"),
        ("GET /bucket/a", signed, "404"),
        ("GET /other/a", signed, "404"),
        ("GET /bucket/a?acl", signed, "501"),
        ("GET /bucket?list-type=2&delimiter=/", signed, "501"),
        ("POST /bucket?delete", signed, "501"),
        ("PUT /bucket/a?partNumber=1&uploadId=none", signed, "404"),
        ("PUT /bucket/a?partNumber=0&uploadId=none", signed, "400"),
    ] {
        let mut stream = TcpStream::connect(double.url().strip_prefix("http://").unwrap()).unwrap();
        let message = format!(
            "{request} HTTP/1.1\r\nhost: s3\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(message.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.get(9..12), Some(status), "{request}: {answer}");
    }
}

/// A client that goes away leaves its write on its way to the bucket. Nobody else has the key until that is over.
#[tokio::test]
async fn a_write_of_a_single_writer_outlives_who_asked_for_it_and_keeps_its_key() {
    let double = S3Double::start().await.unwrap();
    double.faults().ignore_conditions();
    let backend = double.backend("").unwrap().deciding_conditions();
    let key = Key::from_stored("a");
    let first = put(&backend, &key, &value("0"), Condition::Absent)
        .await
        .unwrap()
        .unwrap();
    let written = value("1");
    let _seen = double.faults().take_seen();
    // The read, then the write.
    double
        .faults()
        .fault_after(1, S3Fault::Delay(Duration::from_millis(300)));
    {
        let dropped = put(&backend, &key, &written, Condition::Matches(first.clone()));
        tokio::pin!(dropped);
        let is_sent = async {
            while !double
                .faults()
                .take_seen()
                .iter()
                .any(|request| request.starts_with("PUT"))
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            done = &mut dropped => panic!("{done:?}"),
            () = is_sent => {}
        }
    }
    // It was first, so this one loses.
    let late = put(&backend, &key, &value("2"), Condition::Matches(first))
        .await
        .unwrap();
    assert_eq!(late, None);
    let stored = backend.get(&key).await.unwrap().unwrap();
    assert_eq!(stored.value, written);
}
