//! Backups of a disk beside a running server, and their way back.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _, UploadStorage as _};
use registry_core::{Digest, ErrorCode, Reference};
use registry_storage::Store;
use registry_storage::check::CheckOptions;
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::filesystem::backup::{BackupError, restore};
use registry_storage::testing::Observed;
use registry_storage::{Maintenance as _, MaintenanceObserver, Step, SweepOptions};

use crate::support::images::{Image, image, name, push_image, start_upload, tag, try_push};

type Disk = Store<FilesystemBackend>;

async fn open(root: &Path) -> Disk {
    Store::new(FilesystemBackend::open(root).await.unwrap())
}

async fn read_blob(store: &Disk, repository: &str, digest: &Digest) -> Bytes {
    let blob = store.open_blob(&name(repository), digest).await.unwrap();
    let mut read = BytesMut::new();
    let mut content = blob.content.read(0..blob.size);
    while let Some(chunk) = content.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    read.freeze()
}

async fn assert_image(store: &Disk, repository: &str, tag_name: &str, image: &Image) {
    let reference = Reference::Tag(tag(tag_name));
    let manifest = store.get_manifest(&name(repository), &reference).await.unwrap();
    assert_eq!(manifest.bytes, image.bytes);
    for content in [&image.config, &image.layer] {
        let digest = crate::support::images::digest(content);
        assert!(read_blob(store, repository, &digest).await == *content);
    }
}

async fn assert_sound(store: &Disk) {
    let options = CheckOptions::new().verify_content(true).settle(Duration::ZERO);
    let observed = Observed::default();
    let report = store.check(&options, &observed).await.unwrap();
    assert_eq!(observed.lines(), [""; 0]);
    assert_eq!(report.unnamed_bytes, 0);
}

/// Pushes and deletes images until it is told to stop.
async fn keep_pushing(store: Arc<Disk>, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut pushed = 0;
    while !stop.load(Ordering::Relaxed) {
        let image = image(seed + pushed, 20_000, None);
        let repository = format!("busy/{seed}");
        try_push(&*store, &repository, Some("latest"), &image)
            .await
            .unwrap();
        if pushed % 3 == 2 {
            store
                .delete_manifest(&name(&repository), &image.digest, None, None)
                .await
                .unwrap();
            let layer = crate::support::images::digest(&image.layer);
            store.delete_blob(&name(&repository), &layer, None).await.unwrap();
        }
        if pushed % 5 == 4 {
            store.sweep(&SweepOptions::default()).await.unwrap();
        }
        pushed += 1;
    }
    pushed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_answered_before_is_in_a_backup_that_is_made_beside_pushes() {
    let folder = tempfile::tempdir().unwrap();
    let (root, target, back) = (
        folder.path().join("root"),
        folder.path().join("backup"),
        folder.path().join("back"),
    );
    let store = Arc::new(open(&root).await);
    let mut images = Vec::new();
    for seed in 0..30 {
        let size = if seed % 2 == 0 { 100 } else { 30_000 };
        let tag = format!("v{seed}");
        images.push((
            tag.clone(),
            push_image(&*store, "kept", Some(&tag), seed, size).await,
        ));
    }
    start_upload(&*store, "kept", &Bytes::from(vec![3; 50_000])).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pushing: Vec<_> = [10_000, 20_000, 30_000]
        .map(|seed| tokio::spawn(keep_pushing(Arc::clone(&store), seed, Arc::clone(&stop))))
        .into();
    for round in 0..3 {
        let target = target.join(round.to_string());
        let last = push_image(&*store, "last", Some("last"), 500 + round, 40_000).await;
        let report = store.backup(&target, Arc::new(())).await.unwrap();
        assert_eq!((report.copied, report.missing), (0, 0), "{report:?}");
        assert!(report.linked >= 16, "{report:?}");
        let back = back.join(round.to_string());
        let restored = restore(&target, &back, Arc::new(())).await.unwrap();
        assert_eq!(restored, report);
        let restored = open(&back).await;
        assert_sound(&restored).await;
        for (tag, image) in &images {
            assert_image(&restored, "kept", tag, image).await;
        }
        assert_image(&restored, "last", "last", &last).await;
        // It is a store of its own.
        push_image(&restored, "new", Some("v1"), 900, 30_000).await;
        restored
            .delete_manifest(&name("last"), &last.digest, None, None)
            .await
            .unwrap();
        restored.sweep(&SweepOptions::default()).await.unwrap();
        restored.close().await.unwrap();
        assert_image(&store, "last", "last", &last).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in pushing {
        assert!(task.await.unwrap() > 0, "pushes went on");
    }
    // What the root loses, the backup keeps.
    store.close().await.unwrap();
    drop(store);
    std::fs::remove_dir_all(&root).unwrap();
    restore(&target.join("0"), &root, Arc::new(())).await.unwrap();
    let restored = open(&root).await;
    assert_sound(&restored).await;
    assert_image(&restored, "kept", "v7", &images[7].1).await;
}

#[tokio::test]
async fn a_folder_with_something_in_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (root, target) = (folder.path().join("root"), folder.path().join("backup"));
    let store = open(&root).await;
    push_image(&store, "a", Some("v1"), 1, 20_000).await;
    store.backup(&target, Arc::new(())).await.unwrap();
    let error = store.backup(&target, Arc::new(())).await.unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    let error = restore(&target, &root, Arc::new(())).await.unwrap_err();
    assert!(error.to_string().contains("is in use by process"), "{error}");
    store.close().await.unwrap();
    drop(store);
    let error = restore(&target, &root, Arc::new(())).await.unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    assert_image(&open(&root).await, "a", "v1", &image(1, 20_000, None)).await;
}

#[tokio::test]
async fn what_was_interrupted_is_no_backup_and_a_restore_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (root, target, back) = (
        folder.path().join("root"),
        folder.path().join("backup"),
        folder.path().join("back"),
    );
    let store = open(&root).await;
    let image = push_image(&store, "a", Some("v1"), 1, 20_000).await;
    store.backup(&target, Arc::new(())).await.unwrap();
    let manifest = std::fs::read(target.join("backup.json")).unwrap();
    for damaged in [&b""[..], b"{}", &manifest[..20]] {
        std::fs::write(target.join("backup.json"), damaged).unwrap();
        let error = restore(&target, &back, Arc::new(())).await.unwrap_err();
        assert!(matches!(error, BackupError::NotWhole { .. }), "{error}");
    }
    std::fs::remove_file(target.join("backup.json")).unwrap();
    let error = restore(&target, &back, Arc::new(())).await.unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    std::fs::write(target.join("backup.json"), &manifest).unwrap();
    // As a restore leaves it that is ended between its last two steps.
    restore(&target, &back, Arc::new(())).await.unwrap();
    std::fs::rename(back.join("records.sqlite"), back.join("records.sqlite.restoring")).unwrap();
    restore(&target, &back, Arc::new(())).await.unwrap();
    let restored = open(&back).await;
    assert_image(&restored, "a", "v1", &image).await;
    assert_sound(&restored).await;
    // Bytes that are gone from the backup are told.
    let day = std::fs::read_dir(target.join("bytes"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let file = std::fs::read_dir(day).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&file).unwrap();
    let error = restore(&target, &folder.path().join("third"), Arc::new(()))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} is missing in the backup", file.display())
    );
}

