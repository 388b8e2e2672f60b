//! Interruptions: requests that are dropped, calls of the medium that fail or whose answer is lost, and processes that
//! die. An interrupted operation took effect whole or not at all, and can be repeated.

use bytes::Bytes;
use registry_core::storage::UploadKey;
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Storage};

use super::Subject;
use super::fixtures::{
    PART, SMALL, With as _, all_referrers, all_tags, append, append_body, assert_blob, assert_blob_of, body,
    content, digest, get, get_tag, manifest, push_blob, repository, start, tag, try_push_blob,
};
use super::uploads::poll_times;
use crate::backend::Backend;
use crate::testing::faulty::{Fault, Faulty};

/// Makes a storage's medium fail.
pub trait Faults: Send + Sync {
    /// Gives a fault to one call of the medium, the next one (0) or a later one, and returns its number.
    fn arm(&self, call: u64, fault: Fault) -> u64;

    /// Ends all faults, and returns whether the call with this number happened.
    fn heal(&self, number: u64) -> bool;
}

impl<B: Backend> Faults for Faulty<B> {
    fn arm(&self, call: u64, fault: Fault) -> u64 {
        let number = self.calls() + call;
        self.fault_at(number, fault);
        number
    }

    fn heal(&self, number: u64) -> bool {
        self.heal();
        self.calls() > number
    }
}

/// An operation that may end at any point, in its own repository.
struct Case {
    operation: Operation,
    repository: RepositoryName,
    other: RepositoryName,
    content: Bytes,
    /// The content's SHA-256.
    content_digest: Digest,
    upload: Option<UploadKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    PushSmallBlob,
    PushBlob,
    PushBlobInParts,
    Append,
    Commit,
    CommitOtherAlgorithm,
    Cancel,
    Mount,
    DeleteBlob,
    PushManifest,
    PushImmutable,
    Retag,
    PushAgain,
    DeleteManifest,
    DeleteTag,
}

impl Operation {
    const ALL: [Self; 15] = [
        Self::PushSmallBlob,
        Self::PushBlob,
        Self::PushBlobInParts,
        Self::Append,
        Self::Commit,
        Self::CommitOtherAlgorithm,
        Self::Cancel,
        Self::Mount,
        Self::DeleteBlob,
        Self::PushManifest,
        Self::PushImmutable,
        Self::Retag,
        Self::PushAgain,
        Self::DeleteManifest,
        Self::DeleteTag,
    ];

    /// Returns the codes with which a repetition may report that the operation was done, or that the client has to
    /// begin again.
    const fn right_errors(self) -> &'static [ErrorCode] {
        match self {
            Self::Commit | Self::CommitOtherAlgorithm => &[ErrorCode::BlobUploadInvalid],
            Self::Cancel => &[ErrorCode::BlobUploadUnknown],
            Self::DeleteBlob => &[ErrorCode::BlobUnknown],
            Self::DeleteManifest | Self::DeleteTag => &[ErrorCode::ManifestUnknown],
            _ => &[],
        }
    }
}

impl Case {
    /// Creates what the operation needs. `number` makes its content differ from that of all other cases.
    async fn prepare(storage: &dyn Storage, operation: Operation, number: u64) -> Self {
        let size = match operation {
            Operation::PushSmallBlob | Operation::PushManifest | Operation::Mount | Operation::DeleteBlob => {
                10
            }
            Operation::PushBlobInParts => PART + 1,
            _ => SMALL + 1,
        };
        let content = content(number, size);
        let mut case = Self {
            operation,
            repository: repository(&format!("crash/{number}")),
            other: repository(&format!("crash/{number}/other")),
            content_digest: digest(&content),
            content,
            upload: None,
        };
        let repository = &case.repository;
        match operation {
            Operation::PushSmallBlob | Operation::PushBlob | Operation::PushBlobInParts => {}
            Operation::Append => case.upload = Some(start(storage, repository).await),
            Operation::Commit | Operation::CommitOtherAlgorithm | Operation::Cancel => {
                let upload = start(storage, repository).await;
                append(storage, &upload, None, &case.content).await.unwrap();
                case.upload = Some(upload);
            }
            Operation::Mount => {
                push_blob(storage, &case.other, &case.content).await;
            }
            Operation::DeleteBlob | Operation::PushManifest | Operation::PushImmutable => {
                push_blob(storage, repository, &case.content).await;
            }
            Operation::Retag | Operation::PushAgain | Operation::DeleteManifest | Operation::DeleteTag => {
                push_blob(storage, repository, &case.content).await;
                let before = manifest("before").with_tag(&tag("kept")).with_tag(&tag("image"));
                storage.put_manifest(repository, before).await.unwrap();
                if operation != Operation::Retag {
                    storage.put_manifest(repository, case.image()).await.unwrap();
                }
                if operation == Operation::PushAgain {
                    let image = case.image().manifest.digest;
                    storage
                        .delete_manifest(repository, &image, None, None)
                        .await
                        .unwrap();
                }
            }
        }
        case
    }

    fn image(&self) -> registry_core::storage::NewManifest {
        let image = manifest("image").with_blob(&self.content_digest);
        let image = image.with_subject(&digest(b"subject"));
        image.with_tag(&tag("image")).with_tag(&tag("image-2"))
    }

    fn digest(&self) -> Digest {
        match self.operation {
            Operation::CommitOtherAlgorithm => {
                super::fixtures::digest_by(registry_core::Algorithm::Sha512, &self.content)
            }
            _ => self.content_digest.clone(),
        }
    }

    async fn run(&self, storage: &dyn Storage) -> Result<(), Error> {
        let (repository, digest) = (&self.repository, &self.digest());
        match (self.operation, &self.upload) {
            (Operation::Append, Some(upload)) => {
                let at = storage.upload_status(upload).await?;
                let rest = self.content.slice(usize::try_from(at).unwrap()..);
                let chunks: Vec<Bytes> = rest.chunks(4096).map(Bytes::copy_from_slice).collect();
                let body = body(chunks);
                append_body(storage, upload, Some(at), body).await.map(drop)
            }
            (Operation::Commit | Operation::CommitOtherAlgorithm, Some(upload)) => {
                storage.commit_upload(upload, digest).await
            }
            (Operation::Cancel, Some(upload)) => storage.cancel_upload(upload).await,
            (Operation::Mount, _) => {
                assert!(storage.mount_blob(&self.other, repository, digest).await?);
                Ok(())
            }
            (Operation::DeleteBlob, _) => storage.delete_blob(repository, digest, None).await,
            (Operation::PushManifest | Operation::Retag | Operation::PushAgain, _) => {
                storage.put_manifest(repository, self.image()).await
            }
            (Operation::PushImmutable, _) => {
                let image = self.image().with_immutable_tags();
                storage.put_manifest(repository, image).await
            }
            (Operation::DeleteManifest, _) => {
                storage
                    .delete_manifest(repository, &self.image().manifest.digest, None, None)
                    .await
            }
            (Operation::DeleteTag, _) => storage.delete_tag(repository, &tag("image"), None).await,
            _ => try_push_blob(storage, repository, &self.content).await.map(drop),
        }
    }

    /// Checks what holds at every moment: what readers see is whole. A dropped request may still be running, so what
    /// one read finds may be gone at the next.
    async fn assert_whole(&self, storage: &dyn Storage) {
        for repository in [&self.repository, &self.other] {
            match super::fixtures::read_blob(storage, repository, &self.content_digest).await {
                Ok(content) => assert!(content == self.content, "a blob has other bytes than were pushed"),
                Err(error) => assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}"),
            }
        }
        let image = self.image();
        if get(storage, &self.repository, &image.manifest.digest)
            .await
            .is_ok()
        {
            assert_blob_of(storage, &self.repository, &self.content_digest, &self.content).await;
        }
        for name in ["image", "image-2", "kept"] {
            if let Ok(read) = get_tag(storage, &self.repository, &tag(name)).await {
                match get(storage, &self.repository, &read.digest).await {
                    Ok(manifest) => assert_eq!(manifest, read),
                    Err(error) => {
                        let again = get_tag(storage, &self.repository, &tag(name)).await;
                        assert!(
                            again.is_err(),
                            "{name} names a manifest that is not there: {error:?}"
                        );
                    }
                }
            }
        }
    }

    /// Checks that the operation happened.
    async fn assert_done(&self, storage: &dyn Storage) {
        let repository = &self.repository;
        let subject = digest(b"subject");
        let referrers = || all_referrers(storage, repository, &subject, 5);
        match (self.operation, &self.upload) {
            (Operation::Append, Some(upload)) => {
                assert_eq!(
                    storage.upload_status(upload).await.unwrap(),
                    self.content.len() as u64
                );
                storage.commit_upload(upload, &self.digest()).await.unwrap();
                assert_blob_of(storage, repository, &self.content_digest, &self.content).await;
            }
            (Operation::Cancel, Some(upload)) => {
                let status = storage.upload_status(upload).await;
                super::fixtures::assert_code(status, ErrorCode::BlobUploadUnknown);
            }
            (Operation::CommitOtherAlgorithm, _) => {
                let read = super::fixtures::read_blob(storage, repository, &self.digest()).await;
                assert!(read.unwrap() == self.content);
            }
            (Operation::DeleteBlob, _) => {
                super::fixtures::assert_no_blob(storage, repository, &self.digest()).await;
            }
            (Operation::PushManifest | Operation::PushImmutable, _) => {
                assert_eq!(all_tags(storage, repository, 5).await, ["image", "image-2"]);
                self.assert_image(storage).await;
                assert_eq!(referrers().await.len(), 1);
            }
            (Operation::Retag | Operation::PushAgain, _) => {
                assert_eq!(
                    all_tags(storage, repository, 5).await,
                    ["image", "image-2", "kept"]
                );
                self.assert_image(storage).await;
                assert_eq!(referrers().await.len(), 1);
            }
            (Operation::DeleteManifest, _) => {
                get(storage, repository, &self.image().manifest.digest)
                    .await
                    .unwrap_err();
                assert_eq!(
                    all_tags(storage, repository, 5).await,
                    ["kept"],
                    "no tag names what is deleted"
                );
                assert!(referrers().await.is_empty());
            }
            (Operation::DeleteTag, _) => {
                assert_eq!(all_tags(storage, repository, 5).await, ["image-2", "kept"]);
            }
            _ => assert_blob_of(storage, repository, &self.content_digest, &self.content).await,
        }
        self.assert_whole(storage).await;
    }

    async fn assert_image(&self, storage: &dyn Storage) {
        let image = self.image().manifest;
        for name in ["image", "image-2"] {
            assert_eq!(
                get_tag(storage, &self.repository, &tag(name)).await.unwrap(),
                image
            );
        }
    }

    /// Checks that an operation that was interrupted anywhere can be repeated, until it is done.
    async fn assert_repeatable(&self, storage: &dyn Storage) {
        self.assert_whole(storage).await;
        if let Err(error) = self.run(storage).await {
            let right = self.operation.right_errors();
            assert!(
                right.contains(&error.code()),
                "{:?} again: {error:?}",
                self.operation
            );
            if error.code() == ErrorCode::BlobUploadInvalid {
                self.send_again(storage).await;
            }
        }
        self.assert_done(storage).await;
    }

    /// Uploads the content again.
    async fn send_again(&self, storage: &dyn Storage) {
        let upload = start(storage, &self.repository).await;
        append(storage, &upload, None, &self.content).await.unwrap();
        storage.commit_upload(&upload, &self.digest()).await.unwrap();
    }
}