#[tokio::test]
async fn a_format_that_no_version_wrote_is_no_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let (target, back) = (folder.path().join("backup"), folder.path().join("back"));
    let store = open(&folder.path().join("root")).await;
    store.backup(&target, Arc::new(())).await.unwrap();
    let path = target.join("backup.json");
    let written = std::fs::read_to_string(&path).unwrap();
    for (format, is_newer) in [(0, false), (3, true)] {
        let changed = written.replace("\"format\": 2", &format!("\"format\": {format}"));
        assert_ne!(changed, written);
        std::fs::write(&path, changed).unwrap();
        match restore(&target, &back, Arc::new(())).await.unwrap_err() {
            BackupError::Newer { found, .. } => assert!(is_newer && found == format),
            BackupError::NotWhole { .. } => assert!(!is_newer),
            other => panic!("{other}"),
        }
    }
}

/// Says that files are written, and waits.
struct Stop {
    begun: tokio::sync::Notify,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

#[async_trait::async_trait]
impl MaintenanceObserver for Stop {
    fn step(&self, step: Step, _: u64, _: Option<u64>) {
        if step == Step::Files {
            self.begun.notify_one();
            // Whoever lets it go on is gone then.
            self.go_on.lock().unwrap().recv().unwrap_err();
        }
    }
}

#[tokio::test]
async fn what_was_written_of_a_backup_that_was_ended_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("backup");
    let store = open(&folder.path().join("root")).await;
    push_image(&store, "a", Some("v1"), 1, 20_000).await;
    push_image(&store, "a", Some("v2"), 2, 20_000).await;
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let stop = Arc::new(Stop {
        begun: tokio::sync::Notify::new(),
        go_on: std::sync::Mutex::new(receiver),
    });
    tokio::select! {
        _ = store.backup(&target, Arc::<Stop>::clone(&stop) as _) => panic!("it waits"),
        () = stop.begun.notified() => {}
    }
    assert!(target.join("records.sqlite").exists());
    drop(sender);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::fs::read_dir(&target).unwrap().next().is_some() {
        assert!(std::time::Instant::now() < deadline, "it is still there");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    store.backup(&target, Arc::new(())).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_goes_on_is_not_in_a_backup_and_ends_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (root, target, back) = (
        folder.path().join("root"),
        folder.path().join("backup"),
        folder.path().join("back"),
    );
    let store = open(&root).await;
    let content = Bytes::from(vec![9; 100_000]);
    let upload = start_upload(&store, "a", &content).await;
    let report = store.backup(&target, Arc::new(())).await.unwrap();
    assert_eq!(report.linked, 0);
    let digest = crate::support::images::digest(&content);
    store.commit_upload(&upload, &digest).await.unwrap();
    assert!(read_blob(&store, "a", &digest).await == content);
    restore(&target, &back, Arc::new(())).await.unwrap();
    let restored = open(&back).await;
    let error = restored.upload_status(&upload).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
}

#[tokio::test]
async fn to_another_file_system_bytes_are_copied() {
    let shared_memory = Path::new("/dev/shm");
    let Ok(target) = tempfile::tempdir_in(shared_memory) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("root")).await;
    let image = push_image(&store, "a", Some("v1"), 1, 70_000).await;
    let report = store
        .backup(&target.path().join("backup"), Arc::new(()))
        .await
        .unwrap();
    assert_eq!(report.linked + report.copied, 1);
    assert_eq!(report.size, 70_000);
    let back = folder.path().join("back");
    restore(&target.path().join("backup"), &back, Arc::new(()))
        .await
        .unwrap();
    assert_image(&open(&back).await, "a", "v1", &image).await;
}

/// Copies a folder as `cp -r` does.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Tells whether a folder says that it is a copy.
async fn is_copy(root: &Path) -> bool {
    let store = open(root).await;
    let is_copy = store.backend().is_copy();
    store.close().await.unwrap();
    is_copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_folder_is_told_from_one_that_was_moved_or_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let image = image(1, 100_000, None);
    let store = open(&path("root")).await;
    assert!(!store.backend().is_copy());
    try_push(&store, "a", Some("v1"), &image).await.unwrap();
    store.backup(&path("backup"), Arc::new(())).await.unwrap();
    // While it is open, as a job does that copied the folder of the distribution registry.
    copy_folder(&path("root"), &path("copy"));
    store.close().await.unwrap();
    std::fs::rename(path("root"), path("moved")).unwrap();
    restore(&path("backup"), &path("restored"), Arc::new(()))
        .await
        .unwrap();
    copy_folder(&path("backup"), &path("unpacked"));
    std::fs::remove_file(path("unpacked").join("backup.json")).unwrap();
    for whole in ["moved", "restored", "unpacked", "unpacked", "restored"] {
        assert!(!is_copy(&path(whole)).await, "{whole}");
    }
    copy_folder(&path("restored"), &path("copy of restored"));
    copy_folder(&path("unpacked"), &path("copy of unpacked"));
    for copy in ["copy", "copy", "copy of restored", "copy of unpacked"] {
        assert!(is_copy(&path(copy)).await, "{copy}");
    }
    let store = open(&path("copy")).await;
    assert_image(&store, "a", "v1", &image).await;
    store.backend().take_for_original().await.unwrap();
    try_push(&store, "a", Some("v2"), &image).await.unwrap();
    assert!(!store.backend().is_copy());
    store.close().await.unwrap();
    assert!(!is_copy(&path("copy")).await);
}

/// The last step counts what takes the time, to its end.
fn assert_counted(observed: &Observed, expected: Step, amount: u64) {
    let steps = observed.steps();
    assert_eq!(steps.last(), Some(&(expected, amount, Some(amount))), "{steps:?}");
    assert!(steps.iter().all(|(_, _, total)| total.is_some()), "{steps:?}");
}

#[tokio::test]
async fn a_backup_counts_files_that_are_linked_and_bytes_that_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("root")).await;
    for number in 1..4 {
        push_image(&store, "a", Some(&format!("v{number}")), number, 50_000).await;
    }
    let linked = folder.path().join("linked");
    let told = Arc::new(Observed::default());
    let report = store.backup(&linked, Arc::clone(&told) as _).await.unwrap();
    assert_eq!((report.linked, report.copied), (3, 0));
    assert_counted(&told, Step::Files, 3);
    // On another file system, if there is one.
    let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&path.metadata().unwrap());
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    if device(other.path()) == device(folder.path()) {
        return;
    }
    let (copied, told) = (other.path().join("copied"), Arc::new(Observed::default()));
    let report = store.backup(&copied, Arc::clone(&told) as _).await.unwrap();
    assert_eq!((report.linked, report.copied), (0, 3));
    assert_counted(&told, Step::Copying, report.size);
    let told = Arc::new(Observed::default());
    let restored = folder.path().join("restored");
    restore(&copied, &restored, Arc::clone(&told) as _).await.unwrap();
    assert_counted(&told, Step::Copying, report.size);
}