/// A request that is dropped after any number of polls can be repeated.
pub async fn dropped_requests(subject: Subject) {
    let storage = subject.storage();
    let mut number = 0;
    for operation in Operation::ALL {
        for polls in 1.. {
            number += 1;
            let case = Case::prepare(&*storage, operation, number).await;
            let result = poll_times(case.run(&*storage), polls).await;
            case.assert_repeatable_unless_done(&*storage, &result).await;
            if result.is_some() {
                break;
            }
        }
    }
}

impl Case {
    async fn assert_repeatable_unless_done(&self, storage: &dyn Storage, result: &Option<Result<(), Error>>) {
        match result {
            Some(result) => {
                result.clone().unwrap();
                self.assert_done(storage).await;
            }
            None => self.assert_repeatable(storage).await,
        }
    }
}

/// A request during which the medium fails once, at any of its calls, fails or succeeds, and can be repeated.
pub async fn single_faults(mut subject: Subject) {
    let mut cases = 0;
    for fault in [Fault::Fail, Fault::LoseAnswer] {
        for operation in Operation::ALL {
            for call in 0.. {
                cases += 1;
                let storage = subject.storage();
                let Some(faults) = subject.faults() else { return };
                let case = Case::prepare(&*storage, operation, cases).await;
                let number = faults.arm(call, fault);
                let result = case.run(&*storage).await;
                let happened = faults.heal(number);
                match result {
                    Ok(()) => case.assert_done(&*storage).await,
                    Err(error) => {
                        assert!(happened, "{operation:?} failed by itself: {error:?}");
                        drop(storage);
                        // Half of the requests are repeated in another process.
                        if call % 2 == 1 {
                            subject.reopen().await;
                        }
                        case.assert_repeatable(&*subject.storage()).await;
                    }
                }
                if !happened {
                    break;
                }
            }
        }
    }
}

/// What was acknowledged exists when another process opens the data.
pub async fn everything_outlives_the_process(mut subject: Subject) {
    let mut cases = Vec::new();
    for (operation, number) in Operation::ALL.into_iter().zip(1..) {
        let storage = subject.storage();
        let case = Case::prepare(&*storage, operation, number).await;
        case.run(&*storage).await.unwrap();
        cases.push(case);
    }
    if subject.reopen().await {
        let storage = subject.storage();
        for case in cases {
            case.assert_done(&*storage).await;
        }
    }
}

/// Another process continues a session where its status says, after each of several deaths.
pub async fn another_process_resumes(mut subject: Subject) {
    let repository = repository("a");
    let content = content(1, 2 * PART + 3 * SMALL);
    let upload = start(&*subject.storage(), &repository).await;
    for end in [10, SMALL + 5, PART - 1, PART + 1, 2 * PART, content.len()] {
        let storage = subject.storage();
        let at = usize::try_from(storage.upload_status(&upload).await.unwrap()).unwrap();
        let length = append(&*storage, &upload, Some(at as u64), &content.slice(at..end))
            .await
            .unwrap();
        assert_eq!(length, end as u64);
        drop(storage);
        subject.reopen().await;
    }
    let storage = subject.storage();
    storage.commit_upload(&upload, &digest(&content)).await.unwrap();
    drop(storage);
    subject.reopen().await;
    let storage = subject.storage();
    assert_blob(&*storage, &repository, &content).await;
    storage.commit_upload(&upload, &digest(&content)).await.unwrap();
}
